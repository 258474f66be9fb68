package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// readme is the table of who may call whom in the README beside the directory,
// written by hand: the third opinion beside the model's and the Envoys'.
func readme(t *testing.T) map[string]map[string]verdict {
	t.Helper()
	raw, err := os.ReadFile("../../deploy/demo/README.md")
	require.NoError(t, err)
	table := map[string]map[string]verdict{}
	var heads []string
	for line := range strings.Lines(string(raw)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case strings.HasPrefix(cells[0], "from "):
			heads = cells
		case heads != nil && strings.HasPrefix(line, "|") && !strings.HasPrefix(cells[0], "---"):
			row := map[string]verdict{}
			for i, c := range cells[1:] {
				row[heads[i+1]] = verdict(c)
			}
			table[cells[0]] = row
		case heads != nil && !strings.HasPrefix(line, "|"):
			return table
		}
	}
	return table
}

func demoDirectory(t *testing.T) directory {
	t.Helper()
	d, err := copyDirectory("../../deploy/demo", filepath.Join(t.TempDir(), "config"))
	require.NoError(t, err)
	return d
}

func demoWorld(t *testing.T, d directory) *world {
	t.Helper()
	w, err := d.world()
	require.NoError(t, err)
	return w
}

func TestTheModelSaysWhatTheReadmeSays(t *testing.T) {
	w, want := demoWorld(t, demoDirectory(t)), readme(t)
	require.Len(t, want, len(w.actors))
	for _, from := range w.actors {
		for _, to := range w.callable() {
			require.Equal(t, want[from.name()][to.service.Namespace+"/"+to.service.Name], w.expect(from, to), "%s -> %s", from.name(), to.name())
		}
	}
}

func TestEachChangeDoesWhatItWasChosenFor(t *testing.T) {
	for name, choose := range map[string]func(directory, *world) (*change, error){
		"request": chooseRequest, "policy": choosePolicy, "grant": chooseGrant,
	} {
		t.Run(name, func(t *testing.T) {
			d := demoDirectory(t)
			w := demoWorld(t, d)
			c, err := choose(d, w)
			require.NoError(t, err)
			require.NotNil(t, c)
			require.Equal(t, c.before, w.expect(c.from, c.to))
			require.NoError(t, c.do())
			next := demoWorld(t, d)
			require.Equal(t, c.after, next.expect(c.from, c.to), c.what)
			left, err := filepath.Glob(filepath.Join(d.root, "*", "*", ".*.new"))
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

func TestRemoveLeavesTheOthersOfTheFile(t *testing.T) {
	d := demoDirectory(t)
	before, err := d.read()
	require.NoError(t, err)
	for _, p := range before {
		if p.Ref.Key.Name == "web-admin" {
			require.NoError(t, d.remove(p.Ref))
		}
	}
	after, err := d.read()
	require.NoError(t, err)
	require.Len(t, after, len(before)-1)
	for _, p := range after {
		require.NotEqual(t, "web-admin", p.Ref.Key.Name)
	}
}

// What is no service's and not the proxy's own must not vanish from the account.
func TestNamesOfHidesNothingForeign(t *testing.T) {
	w := demoWorld(t, demoDirectory(t))
	got := w.namesOf([]string{"passthrough", "stranger", "orders.acme-web.svc.cluster.local:8080", "inbound-8080"})
	require.Equal(t, []string{"orders.acme-web:8080", "stranger"}, got)
}
