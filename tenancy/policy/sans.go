package policy

import "slices"

// SANs are the callers that a port may let in by their certificate alone, as
// whole SPIFFE IDs and as prefixes, both sorted; a namespace's prefix stands
// for itself and its IDs are not repeated. Nobody whom Decide refuses is among
// them. The port is taken as a TCP port, whatever it is.
//
// Where single IDs of an allowed namespace are denied, its prefix would admit
// them too. Then the accounts of KnownAccounts are listed one by one instead,
// and without them nobody of that namespace is let in but the IDs that rules
// allow by name.
func (p Port) SANs() (exact, prefixes []string) {
	p.HTTP = false
	classes := p.Classes()
	partial := partialOf(classes)
	whole := map[NamespaceRef]bool{}
	decided := map[string]bool{}
	for _, c := range classes {
		switch {
		case !c.Prefix:
			decided[c.Key] = true
		case c.End.Allowed && !partial[c.Namespace]:
			whole[c.Namespace] = true
			prefixes = append(prefixes, c.Key)
		}
	}
	for _, c := range classes {
		if !c.Prefix && c.End.Allowed && !whole[c.Namespace] {
			exact = append(exact, c.Key)
		}
	}
	for _, known := range p.KnownAccounts {
		if !partial[known.Namespace] {
			continue
		}
		for _, name := range known.Names {
			if id := known.Namespace.Prefix() + name; !decided[id] {
				exact = append(exact, id)
			}
		}
	}
	slices.Sort(exact)
	slices.Sort(prefixes)
	return slices.Compact(exact), slices.Compact(prefixes)
}

// Partial are the allowed namespaces of which single IDs are denied, sorted:
// those whose accounts SANs needs to know.
func (p Port) Partial() []NamespaceRef {
	p.HTTP = false
	var refs []NamespaceRef
	classes := p.Classes()
	partial := partialOf(classes)
	for _, c := range classes {
		if c.Prefix && partial[c.Namespace] {
			refs = append(refs, c.Namespace)
		}
	}
	return refs
}

func partialOf(classes []Class) map[NamespaceRef]bool {
	denied, partial := map[NamespaceRef]bool{}, map[NamespaceRef]bool{}
	for _, c := range classes {
		if !c.Prefix && !c.End.Allowed {
			denied[c.Namespace] = true
		}
		if c.Prefix && c.End.Allowed && denied[c.Namespace] {
			partial[c.Namespace] = true
		}
	}
	return partial
}
