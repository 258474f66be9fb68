package tenancy

import (
	"maps"
	"time"
)

// A certificate outlives the namespace that it names. When a namespace goes to
// another tenant of the same trust domain, or is deleted and made again, SVIDs
// from before name a workload of the new owner, and Envoy cannot tell them
// apart. Therefore the name is nobody's until the last of them has expired:
// Config.SVIDMaxTTL after its former holder lost it. Who gets it back as it was
// (same tenant, same uid) does not wait.

// holder is to whom a namespace's name is due by the objects, whether or not it
// has to wait. The zero value is nobody.
type holder struct{ tenant, domain, uid string }

// other reports whether SVIDs of the time of h may not speak for o.
func (h holder) other(o holder) bool {
	return h.domain == o.domain && (h.tenant != o.tenant || h.uid != o.uid && h.uid != "" && o.uid != "")
}

// Tick tells the Model what time it is. The owner calls it before it applies
// events, and at the time that NextExpiry says.
func (m *Model) Tick(now time.Time) {
	m.now = now
	if m.expiry.IsZero() || now.Before(m.expiry) {
		return
	}
	m.cause = ""
	m.expiry = time.Time{}
	m.tickEnds()
	m.tickPods()
	m.cause = ""
	var asked []*space
	for name, holders := range m.former {
		before := len(holders)
		maps.DeleteFunc(holders, func(_ holder, until time.Time) bool { return !now.Before(until) })
		for _, until := range holders {
			m.expires(until)
		}
		if len(holders) == 0 {
			delete(m.former, name)
		}
		if len(holders) == before || m.names[name] == nil {
			continue
		}
		for sp := range m.names[name].spaces {
			m.checkNamespace(sp)
			asked = append(asked, sp)
		}
	}
	m.settle(asked, func() {})
}

// NextExpiry is when Tick has something to do, zero for never.
func (m *Model) NextExpiry() time.Time { return m.expiry }

func (m *Model) expires(at time.Time) {
	if m.expiry.IsZero() || at.Before(m.expiry) {
		m.expiry = at
	}
}

// noteHolder remembers who had the name of a space until now, if somebody else
// has it from now on.
func (m *Model) noteHolder(sp *space) {
	if m.config.SVIDMaxTTL <= 0 || m.names[sp.name] == nil {
		return
	}
	var now holder
	if t := m.entitled(sp); t != nil {
		now = holder{t.name, t.obj.TrustDomain, sp.obj.UID}
	}
	old := sp.holder
	if sp.holder = now; old == now {
		return
	}
	if old != (holder{}) {
		if m.former[sp.name] == nil {
			m.former[sp.name] = map[holder]time.Time{}
		}
		until := m.now.Add(m.config.SVIDMaxTTL)
		m.former[sp.name][old] = until
		m.expires(until)
	}
	delete(m.former[sp.name], now)
}

// reserved is until when a space has to wait for its name; zero if it need not.
func (m *Model) reserved(sp *space) (until time.Time) {
	for h, t := range m.former[sp.name] {
		if h.other(sp.holder) && t.After(until) {
			until = t
		}
	}
	return until
}
