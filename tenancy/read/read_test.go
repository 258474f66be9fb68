package read_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/identity"
	. "bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
	"bailiwick.dev/bailiwick/tenancy/read"
	"bailiwick.dev/bailiwick/tenancy/reference"
)

// questions are calls of everybody to everything, and those with names that
// nobody has.
func questions() (all []read.Question) {
	for _, from := range append(slices.Clone(words), none) {
		for _, to := range append(slices.Clone(words), none, stray) {
			for i := range 4 {
				all = append(all, read.Question{
					From:      identity.Workload{TrustDomain: domain(from), Namespace: namespace(from, i%2), ServiceAccount: account(from, 0)},
					Namespace: namespace(to, i/2), Service: service(to, i%2), Port: ports[i/2],
					Request: policy.Request{Method: []string{"GET", "POST"}[i/2], Path: []string{"/", "/a"}[i%2]},
				})
			}
		}
	}
	return all
}

func modelOf(events []Event) *Model {
	m := NewModel(Config{ClusterDomain: "cluster.local"})
	for _, ev := range events {
		m.Apply(ev)
	}
	return m
}

// What is explained to whoever may read everything is what the naive reference
// says: visible, and allowed by every Pod behind the port.
func TestExplainAgreesWithTheReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := world(t)
		m, w := modelOf(events), reference.Fold(events)
		reader := read.New(m, read.Platform(), "cluster.local", nil)
		matrix := reader.Matrix()
		some := rapid.IntRange(0, 2).Draw(t, "questions")
		for i, q := range questions() {
			if i%3 != some {
				continue // the reference is slow
			}
			a := reader.Explain(q)
			tenant, settings := w.Tenant(q.From.Namespace)
			visible := settings != nil && settings.TrustDomain == q.From.TrustDomain &&
				slices.ContainsFunc(w.VisibleNames(tenant, q.From.Namespace), func(n reference.Name) bool {
					return n.Namespace == q.Namespace && n.Service == q.Service && n.Port == q.Port
				})
			require.Equal(t, visible, a.Visible == read.Visible, "%+v: %+v", q, a)
			allowed, pods := visible, 0
			for _, b := range m.Backends(Key{Namespace: q.Namespace, Name: q.Service}, q.Port) {
				pods++
				allowed = allowed && w.MayCall(q.From, b.Pod, b.Port, q.Request)
			}
			if q.Namespace == namespace(stray, 0) {
				pods++ // nobody judges
			}
			require.Equal(t, allowed && pods > 0, a.Verdict == read.Allowed, "%+v: %+v", q, a)
			require.NotEmpty(t, a.Why)
			agreesWithMatrix(t, matrix, q, a)
		}
	})
}

// agreesWithMatrix requires of the cell about a question that it is not more or
// less than its answer.
func agreesWithMatrix(t *rapid.T, m read.Matrix, q read.Question, a read.Answer) {
	i := slices.IndexFunc(m.Callers, func(c read.Caller) bool {
		return c.Namespace == q.From.Namespace && c.Account == q.From.ServiceAccount
	})
	j := slices.IndexFunc(m.Services, func(c read.Column) bool {
		return c.Namespace == q.Namespace && c.Service == q.Service && c.Port == q.Port
	})
	if i < 0 || j < 0 {
		return
	}
	switch cell := m.Cells[i][j]; cell {
	case read.CellAll:
		require.Equal(t, read.Allowed, a.Verdict, "%+v", a)
	case read.CellNone, read.CellEmpty, read.CellHidden:
		require.Equal(t, read.Denied, a.Verdict, "%s: %+v", cell, a)
		require.Equal(t, cell != read.CellHidden, a.Visible == read.Visible, "%s: %+v", cell, a)
	case read.CellSome:
		require.Equal(t, read.Visible, a.Visible)
	default:
		require.Fail(t, "cell "+cell)
	}
}

// revealed are the texts that a tenant may read of others, by live grants, as
// the reference has them.
func revealed(w reference.World, tenant, ns string) (texts []string) {
	narrow := func(t string) bool {
		_, o := w.Tenant(namespace(t, 0))
		return o != nil && o.Visibility == VisibleInNamespace
	}
	for _, word := range words {
		for i := range 2 {
			from := namespace(word, i)
			for _, n := range w.VisibleNames(word, from) {
				owner, _ := w.Tenant(n.Namespace)
				switch {
				case n.Namespace == namespace(stray, 0):
				case word == tenant && owner != tenant && (from == ns || !narrow(tenant)):
					texts = append(texts, n.Namespace, n.Service, owner)
				case word != tenant && owner == tenant && (n.Namespace == ns || !narrow(tenant)):
					texts = append(texts, from, word)
				}
			}
		}
	}
	return texts
}

// No answer to a tenant has a name of another in it that neither a live grant
// reveals nor the asker said.
func TestNoForeignName(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := world(t)
		m, w := modelOf(events), reference.Fold(events)
		asker := pick(t, "asker", words...)
		ns := namespace(asker, rapid.IntRange(0, 1).Draw(t, "from"))
		reader := read.New(m, read.Of(m, identity.Workload{TrustDomain: domain(asker), Namespace: ns, ServiceAccount: "any"}), "cluster.local", nil)
		known := revealed(w, asker, ns)
		clean := func(answer any, said ...string) {
			data, err := json.Marshal(answer)
			require.NoError(t, err)
			text := string(data)
			// Longest first: a tenant's word is part of its other names.
			said = append(slices.Clone(known), said...)
			slices.SortFunc(said, func(a, b string) int { return len(b) - len(a) })
			for _, s := range said {
				text = strings.ReplaceAll(text, s, "")
			}
			for _, word := range words {
				if word != asker {
					require.NotContains(t, text, word, "said to %s: %s", asker, data)
				}
			}
		}
		for _, q := range questions() {
			clean(reader.Explain(q), q.From.String(), q.From.Namespace, q.From.TrustDomain, q.From.ServiceAccount, q.Namespace, q.Service)
		}
		clean(reader.Matrix())
		who, _ := reader.Whoami()
		clean(who)
	})
}

// A tenant of whom no live grant tells anything reads as if it were not there:
// in a world without it every answer is the same.
func TestForeignReadsAsAbsent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := world(t)
		asker := pick(t, "asker", words...)
		ns := namespace(asker, rapid.IntRange(0, 1).Draw(t, "from"))
		known := revealed(reference.Fold(events), asker, ns)
		without := slices.DeleteFunc(slices.Clone(events), func(ev Event) bool {
			k := ev.Ref.Key
			return slices.ContainsFunc(words, func(word string) bool {
				return word != asker && !slices.Contains(known, word) && (k.Name == word || k.Name == namespace(word, 0) || k.Name == namespace(word, 1) ||
					k.Namespace == namespace(word, 0) || k.Namespace == namespace(word, 1))
			})
		})
		var readers []*read.Reader
		for _, events := range [][]Event{events, without} {
			m := modelOf(events)
			readers = append(readers, read.New(m, read.Of(m, identity.Workload{TrustDomain: domain(asker), Namespace: ns, ServiceAccount: "any"}), "cluster.local", nil))
		}
		for _, q := range questions() {
			require.Equal(t, readers[1].Explain(q), readers[0].Explain(q))
		}
		require.Equal(t, readers[1].Matrix(), readers[0].Matrix())
		here, _ := readers[0].Whoami()
		there, _ := readers[1].Whoami()
		require.Equal(t, there, here)
	})
}

// Nobody is told nothing.
func TestZeroScopeKnowsNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := modelOf(world(t))
		reader := read.New(m, read.Scope{}, "cluster.local", nil)
		for _, q := range questions() {
			require.Equal(t, read.Unknown, reader.Explain(q).Verdict)
		}
		require.Empty(t, reader.Matrix().Services)
		require.Empty(t, reader.Matrix().Callers)
		_, ok := reader.Whoami()
		require.False(t, ok)
	})
}
