package bootstrap

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/util/validation"

	"bailiwick.dev/bailiwick/identity"
)

const (
	// SecretName is the SDS name of the workload's own certificate.
	SecretName = "default"
	// SecretFile is the SDS file with the workload's own certificate, relative to
	// Envoy's working directory.
	SecretFile = "svid/sds.json"
	// SecretDir is the directory of the SDS files, which Envoy watches.
	SecretDir = "svid"
	// ServerSecretFile is the SDS file with the authorities that vouch for the
	// xDS server.
	ServerSecretFile = "svid/xds.json"
	// File is the bootstrap's own name in an output directory.
	File = "bootstrap.json"
	// ServerCluster is the static cluster of the xDS server.
	ServerCluster = "xds"
	// SDSCluster is the static cluster of the SDS socket, if there is one.
	SDSCluster = "sds"
)

// Config says what an Envoy is, whom it asks and where its certificates are.
type Config struct {
	// Workload is whom the certificate names; its namespace is the Pod's.
	Workload identity.Workload
	// Pod is the name of the Pod.
	Pod string

	// Servers are the xDS server's addresses as host:port, at least one. Envoy
	// uses one and goes to the next when it fails.
	Servers []string
	// ServerID is the xDS server's SPIFFE ID, which is pinned.
	ServerID spiffeid.ID
	// SotW asks for the state-of-the-world protocol instead of delta.
	SotW bool

	// CertFile and KeyFile hold the workload's certificate chain and key,
	// TrustBundle the authorities of the xDS server's trust domain, all in PEM.
	// Certificate and key are in one directory. They are read by Envoy, so the
	// paths are absolute.
	CertFile, KeyFile, TrustBundle string
	// SDSSocket is the absolute path of a unix socket with an SDS server, such as
	// SPIRE's agent. It replaces the three files.
	SDSSocket string

	// Explicit makes outbound listeners bind to Bind and inbound listeners
	// forward to App, instead of relying on iptables. An address that is not
	// valid is left to the server's default, 127.0.0.1.
	Explicit  bool
	Bind, App netip.Addr

	// Admin is where Envoy's admin interface listens; loopback only. Port 0 lets
	// the kernel choose one.
	Admin netip.AddrPort
	// AdminDrain lets the admin interface be told to drain listeners, as a Pod
	// does when its end begins; else it is only asked.
	AdminDrain bool
	// MaxConnections bounds the downstream connections of the whole proxy.
	MaxConnections uint64
	// MaxHeapBytes bounds Envoy's heap: at 95 % it gives memory back, at 98 % it
	// refuses requests. 0 means no bound.
	MaxHeapBytes uint64
	// StatsPrefixes are prefixes of metrics to keep beside the usual ones.
	StatsPrefixes []string
}

// Check reports everything that is wrong with the configuration.
func (c Config) Check() error {
	errs := []error{c.checkNode(), c.checkServer(), c.checkSecrets(), c.checkCapture()}
	switch {
	case !c.Admin.IsValid():
		errs = append(errs, errors.New("admin address is missing"))
	case !c.Admin.Addr().IsLoopback():
		errs = append(errs, fmt.Errorf("admin address %s is not a loopback address", c.Admin))
	}
	if c.MaxConnections == 0 {
		errs = append(errs, errors.New("the bound on connections must be positive"))
	}
	return errors.Join(errs...)
}

func (c Config) checkNode() error {
	if _, err := identity.ParseWorkload(c.Workload.ID()); err != nil {
		return fmt.Errorf("workload: %w", err)
	}
	if errs := validation.IsDNS1123Subdomain(c.Pod); len(errs) > 0 {
		return fmt.Errorf("%q is not the name of a Pod: %s", c.Pod, errs[0])
	}
	return nil
}

func (c Config) checkServer() error {
	var errs []error
	if c.ServerID.IsZero() || c.ServerID.Path() == "" {
		errs = append(errs, fmt.Errorf("the xDS server's SPIFFE ID %q has no path", c.ServerID))
	}
	if len(c.Servers) == 0 {
		errs = append(errs, errors.New("no address of an xDS server"))
	}
	for _, server := range c.Servers {
		if _, _, err := splitAddress(server); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (c Config) checkSecrets() error {
	files := []string{c.CertFile, c.KeyFile, c.TrustBundle}
	if c.SDSSocket != "" {
		if strings.Join(files, "") != "" {
			return errors.New("certificates come from files or from an SDS socket, not from both")
		}
		if !filepath.IsAbs(c.SDSSocket) {
			return fmt.Errorf("SDS socket %q is not an absolute path", c.SDSSocket)
		}
		return nil
	}
	for _, file := range files {
		if !filepath.IsAbs(file) {
			return fmt.Errorf("certificate, key and trust bundle are needed, as absolute paths: got %q, %q and %q", c.CertFile, c.KeyFile, c.TrustBundle)
		}
	}
	if filepath.Dir(c.CertFile) != filepath.Dir(c.KeyFile) {
		return fmt.Errorf("certificate %s and key %s must be in one directory: Envoy watches one", c.CertFile, c.KeyFile)
	}
	return nil
}

func (c Config) checkCapture() error {
	if !c.Explicit && (c.Bind.IsValid() || c.App.IsValid()) {
		return errors.New("bind and application address mean something for explicit capture only")
	}
	for _, addr := range []netip.Addr{c.Bind, c.App} {
		if addr.Zone() != "" || addr.Is4In6() {
			return fmt.Errorf("address %s: an IPv4 or IPv6 address without zone is wanted", addr)
		}
	}
	return nil
}

// NodeID is the node's ID: namespace/pod.
func (c Config) NodeID() string { return c.Workload.Namespace + "/" + c.Pod }

// splitAddress takes host:port with a host name or an IP address.
func splitAddress(address string) (host string, port uint32, err error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("xDS address %q: want host:port", address)
	}
	number, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || number == 0 {
		return "", 0, fmt.Errorf("xDS address %q: %q is not a port", address, portText)
	}
	if _, err := netip.ParseAddr(host); err != nil {
		if errs := validation.IsDNS1123Subdomain(strings.ToLower(strings.TrimSuffix(host, "."))); len(errs) > 0 {
			return "", 0, fmt.Errorf("xDS address %q: %q is neither an IP address nor a host name", address, host)
		}
	}
	return host, uint32(number), nil
}
