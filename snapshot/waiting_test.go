package snapshot

import (
	"log/slog"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy"
)

// TestALatePodIsToldByTheClock: without any event, once and when it is time.
func TestALatePodIsToldByTheClock(t *testing.T) {
	authority() // its key is made outside of the bubble
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		told := map[tenancy.Ref][]tenancy.Problem{}
		reasons := func() (all []string) {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			for _, list := range told {
				for _, p := range list {
					all = append(all, p.Reason)
				}
			}
			return all
		}
		p, err := NewPublisher(Config{
			Model:   tenancy.NewModel(tenancy.Config{TrustDomains: []string{"mesh.example"}, Limits: tenancy.DefaultLimits(), PodPatience: tenancy.PodPatience}),
			Builder: NewBuilder(BuilderConfig{}), Logger: slog.New(slog.DiscardHandler), Quiet: 1, Max: 1,
			Problems: func(problems map[tenancy.Ref][]tenancy.Problem) {
				mu.Lock()
				defer mu.Unlock()
				maps.Copy(told, problems)
			},
		})
		require.NoError(t, err)
		r := startWith(t, p, mesh{tenants: 1, services: 1}.events())
		require.Empty(t, reasons(), "all Pods are there, though after their endpoints")
		began := time.Now()
		r.Apply([]tenancy.Event{gone(tenancy.KindPod, nsName(0), serviceName(0))})
		require.Empty(t, reasons())
		time.Sleep(tenancy.PodPatience - time.Since(began) - 1)
		require.Empty(t, reasons())
		time.Sleep(time.Nanosecond)
		require.Equal(t, []string{tenancy.ReasonPodPending}, reasons())
		r.Apply(mesh{tenants: 1, services: 1}.events())
		require.Empty(t, reasons())
	})
}
