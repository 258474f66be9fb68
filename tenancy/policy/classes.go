package policy

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"
)

// Class is one part of the partition of principals with what happens to it.
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
	// decides. None of them matches every request: that one is End.
	Steps []Step
	// End decides if no step did.
	End Decision
}

// Step is one conditional rule.
type Step struct {
	Match  Match
	Action Action
	By     string
}

// Decide judges one request (on a port that is not HTTP, one connection) of
// the caller that the certificate's URI SAN names; several are joined by ",".
func (p Port) Decide(id string, r Request) Decision {
	if strings.Contains(id, ",") {
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
		return Decision{By: ByTenantFloor}
	}
	for _, s := range classes[found].Steps {
		if s.Match.Matches(r, s.Action) {
			return Decision{Allowed: s.Action == Allow, By: s.By}
		}
	}
	return classes[found].End
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
		prefixes = append(prefixes, b.class(prefix, m, m.rules))
	}
	for id, rules := range b.byID {
		prefix := prefixOf(id)
		m, ok := spaces[prefix]
		if !ok || len(id) == len(prefix) || strings.Contains(id, ",") {
			continue
		}
		c := b.class(id, m, ordered(m.rules, rules))
		c.Prefix = false
		if c.Group != b.class(prefix, m, m.rules).Group {
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

// member is one namespace of the floor.
type member struct {
	ref   NamespaceRef
	own   bool
	rules []int
}

// partition indexes the rules by whom they are about. Rules are numbered in
// the order of judgement.
type partition struct {
	port        Port
	steps       []Step
	all         []int
	granted     []int
	byNamespace map[NamespaceRef][]int
	byID        map[string][]int
	groups      map[string]Class
}

func newPartition(p Port) *partition {
	b := &partition{port: p, byNamespace: map[NamespaceRef][]int{}, byID: map[string][]int{}, groups: map[string]Class{}}
	for _, action := range []Action{Deny, Allow} {
		for i := range p.Rules {
			if p.Rules[i].Action == action {
				b.add(&p.Rules[i])
			}
		}
	}
	return b
}

func (b *partition) add(r *Rule) {
	s := Step{Match: r.Match, Action: r.Action, By: r.Policy}
	if !b.port.HTTP && !s.Match.Any() {
		if s.Action == Allow {
			return
		}
		s.Match = Match{}
	}
	n := len(b.steps)
	b.steps = append(b.steps, s)
	if r.From.All {
		b.all = append(b.all, n)
		return
	}
	if r.From.Granted {
		b.granted = append(b.granted, n)
	}
	for _, ref := range r.From.Namespaces {
		b.byNamespace[ref] = append(b.byNamespace[ref], n)
	}
	for _, id := range r.From.IDs {
		b.byID[id] = append(b.byID[id], n)
	}
}

func (b *partition) rulesOf(m member) []int {
	rules := ordered(b.all, b.byNamespace[m.ref])
	if !m.own {
		rules = ordered(rules, b.granted)
	}
	return rules
}

// ordered merges two lists of rules into a new one, in the order of judgement.
func ordered(a, b []int) []int {
	out := append(slices.Clone(a), b...)
	slices.Sort(out)
	return slices.Compact(out)
}

// class makes the class of a member's rules, sharing the steps of an equal one.
func (b *partition) class(key string, m member, rules []int) Class {
	end := Decision{By: ByDefaultDeny}
	if m.own && b.port.AllowWithinTenant && !b.port.AllowSelected {
		end = Decision{Allowed: true, By: ByDefaultAllow}
	}
	var steps []Step
	var text []byte
	for _, n := range rules {
		s := b.steps[n]
		if s.Match.Any() {
			end = Decision{Allowed: s.Action == Allow, By: s.By}
			break
		}
		steps = append(steps, s)
		text = binary.AppendUvarint(text, uint64(n))
	}
	text = append(append(text, 0), end.By...)
	if end.Allowed {
		text = append(text, 0)
	}
	g, ok := b.groups[string(text)]
	if !ok {
		g = Class{Group: len(b.groups), Steps: steps, End: end}
		b.groups[string(text)] = g
	}
	g.Key, g.Prefix, g.Namespace = key, true, m.ref
	return g
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
