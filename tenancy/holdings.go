package tenancy

import (
	"cmp"
	"slices"
	"time"
)

// What former.go remembers has to outlive the process: who has a name is written
// down while it has it, because the change may come when no server looks.

// Holdings are the names that a tenant has or had, as they stand in the status of
// its Tenant, from before this process or from another replica. They only ever
// make a name wait. Without a status (files) there are none.
type Holdings struct{ Held []Held }

// Held is a namespace's name that a tenant has, or had a while ago.
type Held struct {
	Namespace   string
	TrustDomain string
	// UID is the Namespace's, empty where the source has none (files).
	UID string
	// Until is when the last SVID of that time has expired, in seconds since the
	// Unix epoch; 0 while the tenant has the name.
	Until int64
}

// applyHoldings makes names wait for those who had them. One that was written
// down as had, and is not, was lost at an unknown time: at the latest now.
func (m *Model) applyHoldings(k Key, obj *Holdings) {
	if m.config.SVIDMaxTTL <= 0 || obj == nil {
		return // what is forgotten there is remembered here
	}
	latest := m.now.Add(m.config.SVIDMaxTTL)
	changed := set[string]{}
	for _, held := range obj.Held {
		f := formerHolder{held.Namespace, holder{k.Name, held.TrustDomain, held.UID}}
		if m.holds(f) {
			continue
		}
		until, known := latest, m.former[f.name][f.holder] != nil
		if held.Until != 0 {
			until = earlier(time.Unix(held.Until, 0), latest)
		}
		if known && (held.Until == 0 || !until.After(m.former[f.name][f.holder].at)) || !until.After(m.now) {
			continue
		}
		m.await(f, until)
		changed[f.name] = struct{}{}
	}
	m.reconsider(changed)
}

// holds reports whether somebody has a name now.
func (m *Model) holds(f formerHolder) bool {
	c := m.names[f.name]
	if c == nil {
		return false
	}
	first := c.first()
	return first != nil && first.holder == f.holder
}

// reconsider has the namespaces of these names looked at, for which others may
// wait that did not, or no longer.
func (m *Model) reconsider(names set[string]) {
	var asked []*space
	for name := range names {
		if m.names[name] == nil {
			continue
		}
		for sp := range m.names[name].spaces {
			m.checkNamespace(sp)
			asked = append(asked, sp)
		}
	}
	m.settle(asked, func() {})
}

// note keeps what TakeHoldings tells: until is zero for a name that is had, and
// there is false for one that no longer matters.
func (m *Model) note(f formerHolder, until time.Time, there bool) {
	of := m.holdings[f.tenant]
	was, had := of[f]
	if f.tenant == "" || had == there && was.Equal(until) {
		return
	}
	m.unsaid[f.tenant] = struct{}{}
	switch {
	case there && of == nil:
		m.holdings[f.tenant] = map[formerHolder]time.Time{f: until}
	case there:
		of[f] = until
	case len(of) == 1:
		delete(m.holdings, f.tenant)
	default:
		delete(of, f)
	}
}

// TakeHoldings returns, of each tenant of which it changed since the last call,
// all names that it has or had, sorted; none if nothing is left to remember.
func (m *Model) TakeHoldings() map[string][]Held {
	if len(m.unsaid) == 0 {
		return nil
	}
	out := make(map[string][]Held, len(m.unsaid))
	for tenant := range m.unsaid {
		list := make([]Held, 0, len(m.holdings[tenant]))
		for f, until := range m.holdings[tenant] {
			held := Held{Namespace: f.name, TrustDomain: f.domain, UID: f.uid}
			if !until.IsZero() {
				held.Until = until.Add(time.Second - 1).Unix() // never before it
			}
			list = append(list, held)
		}
		slices.SortFunc(list, func(a, b Held) int {
			return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.UID, b.UID), cmp.Compare(a.TrustDomain, b.TrustDomain))
		})
		out[tenant] = list
	}
	clear(m.unsaid)
	return out
}
