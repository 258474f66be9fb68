package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/guard"
	"bailiwick.dev/bailiwick/tenancy/kube/status"
	"bailiwick.dev/bailiwick/tenancy/kube/steward"
	"bailiwick.dev/bailiwick/tenancy/object"
	"bailiwick.dev/bailiwick/xds"
)

// serveConfig is what the flags of serve say.
type serveConfig struct {
	sourceFlags
	xdsAddress    string
	healthAddress string
	adminAddress  string
	cert, key     string
	bundles       []string
	workloadAPI   string
	trustDomains  []string
	clusterDomain string
	expiryGrace   time.Duration
	// identityHeader is what tells applications who calls.
	identityHeader string
	proxySVID      string
	probeSources   []string
	jwksCAFile     string
	jwksAllow      []string
	allowLoopback  bool
	bindToPodIP    bool
	svidMaxTTL     time.Duration
	quiet, max     time.Duration
	maxRemoval     float64
	replicaFlags
	logLevel  string
	logFormat string
}

func newServeCommand() *cobra.Command {
	var c serveConfig
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve every proxy exactly what its tenant may know",
		Long: `Serve watches services and tenant policies, in a directory (--config-dir) or an
API server of Kubernetes (--kubeconfig, --in-cluster), and serves Envoy sidecars over ADS
with mutual TLS. A proxy's tenant follows from its certificate alone.

The server's own certificate comes from files (--cert, --key, --trust-bundle),
which are watched and may be rotated at any time, or from a SPIFFE Workload API
(--workload-api). It becomes ready (/readyz) after the first complete load and
begins to answer proxies only then.`,
		Example: `  # from a directory, with certificates in files
  bailiwick serve --config-dir ./mesh \
      --cert svid/cert.pem --key svid/key.pem \
      --trust-bundle acme.example=acme.pem --trust-bundle globex.example=globex.pem

  # from Kubernetes, outside of the cluster
  bailiwick serve --kubeconfig ~/.kube/config --context test \
      --cert svid/cert.pem --key svid/key.pem --trust-bundle acme.example=acme.pem

  # with a certificate from SPIRE's agent
  bailiwick serve --config-dir ./mesh --workload-api unix:///run/spire/agent.sock \
      --trust-domain acme.example --trust-domain globex.example`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&c.configDir, "config-dir", "", "directory `DIR` with platform/ and tenants/<name>/ to watch")
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig `FILE` of the API server to watch")
	f.StringVar(&c.context, "context", "", "context `NAME` of the kubeconfig (default: its current one)")
	f.BoolVar(&c.inCluster, "in-cluster", false, "watch the API server of the cluster that this is a Pod of")
	f.StringVar(&c.xdsAddress, "xds-address", "127.0.0.1:18000", "`ADDRESS` that proxies connect to")
	f.StringVar(&c.healthAddress, "health-address", "127.0.0.1:18001", "`ADDRESS` of /healthz, /readyz and /metrics")
	f.StringVar(&c.adminAddress, "admin-address", "", "`ADDRESS` of pprof and dumps: loopback, or unix:/PATH; off if empty")
	f.StringVar(&c.cert, "cert", "", "certificate chain `FILE` of the server's SVID (PEM)")
	f.StringVar(&c.key, "key", "", "private key `FILE` of the server's SVID (PEM)")
	f.StringArrayVar(&c.bundles, "trust-bundle", nil, "`TD=FILE` with the CA certificates of a trust domain (PEM); may be repeated")
	f.StringVar(&c.workloadAPI, "workload-api", "", "SPIFFE Workload API `SOCKET` to take certificate and bundles from")
	f.StringArrayVar(&c.trustDomains, "trust-domain", nil, "trust domain `TD` whose workloads may connect; may be repeated (default: those with a --trust-bundle)")
	f.StringVar(&c.clusterDomain, "cluster-domain", "cluster.local", "`DOMAIN` that service names end in")
	f.StringVar(&c.identityHeader, "identity-header", snapshot.DefaultIdentityHeader, "`NAME` of the header that tells applications the caller's SPIFFE ID")
	f.StringSliceVar(&c.probeSources, "probe-source", nil, "`CIDR` that kubelets' connections to Pods come from, where that is not the node's address (status.hostIP); may be repeated. Whoever is there may ask what Pods' probes ask, without a certificate")
	f.StringVar(&c.jwksCAFile, "jwks-ca-file", snapshot.DefaultJWKSCAFile, "`FILE` at the proxies with the authorities that their system trusts, for issuers' keys that they fetch (Tenant: jwksUri)")
	f.StringSliceVar(&c.jwksAllow, "jwks-allow-cidr", nil, "private `CIDR` that proxies may fetch issuers' keys from; may be repeated (default: public addresses only)")
	f.StringVar(&c.proxySVID, "proxy-svid", "file", "where proxies have their certificate: file (svid/sds.json in Envoy's working directory) or sds (the bootstrap's cluster sds)")
	f.BoolVar(&c.allowLoopback, "allow-loopback-endpoints", false, "accept endpoints on 127.0.0.0/8 and ::1, for many proxies on one host")
	f.BoolVar(&c.bindToPodIP, "bind-stream-to-pod-ip", false, "refuse proxies that do not connect from an address of a Pod of their identity; not with a proxy or NAT in between, nor for Pods on the host's network")
	f.DurationVar(&c.svidMaxTTL, "svid-max-ttl", 24*time.Hour, "longest life of a workload's certificate: for so long a namespace is nobody's after it went to another tenant of its trust domain or was made again; 0 turns that off")
	f.DurationVar(&c.expiryGrace, "expiry-grace", time.Hour, "for how long at most what has ended (expiresAt) is kept while the API server cannot be followed")
	f.DurationVar(&c.quiet, "debounce-quiet", snapshot.DefaultQuiet, "how long a tenant's burst must pause before it is built")
	f.DurationVar(&c.max, "debounce-max", snapshot.DefaultMax, "how long a tenant's burst may be gathered at most")
	f.Float64Var(&c.maxRemoval, "max-removal", guard.DefaultShare, "`SHARE` of the objects of a kind (above 20 objects) whose removal at once is held until confirmed; 1 holds Tenants only")
	c.add(f)
	f.StringVar(&c.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&c.logFormat, "log-format", "text", "text or json")
	return cmd
}

func (c *serveConfig) run(cmd *cobra.Command) error {
	log, err := newLogger(cmd.ErrOrStderr(), c.logLevel, c.logFormat)
	if err != nil {
		return err
	}
	if err := c.check(); err != nil {
		return err
	}
	src, err := c.svidSource(cmd.Context(), log)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	s, err := c.assemble(src, log)
	if err != nil {
		return err
	}
	return s.run(cmd.Context())
}

// check refuses what can be seen to be wrong before anything starts.
func (c *serveConfig) check() error {
	if err := c.sourceFlags.check(); err != nil {
		return err
	}
	if c.workloadAPI != "" && (c.cert != "" || c.key != "" || len(c.bundles) > 0) {
		return usageError{errors.New("--workload-api and --cert, --key, --trust-bundle exclude each other: give one of them")}
	}
	if c.workloadAPI == "" && (c.cert == "" || c.key == "" || len(c.bundles) == 0) {
		return usageError{errors.New("no certificate: give --cert, --key and --trust-bundle, or --workload-api")}
	}
	if c.workloadAPI != "" && len(c.trustDomains) == 0 {
		return usageError{errors.New("--workload-api needs --trust-domain: federated bundles admit nobody by themselves")}
	}
	if c.expiryGrace < 0 {
		return usageError{fmt.Errorf("--expiry-grace %v: want 0 or more", c.expiryGrace)}
	}
	if err := snapshot.CheckIdentityHeader(c.identityHeader); err != nil {
		return usageError{fmt.Errorf("--identity-header: %w", err)}
	}
	if c.quiet <= 0 || c.max < c.quiet {
		return usageError{fmt.Errorf("--debounce-quiet %v and --debounce-max %v: want 0 < quiet <= max", c.quiet, c.max)}
	}
	if c.svidMaxTTL < 0 {
		return usageError{fmt.Errorf("--svid-max-ttl %v: want a duration of 0 or more", c.svidMaxTTL)}
	}
	if c.maxRemoval <= 0 || c.maxRemoval > 1 {
		return usageError{fmt.Errorf("--max-removal %v: want a share above 0, up to 1", c.maxRemoval)}
	}
	if c.proxySVID != "file" && c.proxySVID != "sds" {
		return usageError{fmt.Errorf("--proxy-svid %q: want file or sds", c.proxySVID)}
	}
	if err := c.replicaFlags.check(); err != nil {
		return err
	}
	return c.checkAdmin()
}

func (c *serveConfig) svidSource(ctx context.Context, log *slog.Logger) (identity.Source, error) {
	if c.workloadAPI != "" {
		return identity.NewWorkloadAPISource(ctx, c.workloadAPI, log)
	}
	files := map[string]string{}
	for _, b := range c.bundles {
		td, file, ok := strings.Cut(b, "=")
		if !ok || td == "" || file == "" {
			return nil, usageError{fmt.Errorf("--trust-bundle %q: want TD=FILE, such as acme.example=acme.pem", b)}
		}
		if _, twice := files[td]; twice {
			return nil, usageError{fmt.Errorf("--trust-bundle: trust domain %q is given twice", td)}
		}
		files[td] = file
	}
	if len(c.trustDomains) == 0 {
		for td := range files {
			c.trustDomains = append(c.trustDomains, td)
		}
		slices.Sort(c.trustDomains)
	}
	for _, td := range c.trustDomains {
		if files[td] == "" {
			return nil, usageError{fmt.Errorf("--trust-domain %q has no --trust-bundle %s=FILE", td, td)}
		}
	}
	return identity.NewFileSource(identity.FileConfig{CertFile: c.cert, KeyFile: c.key, Bundles: files, Logger: log})
}

// server is everything that serve runs, made but not started.
type server struct {
	config    *serveConfig
	log       *slog.Logger
	svid      identity.Source
	registry  *prometheus.Registry
	publisher *snapshot.Publisher
	xds       *xds.Server
	objects   source
	freshness freshness
	feed      *feed
	keeper    *keeper
	// fleet is nil where statuses are not written.
	fleet     *status.Fleet
	steward   *steward.Steward
	ledger    *steward.Ledger
	listeners struct{ xds, health, admin net.Listener }
	// draining is closed when no proxy should come any more; set by run.
	draining <-chan struct{}
}

// podPatience is none for a directory, which comes as a whole.
func (c *serveConfig) podPatience() time.Duration {
	if c.configDir != "" {
		return 0
	}
	return tenancy.PodPatience
}

func (c *serveConfig) assemble(src identity.Source, log *slog.Logger) (*server, error) {
	s := &server{config: c, log: log, svid: src, registry: prometheus.NewRegistry()}
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	svid := snapshot.FileSVID
	probes, err := parseCIDRs("--probe-source", c.probeSources)
	if err != nil {
		return nil, err
	}
	keysAt, err := parseCIDRs("--jwks-allow-cidr", c.jwksAllow)
	if err != nil {
		return nil, err
	}
	if c.proxySVID == "sds" {
		svid = snapshot.SDSSVID
	}
	board := c.board()
	s.publisher, err = snapshot.NewPublisher(snapshot.Config{
		Model: tenancy.NewModel(tenancy.Config{
			ClusterDomain: c.clusterDomain, TrustDomains: c.trustDomains, Limits: tenancy.DefaultLimits(),
			SVIDMaxTTL: c.svidMaxTTL, ExpiryGrace: c.expiryGrace, PodPatience: c.podPatience(),
		}),
		Builder: snapshot.NewBuilder(snapshot.BuilderConfig{
			ClusterDomain: c.clusterDomain, ProxySVID: svid, IdentityHeader: c.identityHeader, ProbeSources: probes,
			JWKSCAFile: c.jwksCAFile, JWKSAddresses: keysAt,
		}),
		Logger:     log,
		Registerer: s.registry,
		Quiet:      c.quiet, Max: c.max,
		Problems: board.Problems,
		Holdings: func(changed map[string][]tenancy.Held) { s.ledger.Note(changed) },
	})
	if err != nil {
		return nil, fmt.Errorf("make publisher: %w", err)
	}
	s.ledger = steward.NewLedger(s.publisher.Ready())
	s.xds, err = xds.NewServer(xds.Config{
		Store: s.publisher, Logger: log, Registerer: s.registry, Limits: s.publisher.Limits, BindToPodIP: c.bindToPodIP,
		Ask: s.publisher, ClusterDomain: c.clusterDomain, Fresh: s.freshness.fresh,
		MaxStreams: c.maxStreams, MaxStreamAge: c.maxStreamAge, Drain: c.drain,
	})
	if err != nil {
		return nil, fmt.Errorf("make xDS server: %w", err)
	}
	if err := s.keep(board); err != nil {
		return nil, err
	}
	s.objects, err = c.open(s.options(), log, s.registry)
	if err != nil {
		return nil, err
	}
	return s, s.listen()
}

// options of decoding: a panic over an object is counted and logged.
func (s *server) options() object.Options {
	panics := prometheus.NewCounter(prometheus.CounterOpts{
		Namespace: "bailiwick", Subsystem: "source", Name: "panics_total", Help: "Panics contained to an object that was read; each has a stack in the log.",
	})
	s.registry.MustRegister(panics)
	return object.Options{AllowLoopback: s.config.allowLoopback, Panicked: func(value any, stack []byte) {
		panics.Inc()
		s.log.Error("panic over an object, which alone is not honoured", "panic", fmt.Sprint(value), "stack", string(stack))
	}}
}

// listen takes all addresses before anything runs, so that one in use ends the
// program with a clear word. Proxies that connect early wait in the backlog.
func (s *server) listen() error {
	var err error
	if s.listeners.xds, err = net.Listen("tcp", s.config.xdsAddress); err != nil {
		return fmt.Errorf("listen for proxies (--xds-address): %w", err)
	}
	if s.listeners.health, err = net.Listen("tcp", s.config.healthAddress); err != nil {
		_ = s.listeners.xds.Close()
		return fmt.Errorf("listen for health checks (--health-address): %w", err)
	}
	if s.listeners.admin, err = s.config.listenAdmin(); err != nil {
		_ = s.listeners.xds.Close()
		_ = s.listeners.health.Close()
		return fmt.Errorf("listen for administration (--admin-address): %w", err)
	}
	return nil
}

// run starts everything. When ctx ends, proxies are sent away first, served until
// the last is gone; then all ends together, as it does when one part fails.
func (s *server) run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, work := errgroup.WithContext(work)
	s.draining = ctx.Done()
	g.Go(func() error { return s.publisher.Run(work) })
	g.Go(func() error { return s.feedBundles(work) })
	g.Go(func() error { return s.objects.run(work, newSink(s.feed, &s.freshness, s.log)) })
	g.Go(func() error { return s.freshness.run(work, s.publisher.Settle) })
	g.Go(func() error { return s.keeper.run(work) })
	if s.fleet != nil {
		g.Go(func() error { return s.fleet.Run(work) })
		g.Go(func() error { return s.runSteward(work) })
	}
	g.Go(func() error { return s.serveHTTP(work, "health", s.listeners.health, s.healthHandler()) })
	if s.listeners.admin != nil {
		g.Go(func() error { return s.serveHTTP(work, "admin", s.listeners.admin, s.adminHandler()) })
	}
	g.Go(func() error {
		serving, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(work, cancel)() // one of the others failed
		defer stop()
		return s.serveProxies(serving)
	})
	err := g.Wait()
	s.log.Info("server ended", "err", err)
	return err
}

func (s *server) serveProxies(ctx context.Context) error {
	select {
	case <-s.publisher.Ready():
	case <-ctx.Done():
		return s.listeners.xds.Close()
	}
	s.log.Info("ready: serving proxies", "address", s.listeners.xds.Addr().String(), "trust_domains", s.config.trustDomains)
	return s.xds.Serve(ctx, s.listeners.xds, s.svid, s.config.trustDomains)
}

// feedBundles hands the trust bundles of the allowed domains to the publisher,
// now and whenever one changes.
func (s *server) feedBundles(ctx context.Context) error {
	for {
		now := s.svid.Bundles()
		var events []tenancy.Event
		for _, td := range s.config.trustDomains {
			ev := tenancy.Event{Ref: tenancy.Ref{Kind: tenancy.KindTrustBundle, Key: tenancy.Key{Name: td}}}
			if pem := now[td]; len(pem) > 0 {
				ev.Object = &tenancy.TrustBundle{PEM: pem}
			} else {
				s.log.Warn("no trust bundle: nobody of the domain can be believed", "trust_domain", td)
			}
			events = append(events, ev)
		}
		s.publisher.Apply(events)
		select {
		case <-s.svid.Updated():
		case <-ctx.Done():
			return nil
		}
	}
}
