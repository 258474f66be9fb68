package snapshot

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"bailiwick.dev/bailiwick/identity"
)

// envoyBinary is the Envoy that tests run; without one they are skipped, and
// fail where everything must be run.
func envoyBinary(t testing.TB) string {
	t.Helper()
	path := os.Getenv("ENVOY")
	if path == "" {
		path = filepath.Join("..", ".cache", "envoy", "1.40.0", "envoy")
	}
	path, err := filepath.Abs(path)
	require.NoError(t, err)
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no Envoy at %s: run make envoy", path)
		}
		t.Skipf("SKIPPED: no Envoy at %s: run make envoy", path)
	}
	return path
}

// knowsJitter reports whether the Envoy that tests run has the jitter of
// connections' ages, since 1.39. An older one ignores it on the stream, but not
// in a file.
func knowsJitter(t testing.TB) bool {
	t.Helper()
	out, err := exec.Command(envoyBinary(t), "--version").Output()
	require.NoError(t, err)
	return !regexp.MustCompile(`/1\.3[0-8]\.`).Match(out)
}

// files stands for the stream: every resource is a file of its own in dir, and
// what says "ads" in a message is made to say which file.
type files struct {
	t   testing.TB
	dir string
}

func (f files) write(name string, m proto.Message) {
	f.t.Helper()
	text, err := protojson.Marshal(m)
	require.NoError(f.t, err)
	if bytes.Contains(text, []byte("Jitter")) && !knowsJitter(f.t) {
		text = regexp.MustCompile(`"maxConnectionDurationJitter":\s*\{[^}]*\},?`).ReplaceAll(text, nil)
		text = regexp.MustCompile(`,\s*\}`).ReplaceAll(text, []byte("}"))
	}
	path := filepath.Join(f.dir, name)
	require.NoError(f.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(f.t, os.WriteFile(path+".new", text, 0o600))
	require.NoError(f.t, os.Rename(path+".new", path))
}

func (f files) fileOf(t Type, name string) string {
	return t.String() + "-" + strings.NewReplacer("/", "_", ":", "_").Replace(name) + ".json"
}

// put writes resources; clusters and listeners together, because their file
// holds the whole state.
func (f files) put(resources ...*Resource) {
	f.t.Helper()
	state := map[Type]*discoveryv3.DiscoveryResponse{}
	for _, r := range resources {
		msg, err := decode(r)
		require.NoError(f.t, err)
		f.redirect(msg.ProtoReflect())
		packed, err := anypb.New(msg)
		require.NoError(f.t, err)
		if r.Type() != Cluster && r.Type() != Listener {
			f.write(f.fileOf(r.Type(), r.Name()), &discoveryv3.DiscoveryResponse{VersionInfo: r.Version(), TypeUrl: r.Type().URL(), Resources: []*anypb.Any{packed}})
			continue
		}
		if state[r.Type()] == nil {
			state[r.Type()] = &discoveryv3.DiscoveryResponse{VersionInfo: "1", TypeUrl: r.Type().URL()}
		}
		state[r.Type()].Resources = append(state[r.Type()].Resources, packed)
	}
	for _, typ := range []Type{Cluster, Listener} {
		if s := state[typ]; s != nil {
			f.write(typ.String()+".json", s)
		}
	}
}

// redirect makes every reference to the stream one to a file.
func (f files) redirect(m protoreflect.Message) {
	to := func(c *corev3.ConfigSource, t Type, name string) {
		if c.GetAds() != nil {
			c.ConfigSourceSpecifier = f.source(f.fileOf(t, name))
		}
	}
	switch m := m.Interface().(type) {
	case *anypb.Any:
		inner, err := m.UnmarshalNew()
		require.NoError(f.t, err)
		f.redirect(inner.ProtoReflect())
		require.NoError(f.t, m.MarshalFrom(inner))
		return
	case *clusterv3.Cluster:
		to(m.GetEdsClusterConfig().GetEdsConfig(), Endpoint, m.GetName())
	case *tlsv3.SdsSecretConfig:
		to(m.GetSdsConfig(), Secret, m.GetName())
	case *hcmv3.Rds:
		to(m.GetConfigSource(), Route, m.GetRouteConfigName())
	case *hcmv3.HttpFilter:
		to(m.GetConfigDiscovery().GetConfigSource(), Extension, m.GetName())
	case *listenerv3.Filter:
		to(m.GetConfigDiscovery().GetConfigSource(), Extension, m.GetName())
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap() && fd.MapValue().Message() != nil:
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { f.redirect(v.Message()); return true })
		case fd.IsList() && fd.Message() != nil:
			for i := range v.List().Len() {
				f.redirect(v.List().Get(i).Message())
			}
		case !fd.IsMap() && fd.Message() != nil:
			f.redirect(v.Message())
		}
		return true
	})
}

func (f files) source(path string) *corev3.ConfigSource_PathConfigSource {
	return &corev3.ConfigSource_PathConfigSource{PathConfigSource: &corev3.PathConfigSource{Path: filepath.Join(f.dir, path)}}
}

// svid writes a proxy's certificate where the resources say that it is.
func (f files) svid(cert, key []byte) {
	secret := &tlsv3.Secret{Name: svidName, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: string(cert)}},
		PrivateKey:       &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: string(key)}},
	}}}
	packed, err := anypb.New(secret)
	require.NoError(f.t, err)
	f.write(svidFile, &discoveryv3.DiscoveryResponse{VersionInfo: "1", TypeUrl: Secret.URL(), Resources: []*anypb.Any{packed}})
}

// newFiles makes a directory with the certificate of a workload.
func newFiles(t testing.TB, ca *identity.Authority, id string) files {
	t.Helper()
	f := files{t: t, dir: t.TempDir()}
	cert, key, err := ca.Issue(id, identity.IssueOptions{})
	require.NoError(t, err)
	f.svid(cert, key)
	return f
}

// start runs Envoy on what was put, and waits until it is ready.
func (f files) start() *envoy {
	f.t.Helper()
	source := func(name string) *corev3.ConfigSource {
		return &corev3.ConfigSource{ConfigSourceSpecifier: f.source(name), ResourceApiVersion: corev3.ApiVersion_V3}
	}
	f.write("bootstrap.json", &bootstrapv3.Bootstrap{
		Node: &corev3.Node{Id: "n", Cluster: "c"},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{
			CdsConfig: source("cluster.json"), LdsConfig: source("listener.json"),
		},
		Admin: &bootstrapv3.Admin{Address: address(mustAddr("127.0.0.1"), 0)},
	})
	e := &envoy{files: f, log: &syncBuffer{}}
	adminFile := filepath.Join(f.dir, "admin")
	cmd := exec.Command(envoyBinary(f.t), "-c", "bootstrap.json", "--admin-address-path", adminFile, "--concurrency", "1",
		"--disable-hot-restart", "--log-level", "warning", "--file-flush-interval-msec", "50", "--drain-time-s", "1", "--drain-strategy", "immediate")
	cmd.Dir, cmd.Stdout, cmd.Stderr = f.dir, e.log, e.log
	require.NoError(f.t, cmd.Start())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }() // ends with the process
	f.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if f.t.Failed() {
			f.t.Logf("Envoy's log:\n%s", e.log)
		}
	})
	require.Eventually(f.t, func() bool {
		select {
		case <-ended:
			return true
		default:
		}
		addr, err := os.ReadFile(adminFile)
		e.admin = "http://" + strings.TrimSpace(string(addr))
		return err == nil && len(addr) > 0 && e.get("/ready") == "LIVE\n"
	}, 30*time.Second, 20*time.Millisecond, "Envoy did not become ready")
	require.Equal(f.t, "LIVE\n", e.get("/ready"), "Envoy ended")
	return e
}

// validate has Envoy look at the resources without opening a socket.
func (f files) validate(resources ...*Resource) {
	f.t.Helper()
	static := &bootstrapv3.Bootstrap_StaticResources{}
	for _, r := range resources {
		msg, err := decode(r)
		require.NoError(f.t, err)
		f.redirect(msg.ProtoReflect())
		switch m := msg.(type) {
		case *clusterv3.Cluster:
			static.Clusters = append(static.Clusters, m)
		case *listenerv3.Listener:
			static.Listeners = append(static.Listeners, m)
		default:
			f.put(r)
		}
	}
	f.write("bootstrap.json", &bootstrapv3.Bootstrap{Node: &corev3.Node{Id: "n", Cluster: "c"}, StaticResources: static})
	cmd := exec.Command(envoyBinary(f.t), "--mode", "validate", "-c", "bootstrap.json", "--concurrency", "1", "--disable-hot-restart")
	cmd.Dir = f.dir
	out, err := cmd.CombinedOutput()
	require.NoError(f.t, err, "%s", out)
	require.Contains(f.t, string(out), "OK")
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// envoy is a running Envoy.
type envoy struct {
	files
	admin string
	log   *syncBuffer
}

// rbacStats are the counters of RBAC by the names that they have since Envoy 1.40:
// before, those of filters that come by ECDS begin with the extension's.
func (e *envoy) rbacStats() string {
	older := regexp.MustCompile(`(?m)^extension_config_discovery\.http_filter\.rbac-http-(\d+)(?:-(plain))?\.`)
	return older.ReplaceAllStringFunc(e.get("/stats?filter=rbac"), func(text string) string {
		at := older.FindStringSubmatch(text)
		return strings.TrimSuffix("http.inbound_"+at[1]+"_"+at[2], "_") + "."
	})
}

func (e *envoy) get(path string) string {
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: tr}).Get(e.admin + path)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

// names returns what Envoy has of each type, and fails on what it refused.
func (e *envoy) names() map[string][]string {
	e.t.Helper()
	var dump struct {
		Configs []map[string]json.RawMessage `json:"configs"`
	}
	text := e.get("/config_dump?include_eds")
	require.NoError(e.t, json.Unmarshal([]byte(text), &dump))
	require.NotContains(e.t, text, `"error_state"`)
	out := map[string][]string{}
	for _, config := range dump.Configs {
		for _, key := range []string{"dynamic_listeners", "dynamic_active_clusters", "dynamic_active_secrets", "ecds_filters", "dynamic_route_configs"} {
			var list []map[string]any
			if config[key] == nil {
				continue
			}
			require.NoError(e.t, json.Unmarshal(config[key], &list))
			for _, item := range list {
				out[key] = append(out[key], nameIn(item))
			}
		}
	}
	return out
}

// nameIn finds the name of an entry of a config dump.
func nameIn(item map[string]any) string {
	for _, key := range []string{"cluster", "ecds_filter", "route_config"} {
		if inner, ok := item[key].(map[string]any); ok {
			return fmt.Sprint(inner["name"])
		}
	}
	return fmt.Sprint(item["name"])
}
