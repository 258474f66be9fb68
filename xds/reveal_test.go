package xds

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/tenancy"
)

// party is a tenant of two namespaces, each with two services and whatever else
// a namespace can have. Every name, string and address is a canary.
type party struct {
	canaries
	tenant, domain, first, second string
	granted, kept                 string // services of both namespaces
	pod, account                  string // of the granted one
	events                        []tenancy.Event
}

func newParty(n int, paths map[string]string) *party {
	p := &party{canaries: canaries{n: n, fixed: map[string]string{}, paths: paths}}
	p.tenant, p.domain, p.first, p.second = p.name("tenant"), p.name("domain"), p.name("namespace"), p.name("other namespace")
	p.granted, p.kept = p.name("service"), p.name("other service")
	p.fixed["Tenant.TrustDomain"], p.fixed["Namespace.Tenant"] = p.domain, p.tenant
	p.put("", p.tenant, &tenancy.Tenant{})
	for _, ns := range []string{p.first, p.second} {
		p.put("", ns, &tenancy.Namespace{})
		for _, service := range []string{p.granted, p.kept} {
			p.service(ns, service)
		}
		p.put(ns, p.name("policy"), &tenancy.AccessPolicy{})
		p.put(ns, p.name("peer TLS"), &tenancy.PeerTLS{})
	}
	return p
}

func (p *party) name(what string) string {
	p.n++
	return p.made(what, fmt.Sprintf("kanary-%d", p.n))
}

// put fills an object; what the mesh needs is set afterwards.
func (p *party) put(ns, name string, o tenancy.Object) {
	p.fill(reflect.TypeOf(o).Elem().Name(), reflect.ValueOf(o).Elem())
	var kind tenancy.Kind
	for k, sample := range everyObject() {
		if reflect.TypeOf(sample) == reflect.TypeOf(o) {
			kind = k
		}
	}
	switch o := o.(type) {
	case *tenancy.Tenant:
		o.Namespaces = nil
	case *tenancy.AccessPolicy:
		o.MatchLabels, o.Action, o.Expires = nil, tenancy.Allow, 0
		o.Rules = []tenancy.AccessRule{{Sources: []tenancy.AccessSource{{Granted: true}}}, o.Rules[0]}
	}
	p.events = append(p.events, put(kind, ns, name, o))
}

// service puts a Service with its slice and its Pod.
func (p *party) service(ns, service string) {
	where := map[bool]string{true: "", false: "other "}[ns == p.first && service == p.granted]
	pod := &tenancy.Pod{}
	slice := &tenancy.EndpointSlice{}
	svc := &tenancy.Service{}
	for _, part := range []struct {
		o    tenancy.Object
		kind tenancy.Kind
	}{{pod, tenancy.KindPod}, {slice, tenancy.KindEndpointSlice}, {svc, tenancy.KindService}} {
		o, kind := part.o, part.kind
		p.fill(where+reflect.TypeOf(o).Elem().Name(), reflect.ValueOf(o).Elem())
		name := service
		if kind != tenancy.KindService {
			name = p.name(where + "name of " + kind.String())
		}
		p.events = append(p.events, put(kind, ns, name, o))
		if kind == tenancy.KindPod && where == "" {
			p.pod, p.account = name, pod.ServiceAccount
		}
	}
	svc.Ports[0].Protocol, slice.Ports[0].Name, slice.Service = tenancy.HTTP1, svc.Ports[0].Name, service
	e := &slice.Endpoints[0]
	e.Ready, e.Serving, e.Addresses, e.PodName, e.PodUID = true, true, []netip.Addr{pod.IPs[0]}, "", ""
}

// stream is that of the Pod of the first namespace, subscribed to all that there
// may be of its own and, by name, to the other's service.
func (p *party) stream(m *mesh, mode protocol, domains []string) *client {
	m.t.Helper()
	c := m.prepare(mode)
	c.node = &corev3.Node{Id: p.first + "/" + p.pod}
	m.start(c, identity.Workload{TrustDomain: p.domain, Namespace: p.first, ServiceAccount: p.account})
	secrets := []string{"inbound"}
	for _, d := range domains {
		secrets = append(secrets, "bundle/"+d)
	}
	for _, r := range []*request{
		{url: snapshot.Cluster.URL()}, {url: snapshot.Listener.URL()},
		{url: snapshot.Route.URL(), names: []string{"http-80"}}, {url: snapshot.Extension.URL(), names: []string{"rbac-http-80"}},
		{url: snapshot.Secret.URL(), names: secrets},
	} {
		r.subscribe = r.names
		c.first = append(c.first, c.request(r)...)
	}
	return c
}

var canary = regexp.MustCompile(`kanary-\d+|10\.77\.\d+\.\d+`)

// A live grant reveals to the consumer the service with its ports, addresses,
// zones and accounts, and to the producer which namespace requested it. What is
// on the streams afterwards and was not before is compared with that list, over
// every field that any object has.
func TestWhatALiveGrantReveals(t *testing.T) {
	bundle := meshBundle(t)
	for _, mode := range []protocol{delta, state} {
		synctest.Test(t, func(t *testing.T) {
			gives, takes := map[string]string{}, map[string]string{}
			producer, consumer := newParty(1000, gives), newParty(5000, takes)
			domains := []string{producer.domain, consumer.domain}
			m := newMeshOf(t, domains, bundle, append(slices.Clone(producer.events), consumer.events...))
			p, c := producer.stream(m, mode, domains), consumer.stream(m, mode, domains)
			// found are the fields of the one whose values are on the other's stream.
			found := func(of map[string]string, frames []frameOf) []string {
				all := map[string]struct{}{}
				for _, f := range frames {
					for _, text := range canary.FindAllString(string(f.raw), -1) {
						if field, theirs := of[text]; theirs {
							all[field] = struct{}{}
						}
					}
				}
				return slices.Sorted(maps.Keys(all))
			}
			require.NotEmpty(t, found(gives, p.first), "the search finds")
			// What was asked for by name is answered by name, and with nothing else.
			require.Subset(t, []string{"domain"}, found(gives, c.first), mode)
			require.Subset(t, []string{"domain"}, found(takes, p.first), mode)

			offer, take := &tenancy.ServiceGrant{}, &tenancy.ServiceRequest{}
			producer.fill("ServiceGrant", reflect.ValueOf(offer).Elem())
			consumer.fill("ServiceRequest", reflect.ValueOf(take).Elem())
			offer.Expires, take.Expires = 0, 0
			offer.From = []tenancy.GrantFrom{{Tenant: consumer.tenant, All: true}}
			offer.To = []tenancy.GrantTo{{Service: producer.granted, Ports: tenancy.PortSet{All: true}}}
			take.Namespace, take.Service, take.Ports = producer.first, producer.granted, tenancy.PortSet{All: true}
			m.publisher.Apply([]tenancy.Event{
				put(tenancy.KindServiceGrant, producer.first, producer.name("grant"), offer),
				put(tenancy.KindServiceRequest, consumer.first, consumer.name("request"), take),
			})
			time.Sleep(time.Minute) // of the bubble's clock
			toProducer, toConsumer := p.take(), c.take()
			cluster := strings.Join([]string{producer.granted, producer.first, "svc.cluster.local:80"}, ".")
			toConsumer = append(toConsumer, c.request(&request{url: snapshot.Endpoint.URL(), subscribe: []string{cluster}, names: []string{cluster}})...)
			require.Equal(t, []string{
				"EndpointSlice.Endpoints.Zone", "Pod.IPs", "Pod.ServiceAccount", "Service.ClusterIPs", "domain", "namespace", "service",
			}, found(gives, toConsumer), mode)
			require.Equal(t, []string{"domain", "namespace"}, found(takes, toProducer), mode)
		})
	}
}
