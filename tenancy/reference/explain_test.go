package reference_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/tenancy/policy"
	"bailiwick.dev/bailiwick/tenancy/reference"
)

// What did not decide, and led nowhere by a Pass, may be taken away, and nothing
// changes; what is said to have decided is what Decide names.
func TestExplainNamesWhatDecidesOfAllTiers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, r := reference.AnyPort(t, true), reference.AnyRequest(t, true)
		for _, caller := range reference.Callers() {
			decide := func(p policy.Port) policy.Decision { return p.Decide(caller.ID, r) }
			decision, looks := p.Explain(caller.ID, r)
			if caller.Plaintext {
				decide = func(p policy.Port) policy.Decision { return p.DecidePlaintext(r) }
				decision, looks = p.ExplainPlaintext(r)
			}
			require.Equal(t, decide(p), decision)
			decided := 0
			for _, look := range looks {
				switch look.Why {
				case policy.Decided:
					decided++
					require.Equal(t, decision.By, look.Policy)
					continue
				case policy.Passes:
					continue
				}
				without := p
				without.Rules = slices.DeleteFunc(slices.Clone(p.Rules), func(r policy.Rule) bool { return r.Policy == look.Policy && r.Action == look.Action })
				require.Equal(t, decision, decide(without), "%s without %+v", caller.ID, look)
			}
			require.Equal(t, strings.Contains(decision.By, "/"), decided == 1, "%s: %+v %+v", caller.ID, decision, looks)
		}
	})
}

// Extents are right where they are definite, and equal conditions mean equal
// decisions.
func TestExtentsAndConditionsOfAllTiers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := reference.AnyPort(t, true)
		extents, conditions := p.Extents(), p.Conditions()
		byText := map[string][]bool{}
		var requests []policy.Request
		for range 8 {
			requests = append(requests, reference.AnyRequest(t, true))
		}
		for _, caller := range reference.Callers() {
			if caller.Plaintext || strings.Contains(caller.ID, ",") {
				continue
			}
			var allowed []bool
			for _, r := range requests {
				allowed = append(allowed, p.Decide(caller.ID, r).Allowed)
			}
			switch extents.Of(caller.ID) {
			case policy.None:
				require.NotContains(t, allowed, true, caller.ID)
			case policy.All:
				require.NotContains(t, allowed, false, caller.ID)
			}
			text := conditions(caller.ID)
			if byText[text] == nil {
				byText[text] = allowed
			}
			require.Equal(t, byText[text], allowed, "%s: %s", caller.ID, text)
		}
	})
}
