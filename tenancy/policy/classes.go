package policy

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
)

// Class is one part of the partition of callers with what happens to it.
type Class struct {
	// Key is a whole SPIFFE ID, or a namespace's prefix (see Prefix).
	Key    string
	Prefix bool
	// Namespace is the one that Key belongs to.
	Namespace NamespaceRef
	// Group is equal for classes with equal Steps and End, which then share
	// their memory: a compiler needs to translate each group once. Groups are
	// numbered from 0.
	Group int
	// Steps are tried in order; the first whose Match meets the request
	// decides, unless it passes. One that matches every request is there only if
	// a Pass leads beyond it: else it is End.
	Steps []Step
	// End decides if no step did.
	End Decision
}

// Step is one conditional rule.
type Step struct {
	Match  Match
	Action Action
	By     string
	// Next is where judgement goes on after a Pass, an index into the Steps of
	// its class; it is the number of them for their End.
	Next int
}

// Decide judges one request (on a port that is not HTTP, one connection) of
// the caller that the certificate's URI SAN names; several are joined by ",".
func (p Port) Decide(id string, r Request) Decision {
	switch {
	case p.HTTP && p.TokenRequired && r.Token == nil:
		return Decision{By: ByNoToken}
	case strings.Contains(id, ","):
		return Decision{By: ByMultiSAN}
	}
	prefix, found := prefixOf(id), -1
	classes := p.Classes()
	for i := range classes {
		if !classes[i].Prefix && classes[i].Key == id {
			found = i
			break
		}
		if classes[i].Prefix && prefix != "" && classes[i].Key == prefix {
			found = i
		}
	}
	if found < 0 {
		return p.Outside().Judge(r)
	}
	return classes[found].Judge(r)
}

// DecidePlaintext judges a request, or connection, of a caller without a
// certificate.
func (p Port) DecidePlaintext(r Request) Decision {
	if p.HTTP && p.TokenRequired && r.Token == nil {
		return Decision{By: ByNoToken}
	}
	return p.Plain().Judge(r)
}

// Judge decides a request of a caller of the class.
func (c Class) Judge(r Request) Decision {
	for i := 0; i < len(c.Steps); {
		s := c.Steps[i]
		switch {
		case !s.Match.Matches(r, s.Action):
			i++
		case s.Action == Pass:
			i = s.Next
		default:
			return Decision{Allowed: s.Action == Allow, By: s.By}
		}
	}
	return c.End
}

// Observed is the port as it would be if its observing rules were enforced.
func (p Port) Observed() Port {
	p.Rules = slices.Clone(p.Rules)
	for i := range p.Rules {
		p.Rules[i].Observe = false
	}
	p.AllowSelected = p.AllowSelected || p.AllowObserved != ""
	p.AllowObserved = ""
	return p
}

// Audits is the port with its auditing rules alone: a class's steps Allow what
// one of them matches, and its end is a refusal.
func (p Port) Audits() Port {
	rules := p.Rules
	p.Rules, p.AllowSelected, p.AllowObserved, p.AllowWithinTenant = nil, true, "", false
	for _, r := range rules {
		if r.Action == Audit {
			r.Action, r.Tier, r.Observe = Allow, TierTenant, false
			if !p.HTTP {
				r.Match = Match{} // a record too many is better than one too few
			}
			p.Rules = append(p.Rules, r)
		}
	}
	return p
}

// Outside is what happens to callers in no class: nobody beyond the floor is
// let in, but the platform's Denies of everybody have the first word.
func (p Port) Outside() Class {
	b := newPartition(p)
	var rules []int
	for _, n := range b.all {
		if s := b.steps[n]; s.tier == TierAdmin && s.Action == Deny {
			rules = append(rules, n)
		}
	}
	c := b.class("", member{}, rules, Decision{By: ByTenantFloor})
	c.Group, c.Namespace, c.Prefix = 0, NamespaceRef{}, false
	return c
}

// Plain is what happens to callers without a certificate, where the port is
// Permissive: they have no tenant, and match only rules that name them.
func (p Port) Plain() Class {
	if !p.Permissive {
		return Class{End: Decision{By: ByPlaintext}}
	}
	b := newPartition(p)
	var rules []int
	for n, s := range b.steps {
		if s.from.Plaintext && !s.not.Plaintext {
			rules = append(rules, n)
		}
	}
	c := b.class("", member{}, rules, Decision{By: ByPlaintext})
	c.Group, c.Namespace, c.Prefix = 0, NamespaceRef{}, false
	return c
}

// Classes is the partition of the principals that the floor lets in: exact IDs
// sorted, then namespace prefixes sorted. An exact ID that fares like the rest
// of its namespace has no class of its own. Whoever is in no class is refused
// by the floor.
func (p Port) Classes() []Class {
	b := newPartition(p)
	spaces := make(map[string]member, len(p.Floor.Tenant)+len(p.Floor.Granted))
	for _, ref := range p.Floor.Granted {
		spaces[ref.Prefix()] = member{ref: ref}
	}
	for _, ref := range p.Floor.Tenant {
		spaces[ref.Prefix()] = member{ref: ref, own: true}
	}
	ids := make([]Class, 0, len(b.byID))
	prefixes := make([]Class, 0, len(spaces))
	for prefix, m := range spaces {
		m.rules = b.rulesOf(m)
		spaces[prefix] = m
		prefixes = append(prefixes, b.class(prefix, m, b.without(m.rules, m, ""), b.end(m)))
	}
	for id, rules := range b.byID {
		prefix := prefixOf(id)
		m, ok := spaces[prefix]
		if !ok || len(id) == len(prefix) || strings.Contains(id, ",") {
			continue
		}
		c := b.class(id, m, b.without(ordered(m.rules, rules), m, id), b.end(m))
		c.Prefix = false
		if c.Group != b.class(prefix, m, b.without(m.rules, m, ""), b.end(m)).Group {
			ids = append(ids, c)
		}
	}
	byKey := func(a, b Class) int { return cmp.Compare(a.Key, b.Key) }
	slices.SortFunc(ids, byKey)
	slices.SortFunc(prefixes, byKey)
	return renumber(append(ids, prefixes...))
}

// renumber gives groups numbers in the order of their first class, because
// they were made in the order of a map.
func renumber(classes []Class) []Class {
	numbers := make(map[int]int, len(classes))
	for i, c := range classes {
		n, ok := numbers[c.Group]
		if !ok {
			n = len(numbers)
			numbers[c.Group] = n
		}
		classes[i].Group = n
	}
	return classes
}

// prefixOf is the beginning of a workload's ID up to its account,
// "spiffe://<domain>/ns/<namespace>/sa/", or "" if there are too few segments.
// It counts slashes, because a namespace may be called "sa".
func prefixOf(id string) string {
	const slashes = 6
	seen := 0
	for i := range len(id) {
		if id[i] == '/' {
			if seen++; seen == slashes {
				return id[:i+1]
			}
		}
	}
	return ""
}

// text is what the steps and the end of a class say, as a key.
func text(rules []int, end Decision) string {
	var b []byte
	for _, n := range rules {
		b = binary.AppendUvarint(b, uint64(n))
	}
	b = append(append(b, 0), end.By...)
	if end.Allowed {
		b = append(b, 0)
	}
	return string(b)
}
