package read_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/identity"
	. "bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/read"
)

// crowd is a tenant with services of so many Pods each, and as many accounts as
// services.
func crowd(services, pods int) *Model {
	events := []Event{
		{Ref: ref(KindTenant, "", "amber"), Object: &Tenant{TrustDomain: domain("amber")}},
		{Ref: ref(KindTrustBundle, "", domain("amber")), Object: &TrustBundle{PEM: []byte("x")}},
		{Ref: ref(KindNamespace, "", "amber-ns0"), Object: &Namespace{Tenant: "amber"}},
	}
	for s := range services {
		name := fmt.Sprint("s", s)
		slice := &EndpointSlice{Service: name, Ports: []SlicePort{{Name: "http", Port: 8080}}}
		for p := range pods {
			at := netip.AddrFrom4([4]byte{10, byte(s), byte(p >> 8), byte(p)})
			slice.Endpoints = append(slice.Endpoints, Endpoint{Addresses: []netip.Addr{at}, Ready: true})
			events = append(events, Event{Ref: ref(KindPod, "amber-ns0", fmt.Sprint(name, "-", p)), Object: &Pod{
				ServiceAccount: name, Labels: map[string]string{"app": name}, IPs: []netip.Addr{at},
			}})
		}
		events = append(events, Event{Ref: ref(KindService, "amber-ns0", name), Object: &Service{Ports: []ServicePort{{Name: "http", Port: 80, Protocol: HTTP1}}}},
			Event{Ref: ref(KindEndpointSlice, "amber-ns0", name), Object: slice})
	}
	return modelOf(events)
}

// What a question costs the goroutine that serves everybody.
func BenchmarkExplain(b *testing.B) {
	for _, pods := range []int{1, 5000} {
		b.Run(fmt.Sprint(pods, " Pods"), func(b *testing.B) {
			m := crowd(1, pods)
			from := identity.Workload{TrustDomain: domain("amber"), Namespace: "amber-ns0", ServiceAccount: "s0"}
			q := read.Question{From: from, Namespace: "amber-ns0", Service: "s0", Port: 80}
			for b.Loop() {
				require.Equal(b, read.Visible, read.New(m, read.Of(m, from), "cluster.local", nil).Explain(q).Visible)
			}
		})
	}
}

func BenchmarkMatrix(b *testing.B) {
	m := crowd(100, 10)
	from := identity.Workload{TrustDomain: domain("amber"), Namespace: "amber-ns0", ServiceAccount: "s0"}
	for b.Loop() {
		require.Len(b, read.New(m, read.Of(m, from), "cluster.local", nil).Matrix().Cells, 100)
	}
}
