package identity

import (
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
)

func TestParseWorkload(t *testing.T) {
	w, err := ParseWorkload(parseID(t, "spiffe://acme.example/ns/acme-shop/sa/web.v2"))
	require.NoError(t, err)
	require.Equal(t, Workload{TrustDomain: "acme.example", Namespace: "acme-shop", ServiceAccount: "web.v2"}, w)
	require.Equal(t, "spiffe://acme.example/ns/acme-shop/sa/web.v2", w.String())
	require.Equal(t, w.String(), w.ID().String())
}

func TestParseWorkloadRefuses(t *testing.T) {
	for _, id := range []string{
		"spiffe://td",
		"spiffe://td/ns/a",
		"spiffe://td/ns/a/sa",
		"spiffe://td/ns/a/sa/b/c",
		"spiffe://td/x/ns/a/sa/b",
		"spiffe://td/NS/a/sa/b",
		"spiffe://td/ns/a/SA/b",
		"spiffe://td/ns/A/sa/b",
		"spiffe://td/ns/a.b/sa/c",
		"spiffe://td/ns/a_b/sa/c",
		"spiffe://td/ns/-a/sa/c",
		"spiffe://td/ns/a/sa/B",
		"spiffe://td/ns/a/sa/b_c",
		"spiffe://td/ns/a/sa/.b.",
		"spiffe://td/ns/" + strings.Repeat("a", 64) + "/sa/b",
		"spiffe://td/ns/a/sa/" + strings.Repeat("b", 254),
		"spiffe://" + strings.Repeat("t", 256) + "/ns/a/sa/b",
	} {
		parsed, err := spiffeid.FromString(id)
		if err != nil {
			continue // not even a SPIFFE ID
		}
		_, err = ParseWorkload(parsed)
		require.ErrorIs(t, err, ErrNotWorkload, id)
		require.Less(t, len(err.Error()), 700, "a hostile ID must not flood the log")
	}
	_, err := ParseWorkload(spiffeid.ID{})
	require.ErrorIs(t, err, ErrNotWorkload)
}

func TestWorkloadIDOfImpossibleFields(t *testing.T) {
	require.True(t, Workload{}.ID().IsZero())
	require.True(t, Workload{TrustDomain: "td", Namespace: "a/b", ServiceAccount: "c"}.ID().IsZero())
}

func TestNamespacePrefix(t *testing.T) {
	prefix := NamespacePrefix("td", "shop")
	require.Equal(t, "spiffe://td/ns/shop/sa/", prefix)
	require.NotContains(t, Workload{TrustDomain: "td", Namespace: "shop-admin", ServiceAccount: "x"}.String(), prefix)
}

func FuzzParseWorkload(f *testing.F) {
	for _, seed := range []string{
		idShop, "spiffe://td", "spiffe://td/ns/a/sa/b/", "spiffe://td//ns/a/sa/b", "spiffe://td/ns/../sa/b",
		"spiffe://td/ns/a/sa/b,spiffe://td/ns/c/sa/d", "spiffe://td/ns/a%2Fb/sa/c", "SPIFFE://td/ns/a/sa/b", "spiffe://td/ns/a.*/sa/b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		id, err := spiffeid.FromString(text)
		if err != nil {
			return
		}
		w, err := ParseWorkload(id)
		if err != nil {
			require.ErrorIs(t, err, ErrNotWorkload)
			require.Zero(t, w)
			return
		}
		require.Equal(t, text, w.String(), "one spelling per workload")
		require.Equal(t, id, w.ID())
		require.Equal(t, NamespacePrefix(w.TrustDomain, w.Namespace)+w.ServiceAccount, text)
		require.Equal(t, 6, strings.Count(text, "/"))
		require.NotContains(t, text, ",")
		require.NotContains(t, w.Namespace, ".")
	})
}
