package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == childWord {
		exit(runChild(os.Args[2]))
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exit(command(ctx))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// scenario is one thing to measure.
type scenario struct {
	name, what string
	run        func(context.Context, *run) error
}

// scenarios in the order in which they are run.
var scenarios = []scenario{
	{"fanout", "one body to many streams, beside the stock server and raw TLS", fanout},
	{"endpoint", "an endpoint changes, until the last client that sees it has it", endpointScenario},
	{"service", "a service with its Pods is added, likewise", serviceScenario},
	{"source", "both over a real API server, beside a bare watch", sourceScenario},
	{"burst", "a rolling restart under several settings of the debounce", burstScenario},
	{"tenants", "a change while the number of tenants grows", tenantsScenario},
	{"routes", "a service is added while its tenant's services grow", routesScenario},
	{"noisy", "a quiet tenant while another one floods", noisy},
	{"reconnect", "clients connect, and come back to a restarted server", reconnect},
	{"idle", "memory of a stream that has nothing to say", idle},
	{"size", "what a client is sent, scoped and unscoped, and what Envoy needs for it", sizeScenario},
	{"policy", "a policy is taken away, until Envoy refuses", policyScenario},
	{"scale", "a large mesh: first load, memory, and the cost of a change", scaleScenario},
}

// sizes are how much of everything there is.
type sizes struct {
	small, large             shape
	clients                  int // of each tenant of small
	changes, floodChanges    int
	streams                  int // of scale, reconnect and idle
	fanout                   []int
	fanoutStreams            int
	pushes                   func(body int, kind string) int
	unscoped                 []int // services of the mesh of one tenant
	policies, largestChanges int
	burst                    shape
	burstEvery               time.Duration
	tenants, routes          []int
	routeChanges             int
}

func fullSizes() sizes {
	return sizes{
		small: shape{Tenants: 100, Services: 10, Endpoints: 5}, large: shape{Tenants: 1000, Services: 100, Endpoints: 5},
		clients: 2, changes: 300, floodChanges: 300, streams: 2000,
		fanout: []int{1 << 10, 50 << 10, 1 << 20}, fanoutStreams: 1000, pushes: pushes,
		unscoped: []int{1000, 10000}, policies: 300, largestChanges: 300,
		burst: shape{Tenants: 2, Services: 10, Endpoints: 50}, burstEvery: 10 * time.Millisecond,
		tenants: []int{10, 100, 1000}, routes: []int{10, 30, 100, 300, 1000}, routeChanges: 30,
	}
}

// run is one run of scenarios.
type run struct {
	sizes
	report *Report
	// work is a folder of the run's own; the authority is in it.
	work      string
	authority *identity.Authority
	// profile is the folder of profiles, empty for none.
	profile          string
	scenario         string
	part             string // of the scenario, in the names of profiles
	envoy, bailiwick string
	kubernetes       bool
	emptyRSS         int64 // of an Envoy without configuration
	log              func(format string, args ...any)
}

func (r *run) add(f Figure) {
	f.Scenario = r.scenario
	if f.N == 0 {
		f.N = 1
	}
	r.report.Figures = append(r.report.Figures, f)
	r.log("  %-34s %-44s %10s %10s %s", f.Case, named(f), number(f.P50), number(f.P99), f.Target)
}

// profileOf is where a child's profile goes.
func (r *run) profileOf(role string) string {
	if r.profile == "" {
		return ""
	}
	return filepath.Join(r.profile, r.scenario+r.part+"-"+role)
}

func command(ctx context.Context) error {
	only := flag.String("scenario", "", "`NAME`s of scenarios, separated by commas; all if empty")
	out := flag.String("out", "", "`FILE` for the report as JSON")
	drawings := flag.String("plots", "", "`DIR` for the figures as SVG")
	readme := flag.String("readme", "", "`FILE` whose marked tables are to be those of this report")
	earlier := flag.String("report", "", "JSON `FILE` of an earlier run: print and draw it instead of running anything")
	profile := flag.String("profile", "", "`DIR` for CPU and heap profiles of servers and clients; it slows them down")
	envoy := flag.String("envoy", os.Getenv("ENVOY"), "Envoy `BINARY` of policy and size, which are left out without one")
	bailiwick := flag.String("bailiwick", "bin/bailiwick", "bailiwick `BINARY` of policy")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: bench [flags]")
		flag.PrintDefaults()
		for _, s := range scenarios {
			fmt.Fprintf(flag.CommandLine.Output(), "  %-10s %s\n", s.name, s.what)
		}
	}
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		return fmt.Errorf("unknown argument %q", flag.Arg(0))
	}
	if *earlier != "" {
		report, err := readReport(*earlier)
		if err != nil {
			return err
		}
		return report.put("", *drawings, *readme)
	}
	names := strings.FieldsFunc(*only, func(r rune) bool { return r == ',' })
	for _, n := range names {
		if !slices.ContainsFunc(scenarios, func(s scenario) bool { return s.name == n }) {
			return fmt.Errorf("no scenario is called %q", n)
		}
	}
	r, err := newRun(fullSizes())
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(r.work) }()
	if *profile != "" {
		if r.profile, err = filepath.Abs(*profile); err != nil {
			return fmt.Errorf("find the folder of profiles: %w", err)
		}
		if err := os.MkdirAll(r.profile, 0o755); err != nil {
			return fmt.Errorf("make the folder of profiles: %w", err)
		}
	}
	r.envoy, r.bailiwick, r.kubernetes = *envoy, *bailiwick, kubetest.Available()
	r.log = func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
	err = r.all(ctx, names)
	return errors.Join(err, r.report.put(*out, *drawings, *readme))
}

// newRun makes a run with an authority of its own.
func newRun(s sizes) (*run, error) {
	work, err := os.MkdirTemp("", "bailiwick-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the run: %w", err)
	}
	r := &run{sizes: s, work: work, report: &Report{Machine: thisMachine()}, log: func(string, ...any) {}}
	if r.authority, err = identity.NewAuthority(trustDomain); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(caDir(work), 0o700); err != nil {
		return nil, fmt.Errorf("make a folder for the authority: %w", err)
	}
	return r, r.authority.Save(caDir(work))
}

// all runs scenarios one after the other. One that fails does not stop the
// others.
func (r *run) all(ctx context.Context, names []string) error {
	began := time.Now()
	var failed error
	for _, s := range scenarios {
		if len(names) > 0 && !slices.Contains(names, s.name) || ctx.Err() != nil {
			continue
		}
		r.scenario = s.name
		r.log("%s: %s", s.name, s.what)
		start := time.Now()
		if err := s.run(ctx, r); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", s.name, err))
			r.log("  failed: %v", err)
		}
		r.log("  %v", time.Since(start).Round(100*time.Millisecond))
	}
	r.report.Took = time.Since(began)
	return errors.Join(failed, ctx.Err())
}
