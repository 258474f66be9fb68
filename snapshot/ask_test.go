package snapshot

import (
	"context"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy"
)

func TestAskLendsTheModel(t *testing.T) {
	p, err := NewPublisher(Config{Model: tenancy.NewModel(tenancy.Config{}), Builder: NewBuilder(BuilderConfig{}), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }() // ends with cancel
	defer func() { cancel(); require.NoError(t, <-ended) }()

	who := identity.Workload{TrustDomain: "acme.example", Namespace: "shop", ServiceAccount: "web"}
	asked := 0
	ask := func() error { return p.Ask(ctx, who, func(m *tenancy.Model) { require.NotNil(t, m); asked++ }) }
	require.ErrorIs(t, ask(), ErrNotYet, "before the first complete load")
	p.Synced()
	require.NoError(t, ask())
	p.Hold(nil, []string{"shop"})
	require.ErrorIs(t, ask(), ErrNotYet, "while the namespace is on hold")
	p.Hold(nil, nil)
	require.NoError(t, ask())
	require.Equal(t, 2, asked)

	require.ErrorContains(t, p.Ask(ctx, who, func(*tenancy.Model) { panic("of an answer") }), "cannot be answered")
	require.NoError(t, ask(), "the loop goes on")

	gone, stop := context.WithCancel(ctx)
	stop()
	require.ErrorIs(t, p.Ask(gone, who, func(*tenancy.Model) {}), context.Canceled)
}
