package inject

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"
)

func config() Config {
	c := Default()
	c.InitImage, c.ProxyImage = "example.test/init:1", "example.test/proxy:1"
	c.TrustDomain = spiffeid.RequireTrustDomainFromString("acme.example")
	c.Servers = []string{"bailiwick.bailiwick-system.svc:18000"}
	c.ServerID = spiffeid.RequireFromString("spiffe://mesh.example/ns/bailiwick-system/sa/bailiwick")
	return c
}

// The templates that the tests speak of: body is a Pod's metadata and spec.
const plain = "metadata: {name: web, labels: {app: web}}\nspec:\n  containers:\n  - {name: web, image: web:1}\n"

// as makes an object of a kind from a Pod's body.
func as(kind, body string) string {
	indent := func(s, by string) string {
		return by + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n"+by) + "\n"
	}
	switch kind {
	case "Pod":
		return "apiVersion: v1\nkind: Pod\n" + body
	case "Job":
		return "apiVersion: batch/v1\nkind: Job\nmetadata: {name: web}\nspec:\n  template:\n" + indent(body, "    ")
	case "CronJob":
		return "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: web}\nspec:\n  schedule: '* * * * *'\n  jobTemplate:\n    spec:\n      template:\n" + indent(body, "        ")
	case "List":
		return "apiVersion: v1\nkind: List\nitems:\n-\n" + indent(as("Pod", body), "  ") + "- {apiVersion: v1, kind: ConfigMap, metadata: {name: other}, data: {n: '1'}}\n"
	}
	return "apiVersion: apps/v1\nkind: " + kind + "\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {app: web}}\n  template:\n" + indent(body, "    ")
}

func kinds() []string {
	return []string{"Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob", "Rollout", "List"}
}

// specOf finds the Pod spec in an injected document.
func specOf(t require.TestingT, text []byte) corev1.PodSpec {
	var root tree
	require.NoError(t, yaml.Unmarshal(text, &root))
	if items, ok := root["items"].([]any); ok {
		root = items[0].(tree)
	}
	kind, _ := root["kind"].(string)
	pod, _ := template(root, kind)
	raw, err := yaml.Marshal(pod["spec"])
	require.NoError(t, err)
	var spec corev1.PodSpec
	require.NoError(t, yaml.UnmarshalStrict(raw, &spec))
	return spec
}

func names(list []corev1.Container) []string {
	var out []string
	for _, c := range list {
		out = append(out, c.Name)
	}
	return out
}

var ours = []string{"bailiwick-iptables", "bailiwick-bootstrap", "bailiwick-envoy"}

func TestEveryKindOfTemplate(t *testing.T) {
	for _, kind := range kinds() {
		t.Run(kind, func(t *testing.T) {
			out, err := File("in.yaml", []byte(as(kind, plain)), config())
			require.NoError(t, err)
			spec := specOf(t, out)
			require.Equal(t, ours, names(spec.InitContainers))
			require.Equal(t, []corev1.Container{{Name: "web", Image: "web:1"}}, spec.Containers)
			require.Len(t, spec.Volumes, 3)
			envoy := spec.InitContainers[2]
			require.Equal(t, corev1.ContainerRestartPolicyAlways, *envoy.RestartPolicy)
			require.NotNil(t, envoy.StartupProbe)
			require.NotNil(t, envoy.Lifecycle.PreStop.Exec)
			for _, c := range spec.InitContainers {
				require.Equal(t, []corev1.Capability{"ALL"}, c.SecurityContext.Capabilities.Drop, c.Name)
				require.True(t, *c.SecurityContext.ReadOnlyRootFilesystem)
				require.False(t, c.Resources.Requests.Memory().IsZero())
				require.False(t, c.Resources.Limits.Memory().IsZero())
			}
			again, err := File("in.yaml", out, config())
			require.NoError(t, err)
			require.Equal(t, string(out), string(again))
		})
	}
}

// What the table's templates become, or why they are refused.
func TestTemplates(t *testing.T) {
	pod := func(annotations, spec string) string {
		return "metadata: {name: web, annotations: {" + annotations + "}}\nspec:\n" + spec
	}
	const web = "  containers:\n  - {name: web, image: w}\n"
	for name, c := range map[string]struct {
		body string
		// refused is in the error; else check looks at the result.
		refused string
		check   func(*testing.T, corev1.PodSpec)
	}{
		"several containers and init containers": {
			body: "metadata: {name: web}\nspec:\n  initContainers:\n  - {name: migrate, image: m}\n  - {name: log, image: l, restartPolicy: Always}\n  containers:\n  - {name: web, image: w}\n  - {name: side, image: s}\n",
			check: func(t *testing.T, s corev1.PodSpec) {
				require.Equal(t, append(slices.Clone(ours), "migrate", "log"), names(s.InitContainers))
				require.Equal(t, []string{"web", "side"}, names(s.Containers))
			},
		},
		"volumes stay": {
			body: pod("", web+"  volumes:\n  - {name: data, emptyDir: {}}\n"),
			check: func(t *testing.T, s corev1.PodSpec) {
				require.Len(t, s.Volumes, 4)
				require.Equal(t, "data", s.Volumes[3].Name)
			},
		},
		"probes of all kinds stay": {
			body: pod("", "  containers:\n  - name: web\n    image: w\n    ports: [{name: http, containerPort: 8080}]\n"+
				"    startupProbe: {tcpSocket: {port: http}}\n    livenessProbe: {grpc: {port: 9000, service: live}}\n"+
				"    readinessProbe: {httpGet: {port: http, path: /ready}}\n    lifecycle: {preStop: {sleep: {seconds: 3}}}\n"),
			check: func(t *testing.T, s corev1.PodSpec) {
				web := s.Containers[0]
				require.Equal(t, "/ready", web.ReadinessProbe.HTTPGet.Path)
				require.Equal(t, "http", web.StartupProbe.TCPSocket.Port.StrVal)
				require.EqualValues(t, 9000, web.LivenessProbe.GRPC.Port)
				require.EqualValues(t, 3, web.Lifecycle.PreStop.Sleep.Seconds)
			},
		},
		"exclusions": {
			body: pod(`bailiwick.dev/exclude-inbound-ports: "9090, 22", bailiwick.dev/exclude-outbound-ports: "53", bailiwick.dev/exclude-outbound-cidrs: "10.0.0.0/8"`, web),
			check: func(t *testing.T, s corev1.PodSpec) {
				require.Equal(t, []string{
					"iptables", "--apply", "--exclude-inbound-ports=9090,22", "--exclude-outbound-ports=53", "--exclude-outbound-cidrs=10.0.0.0/8",
				}, s.InitContainers[0].Args)
			},
		},
		"resources by annotation": {
			body: pod(`bailiwick.dev/proxy-cpu: "2", bailiwick.dev/proxy-memory: 1Gi`, web),
			check: func(t *testing.T, s corev1.PodSpec) {
				require.Equal(t, "2", s.InitContainers[2].Resources.Requests.Cpu().String())
				require.Equal(t, "1Gi", s.InitContainers[2].Resources.Limits.Memory().String())
				require.Contains(t, s.InitContainers[1].Args, "--max-heap-mib=870")
			},
		},
		"opt-out": {
			body:  pod(`bailiwick.dev/inject: "false"`, web),
			check: func(t *testing.T, s corev1.PodSpec) { require.Empty(t, s.InitContainers); require.Empty(t, s.Volumes) },
		},
		"opt-out of the host's network": {
			body:  pod(`bailiwick.dev/inject: "false"`, web+"  hostNetwork: true\n"),
			check: func(t *testing.T, s corev1.PodSpec) { require.Empty(t, s.InitContainers) },
		},
		"TLS probe on an excluded port": {
			body: pod(`bailiwick.dev/exclude-inbound-ports: "8443"`,
				"  containers:\n  - {name: web, image: w, ports: [{name: tls, containerPort: 8443}], readinessProbe: {httpGet: {port: tls, scheme: HTTPS}}}\n"),
			check: func(t *testing.T, s corev1.PodSpec) { require.NotNil(t, s.Containers[0].ReadinessProbe) },
		},
		"host network":      {body: pod("", web+"  hostNetwork: true\n"), refused: "spec.hostNetwork"},
		"Windows":           {body: pod("", web+"  os: {name: windows}\n"), refused: "spec.os.name"},
		"no containers":     {body: pod("", "  nodeName: a\n"), refused: "spec.containers: required"},
		"Envoy's user":      {body: pod("", web+"  securityContext: {runAsUser: 1337}\n"), refused: "spec.securityContext.runAsUser"},
		"our names":         {body: pod("", "  containers:\n  - {name: bailiwick-web, image: w}\n"), refused: "spec.containers[0] (bailiwick-web).name"},
		"Envoy's port":      {body: pod("", "  containers:\n  - {name: web, image: w, ports: [{containerPort: 15006}]}\n"), refused: "ports[0].containerPort: 15006"},
		"a choice":          {body: pod(`bailiwick.dev/inject: "no"`, web), refused: `"no" is neither`},
		"a port":            {body: pod(`bailiwick.dev/exclude-inbound-ports: "http"`, web), refused: `"http" is not a port`},
		"a CIDR":            {body: pod(`bailiwick.dev/exclude-outbound-cidrs: "10.1.0.0/8"`, web), refused: "10.0.0.0/8 is meant"},
		"too little memory": {body: pod(`bailiwick.dev/proxy-memory: 1Mi`, web), refused: "proxy-memory"},
		"a container as Envoy's user": {
			body: pod("", "  containers:\n  - {name: web, image: w, securityContext: {runAsUser: 1337}}\n"), refused: "spec.containers[0] (web).securityContext.runAsUser",
		},
		"a TLS probe": {
			body: pod("", "  containers:\n  - {name: web, image: w, livenessProbe: {httpGet: {port: 8443, scheme: HTTPS}}}\n"), refused: "livenessProbe.httpGet.scheme",
		},
	} {
		for _, kind := range []string{"Pod", "Deployment", "CronJob"} {
			t.Run(name+"/"+kind, func(t *testing.T) {
				in := as(kind, c.body)
				out, err := File("in.yaml", []byte(in), config())
				if c.refused != "" {
					require.ErrorContains(t, err, c.refused)
					require.ErrorContains(t, err, kind+" web: ")
					return
				}
				require.NoError(t, err)
				c.check(t, specOf(t, out))
				if strings.HasPrefix(name, "opt-out") {
					require.Equal(t, in, string(out))
				}
			})
		}
	}
}

// Documents without templates come out as they were, comments included; an
// error anywhere names each place.
func TestManyDocuments(t *testing.T) {
	other := "# kept\napiVersion: v1\nkind: Service\nmetadata: {name: web} # this, too\nspec: {ports: [{port: 80}]}\n"
	out, err := File("in.yaml", []byte(other+"---\n"+as("Job", plain)+"---\n"+other), config())
	require.NoError(t, err)
	parts := strings.Split(string(out), "---\n")
	require.Len(t, parts, 3)
	require.Equal(t, other, parts[0])
	require.Equal(t, other, parts[2])
	require.Equal(t, ours, names(specOf(t, []byte(parts[1])).InitContainers))

	_, err = File("in.yaml", []byte(as("Pod", plain+"  hostNetwork: true\n")+"---\na: [\n---\n"+as("Job", plain+"  hostNetwork: true\n")), config())
	require.ErrorContains(t, err, "in.yaml: document 1: Pod web: spec.hostNetwork")
	require.ErrorContains(t, err, "in.yaml: document 2: parse")
	require.ErrorContains(t, err, "in.yaml: document 3: Job web: spec.template.spec.hostNetwork")

	out, err = File("in.json", []byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"terminationGracePeriodSeconds":9007199254740993,"containers":[{"name":"a","image":"a"}]}}`), config())
	require.NoError(t, err)
	require.Contains(t, string(out), "9007199254740993")
}

func TestCertificates(t *testing.T) {
	c := config()
	out, err := File("in.yaml", []byte(as("Pod", plain)), c)
	require.NoError(t, err)
	spec := specOf(t, out)
	require.Equal(t, "csi.spiffe.io", spec.Volumes[2].CSI.Driver)
	require.Contains(t, spec.InitContainers[1].Args, "--sds=unix:/var/run/bailiwick/svid/spire-agent.sock")

	c.Driver, c.BundleConfigMap = CertManager, "mesh-bundle/ca.pem"
	out, err = File("in.yaml", out, c)
	require.NoError(t, err)
	spec = specOf(t, out)
	require.Len(t, spec.Volumes, 4)
	require.Equal(t, map[string]string{"spiffe.csi.cert-manager.io/fs-group": "1337"}, spec.Volumes[2].CSI.VolumeAttributes)
	require.Contains(t, spec.InitContainers[1].Args, "--trust-bundle=/var/run/bailiwick/bundle/ca.pem")
	require.Contains(t, spec.InitContainers[1].Args, "--cert=/var/run/bailiwick/svid/tls.crt")
}

func TestConfigIsChecked(t *testing.T) {
	for why, change := range map[string]func(*Config){
		"init image":          func(c *Config) { c.InitImage = "" },
		"trust domain":        func(c *Config) { c.TrustDomain = spiffeid.TrustDomain{} },
		"no address":          func(c *Config) { c.Servers = nil },
		"is neither":          func(c *Config) { c.Driver = "other" },
		"NAME/KEY":            func(c *Config) { c.Driver, c.BundleConfigMap = CertManager, "x" },
		"at least 64Mi":       func(c *Config) { c.Memory.Set(1) },
		"must be positive":    func(c *Config) { c.Concurrency = 0 },
		"a file's name":       func(c *Config) { c.SocketName = "a/b" },
		"means something wit": func(c *Config) { c.BundleConfigMap = "a/b" },
	} {
		c := config()
		change(&c)
		_, err := File("in.yaml", nil, c)
		require.ErrorContains(t, err, why)
	}
}

// Injecting twice is injecting once, whatever the template and whatever was
// injected before; and nothing of the template's own changes.
func TestIdempotent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var spec strings.Builder
		spec.WriteString("metadata: {name: web, labels: {app: web}")
		if rapid.Bool().Draw(t, "annotated") {
			fmt.Fprintf(&spec, ", annotations: {bailiwick.dev/exclude-inbound-ports: %q}", rapid.SampledFrom([]string{"", "22", "22,23"}).Draw(t, "ports"))
		}
		spec.WriteString("}\nspec:\n")
		container := rapid.Custom(func(t *rapid.T) string {
			return rapid.SampledFrom([]string{
				"{name: %s, image: a}", "{name: %s, image: a, restartPolicy: Always}", "{name: %s, image: a, unknown: {field: 1.50}}",
				"{name: %s, image: a, readinessProbe: {httpGet: {port: 80}}}",
			}).Draw(t, "container")
		})
		for _, field := range []string{"initContainers", "containers"} {
			list := rapid.SliceOfN(container, 1, 3).Draw(t, field)
			if field == "initContainers" && rapid.Bool().Draw(t, "none") {
				continue
			}
			spec.WriteString("  " + field + ":\n")
			for i, c := range list {
				fmt.Fprintf(&spec, "  - "+c+"\n", fmt.Sprintf("%c%d", field[0], i))
			}
		}
		in := as(rapid.SampledFrom(kinds()).Draw(t, "kind"), spec.String())
		first, second := config(), config()
		second.Driver, second.IPv6 = CertManager, false
		once, err := File("in.yaml", []byte(in), second)
		require.NoError(t, err)
		twice, err := File("in.yaml", once, second)
		require.NoError(t, err)
		require.Equal(t, string(once), string(twice))
		before, err := File("in.yaml", []byte(in), first)
		require.NoError(t, err)
		changed, err := File("in.yaml", before, second)
		require.NoError(t, err)
		require.Equal(t, string(once), string(changed))

		var was, is tree
		require.NoError(t, yaml.Unmarshal([]byte(in), &was))
		require.NoError(t, yaml.Unmarshal(once, &is))
		for _, root := range []tree{is} {
			items, ok := root["items"].([]any)
			if !ok {
				items = []any{root}
			}
			for _, item := range items {
				kind, _ := item.(tree)["kind"].(string)
				if pod, _ := template(item.(tree), kind); pod != nil {
					require.True(t, strip(pod))
				}
			}
		}
		require.Equal(t, was, is)
	})
}
