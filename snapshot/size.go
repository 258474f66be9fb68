package snapshot

import (
	"fmt"

	"bailiwick.dev/bailiwick/tenancy"
)

// Size is how much outbound configuration there is.
type Size struct {
	Clusters int `json:"clusters"`
	// Bytes of clusters, endpoints and virtual hosts, encoded.
	Bytes int `json:"bytes"`
}

func (s *Size) add(o Size) { s.Clusters, s.Bytes = s.Clusters+o.Clusters, s.Bytes+o.Bytes }

// ViewSize is what the proxies of a namespace are given, and what they would be
// given if everybody saw everything.
type ViewSize struct {
	Tenant    string `json:"tenant"`
	Namespace string `json:"namespace"`
	Scoped    Size   `json:"scoped"`
	Unscoped  Size   `json:"unscoped"`
}

// EnvoyBytesPerCluster is about what a cluster with five endpoints, its virtual
// host and its statistics takes of Envoy's memory, as the benchmark's scenario
// "size" measures it.
const EnvoyBytesPerCluster = 68 << 10

// Sizes builds all services of a model once and adds up what each view sees. It
// is for people who want to know what scoping brings: it costs a first build.
func (b *Builder) Sizes(m *tenancy.Model) ([]ViewSize, error) {
	type portSize struct {
		port uint16
		size Size
	}
	ports := map[tenancy.Key][]portSize{}
	var all Size
	var views []ViewSize
	for _, tenant := range m.TenantNames() {
		for _, ns := range m.NamespacesOf(tenant) {
			for _, key := range m.ServicesIn(ns) {
				spec := m.Service(key)
				if spec == nil {
					continue
				}
				for i := range spec.Ports {
					size, err := b.sizeOf(spec, &spec.Ports[i])
					if err != nil {
						return nil, err
					}
					ports[key] = append(ports[key], portSize{spec.Ports[i].Port, size})
					all.add(size)
				}
			}
		}
	}
	for _, tenant := range m.TenantNames() {
		for _, ns := range m.NamespacesOf(tenant) {
			v := ViewSize{Tenant: tenant, Namespace: ns}
			for _, sight := range m.Visible(tenancy.ViewKey{Tenant: tenant, Namespace: ns}) {
				for _, p := range ports[sight.Service] {
					if sight.Ports.Has(p.port) {
						v.Scoped.add(p.size)
					}
				}
			}
			views = append(views, v)
		}
	}
	for i := range views {
		views[i].Unscoped = all
	}
	return views, nil
}

// sizeOf is what a service port adds to whoever sees it.
func (b *Builder) sizeOf(s *tenancy.ServiceSpec, p *tenancy.PortSpec) (Size, error) {
	cluster, err := b.Cluster(s, p)
	if err != nil {
		return Size{}, fmt.Errorf("build what %s/%s adds: %w", s.Key.Namespace, s.Key.Name, err)
	}
	endpoints, err := b.Endpoints(s, p)
	if err != nil {
		return Size{}, fmt.Errorf("build what %s/%s adds: %w", s.Key.Namespace, s.Key.Name, err)
	}
	size := Size{Clusters: 1, Bytes: len(cluster.frame) + len(endpoints.frame)}
	if p.Protocol.IsHTTP() {
		host, err := b.VirtualHost(s, p, tenancy.OwnNamespace, true)
		if err != nil {
			return Size{}, fmt.Errorf("build what %s/%s adds: %w", s.Key.Namespace, s.Key.Name, err)
		}
		size.Bytes += len(host.frame) + len(p.Hosts)*endpointHostBytes
	}
	return size, nil
}

// Sizes are those of the views that are open. What nobody who is connected sees
// is not in it, and of virtual hosts it knows the mean.
func (d *Dump) Sizes() []ViewSize {
	type resource struct{ typ, name string }
	union := map[resource]int{}
	var all Size
	var routes, clusters int
	views := make([]ViewSize, len(d.Views))
	for i, v := range d.Views {
		views[i] = ViewSize{Tenant: v.Tenant, Namespace: v.Namespace}
		for _, r := range v.Resources {
			switch {
			case r.Type == Cluster.String() && len(r.Origins) == 0:
				continue // not of a service: everybody has these
			case r.Type == Cluster.String():
				views[i].Scoped.Clusters++
				clusters++
			case r.Type == Route.String():
				routes += r.Bytes
			case r.Type != Endpoint.String():
				continue
			}
			views[i].Scoped.Bytes += r.Bytes
			if _, ok := union[resource{r.Type, r.Name}]; !ok && r.Type != Route.String() {
				union[resource{r.Type, r.Name}] = r.Bytes
				all.Bytes += r.Bytes
				if r.Type == Cluster.String() {
					all.Clusters++
				}
			}
		}
	}
	if clusters > 0 {
		all.Bytes += routes / clusters * all.Clusters
	}
	for i := range views {
		views[i].Unscoped = all
	}
	return views
}
