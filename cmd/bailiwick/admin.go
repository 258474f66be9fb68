package main

import (
	"context"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/tenancy/guard"
	"bailiwick.dev/bailiwick/xds"
)

// adminPatience bounds how long an answer waits for the publisher.
const adminPatience = 10 * time.Second

// proxyStatus is one stream, as the admin address and "bailiwick proxies" say it.
type proxyStatus struct {
	Replica   string    `json:"replica"`
	Stream    uint64    `json:"stream"`
	Tenant    string    `json:"tenant"`
	Namespace string    `json:"namespace"`
	Pod       string    `json:"pod"`
	Workload  string    `json:"workload"`
	Protocol  string    `json:"protocol"`
	Opened    time.Time `json:"opened"`
	// Sent, Acked and Nacked count responses, of all types.
	Sent   uint64 `json:"sent"`
	Acked  uint64 `json:"acked"`
	Nacked uint64 `json:"nacked"`
	// Unanswered are the types of what has no answer yet, with the time of the
	// oldest; Behind says that more waits to be sent.
	Unanswered map[string]time.Time `json:"unanswered,omitempty"`
	Behind     bool                 `json:"behind,omitempty"`
	Refused    []refusal            `json:"refused,omitempty"`
}

// refusal is content that a proxy does not take.
type refusal struct {
	Type     string   `json:"type"`
	Resource string   `json:"resource"`
	Version  string   `json:"version"`
	Parts    []string `json:"parts,omitempty"`
	Detail   string   `json:"detail"`
	Origins  []string `json:"origins"`
}

func proxyOf(replica string, st *xds.StreamStatus) proxyStatus {
	p := proxyStatus{
		Replica: replica, Stream: st.ID, Tenant: st.Tenant, Namespace: st.Workload.Namespace, Pod: st.Pod,
		Workload: st.Workload.String(), Protocol: st.Protocol, Opened: st.Opened.UTC(), Behind: st.Behind,
	}
	for t := range st.Types {
		ts := &st.Types[t]
		p.Sent, p.Acked, p.Nacked = p.Sent+ts.Sent, p.Acked+ts.Acked, p.Nacked+ts.Nacked
		if len(ts.Unanswered) == 0 {
			continue
		}
		if p.Unanswered == nil {
			p.Unanswered = map[string]time.Time{}
		}
		p.Unanswered[snapshot.Type(t).String()] = ts.Unanswered[0].Since.UTC()
	}
	for _, r := range st.Refused {
		out := refusal{Type: r.Type.String(), Resource: r.Resource, Version: r.Version, Parts: r.Parts, Detail: r.Detail, Origins: []string{}}
		for _, o := range r.Origins {
			out.Origins = append(out.Origins, snapshot.OriginString(o))
		}
		p.Refused = append(p.Refused, out)
	}
	return p
}

func (s *server) proxies() []proxyStatus {
	streams := s.xds.Streams()
	out := make([]proxyStatus, 0, len(streams))
	for i := range streams {
		out = append(out, proxyOf(s.keeper.replica, &streams[i]))
	}
	return out
}

// proxyDump is what one Pod's proxies have to do with this server.
type proxyDump struct {
	Streams []proxyStatus        `json:"streams"`
	Given   []snapshot.ProxyDump `json:"given"`
}

// statuses is what the server says of objects.
type statuses struct {
	Objects []objectStatus `json:"objects"`
	// Held are objects whose removal waits to be confirmed.
	Held []guard.Held `json:"held"`
}

type objectStatus struct {
	Kind       string             `json:"kind"`
	Namespace  string             `json:"namespace,omitempty"`
	Name       string             `json:"name"`
	Conditions []metav1.Condition `json:"conditions"`
}

func (s *server) statuses(ctx context.Context) (statuses, error) {
	if err := s.keeper.pass(ctx); err != nil {
		return statuses{}, err
	}
	out := statuses{Objects: []objectStatus{}, Held: s.feed.guard.Held()}
	for _, said := range s.feed.board.All() {
		out.Objects = append(out.Objects, objectStatus{said.Ref.Kind.String(), said.Ref.Key.Namespace, said.Ref.Key.Name, said.Conditions})
	}
	return out, nil
}

// confirmed is the answer to a confirmation.
type confirmed struct {
	Objects int `json:"objects"`
}

// adminHandler answers on the admin address, which is the platform's alone.
func (s *server) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /dump", answer(func(ctx context.Context, _ *http.Request) (any, error) { return s.publisher.Dump(ctx) }))
	mux.HandleFunc("GET /source", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.objects.state()) })
	mux.HandleFunc("GET /streams", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.xds.Streams()) })
	mux.HandleFunc("GET /proxies", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.proxies()) })
	mux.HandleFunc("GET /proxies/{namespace}/{pod}", answer(func(ctx context.Context, r *http.Request) (any, error) {
		d := proxyDump{Streams: s.proxies()}
		d.Streams = slices.DeleteFunc(d.Streams, func(p proxyStatus) bool {
			return p.Namespace != r.PathValue("namespace") || p.Pod != r.PathValue("pod")
		})
		var err error
		d.Given, err = s.publisher.DumpPod(ctx, r.PathValue("namespace"), r.PathValue("pod"), snapshot.Wanted{
			Type: r.FormValue("type"), Name: r.FormValue("name"), Contents: r.FormValue("contents") != "",
		})
		return d, err
	}))
	mux.HandleFunc("GET /status", answer(func(ctx context.Context, _ *http.Request) (any, error) { return s.statuses(ctx) }))
	mux.HandleFunc("POST /confirm", func(w http.ResponseWriter, r *http.Request) {
		// A page in somebody's browser must not be able to.
		if r.Header.Get("Origin") != "" || !strings.HasPrefix(r.Header.Get("User-Agent"), userAgent) {
			http.Error(w, "only bailiwick confirm may", http.StatusForbidden)
			return
		}
		answer(func(ctx context.Context, _ *http.Request) (any, error) {
			if err := s.objects.confirm(ctx); err != nil {
				return nil, err
			}
			return confirmed{s.feed.guard.Confirm(time.Now().Add(time.Millisecond))}, nil
		})(w, r)
	})
	return mux
}

// answer is a handler that may have to wait for the publisher.
func answer(f func(context.Context, *http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), adminPatience)
		defer cancel()
		v, err := f(ctx, r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		writeJSON(w, v)
	}
}
