package main

import (
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/xds/bootstrap"
)

// bootstrapFlags are the flags of bootstrap as they were given.
type bootstrapFlags struct {
	spiffeID, nodeID       string
	servers                []string
	serverID               string
	cert, key, trustBundle string
	sds                    string
	capture, bind, app     string
	sotw                   bool
	admin                  string
	adminDrain             bool
	maxConnections         uint64
	maxHeapMiB             uint64
	statsPrefixes          []string
	out                    string
	args                   bool
	process                bootstrap.Process
}

func newBootstrapCommand() *cobra.Command {
	var b bootstrapFlags
	cmd := &cobra.Command{
		Use:   "bootstrap --spiffe-id ID --xds-address HOST:PORT --server-id ID --cert FILE --key FILE --trust-bundle FILE --out DIR",
		Short: "Make the static configuration of a workload's Envoy",
		Long: `Makes the static configuration (bootstrap) of a workload's Envoy: ADS over mutual
TLS with the server's SPIFFE ID pinned, and nothing else that is not needed to
get everything else from there.

With --out DIR it writes DIR/bootstrap.json and the SDS files DIR/svid/sds.json
and DIR/svid/xds.json, which lead Envoy to the certificate, key and trust bundle
and let it follow their rotation. DIR has to be Envoy's working directory: the
paths of the SDS files are relative, so that the server's configuration can name
them for every proxy alike. Without --out it prints the bootstrap alone; Envoy
accepts it only beside those SDS files, unless certificates come from a socket.

With --sds the certificates come from an SDS server on a unix socket, such as
SPIRE's agent, under the names "default" and "spiffe://<trust domain>"; there are
no SDS files then. The server has to be told (serve --proxy-svid=sds).

Certificate and key must be in one directory, as paths that Envoy can read.`,
		Example: `  # Files, transparent capture (see 'bailiwick iptables')
  bailiwick bootstrap --spiffe-id spiffe://acme.example/ns/shop/sa/web --node-id shop/web-0 \
      --xds-address bailiwick.bailiwick-system:18000 \
      --server-id spiffe://mesh.example/ns/bailiwick-system/sa/bailiwick \
      --cert web/cert.pem --key web/key.pem --trust-bundle ca/mesh/ca.pem --out web/envoy
  cd web/envoy && envoy $(bailiwick bootstrap --args)

  # SPIRE, and applications that name their Envoy's address themselves
  bailiwick bootstrap --spiffe-id spiffe://acme.example/ns/shop/sa/web --node-id shop/web-0 \
      --xds-address 192.0.2.1:18000 --xds-address 192.0.2.2:18000 \
      --server-id spiffe://mesh.example/ns/bailiwick-system/sa/bailiwick \
      --sds unix:/run/spire/agent.sock --capture explicit --bind-address 127.0.0.2 --out web/envoy`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return b.run(cmd) },
	}
	b.addFlags(cmd)
	return cmd
}

func (b *bootstrapFlags) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&b.spiffeID, "spiffe-id", "", "SPIFFE `ID` of the workload, spiffe://<trust domain>/ns/<namespace>/sa/<account> (required)")
	f.StringVar(&b.nodeID, "node-id", "", "the Pod as `NAMESPACE/NAME`, in the namespace of --spiffe-id (default: the host's name)")
	f.StringSliceVar(&b.servers, "xds-address", nil, "`HOST:PORT` of the xDS server; several for failover, separated by commas or repeated (required)")
	f.StringVar(&b.serverID, "server-id", "", "SPIFFE `ID` of the xDS server (required)")
	f.StringVar(&b.cert, "cert", "", "certificate chain `FILE` of the workload (PEM)")
	f.StringVar(&b.key, "key", "", "private key `FILE` of the workload (PEM), in the directory of --cert")
	f.StringVar(&b.trustBundle, "trust-bundle", "", "`FILE` with the CA certificates of the xDS server's trust domain (PEM); TD=FILE is understood, too")
	f.StringVar(&b.sds, "sds", "", "unix `SOCKET` of an SDS server such as unix:/run/spire/agent.sock, instead of --cert, --key and --trust-bundle")
	f.StringVar(&b.capture, "capture", "transparent", "how traffic reaches Envoy: transparent (iptables) or explicit (by address)")
	f.StringVar(&b.bind, "bind-address", "", "`IP` that outbound listeners bind to, with --capture explicit (default 127.0.0.1)")
	f.StringVar(&b.app, "app-address", "", "`IP` that the application listens on, with --capture explicit (default 127.0.0.1)")
	f.BoolVar(&b.sotw, "sotw", false, "use the state-of-the-world protocol instead of delta")
	f.StringVar(&b.admin, "admin-address", "127.0.0.1:15000", "loopback `IP:PORT` of Envoy's admin interface, of which only what reads is open; port 0 picks a free one")
	f.BoolVar(&b.adminDrain, "admin-drain", false, "let 'bailiwick sidecar drain' drain listeners through the admin interface")
	f.Uint64Var(&b.maxConnections, "max-connections", 50000, "most downstream connections of the whole proxy")
	f.Uint64Var(&b.maxHeapMiB, "max-heap-mib", 0, "bound of Envoy's heap in `MiB`, near which it refuses requests; 0 is none")
	f.StringSliceVar(&b.statsPrefixes, "stats-prefix", nil, "keep Envoy's metrics with this `PREFIX`, too; may be repeated")
	f.StringVar(&b.out, "out", "", "write the files into `DIR`, which becomes Envoy's working directory")
	f.BoolVar(&b.args, "args", false, "print Envoy's arguments, one per line; needs no other flag")
	f.Uint32Var(&b.process.Concurrency, "concurrency", 2, "Envoy's worker threads, for --args")
	f.DurationVar(&b.process.DrainTime, "drain-time", time.Minute, "how long connections outlive a change that ends them, for --args; longer than the longest usual request")
}

func (b *bootstrapFlags) run(cmd *cobra.Command) error {
	if b.process.Concurrency == 0 || b.process.DrainTime < time.Second {
		return usagef("--concurrency must be positive and --drain-time at least 1s")
	}
	if b.args && b.out == "" {
		return b.printArgs(cmd)
	}
	config, err := b.config(cmd)
	if err != nil {
		return err
	}
	if err := config.Check(); err != nil {
		return usagef("%w", err)
	}
	if b.out == "" {
		text, err := bootstrap.JSON(config)
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(text)
		return err
	}
	paths, err := bootstrap.Write(b.out, config)
	if err != nil {
		return err
	}
	noteMissing(cmd, config)
	if b.args {
		return b.printArgs(cmd)
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), strings.Join(paths, "\n"))
	return err
}

func (b *bootstrapFlags) printArgs(cmd *cobra.Command) error {
	_, err := fmt.Fprintln(cmd.OutOrStdout(), strings.Join(b.process.Args(), "\n"))
	return err
}

// noteMissing warns of files that Envoy would look for in vain: it does not look
// again until the SDS files change.
func noteMissing(cmd *cobra.Command, config bootstrap.Config) {
	for _, path := range []string{config.CertFile, config.KeyFile, config.TrustBundle} {
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "bailiwick: note: Envoy needs this file when it starts: %v\n", err)
		}
	}
}

func (b *bootstrapFlags) config(cmd *cobra.Command) (bootstrap.Config, error) {
	required := []string{"spiffe-id", "xds-address", "server-id"}
	if b.sds == "" {
		required = append(required, "cert", "key", "trust-bundle")
	}
	if err := requireFlags(cmd, required...); err != nil {
		return bootstrap.Config{}, err
	}
	config := bootstrap.Config{
		Servers: b.servers, SotW: b.sotw, AdminDrain: b.adminDrain,
		MaxConnections: b.maxConnections, MaxHeapBytes: b.maxHeapMiB << 20, StatsPrefixes: b.statsPrefixes,
	}
	var err error
	if config.Admin, err = netip.ParseAddrPort(b.admin); err != nil {
		return config, usagef("--admin-address %q: want IP:PORT", b.admin)
	}
	for _, step := range []func(*bootstrap.Config) error{b.identities, b.secrets, b.captured} {
		if err := step(&config); err != nil {
			return config, err
		}
	}
	return config, nil
}

// identities reads who the workload and the server are, and which Pod this is.
func (b *bootstrapFlags) identities(config *bootstrap.Config) error {
	id, err := spiffeid.FromString(b.spiffeID)
	if err != nil {
		return usagef("--spiffe-id %q: %w", b.spiffeID, err)
	}
	if config.Workload, err = identity.ParseWorkload(id); err != nil {
		return usagef("--spiffe-id: %w", err)
	}
	if config.ServerID, err = spiffeid.FromString(b.serverID); err != nil {
		return usagef("--server-id %q: %w", b.serverID, err)
	}
	if b.nodeID == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("find the host's name, for want of --node-id: %w", err)
		}
		config.Pod = host // in Kubernetes a Pod's host name is its name
		return nil
	}
	namespace, pod, ok := strings.Cut(b.nodeID, "/")
	if !ok {
		return usagef("--node-id %q: want NAMESPACE/NAME", b.nodeID)
	}
	if namespace != config.Workload.Namespace {
		return usagef("--node-id %q is not in namespace %q of --spiffe-id", b.nodeID, config.Workload.Namespace)
	}
	config.Pod = pod
	return nil
}

func (b *bootstrapFlags) secrets(config *bootstrap.Config) error {
	if b.sds != "" {
		if b.cert != "" || b.key != "" || b.trustBundle != "" {
			return usagef("--sds replaces --cert, --key and --trust-bundle")
		}
		socket, err := url.Parse(b.sds)
		if err != nil || socket.Scheme != "unix" || socket.Host != "" || !filepath.IsAbs(socket.Path) {
			return usagef("--sds %q: want unix:/path/to/socket", b.sds)
		}
		config.SDSSocket = socket.Path
		return nil
	}
	bundle := b.trustBundle
	if td, file, ok := strings.Cut(bundle, "="); ok && td == config.ServerID.TrustDomain().Name() {
		bundle = file
	} else if _, err := spiffeid.TrustDomainFromString(td); ok && err == nil {
		return usagef("--trust-bundle %q: the trust domain of --server-id is %q", b.trustBundle, config.ServerID.TrustDomain().Name())
	}
	for _, path := range []struct {
		given string
		to    *string
	}{{b.cert, &config.CertFile}, {b.key, &config.KeyFile}, {bundle, &config.TrustBundle}} {
		if path.given == "" {
			return usagef("--cert, --key and --trust-bundle must name files")
		}
		absolute, err := filepath.Abs(path.given)
		if err != nil {
			return fmt.Errorf("find %s: %w", path.given, err)
		}
		*path.to = absolute
	}
	return nil
}

func (b *bootstrapFlags) captured(config *bootstrap.Config) error {
	switch b.capture {
	case "transparent":
	case "explicit":
		config.Explicit = true
	default:
		return usagef("--capture %q: want transparent or explicit", b.capture)
	}
	for _, address := range []struct {
		flag, given string
		to          *netip.Addr
	}{{"--bind-address", b.bind, &config.Bind}, {"--app-address", b.app, &config.App}} {
		if address.given == "" {
			continue
		}
		if !config.Explicit {
			return usagef("%s means something with --capture explicit only", address.flag)
		}
		ip, err := netip.ParseAddr(address.given)
		if err != nil {
			return usagef("%s %q is not an IP address", address.flag, address.given)
		}
		*address.to = ip
	}
	return nil
}
