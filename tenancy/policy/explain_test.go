package policy

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// What did not decide may be taken away, and nothing changes; what is said to
// have decided is what Decide names.
func TestExplainNamesWhatDecides(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := anyPort(t)
		id := rapid.SampledFrom(someIDs).Draw(t, "id")
		r := Request{Method: "GET", Path: rapid.SampledFrom(somePaths).Draw(t, "path")}
		decision, looks := p.Explain(id, r)
		require.Equal(t, p.Decide(id, r), decision)
		decided := 0
		for _, look := range looks {
			if look.Why == Decided {
				decided++
				require.Equal(t, decision.By, look.Policy)
				continue
			}
			without := p
			without.Rules = slices.DeleteFunc(slices.Clone(p.Rules), func(r Rule) bool { return r.Policy == look.Policy && r.Action == look.Action })
			require.Equal(t, decision, without.Decide(id, r), "without %v", look)
			require.Equal(t, look.Why == OtherRequests, look.Detail != "")
		}
		require.Equal(t, strings.HasPrefix(decision.By, "n/"), decided == 1)
	})
}

// The extent of a caller is that of all requests there are.
func TestExtents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := anyPort(t)
		extents := p.Extents()
		for _, id := range someIDs {
			allowed, denied := false, false
			for _, method := range []string{"GET", "POST"} {
				for _, path := range somePaths {
					for _, headers := range []map[string]string{nil, {"x": "y"}} {
						d := p.Decide(id, Request{Method: method, Path: path, Headers: headers})
						allowed, denied = allowed || d.Allowed, denied || !d.Allowed
					}
				}
			}
			switch extents.Of(id) {
			case None:
				require.False(t, allowed, id)
			case All:
				require.False(t, denied, id)
			case Some:
				// Conditions that no request meets, or all, are not looked through.
			}
			if allowed && denied {
				require.Equal(t, Some, extents.Of(id), id)
			}
		}
	})
}
