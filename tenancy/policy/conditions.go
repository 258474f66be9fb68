package policy

import (
	"fmt"
	"slices"
)

// Conditions tells, for whole SPIFFE IDs and namespaces' prefixes, on what it
// depends what a caller may do: equal texts mean equal decisions for equal
// requests. The texts are for comparison only; the names of policies are not in
// them.
func (p Port) Conditions() func(id string) string {
	exact, prefix := map[string]string{}, map[string]string{}
	for _, c := range p.Classes() {
		steps := slices.Clone(c.Steps)
		for i := range steps {
			steps[i].By = ""
		}
		in := exact
		if c.Prefix {
			in = prefix
		}
		in[c.Key] = fmt.Sprintf("%t %v %t", p.HTTP, steps, c.End.Allowed)
	}
	return func(id string) string {
		if text, ok := exact[id]; ok {
			return text
		}
		return prefix[prefixOf(id)]
	}
}
