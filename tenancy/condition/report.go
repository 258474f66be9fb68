package condition

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"bailiwick.dev/bailiwick/tenancy"
)

// Delivery is what is known of the proxies that an object concerns.
type Delivery struct {
	// Proxies that are connected, and how many of them lack something of the
	// object: Pending have not acknowledged it for a while, Refused said no.
	Proxies, Pending, Refused int
	// Unsettled is set while something is on its way, so that nothing can be said.
	Unsettled bool
	// More is set if proxies lack more than is listed.
	More bool
}

// Report is what one replica knows of its streams: exceptions only.
type Report struct {
	// Replica is its name, unique among those that run.
	Replica string `json:"replica"`
	// AsOf is when it was made: what the replica knew before has arrived at the
	// streams or is among the exceptions.
	AsOf time.Time `json:"asOf"`
	// Places are sorted by tenant and namespace.
	Places []Place `json:"places,omitempty"`
	// Busy are tenants of which something has not been built yet.
	Busy []string `json:"busy,omitempty"`
}

// Place is what the proxies of a namespace, under one tenant, lack.
type Place struct {
	Tenant    string `json:"tenant"`
	Namespace string `json:"namespace"`
	Proxies   int    `json:"proxies"`
	// Pending and Refused are how many proxies lack anything at all.
	Pending int `json:"pending,omitempty"`
	Refused int `json:"refused,omitempty"`
	// Unsettled is set while something is on its way.
	Unsettled bool `json:"unsettled,omitempty"`
	// Stuck are proxies that acknowledge nothing, the first since StuckSince, and
	// so lack whatever changed after that.
	Stuck      int       `json:"stuck,omitempty"`
	StuckSince time.Time `json:"stuckSince,omitzero"`
	// Lacks are sorted by object; More is set if there were more of them.
	Lacks []Lack `json:"lacks,omitempty"`
	More  bool   `json:"more,omitempty"`
}

// Lack is an object of which proxies lack what was made from it.
type Lack struct {
	// Kind is Service, AccessPolicy or PeerTLS: what resources are made from, and
	// what conditions of namespaced objects follow from.
	Kind      tenancy.Kind `json:"kind"`
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	Pending   int          `json:"pending,omitempty"`
	Refused   int          `json:"refused,omitempty"`
}

// Bounds of a Report.
const (
	maxLacks  = 4096
	maxPlaces = 8192
	// MaxReport is the size of an encoded report, in bytes; what is larger is
	// none of ours.
	MaxReport = 1 << 20
)

// Gather makes the report of one replica.
type Gather struct {
	places map[[2]string]*gathered
}

type gathered struct {
	Place
	lacks map[tenancy.Ref]*Lack
}

// NewGather returns an empty Gather.
func NewGather() *Gather { return &Gather{places: map[[2]string]*gathered{}} }

// Stream is what one stream lacks, for [Gather.Add].
type Stream struct {
	Tenant, Namespace string
	// Pending and Refused are the objects behind what was not acknowledged for a
	// while, and what was refused; Late and Faulty are set with or without them.
	Pending, Refused []tenancy.Ref
	Late, Faulty     bool
	// Unsettled is set while something younger is on its way.
	Unsettled bool
	// StuckSince is set if more waits, because nothing has been acknowledged since.
	StuckSince time.Time
}

// Add counts one stream.
func (g *Gather) Add(s Stream) {
	if s.Tenant == "" {
		return // nobody's: it has the empty view
	}
	key := [2]string{s.Tenant, s.Namespace}
	p := g.places[key]
	if p == nil {
		p = &gathered{Place: Place{Tenant: s.Tenant, Namespace: s.Namespace}, lacks: map[tenancy.Ref]*Lack{}}
		g.places[key] = p
	}
	p.Proxies++
	p.Unsettled = p.Unsettled || s.Unsettled
	if s.Late {
		p.Pending++
	}
	if s.Faulty {
		p.Refused++
	}
	if at := s.StuckSince.UTC(); !s.StuckSince.IsZero() {
		if p.Stuck++; p.Stuck == 1 || at.Before(p.StuckSince) {
			p.StuckSince = at
		}
	}
	p.count(s.Pending, func(l *Lack) { l.Pending++ })
	p.count(s.Refused, func(l *Lack) { l.Refused++ })
}

// count counts each object once.
func (p *gathered) count(refs []tenancy.Ref, up func(*Lack)) {
	seen := map[tenancy.Ref]bool{}
	for _, r := range refs {
		if seen[r] || !slices.Contains([]tenancy.Kind{tenancy.KindService, tenancy.KindAccessPolicy, tenancy.KindPeerTLS}, r.Kind) {
			continue
		}
		seen[r] = true
		if p.lacks[r] == nil {
			p.lacks[r] = &Lack{Kind: r.Kind, Namespace: r.Key.Namespace, Name: r.Key.Name}
		}
		up(p.lacks[r])
	}
}

// Report is what was gathered, with equal shares of its bounds for all tenants.
func (g *Gather) Report(replica string, asOf time.Time, busy []string) Report {
	r := Report{Replica: replica, AsOf: asOf.UTC(), Busy: slices.Sorted(slices.Values(busy))}
	places, lacking := map[string]int{}, map[string]int{}
	for _, p := range g.places {
		places[p.Tenant]++
		lacking[p.Tenant] += len(p.lacks)
	}
	for tenant, n := range lacking {
		if n == 0 {
			delete(lacking, tenant)
		}
	}
	share := maxLacks / max(1, len(lacking))
	room := maxPlaces / max(1, len(places))
	for _, p := range g.places {
		r.Places = append(r.Places, p.Place)
	}
	slices.SortFunc(r.Places, func(a, b Place) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Namespace, b.Namespace))
	})
	kept, used := map[string]int{}, map[string]int{}
	r.Places = slices.DeleteFunc(r.Places, func(p Place) bool {
		kept[p.Tenant]++
		return kept[p.Tenant] > max(1, room)
	})
	for i := range r.Places {
		p := &r.Places[i]
		for _, l := range g.places[[2]string{p.Tenant, p.Namespace}].lacks {
			p.Lacks = append(p.Lacks, *l)
		}
		slices.SortFunc(p.Lacks, func(a, b Lack) int {
			return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
		})
		if left := share - used[p.Tenant]; len(p.Lacks) > left {
			p.Lacks, p.More = p.Lacks[:max(0, left):max(0, left)], true
		}
		used[p.Tenant] += len(p.Lacks)
	}
	return r
}

// Encode is the report as it is stored.
func (r Report) Encode() ([]byte, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode the report: %w", err)
	}
	return data, nil
}

// DecodeReport reads what Encode made.
func DecodeReport(data []byte) (Report, error) {
	var r Report
	if len(data) > MaxReport {
		return r, fmt.Errorf("a report of %d bytes, more than %d", len(data), MaxReport)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("decode a report: %w", err)
	}
	return r, nil
}

// Same reports whether both say the same, whenever they say it.
func (r Report) Same(o Report) bool {
	return r.Replica == o.Replica && slices.Equal(r.Busy, o.Busy) && slices.EqualFunc(r.Places, o.Places, func(a, b Place) bool {
		return a.Tenant == b.Tenant && a.Namespace == b.Namespace && a.Proxies == b.Proxies && a.Pending == b.Pending &&
			a.Refused == b.Refused && a.Unsettled == b.Unsettled && a.Stuck == b.Stuck && a.StuckSince.Equal(b.StuckSince) && a.More == b.More && slices.Equal(a.Lacks, b.Lacks)
	})
}

// Fleet is the sum of the reports of all replicas.
type Fleet struct {
	byNamespace map[string][]*Place
	byTenant    map[string][]*Place
	busy        map[string]bool
	oldest      time.Time
}

// NewFleet sums reports up. Without any, nothing is known.
func NewFleet(reports []Report) *Fleet {
	f := &Fleet{byNamespace: map[string][]*Place{}, byTenant: map[string][]*Place{}, busy: map[string]bool{}}
	for i, r := range reports {
		if i == 0 || r.AsOf.Before(f.oldest) {
			f.oldest = r.AsOf
		}
		for _, t := range r.Busy {
			f.busy[t] = true
		}
		for j := range r.Places {
			p := &reports[i].Places[j]
			f.byNamespace[p.Namespace] = append(f.byNamespace[p.Namespace], p)
			f.byTenant[p.Tenant] = append(f.byTenant[p.Tenant], p)
		}
	}
	return f
}

// delivery says what is known of the proxies that an object concerns: those of
// its own namespace, or of the Tenant. Since is when the object last changed.
func (f *Fleet) delivery(ref tenancy.Ref, obj tenancy.Object, since time.Time) Delivery {
	d := Delivery{Unsettled: f.oldest.Before(since)}
	if ref.Kind == tenancy.KindTenant {
		d.Unsettled = d.Unsettled || f.busy[ref.Key.Name]
		for _, p := range f.byTenant[ref.Key.Name] {
			d.Proxies += p.Proxies
			d.Pending += p.Pending
			d.Refused += p.Refused
			d.Unsettled = d.Unsettled || p.Unsettled
		}
		return d
	}
	from := tracks(ref, obj)
	for _, p := range f.byNamespace[ref.Key.Namespace] {
		d.Proxies += p.Proxies
		d.Unsettled = d.Unsettled || p.Unsettled || f.busy[p.Tenant]
		d.More = d.More || p.More
		pending, refused := 0, 0
		for _, l := range p.Lacks {
			if slices.Contains(from, tenancy.Ref{Kind: l.Kind, Key: tenancy.Key{Namespace: l.Namespace, Name: l.Name}}) {
				pending, refused = max(pending, l.Pending), max(refused, l.Refused)
			}
		}
		if p.Stuck > 0 && since.After(p.StuckSince) {
			pending = max(pending, p.Stuck)
		}
		d.Pending += pending
		d.Refused += refused
	}
	return d
}

// tracks are the objects whose resources show whether what follows from an
// object has arrived; without their source.
func tracks(ref tenancy.Ref, obj tenancy.Object) []tenancy.Ref {
	service := func(namespace, name string) tenancy.Ref {
		return tenancy.Ref{Kind: tenancy.KindService, Key: tenancy.Key{Namespace: namespace, Name: name}}
	}
	switch o := obj.(type) {
	case *tenancy.ServiceGrant:
		var out []tenancy.Ref
		for _, to := range o.To {
			out = append(out, service(ref.Key.Namespace, to.Service))
		}
		return out
	case *tenancy.ServiceRequest:
		return []tenancy.Ref{service(o.Namespace, o.Service)}
	}
	return []tenancy.Ref{{Kind: ref.Kind, Key: tenancy.Key{Namespace: ref.Key.Namespace, Name: ref.Key.Name}}}
}
