package preview

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"bailiwick.dev/bailiwick/tenancy/read"
)

// Diff is what a change does.
type Diff struct {
	// Calls become more or less than they were.
	Calls []Call `json:"calls"`
	// Clusters appear in, or vanish from, the views of namespaces.
	Clusters []Cluster `json:"clusters"`
	// Touched are the proxies that are sent something, Proxies how many there are
	// after the change. Came and Gone are Pods, not counted among Touched.
	Touched []Proxy  `json:"touched"`
	Proxies int      `json:"proxies"`
	Came    []string `json:"came"`
	Gone    []string `json:"gone"`
	// Bytes are those of all resources that are sent to Touched.
	Bytes int `json:"bytes"`
	// Ends are for the caller of Compare to fill in.
	Ends []End `json:"ends"`
}

// Call is a cell of the matrix that says something else.
type Call struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Before and After are as in a matrix, "-" where there was no such caller or
	// service.
	Before string `json:"before"`
	After  string `json:"after"`
	// More is set if more is allowed, Less if less is. Neither is set where the
	// conditions are others.
	More bool `json:"more"`
	Less bool `json:"less"`
}

// Cluster is one that a namespace's proxies get, or lose.
type Cluster struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Appears   bool   `json:"appears"`
	// Changes is set for one that stays and is called with mTLS now, or no longer:
	// "mTLS" or "plain". Appears is not set then.
	Changes string `json:"changes,omitempty"`
}

// Proxy is one that is touched.
type Proxy struct {
	Name string `json:"name"`
	// Resources are sent, Removed named as gone, Bytes those of Resources.
	Resources int `json:"resources"`
	Removed   int `json:"removed"`
	Bytes     int `json:"bytes"`
}

// Compare tells what changes between two states.
func Compare(before, after *State) Diff {
	d := Diff{Calls: calls(before.Matrix, after.Matrix), Clusters: []Cluster{}, Ends: []End{}, Touched: []Proxy{}, Came: []string{}, Gone: []string{}, Proxies: len(after.proxies)}
	type pair struct{ a, b *content }
	known := map[pair]Proxy{}
	views := map[string][2]layers{}
	for _, name := range slices.Sorted(maps.Keys(after.proxies)) {
		now := after.proxies[name]
		was, ok := before.proxies[name]
		if !ok {
			d.Came = append(d.Came, name)
			continue
		}
		namespace, _, _ := strings.Cut(name, "/")
		views[namespace] = [2]layers{was, now}
		p := Proxy{Name: name}
		for i := range now {
			at := pair{was[i], now[i]}
			cost, ok := known[at]
			if !ok {
				cost = costOf(was[i], now[i])
				known[at] = cost
			}
			p.Resources, p.Removed, p.Bytes = p.Resources+cost.Resources, p.Removed+cost.Removed, p.Bytes+cost.Bytes
		}
		if p.Resources+p.Removed > 0 {
			d.Touched, d.Bytes = append(d.Touched, p), d.Bytes+p.Bytes
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before.proxies)) {
		if _, ok := after.proxies[name]; !ok {
			d.Gone = append(d.Gone, name)
		}
	}
	for _, namespace := range slices.Sorted(maps.Keys(views)) {
		was, now := views[namespace][0].clusters(), views[namespace][1].clusters()
		for _, name := range now {
			if _, ok := slices.BinarySearch(was, name); !ok {
				d.Clusters = append(d.Clusters, Cluster{Namespace: namespace, Name: name, Appears: true})
			} else if after := views[namespace][1].security(name); after != views[namespace][0].security(name) {
				d.Clusters = append(d.Clusters, Cluster{Namespace: namespace, Name: name, Changes: after})
			}
		}
		for _, name := range was {
			if _, ok := slices.BinarySearch(now, name); !ok {
				d.Clusters = append(d.Clusters, Cluster{Namespace: namespace, Name: name})
			}
		}
	}
	return d
}

func costOf(was, now *content) (p Proxy) {
	for at, r := range now.resources {
		if old := was.resources[at]; old == nil || old.Version() != r.Version() {
			p.Resources++
			p.Bytes += len(r.DeltaFrame())
		}
	}
	for at := range was.resources {
		if now.resources[at] == nil {
			p.Removed++
		}
	}
	return p
}

// none is where there is no caller or no service.
const none = "-"

func calls(before, after read.Matrix) []Call {
	type key struct{ from, to string }
	type cell struct{ text, conditions string }
	index := func(m read.Matrix) map[key]cell {
		cells := map[key]cell{}
		for i, c := range m.Callers {
			for j, s := range m.Services {
				cells[key{c.String(), s.String()}] = cell{m.Cells[i][j], m.Conditions(i, j)}
			}
		}
		return cells
	}
	was, now := index(before), index(after)
	both := maps.Clone(was)
	maps.Copy(both, now)
	list := []Call{}
	for k := range both {
		a, b := was[k], now[k]
		if a == b || rank(a.text) == 0 && rank(b.text) == 0 {
			continue
		}
		list = append(list, Call{
			From: k.from, To: k.to, Before: cmp.Or(a.text, none), After: cmp.Or(b.text, none),
			More: rank(b.text) > rank(a.text), Less: rank(b.text) < rank(a.text),
		})
	}
	slices.SortFunc(list, func(a, b Call) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To)) })
	return list
}

// rank is how much a cell allows.
func rank(cell string) int {
	switch cell {
	case read.CellAll:
		return 2
	case read.CellSome:
		return 1
	default:
		return 0
	}
}

// Text writes a diff for people.
func (d Diff) Text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "calls: %s\n", count(len(d.Calls), "change", "changes"))
	for _, c := range d.Calls {
		sign, note := "~", "\tunder other conditions"
		switch {
		case c.More:
			sign, note = "+", ""
		case c.Less:
			sign, note = "-", ""
		}
		fmt.Fprintf(t, "%s %s\tto %s\t%s => %s%s\n", sign, c.From, c.To, c.Before, c.After, note)
	}
	fmt.Fprintf(t, "\nclusters: %s\n", count(len(d.Clusters), "change", "changes"))
	for _, c := range d.Clusters {
		sign, note := "-", ""
		switch {
		case c.Appears:
			sign = "+"
		case c.Changes != "":
			sign, note = "~", "\tis called with "+c.Changes
			if c.Changes == plain {
				note = "\tis called without mTLS"
			}
		}
		fmt.Fprintf(t, "%s in %s\t%s%s\n", sign, c.Namespace, c.Name, note)
	}
	fmt.Fprintf(t, "\nproxies: %d of %d are sent %d bytes\n", len(d.Touched), d.Proxies-len(d.Came), d.Bytes)
	for _, p := range d.Touched {
		fmt.Fprintf(t, "  %s\t%s\t%d removed\t%d bytes\n", p.Name, count(p.Resources, "resource", "resources"), p.Removed, p.Bytes)
	}
	for _, name := range d.Came {
		fmt.Fprintf(t, "+ %s\n", name)
	}
	for _, name := range d.Gone {
		fmt.Fprintf(t, "- %s\n", name)
	}
	if len(d.Ends) > 0 {
		fmt.Fprintf(t, "\nends: %s\n", count(len(d.Ends), "object", "objects"))
	}
	for _, e := range d.Ends {
		word := "ends"
		if e.Over {
			word = "has ended"
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\n", e.Object, word, e.At)
	}
	return t.Flush()
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprint(n, " ", many)
}
