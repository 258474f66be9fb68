package xdstest

import (
	"context"
	"errors"
	"fmt"
	"net"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	configv3 "github.com/envoyproxy/go-control-plane/pkg/server/config"
	sotwv3 "github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"

	"bailiwick.dev/bailiwick/snapshot"
)

// Oracle is the stock server of go-control-plane v0.14.0 over resources of ours:
// a LinearCache per type behind a MuxCache, which is what of it keeps closest to
// the protocol. (Its SnapshotCache answers a wildcard "*" in the state of the
// world with nothing, sends everything to a client that dropped all its names,
// and goes silent where the names do not cover the snapshot.)
//
// What is known to be wrong with it, or is different on purpose, and must be
// allowed for by whoever compares:
//
//   - A delta subscribe for a resource that the client was sent at that version
//     is not answered, although the protocol demands it. That changes no state.
//   - A delta subscription to all that was made by an empty request does not end
//     with the unsubscribing of "*".
//   - A name that does not exist is not answered (delta), so nothing says that
//     it is not there; in the state of the world the answer is empty.
//   - What is gone of a type other than clusters and listeners is removed
//     (delta), which Envoy does not act on, or not mentioned (state of the
//     world). Nothing revokes an assignment, a route or an RBAC extension.
//   - A changed cluster is not followed by its assignment, so that Envoy waits
//     for one.
//   - A NACK is not looked at. In the state of the world, one of the first
//     response of a type is answered by the same response, as fast as the
//     client refuses; the Oracle takes that loop out, see requested.
//   - Nothing that a client refused is sent again, so that its good siblings
//     are not stated when the client returns.
//   - An empty first request means everything for every type; the Oracle
//     restricts that to clusters and listeners, as the protocol does.
type Oracle struct {
	caches [snapshot.NumTypes]*cachev3.LinearCache
}

// NewOracle makes an Oracle without resources.
func NewOracle() *Oracle {
	o := &Oracle{}
	for t := range o.caches {
		o.caches[t] = cachev3.NewLinearCache(snapshot.Type(t).URL(), cachev3.WithLogger(silence{}))
	}
	return o
}

// Set adds or replaces resources, those of one type at once.
func (o *Oracle) Set(rs ...*snapshot.Resource) error {
	var update [snapshot.NumTypes]map[string]types.Resource
	for _, r := range rs {
		m, err := (&anypb.Any{TypeUrl: r.Type().URL(), Value: r.Value()}).UnmarshalNew()
		if err != nil {
			return fmt.Errorf("decode %s %q for the stock server: %w", r.Type(), r.Name(), err)
		}
		if update[r.Type()] == nil {
			update[r.Type()] = map[string]types.Resource{}
		}
		update[r.Type()][r.Name()] = m
	}
	return o.update(update, [snapshot.NumTypes][]string{})
}

// Remove takes resources away.
func (o *Oracle) Remove(names ...snapshot.Child) error {
	var remove [snapshot.NumTypes][]string
	for _, n := range names {
		remove[n.Type] = append(remove[n.Type], n.Name)
	}
	return o.update([snapshot.NumTypes]map[string]types.Resource{}, remove)
}

func (o *Oracle) update(set [snapshot.NumTypes]map[string]types.Resource, remove [snapshot.NumTypes][]string) error {
	for t, cache := range o.caches {
		if len(set[t])+len(remove[t]) == 0 {
			continue
		}
		if err := cache.UpdateResources(set[t], remove[t]); err != nil {
			return fmt.Errorf("update the stock server's %s resources: %w", snapshot.Type(t), err)
		}
	}
	return nil
}

// Serve serves both flavours of ADS in the clear until ctx ends. It closes lis.
func (o *Oracle) Serve(ctx context.Context, lis net.Listener) error {
	caches := map[string]cachev3.Cache{}
	var others []string
	for t, cache := range o.caches {
		url := snapshot.Type(t).URL()
		caches[url] = cache
		if t := snapshot.Type(t); t != snapshot.Cluster && t != snapshot.Listener {
			others = append(others, url)
		}
	}
	mux := &cachev3.MuxCache{
		Classify:      func(r *discoveryv3.DiscoveryRequest) string { return r.GetTypeUrl() },
		ClassifyDelta: func(r *discoveryv3.DeltaDiscoveryRequest) string { return r.GetTypeUrl() },
		Caches:        caches,
	}
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	callbacks := serverv3.CallbackFuncs{StreamRequestFunc: requested}
	server := serverv3.NewServer(inner, mux, callbacks, sotwv3.WithOrderedADS(),
		sotwv3.WithLogger(silence{}), configv3.DeactivateLegacyWildcardForTypes(others))
	g := grpc.NewServer(grpc.WaitForHandlers(true))
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, server)
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	if err := g.Serve(lis); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve the stock server: %w", err)
	}
	g.Stop() // waits for the streams
	return nil
}

// requested breaks the loop between a client that refuses the first response of
// a type, and thus states no version, and a cache that answers all who do not.
func requested(_ int64, r *discoveryv3.DiscoveryRequest) error {
	if r.GetErrorDetail() != nil && r.GetVersionInfo() == "" {
		r.VersionInfo = "refused"
	}
	return nil
}

// silence is a logger of go-control-plane that says nothing.
type silence struct{}

func (silence) Debugf(string, ...any) {}
func (silence) Infof(string, ...any)  {}
func (silence) Warnf(string, ...any)  {}
func (silence) Errorf(string, ...any) {}
