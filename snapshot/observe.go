package snapshot

import (
	"slices"
	"strings"

	matcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"

	"bailiwick.dev/bailiwick/tenancy/policy"
)

const (
	// observedPrefix begins the names of what is recorded without being enforced,
	// in metadata and in counters.
	observedPrefix = "observed_"
	// unchanged is the name of a recorded decision that no observing policy made
	// and no auditing one asked for. Names of policies hold a slash.
	unchanged = "unchanged"
)

// observes reports whether any rule of a port is to be recorded.
func observes(p policy.Port) bool {
	return p.AllowObserved != "" || slices.ContainsFunc(p.Rules, func(r policy.Rule) bool { return r.Observe || r.Action == policy.Audit })
}

// watch translates what would happen if observing rules were enforced, under
// the names of the policies that are the reason for a record: the first
// auditing one that matches, and the observing one that would decide.
type watch struct {
	*compiler
	observing map[string]bool
	narrows   string // the Allow policy that would change the default
	audits    map[string]policy.Class
	done      map[[2]int]*matcherv3.Matcher_OnMatch
}

func (c *compiler) watch(p policy.Port) *watch {
	w := &watch{
		compiler: &compiler{kind: c.kind}, observing: map[string]bool{}, audits: map[string]policy.Class{}, done: map[[2]int]*matcherv3.Matcher_OnMatch{},
	}
	base := p.AllowWithinTenant
	for _, r := range p.Rules {
		if r.Observe {
			w.observing[r.Policy] = true
		}
		base = base || r.Tier == policy.TierBaseline
	}
	if base && !p.AllowSelected {
		w.narrows = p.AllowObserved
	}
	for _, class := range p.Audits().Classes() {
		w.audits[class.Key] = class
	}
	w.label = w.named("")
	return w
}

// named is a label for decisions on what audit has already matched ("" for
// nothing).
func (w *watch) named(audit string) func(string) string {
	return func(by string) string {
		var names []string
		if audit != "" {
			names = append(names, audit)
		}
		switch {
		case w.observing[by]:
			names = append(names, by)
		case by == policy.ByDefaultDeny && w.narrows != "":
			names = append(names, w.narrows)
		}
		if len(names) == 0 {
			return unchanged
		}
		return strings.Join(slices.Compact(names), ",")
	}
}

// class is what is recorded of a class: the audits that match first, each with
// what would become of the request.
func (w *watch) class(class, audits policy.Class) (*matcherv3.Matcher_OnMatch, error) {
	key := [2]int{class.Group, audits.Group}
	if on, ok := w.done[key]; ok && class.Key != "" {
		return on, nil
	}
	judged := func(audit string) (*matcherv3.Matcher_OnMatch, error) {
		w.label = w.named(audit)
		return w.steps(class, 0)
	}
	var steps []*matcherv3.Matcher_MatcherList_FieldMatcher
	last := ""
	if audits.End.Allowed {
		last = audits.End.By
	}
	for _, s := range audits.Steps {
		then, err := judged(s.By)
		if err != nil {
			return nil, err
		}
		predicate := w.predicate(s.Match, s.Action)
		if predicate == nil {
			last = s.By
			break
		}
		steps = append(steps, &matcherv3.Matcher_MatcherList_FieldMatcher{Predicate: predicate, OnMatch: then})
	}
	on, err := judged(last)
	if err != nil {
		return nil, err
	}
	if len(steps) > 0 {
		on = nested(&matcherv3.Matcher{MatcherType: matcherList(steps...), OnNoMatch: on})
	}
	w.done[key] = on
	return on, nil
}

// observed is the tree of what is recorded of callers with a certificate.
func (c *compiler) observed(p policy.Port) (*matcherv3.Matcher, error) {
	w := c.watch(p)
	defer func() { c.pk.err = firstError(c.pk.err, w.pk.err) }()
	port := p.Observed()
	classes := port.Classes()
	judged := map[string]policy.Class{}
	for _, class := range classes {
		judged[class.Key] = class
	}
	of := func(all map[string]policy.Class, class policy.Class) policy.Class {
		if found, ok := all[class.Key]; ok {
			return found
		}
		return all[class.Namespace.Prefix()]
	}
	// An ID may have a class of its own among the audits alone.
	for key, audit := range w.audits {
		if _, ok := judged[key]; !ok {
			class := of(judged, audit)
			class.Key, class.Prefix = key, audit.Prefix
			classes = append(classes, class)
		}
	}
	m, err := w.classes(classes, port.Outside(), func(class policy.Class) (*matcherv3.Matcher_OnMatch, error) {
		on, err := w.class(class, of(w.audits, class))
		w.label = w.named("")
		return on, err
	})
	return m, err
}

// observedPlain is that of callers without one.
func (c *compiler) observedPlain(p policy.Port) (*matcherv3.Matcher, error) {
	w := c.watch(p)
	defer func() { c.pk.err = firstError(c.pk.err, w.pk.err) }()
	on, err := w.class(p.Observed().Plain(), p.Audits().Plain())
	return root(on), err
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
