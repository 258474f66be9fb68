package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/api/resource"

	"bailiwick.dev/bailiwick/cmd/internal/inject"
)

// injectFlags are the flags of inject as they were given.
type injectFlags struct {
	file, trustDomain, serverID string
	cpu, memory                 string
	config                      inject.Config
}

func newInjectCommand() *cobra.Command {
	f := injectFlags{config: inject.Default()}
	cmd := &cobra.Command{
		Use:   "inject -f FILE --trust-domain TD --xds-address HOST:PORT --server-id ID --init-image IMAGE --proxy-image IMAGE",
		Short: "Put Envoy into the Pod templates of a file",
		Long: `Prints the documents of FILE with Envoy in every Pod template: Pods, Deployments,
StatefulSets, DaemonSets, ReplicaSets, Jobs, CronJobs, Lists of them, and any
other kind with a template at spec.template. Nothing is asked of a cluster, and
injecting what was injected gives the same again. Other documents come out as
they are.

A template gets two init containers (the iptables rules, the bootstrap) and Envoy
as a native sidecar, before its own: Envoy is up before the first of the Pod's own
containers starts, and ends after the last. Probes need no change: the server lets
the kubelet's HTTP and gRPC probes through from the Pod's node, at their path.
A TCP probe succeeds as soon as Envoy listens. The init container that sets the
rules needs NET_ADMIN, so the namespace's Pod Security Standard has to be privileged.

Certificates come from --svid csi.spiffe.io (SPIRE's agent, through the SPIFFE CSI
driver; run the server with --proxy-svid=sds) or spiffe.csi.cert-manager.io.

Annotations of the Pod template:
  bailiwick.dev/inject: "false"            no sidecar
  bailiwick.dev/exclude-inbound-ports      ports reached without mTLS and policy
  bailiwick.dev/exclude-outbound-ports     destination ports reached without Envoy
  bailiwick.dev/exclude-outbound-cidrs     destinations reached without Envoy
  bailiwick.dev/proxy-cpu, proxy-memory    what Envoy requests

Exit codes: 0 success, 1 a template cannot be injected (nothing is printed then),
2 a mistake in the command line.`,
		Example: `  kubectl get deployments -n shop -o yaml | bailiwick inject -f - \
      --trust-domain acme.example --xds-address bailiwick.bailiwick-system.svc:18000 \
      --server-id spiffe://mesh.example/ns/bailiwick-system/sa/bailiwick \
      --init-image registry.example/bailiwick-init:v1 --proxy-image registry.example/bailiwick-proxy:v1 \
    | kubectl apply --server-side -f -`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	c, fs := &f.config, cmd.Flags()
	fs.StringVarP(&f.file, "filename", "f", "", "`FILE` to read, - is standard input (required)")
	fs.StringVar(&f.trustDomain, "trust-domain", "", "trust domain of the tenant's workloads (required)")
	fs.StringSliceVar(&c.Servers, "xds-address", nil, "`HOST:PORT` of the xDS server; several for failover (required)")
	fs.StringVar(&f.serverID, "server-id", "", "SPIFFE `ID` of the xDS server (required)")
	fs.StringVar(&c.InitImage, "init-image", "", "`IMAGE` with bailiwick and iptables, target init of deploy/Dockerfile (required)")
	fs.StringVar(&c.ProxyImage, "proxy-image", "", "`IMAGE` with bailiwick and Envoy, target proxy of deploy/Dockerfile (required)")
	fs.StringVar(&c.Driver, "svid", c.Driver, "CSI `DRIVER` that mounts certificates: "+inject.SPIRE+" or "+inject.CertManager)
	fs.StringVar(&c.SocketName, "spire-socket", c.SocketName, "`NAME` of the agent's socket in the driver's volume")
	fs.StringVar(&c.BundleConfigMap, "trust-bundle-configmap", "", "`NAME/KEY` of a ConfigMap of the Pod's namespace with the CA certificates of the server's trust domain (default: the driver's ca.crt)")
	fs.StringVar(&f.cpu, "proxy-cpu", c.CPU.String(), "CPU that Envoy requests")
	fs.StringVar(&f.memory, "proxy-memory", c.Memory.String(), "memory that Envoy requests and may have")
	fs.Uint32Var(&c.Concurrency, "concurrency", c.Concurrency, "Envoy's worker threads")
	fs.DurationVar(&c.DrainTime, "drain-time", c.DrainTime, "how long connections outlive a change that ends them")
	fs.DurationVar(&c.DrainWait, "drain-wait", c.DrainWait, "how long Envoy's end is held back while the Pod ends, so that callers go elsewhere")
	fs.BoolVar(&c.IPv6, "ipv6", c.IPv6, "capture IPv6; turn it off where nodes have none")
	return cmd
}

func (f *injectFlags) run(cmd *cobra.Command) error {
	if err := requireFlags(cmd, "filename", "trust-domain", "xds-address", "server-id", "init-image", "proxy-image"); err != nil {
		return err
	}
	var err error
	if f.config.TrustDomain, err = spiffeid.TrustDomainFromString(f.trustDomain); err != nil {
		return usagef("--trust-domain %q: %w", f.trustDomain, err)
	}
	if f.config.ServerID, err = spiffeid.FromString(f.serverID); err != nil {
		return usagef("--server-id %q: %w", f.serverID, err)
	}
	if f.config.CPU, err = resource.ParseQuantity(f.cpu); err != nil {
		return usagef("--proxy-cpu %q: %w", f.cpu, err)
	}
	if f.config.Memory, err = resource.ParseQuantity(f.memory); err != nil {
		return usagef("--proxy-memory %q: %w", f.memory, err)
	}
	if err := f.config.Check(); err != nil {
		return usagef("%w", err)
	}
	name := f.file
	var data []byte
	if f.file == "-" {
		name = "standard input"
		data, err = io.ReadAll(cmd.InOrStdin())
	} else {
		data, err = os.ReadFile(f.file)
	}
	if err != nil {
		return fmt.Errorf("read the Pod templates: %w", err)
	}
	out, err := inject.File(name, data, f.config)
	if err != nil {
		return err
	}
	_, err = cmd.OutOrStdout().Write(out)
	return err
}
