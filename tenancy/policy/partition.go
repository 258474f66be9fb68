package policy

import "slices"

// member is one namespace of the floor.
type member struct {
	ref   NamespaceRef
	own   bool
	rules []int
}

// judged is a rule in the order of judgement.
type judged struct {
	Step
	tier      Tier
	from, not Principals
}

// partition indexes the enforced rules by whom they are about. Rules are
// numbered in the order of judgement.
type partition struct {
	port        Port
	steps       []judged
	all         []int
	granted     []int
	byNamespace map[NamespaceRef][]int
	byID        map[string][]int
	groups      map[string]Class
}

// stages is the order of judgement, but for the floor, which is what classes
// are made of.
func stages(p Port) []func(Rule) bool {
	is := func(t Tier, actions ...Action) func(Rule) bool {
		return func(r Rule) bool { return r.Tier == t && slices.Contains(actions, r.Action) }
	}
	all := []func(Rule) bool{is(TierAdmin, Deny), is(TierAdmin, Allow, Pass), is(TierTenant, Deny), is(TierTenant, Allow)}
	if !p.AllowSelected {
		all = append(all, is(TierBaseline, Deny, Allow, Pass))
	}
	return all
}

func newPartition(p Port) *partition {
	b := &partition{port: p, byNamespace: map[NamespaceRef][]int{}, byID: map[string][]int{}, groups: map[string]Class{}}
	for _, stage := range stages(p) {
		for i := range p.Rules {
			if r := &p.Rules[i]; !r.Observe && stage(*r) {
				b.add(r)
			}
		}
	}
	return b
}

func (b *partition) add(r *Rule) {
	s := judged{Step: Step{Match: r.Match, Action: r.Action, By: r.Policy}, tier: r.Tier, from: r.From, not: r.NotFrom}
	if !b.port.HTTP && !s.Match.Any() {
		// What cannot be judged here is never widened.
		switch {
		case s.Action == Allow:
			return
		case s.Action == Pass && s.tier == TierBaseline:
			s.Action = Deny
		}
		s.Match = Match{}
	}
	n := len(b.steps)
	b.steps = append(b.steps, s)
	for _, id := range r.NotFrom.IDs {
		if b.byID[id] == nil {
			b.byID[id] = []int{}
		}
	}
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

// without takes out the rules that are not about a member, or one ID of it.
func (b *partition) without(rules []int, m member, id string) []int {
	except := func(n int) bool {
		not := b.steps[n].not
		return not.All || not.Granted && !m.own || slices.Contains(not.Namespaces, m.ref) || id != "" && slices.Contains(not.IDs, id)
	}
	if !slices.ContainsFunc(rules, except) {
		return rules
	}
	return slices.DeleteFunc(slices.Clone(rules), except)
}

// ordered merges two lists of rules into a new one, in the order of judgement.
func ordered(a, b []int) []int {
	out := append(slices.Clone(a), b...)
	slices.Sort(out)
	return slices.Compact(out)
}

// end is what becomes of a member that no rule decides about.
func (b *partition) end(m member) Decision {
	if m.own && b.port.AllowWithinTenant && !b.port.AllowSelected {
		return Decision{Allowed: true, By: ByDefaultAllow}
	}
	return Decision{By: ByDefaultDeny}
}

// class makes the class of a member's rules, sharing the steps of an equal one.
func (b *partition) class(key string, m member, rules []int, end Decision) Class {
	rules, end = b.effective(rules, end)
	text := text(rules, end)
	g, ok := b.groups[text]
	if !ok {
		g = Class{Group: len(b.groups), Steps: b.stepsOf(rules), End: end}
		b.groups[text] = g
	}
	g.Key, g.Prefix, g.Namespace = key, true, m.ref
	return g
}

// effective leaves out what can never decide: what stands behind a rule that
// matches every request, but for what a Pass before it leads to, and a Pass with
// nothing left in its tier to keep from deciding.
func (b *partition) effective(rules []int, end Decision) ([]int, Decision) {
	var kept []int
	tier, first, closed := TierTenant, 0, false // first is where the tier begins in kept
	leave := func() {
		for !closed && len(kept) > first && b.steps[kept[len(kept)-1]].Action == Pass {
			kept = kept[:len(kept)-1]
		}
	}
	for _, n := range rules {
		s := &b.steps[n]
		if s.tier != tier {
			leave()
			tier, first, closed = s.tier, len(kept), false
		}
		if closed {
			continue
		}
		switch any := s.Match.Any(); {
		case any && s.Action == Pass:
			leave()
			closed = true
		case any && !slices.ContainsFunc(kept[first:], func(n int) bool { return b.steps[n].Action == Pass }):
			return kept, Decision{Allowed: s.Action == Allow, By: s.By}
		default:
			kept = append(kept, n)
			closed = any
		}
	}
	leave()
	return kept, end
}

// stepsOf are the steps of rules, each Pass with where it leads.
func (b *partition) stepsOf(rules []int) []Step {
	var steps []Step
	for i, n := range rules {
		s := b.steps[n].Step
		if s.Action == Pass {
			for s.Next = i + 1; s.Next < len(rules) && b.steps[rules[s.Next]].tier == b.steps[n].tier; s.Next++ {
			}
		}
		steps = append(steps, s)
	}
	return steps
}
