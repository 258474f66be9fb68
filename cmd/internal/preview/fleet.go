package preview

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/read"
)

// State is a mesh at one time.
type State struct {
	Matrix read.Matrix
	// proxies are what Pods get, by namespace/name.
	proxies map[string]layers
}

// layers are what one proxy is given, in parts that proxies share.
type layers [3]*content

// shared is a layer with what stands before it.
type shared struct{ layer, near *snapshot.Layer }

// content is one layer. Proxies that share a layer share its content.
type content struct {
	tenant    string
	resources map[resource]*snapshot.Resource
}

type resource struct {
	typ  snapshot.Type
	name string
}

// StateOf builds what the proxies get after the events. A placeholder stands for
// the bundle of each of the configuration's trust domains.
func StateOf(ctx context.Context, events []tenancy.Event, config tenancy.Config) (*State, error) {
	trusted, err := bundles(config.TrustDomains)
	if err != nil {
		return nil, err
	}
	events = slices.Concat(trusted, events)
	model := tenancy.NewModel(config)
	var pods []snapshot.Proxy
	s := &State{proxies: map[string]layers{}}
	model.Tick(time.Now()) // what has ended is not honoured
	// The publisher applies the same events again, which then change nothing.
	for _, ev := range events {
		model.Apply(ev)
	}
	s.Matrix = read.New(model, read.Platform(), config.ClusterDomain, nil).Matrix()
	for _, ev := range events {
		if pod, ok := ev.Object.(*tenancy.Pod); ok {
			if p, ok := proxyOf(model, ev.Ref.Key, pod); ok {
				pods = append(pods, p)
			}
		}
	}
	publisher, err := snapshot.NewPublisher(snapshot.Config{
		Model: model, Builder: snapshot.NewBuilder(snapshot.BuilderConfig{ClusterDomain: config.ClusterDomain}), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { // ends with stop
		defer close(ended)
		_ = publisher.Run(running) // the end of its context is no error
	}()
	defer func() {
		stop()
		<-ended
	}()
	publisher.Apply(events)
	publisher.Synced()
	seen := map[shared]*content{}
	for _, p := range pods {
		if err := s.attach(ctx, publisher, p, seen); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// proxyOf is the proxy that a Pod could have.
func proxyOf(model *tenancy.Model, key tenancy.Key, pod *tenancy.Pod) (snapshot.Proxy, bool) {
	tenant, ok := model.TenantOf(key.Namespace)
	if !ok {
		return snapshot.Proxy{}, false
	}
	w := identity.Workload{TrustDomain: model.Settings(tenant).TrustDomain, Namespace: key.Namespace, ServiceAccount: pod.ServiceAccount}
	_, _, ok = model.Select(key, w)
	return snapshot.Proxy{Workload: w, Pod: key.Name}, ok
}

func (s *State) attach(ctx context.Context, publisher *snapshot.Publisher, p snapshot.Proxy, seen map[shared]*content) error {
	a := publisher.Attach(p)
	defer a.Close()
	for {
		var got layers
		if a.Read(func(b *snapshot.Binding) {
			for i, part := range []shared{{b.View, b.Near}, {b.Listeners, nil}, {b.Workload, nil}} {
				if seen[part] == nil {
					seen[part] = contentOf(b.Tenant, part)
				}
				got[i] = seen[part]
			}
		}) {
			s.proxies[p.Workload.Namespace+"/"+p.Pod] = got
			return nil
		}
		select {
		case <-a.Wake():
		case <-ctx.Done():
			return fmt.Errorf("build what proxies get: %w", ctx.Err())
		}
	}
}

func contentOf(tenant string, part shared) *content {
	c := &content{tenant: tenant, resources: map[resource]*snapshot.Resource{}}
	for t := range snapshot.NumTypes {
		for _, layer := range []*snapshot.Layer{part.layer, part.near} {
			layer.All(t, func(r *snapshot.Resource) { c.resources[resource{t, r.Name()}] = r })
		}
	}
	return c
}

// names are the clusters of the first layer, which is the view.
func (l layers) clusters() []string {
	var names []string
	for r := range l[0].resources {
		if r.typ == snapshot.Cluster {
			names = append(names, r.name)
		}
	}
	slices.Sort(names)
	return names
}

// What security says.
const (
	mutual = "mTLS"
	plain  = "plain"
)

// security is how a cluster of the view is called: with mTLS it needs a bundle.
func (l layers) security(cluster string) string {
	r := l[0].resources[resource{snapshot.Cluster, cluster}]
	if r != nil && slices.ContainsFunc(r.Children(), func(c snapshot.Child) bool { return c.Type == snapshot.Secret }) {
		return mutual
	}
	return plain
}
