package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/file"
	"bailiwick.dev/bailiwick/tenancy/kube"
	"bailiwick.dev/bailiwick/tenancy/object"
	"bailiwick.dev/bailiwick/tenancy/read"
)

// world answers from objects that were read once.
type world struct {
	events []tenancy.Event
	errors []*object.Error
	model  *tenancy.Model
	scope  read.Scope
	domain string
	// report is that of a directory, locate where its objects stand; nil for
	// others.
	report *file.Report
	locate func(tenancy.Ref) (file.Place, bool)
	// unreadable says what could not be read and may bear on namespaces; on
	// anybody, if none are given.
	unreadable func(namespaces ...string) []string
}

// newWorld makes the model of events. Whatever trust domains the tenants name
// are taken for accepted: which are is the server's to say.
func newWorld(events []tenancy.Event, clusterDomain string) *world {
	w := &world{events: events, scope: read.Platform(), domain: clusterDomain}
	w.model = tenancy.NewModel(tenancy.Config{ClusterDomain: clusterDomain, TrustDomains: domainsOf(events)})
	w.model.Tick(time.Now()) // what has ended is not honoured
	for _, ev := range events {
		w.model.Apply(ev)
	}
	return w
}

// domainsOf are the trust domains that tenants name.
func domainsOf(events []tenancy.Event) []string {
	var domains []string
	for _, ev := range events {
		if t, ok := ev.Object.(*tenancy.Tenant); ok {
			domains = append(domains, t.TrustDomain)
		}
	}
	return domains
}

// loadDirectory reads a directory once, as serve would at its start.
func loadDirectory(dir string, options object.Options, clusterDomain string) (*world, error) {
	source, err := file.New(file.Config{Dir: dir, Options: options, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	events, report := source.Load()
	w := newWorld(events, clusterDomain)
	w.report, w.errors, w.locate = &report, report.Errors, source.Locate
	w.unreadable = func(namespaces ...string) []string { return lostFiles(w, namespaces) }
	return w, nil
}

// lostFiles are the files that could be about namespaces and cannot be read:
// those of platform/, and those of the namespaces' tenants.
func lostFiles(w *world, namespaces []string) []string {
	var lost []string
	for _, ns := range w.report.HeldNamespaces {
		if len(namespaces) == 0 || slices.Contains(namespaces, ns) {
			lost = append(lost, "may not read the Namespace object of "+ns)
		}
	}
	held := func(tenant string) bool {
		return len(namespaces) == 0 || slices.ContainsFunc(namespaces, func(ns string) bool {
			of, ok := w.model.TenantOf(ns)
			return !ok || of == tenant
		})
	}
	concerns := func(path string) bool {
		for _, tenant := range w.report.Held {
			if strings.Contains(path, "/tenants/"+tenant+"/") {
				return held(tenant)
			}
		}
		return !w.report.Ready && !strings.Contains(path, "/tenants/")
	}
	for _, e := range w.errors {
		if e.Kind == "" && concerns(e.File) {
			lost = append(lost, "may not read "+e.File+": "+e.Message)
		}
	}
	return lost
}

// clusterPatience is how long an API server may take.
const clusterPatience = 15 * time.Second

// loadCluster reads the objects of an API server once.
func loadCluster(ctx context.Context, flags *sourceFlags, options object.Options, clusterDomain string) (*world, error) {
	config, err := flags.rest()
	if err != nil {
		return nil, err
	}
	const soon = 2 * time.Second
	source, err := kube.New(kube.Config{REST: config, Options: options, Logger: slog.New(slog.DiscardHandler), Tolerance: soon, Absence: soon, Retry: soon})
	if err != nil {
		return nil, err
	}
	running, stop := context.WithTimeout(ctx, clusterPatience)
	defer stop()
	taken := &taking{enough: stop}
	if err := source.Run(running, taken); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("read the objects of the API server: %w", err)
	}
	w := newWorld(taken.events, clusterDomain)
	report := source.State()
	w.errors = report.Errors
	w.unreadable = func(namespaces ...string) []string { return lostKinds(w, report, taken.synced, namespaces) }
	return w, nil
}

// lostKinds are the kinds that cannot be read, all of which may bear on
// anybody, and the objects whose absence would take something away.
func lostKinds(w *world, report kube.Report, synced bool, namespaces []string) []string {
	var lost []string
	for _, ns := range report.HeldNamespaces {
		if len(namespaces) == 0 || slices.Contains(namespaces, ns) {
			lost = append(lost, "may not read the Namespace object of "+ns)
		}
	}
	for _, tenant := range report.Held {
		if len(namespaces) == 0 || slices.ContainsFunc(namespaces, func(ns string) bool { return w.labelled(ns) == tenant }) {
			lost = append(lost, "may not read the Tenant object of "+tenant)
		}
	}
	if synced {
		return lost
	}
	for _, s := range report.Stale {
		lost = append(lost, "may not read "+s.Kind+": "+s.Reason)
	}
	if len(report.Stale) == 0 {
		lost = append(lost, "may not read the API server: it did not answer in time")
	}
	return lost
}

// labelled is the tenant that a Namespace object names.
func (w *world) labelled(namespace string) string {
	for _, ev := range w.events {
		if ns, ok := ev.Object.(*tenancy.Namespace); ok && ev.Ref.Key.Name == namespace {
			return ns.Tenant
		}
	}
	return ""
}

// taking is a kube.Sink that ends when all was read, or something cannot be.
type taking struct {
	enough func()
	events []tenancy.Event
	synced bool
}

// Apply implements kube.Sink.
func (t *taking) Apply(events []tenancy.Event) {
	if !t.synced {
		t.events = append(t.events, events...)
	}
}

// Report implements kube.Sink. A kind that is not served may yet be taken for
// one without objects.
func (t *taking) Report(r kube.Report) {
	if !r.Ready && slices.ContainsFunc(r.Stale, func(s kube.Stale) bool { return !s.Unserved }) {
		t.enough()
	}
}

// Synced implements kube.Sink.
func (t *taking) Synced() {
	t.synced = true
	t.enough()
}

func (w *world) reader() *read.Reader {
	var locate func(tenancy.Ref) string
	if w.locate != nil {
		locate = func(ref tenancy.Ref) string {
			place, ok := w.locate(ref)
			if !ok {
				return ""
			}
			return fmt.Sprintf("%s:%d", place.File, place.Line)
		}
	}
	return read.New(w.model, w.scope, w.domain, locate)
}

// Explain implements asked. Where something that bears on the call cannot be
// read, the answer is not known.
func (w *world) Explain(_ context.Context, q read.Question) (read.Answer, error) {
	a := w.reader().Explain(q)
	involved := []string{q.Namespace}
	if !q.Plaintext {
		involved = append(involved, q.From.Namespace)
	}
	if lost := w.unreadable(involved...); len(lost) > 0 {
		a = read.Answer{From: a.From, To: a.To, Verdict: read.Unknown, Visible: read.Unknown, Why: "what may not be read may decide it", Unknown: lost}
	}
	return a, nil
}

// Matrix implements asked.
func (w *world) Matrix(context.Context) (read.Matrix, error) {
	if lost := w.unreadable(); len(lost) > 0 {
		return read.Matrix{}, unknown(lost)
	}
	return w.reader().Matrix(), nil
}

// unknown is the error where there is no answer without what may not be read.
func unknown(lost []string) error {
	return unknownError{errors.New("unknown: " + strings.Join(lost, "; "))}
}

// unknownError ends a command with exitUnknown.
type unknownError struct{ error }

// Whoami implements asked.
func (w *world) Whoami(context.Context) (read.Whoami, error) {
	who, ok := w.reader().Whoami()
	if !ok {
		return who, fmt.Errorf("no such tenant: give --tenant NAME of one that there is")
	}
	return who, nil
}

// Close implements asked.
func (w *world) Close() error { return nil }
