package steward

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// Who has and had which namespace is written by who leads, once all is loaded, on
// change only; a deleted Tenant stays as long as names wait for it.
func TestStatusRemembersNamespaces(t *testing.T) {
	w := start(t)
	loaded := make(chan struct{})
	ledger := NewLedger(loaded)
	var err error
	w.s, err = New(Config{REST: w.c.REST(kubetest.Admin), Logger: slog.New(slog.DiscardHandler), Ledger: ledger})
	require.NoError(t, err)
	name := "hooli"
	w.apply(tenantYAML(name))
	until := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	has := tenancy.Held{Namespace: "hooli-a", TrustDomain: "hooli.example", UID: "1"}
	had := tenancy.Held{Namespace: "hooli-b", TrustDomain: "hooli.example", UID: "2", Until: until.Unix()}
	strange := tenancy.Held{Namespace: "hooli-c", TrustDomain: "another.example", UID: "3"}
	note := func(held ...tenancy.Held) {
		ledger.Note(map[string][]tenancy.Held{name: held})
		require.True(t, ledger.News())
	}
	stands := func() []v1alpha1.NamespaceHeld { return w.get(name).Status.Namespaces }

	note(has, had, strange)
	w.pass(true)
	require.Empty(t, stands(), "nobody knows yet what there is")
	close(loaded)
	w.pass(false)
	require.Empty(t, stands(), "only who leads writes")
	w.pass(true)
	require.False(t, ledger.News())
	want := []v1alpha1.NamespaceHeld{{Name: "hooli-a", UID: "1"}, {Name: "hooli-b", UID: "2", Until: "2027-01-02T03:04:05Z"}}
	require.Equal(t, want, stands())
	require.NotEmpty(t, w.get(name).Status.Conditions, "the conditions are somebody else's, and stay")
	version := w.get(name).ResourceVersion
	w.pass(true)
	require.Equal(t, version, w.get(name).ResourceVersion, "written on change only")

	// More than fits: what is lost is remembered first.
	many := make([]tenancy.Held, mostHeld)
	for i := range many {
		many[i] = tenancy.Held{Namespace: fmt.Sprintf("hooli-%s-%d", strings.Repeat("x", 50), i), TrustDomain: "hooli.example", UID: strings.Repeat("y", 36)}
	}
	note(append(many, had)...)
	w.pass(true)
	require.Len(t, stands(), mostHeld)
	require.Equal(t, want[1], stands()[0])

	require.NoError(t, w.c.Delete(w.ctx, kubetest.Admin, w.one(tenantYAML(name))))
	note(had)
	w.pass(true)
	require.Equal(t, want[1:], stands(), "it stays, and remembers")
	note()
	w.pass(true)
	require.Nil(t, w.get(name))
}
