package mesh

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Dump is what one Envoy holds, as its admin address tells. All names are
// sorted; of clusters, endpoints, listeners and routes only what came from the
// server is in it.
type Dump struct {
	// Raw is the whole answer, for searches of strings that must not be there.
	Raw []byte
	// Clusters are in use, Warming are not yet.
	Clusters, Warming []string
	// Endpoints maps a cluster to its addresses, as address:port.
	Endpoints map[string][]string
	// Listeners are in use; ListenerErrors are the last words about those whose
	// last update failed.
	Listeners      []string
	ListenerErrors map[string]string
	// Routes maps a RouteConfiguration to the domains of its virtual hosts.
	Routes map[string][]string
	// Secrets and Extensions (of ECDS) that are in use, the certificates that the
	// proxy has from files among the Secrets.
	Secrets, Extensions []string
}

// dumpPart is one entry of config_dump; each of Envoy's dump types uses some of
// the fields. [envoy/admin/v3/config_dump.proto]
type dumpPart struct {
	ActiveClusters  []clusterDump `json:"dynamic_active_clusters"`
	WarmingClusters []clusterDump `json:"dynamic_warming_clusters"`
	Endpoints       []struct {
		Config struct {
			Cluster    string `json:"cluster_name"`
			Localities []struct {
				Endpoints []struct {
					Endpoint struct {
						Address struct {
							Socket struct {
								Address string `json:"address"`
								Port    int    `json:"port_value"`
							} `json:"socket_address"`
						} `json:"address"`
					} `json:"endpoint"`
				} `json:"lb_endpoints"`
			} `json:"endpoints"`
		} `json:"endpoint_config"`
	} `json:"dynamic_endpoint_configs"`
	Listeners []struct {
		Name   string    `json:"name"`
		Active *struct{} `json:"active_state"`
		Error  *struct {
			Details string `json:"details"`
		} `json:"error_state"`
	} `json:"dynamic_listeners"`
	Routes []struct {
		Config struct {
			Name  string `json:"name"`
			Hosts []struct {
				Domains []string `json:"domains"`
			} `json:"virtual_hosts"`
		} `json:"route_config"`
	} `json:"dynamic_route_configs"`
	Secrets []struct {
		Name string `json:"name"`
	} `json:"dynamic_active_secrets"`
	Filters []struct {
		Filter struct {
			Name string `json:"name"`
		} `json:"ecds_filter"`
	} `json:"ecds_filters"`
}

type clusterDump struct {
	Cluster struct {
		Name string `json:"name"`
	} `json:"cluster"`
}

// ParseDump reads the answer of /config_dump?include_eds.
func ParseDump(raw []byte) (*Dump, error) {
	var all struct {
		Configs []dumpPart `json:"configs"`
	}
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, fmt.Errorf("read a configuration dump: %w", err)
	}
	d := &Dump{Raw: raw, Endpoints: map[string][]string{}, ListenerErrors: map[string]string{}, Routes: map[string][]string{}}
	for i := range all.Configs {
		d.add(&all.Configs[i])
	}
	for _, names := range []*[]string{&d.Clusters, &d.Warming, &d.Listeners, &d.Secrets, &d.Extensions} {
		slices.Sort(*names)
	}
	return d, nil
}

func (d *Dump) add(p *dumpPart) {
	for _, c := range p.ActiveClusters {
		d.Clusters = append(d.Clusters, c.Cluster.Name)
	}
	for _, c := range p.WarmingClusters {
		d.Warming = append(d.Warming, c.Cluster.Name)
	}
	for _, e := range p.Endpoints {
		addresses := []string{}
		for _, l := range e.Config.Localities {
			for _, lb := range l.Endpoints {
				socket := lb.Endpoint.Address.Socket
				addresses = append(addresses, fmt.Sprintf("%s:%d", socket.Address, socket.Port))
			}
		}
		slices.Sort(addresses)
		d.Endpoints[e.Config.Cluster] = addresses
	}
	for _, l := range p.Listeners {
		if l.Active != nil {
			d.Listeners = append(d.Listeners, l.Name)
		}
		if l.Error != nil {
			d.ListenerErrors[l.Name] = l.Error.Details
		}
	}
	for _, r := range p.Routes {
		domains := []string{}
		for _, h := range r.Config.Hosts {
			domains = append(domains, h.Domains...)
		}
		slices.Sort(domains)
		d.Routes[r.Config.Name] = domains
	}
	for _, s := range p.Secrets {
		d.Secrets = append(d.Secrets, s.Name)
	}
	for _, f := range p.Filters {
		d.Extensions = append(d.Extensions, f.Filter.Name)
	}
}
