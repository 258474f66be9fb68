package read

import (
	"time"

	"bailiwick.dev/bailiwick/tenancy"
)

// Whoami is what a tenant may know of itself.
type Whoami struct {
	Tenant      string   `json:"tenant"`
	TrustDomain string   `json:"trustDomain"`
	Namespaces  []string `json:"namespaces"`
	// Outbound, Visibility and DefaultAction are as in the Tenant object.
	Outbound      string `json:"outboundPolicy"`
	Visibility    string `json:"visibility"`
	DefaultAction string `json:"defaultAction"`
	TLSMinimum    string `json:"tlsMinimum"`
	// Peers and PlainDestinations say what may go below mTLS.
	Peers             string `json:"tlsPeers"`
	PlainDestinations string `json:"plainDestinations"`
	// MaxConnectionAge and MaxStreamAge bound what is open; 0 is no bound.
	MaxConnectionAge time.Duration `json:"maxConnectionAge"`
	MaxStreamAge     time.Duration `json:"maxStreamAge"`
	// Quiet and Max are the tenant's debounce; 0 is the server's default.
	Quiet time.Duration `json:"debounceQuiet"`
	Max   time.Duration `json:"debounceMax"`
	// Limits are those in force, each with what is used of it; -1 where that is
	// not counted here.
	Limits []Limit `json:"limits"`
}

// Limit is one bound.
type Limit struct {
	Name string `json:"name"`
	Used int    `json:"used"`
	Most int    `json:"most"`
}

// Whoami describes the tenant of the scope; false for a scope that is none's.
// Namespaces are those of the scope, and use is counted over the tenant.
func (r *Reader) Whoami() (Whoami, bool) {
	t := r.model.TenantObject(r.scope.tenant)
	if r.scope.platform || t == nil {
		return Whoami{}, false
	}
	s := r.model.Settings(r.scope.tenant)
	w := Whoami{
		Tenant: s.Name, TrustDomain: s.TrustDomain, Namespaces: r.namespaces(),
		Outbound: "RegistryOnly", Visibility: "Tenant", DefaultAction: "Deny", TLSMinimum: "1.2", Quiet: s.Quiet, Max: s.Max,
		Peers: "Strict", PlainDestinations: "Deny", MaxConnectionAge: t.MaxConnectionAge, MaxStreamAge: t.MaxStreamAge,
	}
	if t.Permissive {
		w.Peers = "Permissive"
	}
	if t.Plain {
		w.PlainDestinations = "Allow"
	}
	if t.Outbound == tenancy.AllowAny {
		w.Outbound = "AllowAny"
	}
	if t.Visibility == tenancy.VisibleInNamespace {
		w.Visibility = "Namespace"
	}
	if t.DefaultAction == tenancy.AllowWithinTenant {
		w.DefaultAction = "AllowWithinTenant"
	}
	if t.TLSMinimum13 {
		w.TLSMinimum = "1.3"
	}
	use, l := r.model.UsageOf(s.Name), s.Limits
	w.Limits = []Limit{
		{"services", use.Services, l.Services}, {"policies", use.Policies, l.Policies}, {"policiesPerWorkload", -1, l.PoliciesPerWorkload},
		{"grants", use.Grants, l.Grants}, {"requests", use.Requests, l.Requests},
		{"endpoints", -1, l.Endpoints}, {"streams", -1, l.Streams}, {"streamsPerID", -1, l.StreamsPerID},
		{"viewResources", -1, l.ViewResources}, {"viewBytes", -1, l.ViewBytes}, {"requestsPerSecond", -1, l.RequestsPerSecond},
		{"subscribedNames", -1, l.SubscribedNames}, {"requestBytes", -1, l.RequestBytes},
	}
	return w, true
}
