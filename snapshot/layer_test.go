package snapshot

import (
	"fmt"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"bailiwick.dev/bailiwick/identity"
)

func resource(t testing.TB, typ Type, name string, content int) *Resource {
	t.Helper()
	r, err := NewResource(typ, name, wrapperspb.Int64(int64(content)), nil, nil)
	require.NoError(t, err)
	return r
}

func attach(view, listeners, workload *Layer) *Attachment {
	a := NewAttachment(Proxy{Workload: identity.Workload{TrustDomain: "a", Namespace: "b", ServiceAccount: "c"}},
		func(a *Attachment) { a.Bind(nil) })
	a.Bind(&Binding{Tenant: "t", View: view, Listeners: listeners, Workload: workload})
	return a
}

// reader is a stream as the layer knows it: what it has, from which generation.
type reader struct {
	att *Attachment
	gen uint64
	has map[string]string
}

func (r *reader) catchUp(t require.TestingT) {
	r.att.Read(func(b *Binding) {
		ok := b.View.Since(Cluster, r.gen, func(name string, res *Resource) {
			if res == nil {
				delete(r.has, name)
			} else {
				r.has[name] = res.Version()
			}
		})
		require.True(t, ok, "the layer forgot generation %d that a reader still needs", r.gen)
		r.gen = b.View.Generation()
		r.att.Keep(b, Generations{Outbound: r.gen, Inbound: b.Workload.Generation()})
	})
}

func TestLayerTellsEveryReaderExactlyWhatChanged(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		view, listeners := NewView()
		var readers []*reader
		want := map[string]string{}
		for range rapid.IntRange(1, 400).Draw(rt, "steps") {
			switch rapid.IntRange(0, 6).Draw(rt, "op") {
			case 0:
				readers = append(readers, &reader{att: attach(view, listeners, NewWorkload()), has: map[string]string{}})
				readers[len(readers)-1].catchUp(rt)
			case 1:
				if len(readers) > 0 {
					readers[rapid.IntRange(0, len(readers)-1).Draw(rt, "reader")].catchUp(rt)
				}
			default:
				name := fmt.Sprintf("n%d", rapid.IntRange(0, 5).Draw(rt, "name"))
				u := Update{Layer: view}
				if rapid.Bool().Draw(rt, "remove") {
					u.Remove = []Child{{Cluster, name}}
					delete(want, name)
				} else {
					r := resource(t, Cluster, name, rapid.IntRange(0, 2).Draw(rt, "content"))
					u.Set = []*Resource{r}
					want[name] = r.Version()
				}
				Publish(u)
			}
		}
		for _, r := range readers {
			r.catchUp(rt)
			require.True(rt, maps.Equal(want, r.has), "want %v, reader has %v", want, r.has)
		}
		require.LessOrEqual(rt, len(view.tables[Cluster].log), 2*len(view.tables[Cluster].entries)+logSlack+1,
			"the log is trimmed once all readers caught up")
	})
}

func TestEqualContentIsNoChange(t *testing.T) {
	view, listeners := NewView()
	a := attach(view, listeners, NewWorkload())
	require.True(t, Publish(Update{Layer: view, Set: []*Resource{resource(t, Cluster, "a", 1)}}))
	<-a.Wake()
	require.False(t, Publish(Update{Layer: view, Set: []*Resource{resource(t, Cluster, "a", 1)}}))
	require.False(t, Publish(Update{Layer: view, Remove: []Child{{Cluster, "unknown"}}}))
	select {
	case <-a.Wake():
		t.Fatal("woken although nothing changed")
	default:
	}
}

func TestOnePublicationIsOneGenerationOverLayersAndTypes(t *testing.T) {
	view, listeners := NewView()
	a := attach(view, listeners, NewWorkload())
	var before uint64
	a.Read(func(b *Binding) { before = b.View.Generation() })
	Publish(
		Update{Layer: view, Set: []*Resource{resource(t, Cluster, "a", 1), resource(t, Route, "r", 1)}},
		Update{Layer: listeners, Set: []*Resource{resource(t, Listener, "l", 1)}},
	)
	a.Read(func(b *Binding) {
		require.Equal(t, before+1, b.View.Generation())
		require.Equal(t, before+1, b.Listeners.Generation())
		require.True(t, b.View.Changed(Cluster, before))
		require.True(t, b.Listeners.Changed(Listener, before))
		require.False(t, b.View.Changed(Endpoint, before))
	})
}

func TestReaderBeyondTheTombstonesIsToldSo(t *testing.T) {
	view, listeners := NewView()
	a := attach(view, listeners, NewWorkload())
	var start uint64
	a.Read(func(b *Binding) {
		start = b.View.Generation()
		a.Keep(b, Generations{Outbound: start, Inbound: 1})
	})
	for i := range 3 * maxTombstones {
		name := fmt.Sprint(i)
		Publish(Update{Layer: view, Set: []*Resource{resource(t, Cluster, name, 1)}})
		Publish(Update{Layer: view, Remove: []Child{{Cluster, name}}})
	}
	a.Read(func(b *Binding) {
		require.False(t, b.View.Since(Cluster, start, func(string, *Resource) { t.Fatal("called") }))
	})
	require.Less(t, len(view.tables[Cluster].gone), 2*maxTombstones)
}

func TestDeltaAndStateFramesHoldTheSameAny(t *testing.T) {
	r := resource(t, Endpoint, "e", 7)
	require.Equal(t, r.StateFrame(), r.DeltaFrame()[len(r.DeltaFrame())-len(r.StateFrame()):])
	require.Len(t, r.Version(), 22)
}
