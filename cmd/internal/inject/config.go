package inject

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/xds/bootstrap"
)

// Annotations of a Pod template that are read here.
const (
	// OptOut set to "false" leaves the template without a sidecar.
	OptOut = "bailiwick.dev/inject"
	// ExcludeInboundPorts are reached without mTLS and policy; comma-separated.
	ExcludeInboundPorts = "bailiwick.dev/exclude-inbound-ports"
	// ExcludeOutboundPorts are destination ports that bypass Envoy.
	ExcludeOutboundPorts = "bailiwick.dev/exclude-outbound-ports"
	// ExcludeOutboundCIDRs are destinations that bypass Envoy.
	ExcludeOutboundCIDRs = "bailiwick.dev/exclude-outbound-cidrs"
	// ProxyCPU and ProxyMemory are what Envoy requests, in place of the
	// configuration's; the memory is its limit, too.
	ProxyCPU    = "bailiwick.dev/proxy-cpu"
	ProxyMemory = "bailiwick.dev/proxy-memory"
)

// Drivers that mount a workload's certificate.
const (
	// SPIRE is the SPIFFE CSI driver: it mounts the Workload API's socket, where
	// SPIRE's agent speaks SDS, too.
	SPIRE = "csi.spiffe.io"
	// CertManager is cert-manager's csi-driver-spiffe: it mounts tls.crt, tls.key
	// and ca.crt.
	CertManager = "spiffe.csi.cert-manager.io"
)

// UID is the user that Envoy runs as.
const UID = 1337

// Config is the same for all Pods of a tenant.
type Config struct {
	// InitImage holds bailiwick, iptables and ip; ProxyImage holds bailiwick and
	// Envoy. See deploy/Dockerfile.
	InitImage, ProxyImage string
	// TrustDomain of the tenant's workloads.
	TrustDomain spiffeid.TrustDomain
	// Servers and ServerID say whom Envoy asks; see [bootstrap.Config].
	Servers  []string
	ServerID spiffeid.ID
	// Driver is SPIRE or CertManager, SocketName the socket's file in what SPIRE's
	// driver mounts.
	Driver, SocketName string
	// BundleConfigMap, as NAME/KEY in the Pod's namespace, holds the authorities of
	// the server's trust domain, for CertManager; empty takes the driver's ca.crt.
	BundleConfigMap string
	// CPU and Memory are requested; the memory is the limit, too.
	CPU, Memory resource.Quantity
	// Concurrency and DrainTime are Envoy's, see [bootstrap.Process]; DrainWait is
	// how long a Pod that ends goes on to admit new connections.
	Concurrency          uint32
	DrainTime, DrainWait time.Duration
	// IPv6 captures IPv6, too.
	IPv6 bool
}

// Default lacks what only the user knows: images, trust domain and server.
func Default() Config {
	return Config{
		Driver: SPIRE, SocketName: "spire-agent.sock",
		CPU: resource.MustParse("50m"), Memory: resource.MustParse("192Mi"),
		Concurrency: 2, DrainTime: 30 * time.Second, DrainWait: 5 * time.Second, IPv6: true,
	}
}

// Check reports everything that is wrong with the configuration.
func (c Config) Check() error {
	errs := []error{c.checkBootstrap()}
	for name, image := range map[string]string{"init image": c.InitImage, "proxy image": c.ProxyImage} {
		if image == "" || strings.ContainsAny(image, " \t\r\n") {
			errs = append(errs, fmt.Errorf("%s %q is no image", name, image))
		}
	}
	switch c.Driver {
	case SPIRE:
		if c.SocketName == "" || strings.Contains(c.SocketName, "/") {
			errs = append(errs, fmt.Errorf("socket name %q: a file's name is wanted", c.SocketName))
		}
		if c.BundleConfigMap != "" {
			errs = append(errs, fmt.Errorf("a ConfigMap with the trust bundle means something with %s only", CertManager))
		}
	case CertManager:
		name, key, ok := strings.Cut(c.BundleConfigMap, "/")
		if c.BundleConfigMap != "" && (!ok || len(validation.IsDNS1123Subdomain(name)) > 0 || len(validation.IsConfigMapKey(key)) > 0) {
			errs = append(errs, fmt.Errorf("trust bundle %q: want NAME/KEY of a ConfigMap", c.BundleConfigMap))
		}
	default:
		errs = append(errs, fmt.Errorf("driver %q is neither %s nor %s", c.Driver, SPIRE, CertManager))
	}
	if c.CPU.Sign() <= 0 || c.Memory.Value() < minMemory {
		errs = append(errs, fmt.Errorf("cpu %s and memory %s: a positive share and at least 64Mi are needed", c.CPU.String(), c.Memory.String()))
	}
	if c.Concurrency == 0 || c.DrainTime < time.Second || c.DrainWait < 0 {
		errs = append(errs, errors.New("concurrency must be positive, the drain time at least 1s, the drain wait not negative"))
	}
	return errors.Join(errs...)
}

// minMemory is what Envoy needs to start with an empty view.
const minMemory = 64 << 20

// checkBootstrap builds the bootstrap of an imagined Pod, so that what the init
// container would refuse is known now.
func (c Config) checkBootstrap() error {
	if c.TrustDomain.IsZero() {
		return errors.New("the trust domain of the workloads is missing")
	}
	_, err := bootstrap.Build(bootstrap.Config{
		Workload: identity.Workload{TrustDomain: c.TrustDomain.Name(), Namespace: "default", ServiceAccount: "default"}, Pod: "pod",
		Servers: c.Servers, ServerID: c.ServerID, SDSSocket: "/socket",
		Admin: netip.MustParseAddrPort("127.0.0.1:15000"), MaxConnections: 1,
	})
	return err
}
