package tenancy

import "time"

// A certificate outlives the namespace that it names. When a namespace goes to
// another tenant of the same trust domain, or is deleted and made again, SVIDs
// from before name a workload of the new owner, and Envoy cannot tell them
// apart. Therefore the name is nobody's until the last of them has expired:
// Config.SVIDMaxTTL after its former holder lost it. Who gets it back as it was
// (same tenant, same uid) does not wait. Who had what is remembered beyond this
// process, see holdings.go.

// holder is to whom a namespace's name is due by the objects, whether or not it
// has to wait. The zero value is nobody.
type holder struct{ tenant, domain, uid string }

// other reports whether SVIDs of the time of h may not speak for o.
func (h holder) other(o holder) bool {
	return h.domain == o.domain && (h.tenant != o.tenant || h.uid != o.uid && h.uid != "" && o.uid != "")
}

// formerHolder is a holder of a name that SVIDs may still be good for.
type formerHolder struct {
	name string
	holder
}

// Tick tells the Model what time it is. The owner calls it before it applies
// events, and at the time that NextExpiry says.
func (m *Model) Tick(now time.Time) {
	m.now = now
	if next := m.NextExpiry(); next.IsZero() || now.Before(next) {
		return
	}
	m.cause = ""
	m.tickEnds()
	m.tickPods()
	m.cause = ""
	freed := set[string]{}
	for f, ok := m.waits.due(now); ok; f, ok = m.waits.due(now) {
		m.steps++
		m.forgetHolder(f.name, f.holder)
		freed[f.name] = struct{}{}
	}
	m.reconsider(freed)
}

// NextExpiry is when Tick has something to do, zero for never.
func (m *Model) NextExpiry() time.Time {
	return earlier(m.nextEnd(), earlier(m.late.first(), m.waits.first()))
}

// earlier is the earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// forgetHolder lets a name be without regard to one who had it.
func (m *Model) forgetHolder(name string, h holder) {
	m.waits.cancel(m.former[name][h])
	delete(m.former[name], h)
	if len(m.former[name]) == 0 {
		delete(m.former, name)
	}
	m.note(formerHolder{name, h}, time.Time{}, false)
}

// await has a name wait for the SVIDs of one who had it.
func (m *Model) await(f formerHolder, until time.Time) {
	m.waits.cancel(m.former[f.name][f.holder])
	if m.former[f.name] == nil {
		m.former[f.name] = map[holder]*alarm[formerHolder]{}
	}
	m.former[f.name][f.holder] = m.waits.set(until, f)
	m.note(f, until, true)
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
		m.await(formerHolder{sp.name, old}, m.now.Add(m.config.SVIDMaxTTL))
	}
	if now != (holder{}) {
		m.forgetHolder(sp.name, now)
		m.note(formerHolder{sp.name, now}, time.Time{}, true)
	}
}

// reserved is until when a space has to wait for its name; zero if it need not.
func (m *Model) reserved(sp *space) (until time.Time) {
	for h, wait := range m.former[sp.name] {
		if h.other(sp.holder) && wait.at.After(until) {
			until = wait.at
		}
	}
	return until
}
