package snapshot

import (
	"fmt"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"bailiwick.dev/bailiwick/tenancy"
)

// Field numbers of the parts.
const (
	fieldVirtualHosts       = 2 // RouteConfiguration.virtual_hosts
	fieldVirtualHostDomains = 2 // VirtualHost.domains
)

// retryOn are the failures of which the application has not seen a byte.
const retryOn = "connect-failure,refused-stream,reset-before-request"

// HostPart is a virtual host with the names that lead to it.
type HostPart struct {
	*Part
	Domains []string
}

// VirtualHost makes the virtual host of an HTTP service port. The nearer the
// service, the shorter the names that lead to it: its own namespace's proxies
// use name, its own tenant's name.namespace, all others only the FQDN. With
// vips the virtual IPs are names of it too.
func (b *Builder) VirtualHost(s *tenancy.ServiceSpec, p *tenancy.PortSpec, g tenancy.Grade, vips bool) (*HostPart, error) {
	name := b.ClusterName(s.Key, p.Port)
	domains := b.domains(s.Key, g)
	if vips {
		for _, ip := range s.VIPs {
			if ip = ip.Unmap(); ip.Is4() {
				domains = append(domains, ip.String())
			} else {
				domains = append(domains, "["+ip.WithZone("").String()+"]")
			}
		}
	}
	return b.virtualHost(s, p, name, domains, "")
}

// domains are the names of a service, more of them the nearer it is.
func (b *Builder) domains(k tenancy.Key, g tenancy.Grade) []string {
	var domains []string
	switch g {
	case tenancy.OwnNamespace:
		domains = append(domains, k.Name)
		fallthrough
	case tenancy.OwnTenant:
		qualified := k.Name + "." + k.Namespace
		domains = append(domains, qualified, qualified+".svc")
	}
	return append(domains, b.FQDN(k))
}

// virtualHost sends what these domains name to the cluster of a service port,
// to the endpoint of that name alone if there is one.
func (b *Builder) virtualHost(s *tenancy.ServiceSpec, p *tenancy.PortSpec, name string, domains []string, endpoint string) (*HostPart, error) {
	if !p.Protocol.IsHTTP() {
		return nil, fmt.Errorf("build virtual host %q: port is not HTTP", name)
	}
	for _, d := range domains {
		if strings.Contains(d, "*") {
			return nil, fmt.Errorf("build virtual host %q: %q would stand for other names too", name, d)
		}
	}
	var pk packer
	action := forward(b.ClusterName(s.Key, p.Port), retries(&pk))
	if endpoint != "" {
		action.MetadataMatch = endpointNamed(endpoint)
	}
	host := &routev3.VirtualHost{
		Name:    name,
		Domains: domains,
		Routes:  []*routev3.Route{{Match: anyRequest(), Action: &routev3.Route_Route{Route: action}}},
	}
	part, err := pk.part(name, fieldVirtualHosts, host, serviceRef(s.Key))
	if err != nil {
		return nil, fmt.Errorf("build virtual host %q: %w", name, err)
	}
	return &HostPart{Part: part, Domains: domains}, nil
}

// RouteConfiguration puts the virtual hosts of an HTTP port together, and one
// for all other names: refused, or passed through where the policy says so.
// Every host has been checked when it was made; what is looked at here is what
// they have in common. Of a name that two hosts claim, the first has it.
func (b *Builder) RouteConfiguration(port uint16, hosts []*Part, out tenancy.OutboundPolicy) (*Resource, error) {
	name := RouteName(port)
	parts, err := distinctHosts(hosts)
	if err != nil {
		return nil, fmt.Errorf("build route %q: %w", name, err)
	}
	rest, err := catchAll(out)
	if err != nil {
		return nil, fmt.Errorf("build route %q: %w", name, err)
	}
	head := &routev3.RouteConfiguration{Name: name, IgnorePortInHostMatching: true}
	return Assemble(Route, name, head, append(parts, rest), nil, nil, nil)
}

// catchAll is the last virtual host, for names that no service has.
func catchAll(out tenancy.OutboundPolicy) (*Part, error) {
	host := &routev3.VirtualHost{Name: blackholeCluster, Domains: []string{"*"}}
	route := &routev3.Route{Match: anyRequest()}
	if out == tenancy.AllowAny {
		host.Name = passthroughCluster
		route.Action = &routev3.Route_Route{Route: forward(passthroughCluster, nil)}
	} else {
		route.Action = &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 502}}
	}
	host.Routes = []*routev3.Route{route}
	var pk packer
	return pk.part("*", fieldVirtualHosts, host, nil)
}

// distinctHosts takes names away that an earlier host has, because one name
// twice would cost the whole RouteConfiguration. It does not decode hosts
// unless there is such a name.
func distinctHosts(hosts []*Part) ([]*Part, error) {
	taken := make(map[string]struct{}, 4*len(hosts)+1)
	taken["*"] = struct{}{} // the catch-all's
	out := make([]*Part, 0, len(hosts)+1)
	for _, h := range hosts {
		domains, err := h.domains()
		if err != nil {
			return nil, err
		}
		var own []string
		for _, d := range domains {
			d = strings.ToLower(d)
			if _, ok := taken[d]; !ok {
				taken[d] = struct{}{}
				own = append(own, d)
			}
		}
		if len(own) < len(domains) {
			if h, err = h.withDomains(own); err != nil {
				return nil, err
			}
		}
		if h != nil {
			out = append(out, h)
		}
	}
	return out, nil
}

// domains reads the names of a virtual host without decoding the rest.
func (p *Part) domains() ([]string, error) {
	_, _, n := protowire.ConsumeTag(p.frame)
	body, _ := protowire.ConsumeBytes(p.frame[max(n, 0):])
	var out []string
	for len(body) > 0 {
		num, typ, n := protowire.ConsumeTag(body)
		if n < 0 {
			return nil, fmt.Errorf("virtual host %q: %w", p.Key, protowire.ParseError(n))
		}
		body = body[n:]
		if n = protowire.ConsumeFieldValue(num, typ, body); n < 0 {
			return nil, fmt.Errorf("virtual host %q: %w", p.Key, protowire.ParseError(n))
		}
		if num == fieldVirtualHostDomains && typ == protowire.BytesType {
			d, _ := protowire.ConsumeString(body)
			out = append(out, d)
		}
		body = body[n:]
	}
	return out, nil
}

// withDomains is the virtual host with other names, nil if none is left.
func (p *Part) withDomains(domains []string) (*Part, error) {
	if len(domains) == 0 {
		return nil, nil
	}
	_, _, n := protowire.ConsumeTag(p.frame)
	body, _ := protowire.ConsumeBytes(p.frame[n:])
	host := &routev3.VirtualHost{}
	if err := proto.Unmarshal(body, host); err != nil {
		return nil, fmt.Errorf("virtual host %q: %w", p.Key, err)
	}
	host.Domains = domains
	return NewPart(p.Key, fieldVirtualHosts, host, p.Origins)
}

func (pk *packer) part(key string, field protowire.Number, msg proto.Message, origins []tenancy.Ref) (*Part, error) {
	if err := pk.check(msg); err != nil {
		return nil, err
	}
	return NewPart(key, field, msg, origins)
}

func anyRequest() *routev3.RouteMatch {
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
}

// forward sends requests to a cluster without a timeout: how long a request
// may take is the application's to know.
func forward(cluster string, retry *routev3.RetryPolicy) *routev3.RouteAction {
	return &routev3.RouteAction{
		ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster},
		Timeout:          durationpb.New(0),
		RetryPolicy:      retry,
	}
}

// retries tries twice more, on other endpoints where there are some.
func retries(pk *packer) *routev3.RetryPolicy {
	return &routev3.RetryPolicy{
		RetryOn:    retryOn,
		NumRetries: wrapperspb.UInt32(2),
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name: "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{
				TypedConfig: pk.any(&previoushostsv3.PreviousHostsPredicate{}),
			},
		}},
		HostSelectionRetryMaxAttempts: 3,
	}
}
