package kubetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// startTimeout bounds how long one of the two programs may take to start.
const startTimeout = 2 * time.Minute

// Config says how a [Cluster] is run.
type Config struct {
	// Dir is where data, certificates and logs go. It must exist and belong to
	// this cluster alone.
	Dir string
	// Users beside [Admin].
	Users []User
	// Args are further arguments of kube-apiserver, after those of this package.
	Args []string
}

// Cluster is a running API server with its etcd. Its methods may be called by
// one goroutine at a time.
type Cluster struct {
	// Address is host:port of the API server, the same over restarts.
	Address string

	dir             string
	certificate     []byte
	etcdAddress     string
	etcd, apiserver *process
}

// New starts a cluster that ends with the test.
func New(t testing.TB, users ...User) *Cluster {
	t.Helper()
	Binaries(t)
	c, err := Start(context.Background(), Config{Dir: t.TempDir(), Users: users})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return c
}

// Shared is one cluster for all tests of a package: a variable of the package's
// tests, whose Stop is called by TestMain.
type Shared struct {
	// Users beside [Admin].
	Users []User

	mu      sync.Mutex
	cluster *Cluster
	dir     string
	err     error
}

// Get returns the cluster, which the first call starts.
func (s *Shared) Get(t testing.TB) *Cluster {
	t.Helper()
	Binaries(t)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cluster == nil && s.err == nil {
		if s.dir, s.err = os.MkdirTemp("", "kubetest"); s.err == nil {
			s.cluster, s.err = Start(context.Background(), Config{Dir: s.dir, Users: s.Users})
		}
	}
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.cluster
}

// Stop ends the cluster, if there is one.
func (s *Shared) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cluster != nil {
		s.cluster.Stop()
		s.cluster = nil
	}
	_ = os.RemoveAll(s.dir)
}

// Start starts etcd and the API server and waits until the latter is ready; ctx
// bounds the start only. The cluster runs until Stop.
func Start(ctx context.Context, config Config) (*Cluster, error) {
	folder, err := binaries()
	if err != nil {
		return nil, err
	}
	c := &Cluster{dir: config.Dir}
	if c.certificate, err = writeCertificate(c.dir); err != nil {
		return nil, err
	}
	if err := writeAccountKey(c.dir); err != nil {
		return nil, err
	}
	if err := c.writeTokens(append([]User{{Name: Admin, Groups: []string{"system:masters"}}}, config.Users...)); err != nil {
		return nil, err
	}
	if err := c.commands(folder, config.Args); err != nil {
		return nil, err
	}
	if err := errors.Join(c.StartEtcd(ctx), c.StartAPIServer(ctx)); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

// commands takes ports and makes both command lines.
func (c *Cluster) commands(folder string, more []string) error {
	var ports [3]string
	for i := range ports {
		var err error
		if ports[i], err = freePort(ports[:i]); err != nil {
			return err
		}
	}
	_, port, _ := net.SplitHostPort(ports[0])
	c.Address, c.etcdAddress = ports[0], ports[1]
	client, peer := "http://"+ports[1], "http://"+ports[2]
	c.etcd = &process{name: "etcd", dir: c.dir, argv: []string{
		filepath.Join(folder, "etcd"), "--data-dir", filepath.Join(c.dir, "etcd"), "--unsafe-no-fsync", "--log-level", "warn",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer,
	}}
	file := func(name string) string { return filepath.Join(c.dir, name) }
	c.apiserver = &process{name: "kube-apiserver", dir: c.dir, argv: append([]string{
		filepath.Join(folder, "kube-apiserver"), "--etcd-servers", client,
		"--bind-address", "127.0.0.1", "--secure-port", port, "--cert-dir", c.dir,
		"--tls-cert-file", file(certFile), "--tls-private-key-file", file(keyFile),
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", file(accountFile), "--service-account-signing-key-file", file(accountFile),
		"--service-cluster-ip-range", "10.96.0.0/16,fd96::/112", "--authorization-mode", "RBAC", "--token-auth-file", file(tokenFile),
		"--disable-admission-plugins", "ServiceAccount", "--endpoint-reconciler-type", "none", "--allow-privileged",
		// Nothing is to hold a restart up.
		"--shutdown-delay-duration", "0s",
	}, more...)}
	return nil
}

// freePort takes a port of 127.0.0.1 that nobody listens on and that no outgoing
// connection is given, so that it is still free after a restart.
func freePort(taken []string) (string, error) {
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 10000+rand.IntN(20000))
		if strings.Contains(strings.Join(taken, " "), address) {
			continue
		}
		l, err := net.Listen("tcp", address)
		if err == nil {
			return address, l.Close()
		}
	}
	return "", errors.New("find a free port on 127.0.0.1: tried a hundred")
}

// StartEtcd starts etcd, if it does not run, and waits until it answers.
func (c *Cluster) StartEtcd(ctx context.Context) error {
	if err := c.etcd.start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return c.etcd.wait(ctx, func(ctx context.Context) error { return c.callEtcd(ctx, "GET", "/health", nil, nil) })
}

// StartAPIServer starts the API server, if it does not run, and waits until it
// says that it is ready. Etcd has to run.
func (c *Cluster) StartAPIServer(ctx context.Context) error {
	if err := c.apiserver.start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	transport, err := rest.HTTPWrappersForConfig(c.REST(Admin), c.transport())
	if err != nil {
		return fmt.Errorf("ask the API server: %w", err)
	}
	return c.apiserver.wait(ctx, func(ctx context.Context) error {
		return get(ctx, transport, "https://"+c.Address+"/readyz")
	})
}

// KillAPIServer is kill -9 of the API server.
func (c *Cluster) KillAPIServer() { c.apiserver.kill() }

// KillEtcd is kill -9 of etcd. Its data stay.
func (c *Cluster) KillEtcd() { c.etcd.kill() }

// PauseAPIServer lets the API server hang: connections stay open, and nothing is
// answered until ResumeAPIServer.
func (c *Cluster) PauseAPIServer() error { return c.apiserver.pause() }

// ResumeAPIServer ends PauseAPIServer.
func (c *Cluster) ResumeAPIServer() error { return c.apiserver.resume() }

// PauseEtcd lets etcd hang until ResumeEtcd.
func (c *Cluster) PauseEtcd() error { return c.etcd.pause() }

// ResumeEtcd ends PauseEtcd.
func (c *Cluster) ResumeEtcd() error { return c.etcd.resume() }

// Stop ends both.
func (c *Cluster) Stop() {
	c.apiserver.kill()
	c.etcd.kill()
}

// LogTail returns the last n lines of the API server's log.
func (c *Cluster) LogTail(n int) string { return c.apiserver.tail(n) }
