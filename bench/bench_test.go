package main

import (
	"bytes"
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy/kube/kubetest"
)

// Children of the tests are this very program.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == childWord {
		exit(runChild(os.Args[2]))
		return
	}
	// The race detector would have each of a hundred children wait a second for
	// reports when it ends.
	if err := os.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=0")); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func tinySizes() sizes {
	return sizes{
		small: shape{Tenants: 2, Services: 2, Endpoints: 2}, large: shape{Tenants: 4, Services: 3, Endpoints: 2},
		clients: 2, changes: 6, floodChanges: 4, streams: 8,
		fanout: []int{1 << 10, 50 << 10}, fanoutStreams: 4, pushes: func(int, string) int { return 2 },
		unscoped: []int{8}, largestChanges: 6,
		burst: shape{Tenants: 2, Services: 2, Endpoints: 3}, burstEvery: time.Millisecond,
		tenants: []int{2, 3}, routes: []int{2, 4}, routeChanges: 2,
	}
}

// The mesh over a real API server gives the figures of the other sources, and
// those of the bare watch.
func TestSourceOverARealAPIServer(t *testing.T) {
	kubetest.Binaries(t)
	r, err := newRun(tinySizes())
	require.NoError(t, err)
	defer func() { require.NoError(t, os.RemoveAll(r.work)) }()
	r.kubernetes = true
	require.NoError(t, r.all(t.Context(), []string{"source"}))
	n := map[string]int{}
	for _, f := range r.report.Figures {
		n[f.Name] += f.N
	}
	require.Equal(t, r.changes, n["endpoint change"])
	require.Equal(t, r.changes, n["service added"])
	require.Equal(t, 2*r.changes, n["bare watch has it"])
	require.Equal(t, 2*r.changes, n["last client has it after the bare watch"])
}

// Every scenario runs, finds something, and sends nobody what is not theirs.
func TestScenarios(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			r, err := newRun(tinySizes())
			require.NoError(t, err)
			defer func() { require.NoError(t, os.RemoveAll(r.work)) }()
			require.NoError(t, r.all(t.Context(), []string{s.name}))
			if s.name == "policy" || s.name == "source" {
				require.Empty(t, r.report.Figures, "it needs an Envoy or an API server")
				return
			}
			require.NotEmpty(t, r.report.Figures)
			for _, f := range r.report.Figures {
				require.Equal(t, s.name, f.Scenario)
				require.Positive(t, f.N, f.Name)
				require.NotEmpty(t, f.Case+f.Name)
				if f.Name == "sent out of scope" || f.Name == "resources sent again" {
					require.Zero(t, f.P50, f.Case)
				}
				if strings.HasPrefix(f.Name, "configuration") || strings.HasSuffix(f.Name, "endpoint change") && !strings.Contains(f.Name, "collections") {
					require.Positive(t, f.P50, "%s: %s", f.Case, f.Name)
				}
			}
			var out bytes.Buffer
			r.report.print(&out)
			require.Contains(t, out.String(), "| "+s.name+" |")
		})
	}
}

// A report is what it was after it was written and read, and can be drawn.
func TestReportsAreReadAndDrawn(t *testing.T) {
	dir := t.TempDir()
	r := &Report{Machine: Machine{CPU: "x"}, Figures: []Figure{
		{Scenario: "tenants", Case: "10 <tenants>", Name: "server CPU per endpoint change", Unit: "ms", N: 1, P50: 0.3},
		{Scenario: "burst", Case: "a", Name: "a new Pod is known to the last client", Unit: "ms", N: 5, P50: 1, P99: 30},
		{Scenario: "burst", Case: "b", Name: "a new Pod is known to the last client", Unit: "ms", N: 5, P50: 400, P99: 1000},
	}}
	file := filepath.Join(dir, "report.json")
	require.NoError(t, r.write(file))
	same, err := readReport(file)
	require.NoError(t, err)
	require.Equal(t, r, same)
	require.NoError(t, same.drawPlots(filepath.Join(dir, "plots")))
	readme := filepath.Join(dir, "README.md")
	require.Error(t, same.intoReadme(readme))
	require.NoError(t, os.WriteFile(readme, []byte("a\n<!-- results -->\nold\n<!-- end of results -->\nb\n<!-- burst -->\n<!-- end of burst -->\nc\n"), 0o600))
	require.NoError(t, same.intoReadme(readme))
	text, err := os.ReadFile(readme)
	require.NoError(t, err)
	require.Regexp(t, `(?s)^a\n<!-- results -->\nx, .*\| burst \| a \|.*<!-- end of results -->\nb\n<!-- burst -->\n.*\| b \| 400 / 1000 \|.*<!-- end of burst -->\nc\n$`, string(text))
	require.NotContains(t, string(text), "old")
	drawn, err := filepath.Glob(filepath.Join(dir, "plots", "*.svg"))
	require.NoError(t, err)
	require.Len(t, drawn, 2)
	for _, path := range drawn {
		raw, err := os.ReadFile(path)
		require.NoError(t, err)
		var any struct {
			Text []string `xml:"text"`
		}
		require.NoError(t, xml.Unmarshal(raw, &any))
		require.GreaterOrEqual(t, len(any.Text), 4, path)
	}
}

func TestForeignFindsNames(t *testing.T) {
	own := namespaceOf(7)
	for text, want := range map[string]bool{
		"s0.ns-00007.svc.cluster.local":                 false,
		"s0.ns-00007.svc and s1.ns-00008.svc":           true,
		"spiffe://mesh.example/ns/ns-00001/sa/s0":       true,
		"a version such as xns-abcde, which is no name": false,
		"ns-": false,
	} {
		require.Equal(t, want, foreign([]byte(text), own), text)
	}
}

func TestPercentileIsOfTheNearestRank(t *testing.T) {
	var values []float64
	for i := 300; i > 0; i-- {
		values = append(values, float64(i))
	}
	require.Equal(t, 150.0, percentile(values, 50))
	require.Equal(t, 297.0, percentile(values, 99))
	require.Equal(t, 5.0, percentile([]float64{5, 1}, 99))
}

// The body's length is what was asked for, and the same in every round, so that
// pushes are comparable.
func TestAssignmentHasItsSize(t *testing.T) {
	for _, size := range []int{1 << 10, 50 << 10, 1 << 20} {
		n, err := pushedBytes(size)
		require.NoError(t, err)
		require.InEpsilon(t, size, n, 0.2)
	}
	o, err := newOneStore(1 << 10)
	require.NoError(t, err)
	a, err := o.next()
	require.NoError(t, err)
	b, err := o.next()
	require.NoError(t, err)
	require.Equal(t, len(a.DeltaFrame()), len(b.DeltaFrame()))
	require.NotEqual(t, a.Version(), b.Version())
}
