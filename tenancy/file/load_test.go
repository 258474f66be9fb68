package file

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy"
)

func TestNewRefuses(t *testing.T) {
	_, err := New(Config{})
	require.ErrorContains(t, err, "required")
}

func TestOwnership(t *testing.T) {
	dir := mesh(t)
	put(t, dir, "platform/svc.yaml", service("a", "both", "1")+service("a", "platform", "1"))
	put(t, dir, "tenants/acme/x.yaml", service("a", "both", "2")+service("a", "mine", "2")+service("g", "theirs", "2")+
		service("none", "nobody", "2")+namespace("a", "globex")+tenant("acme"))
	put(t, dir, "tenants/acme/y/z.yaml", service("a", "mine", "3")+service("a", "more", "3")+service("a", "more", "4"))
	put(t, dir, "tenants/globex/x.yml", service("a", "mine", "5"))
	put(t, dir, "tenants/Globex/x.yml", service("g", "mine", "5"))
	put(t, dir, "tenants/loose.yaml", service("g", "loose", "5"))
	put(t, dir, "loose.json", "{}")
	put(t, dir, "README.md", "# not read")
	put(t, dir, "platform/.hidden.yaml", "a: [")
	put(t, dir, ".git/x.yaml", "a: [")
	objects, report := load(t, dir)
	port := func(name string) uint16 { return objects["Service a/"+name].(*tenancy.Service).Ports[0].Port }
	require.Len(t, objects, 8)
	require.Equal(t, []uint16{1, 1, 2, 3}, []uint16{port("both"), port("platform"), port("mine"), port("more")})
	require.Equal(t, "acme", objects["Namespace a"].(*tenancy.Namespace).Tenant)
	require.True(t, report.Ready)
	require.Empty(t, report.Held)
	require.Equal(t, 5, report.Files)
	require.Equal(t, 8, report.Objects)
	require.Equal(t, []string{
		"loose.json: not read: objects belong into platform/ or tenants/<name>/",
		"tenants/Globex/x.yml: not read: \"Globex\" cannot be the name of a tenant",
		"tenants/acme/x.yaml:1: document 1: Service a/both: is given already in " + dir + "/platform/svc.yaml, document 1: that one stays",
		"tenants/acme/x.yaml:11: document 3: Service g/theirs: namespace g does not belong to tenant acme",
		"tenants/acme/x.yaml:16: document 4: Service none/nobody: namespace none does not belong to tenant acme",
		"tenants/acme/x.yaml:21: document 5: Namespace a: kind Namespace belongs into platform/: a tenant's folder holds namespaced objects only",
		"tenants/acme/x.yaml:25: document 6: Tenant acme: kind Tenant belongs into platform/: a tenant's folder holds namespaced objects only",
		"tenants/acme/y/z.yaml:1: document 1: Service a/mine: is given already in " + dir + "/tenants/acme/x.yaml, document 2: that one stays",
		"tenants/acme/y/z.yaml:11: document 3: Service a/more: is given already in " + dir + "/tenants/acme/y/z.yaml, document 2: that one stays",
		"tenants/globex/x.yml:1: document 1: Service a/mine: namespace a does not belong to tenant globex",
		"tenants/loose.yaml: not read: objects belong into platform/ or tenants/<name>/",
	}, errorTexts(report, dir))
}

func TestLocate(t *testing.T) {
	dir := mesh(t)
	put(t, dir, "tenants/acme/x.yaml", "# head\n---\n"+service("a", "s", "1"))
	s, err := New(config(dir))
	require.NoError(t, err)
	events, _ := s.Load()
	last := events[len(events)-1]
	place, ok := s.Locate(last.Ref)
	require.True(t, ok)
	require.Equal(t, Place{File: filepath.Join(dir, "tenants/acme/x.yaml"), Document: 1, Line: 3}, place)
	last.Ref.Key.Name = "none"
	_, ok = s.Locate(last.Ref)
	require.False(t, ok)
}

// TestOrder: the events are in the order of the directory.
func TestOrder(t *testing.T) {
	dir := mesh(t)
	put(t, dir, "tenants/acme/b.yaml", service("a", "s3", "1")+service("a", "s1", "1"))
	put(t, dir, "tenants/acme/a/x.yaml", service("a", "s2", "1"))
	put(t, dir, "platform/z.yaml", service("g", "s4", "1"))
	s, err := New(config(dir))
	require.NoError(t, err)
	events, _ := s.Load()
	var names []string
	for _, ev := range events {
		names = append(names, refName(ev.Ref))
	}
	require.Equal(t, meshObjects("Service g/s4", "Service a/s2", "Service a/s3", "Service a/s1"), names)
}

func TestBrokenAtStart(t *testing.T) {
	for name, c := range map[string]struct {
		files      map[string]string
		ready      bool
		held, heNs []string
	}{
		"fine":                   {map[string]string{"tenants/acme/x.yaml": service("a", "s", "1")}, true, nil, nil},
		"tenant's file":          {map[string]string{"tenants/acme/x.yaml": "a: [", "tenants/globex/x.yaml": service("g", "s", "1")}, true, []string{"acme"}, nil},
		"platform's file":        {map[string]string{"platform/x.yaml": "a: ["}, false, nil, nil},
		"bad object":             {map[string]string{"tenants/acme/x.yaml": service("a", "s", "0"), "platform/x.yaml": service("a", "t", "0")}, true, nil, nil},
		"bad Tenant":             {map[string]string{"platform/x.yaml": strings.Replace(tenant("third"), "trustDomain", "domain", 1)}, true, []string{"third"}, nil},
		"bad Namespace":          {map[string]string{"platform/x.yaml": strings.Replace(namespace("nn", "acme"), "labels", "label", 1)}, true, nil, []string{"nn"}},
		"bad Namespace, foreign": {map[string]string{"tenants/acme/x.yaml": strings.Replace(namespace("nn", "acme"), "labels", "label", 1)}, true, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := mesh(t)
			for file, text := range c.files {
				put(t, dir, file, text)
			}
			_, report := load(t, dir)
			require.Equal(t, c.ready, report.Ready)
			require.Equal(t, c.held, report.Held)
			require.Equal(t, c.heNs, report.HeldNamespaces)
			require.Equal(t, name != "fine", len(report.Errors) > 0)
		})
	}
}

func TestMissingAtStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	_, report := load(t, dir)
	require.False(t, report.Ready)
	require.Len(t, report.Errors, 1)
	put(t, dir, "tenants/acme/x.yaml", service("a", "s", "1"))
	_, report = load(t, dir)
	require.False(t, report.Ready)
	put(t, dir, "platform/x.yaml", tenant("acme")+namespace("a", "acme"))
	_, report = load(t, dir)
	require.True(t, report.Ready)
	require.Empty(t, report.Errors)
}

func TestLinks(t *testing.T) {
	dir := mesh(t)
	link := func(target, name string) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.Symlink(target, path))
	}
	outside := filepath.Join(t.TempDir(), "x.yaml")
	require.NoError(t, os.WriteFile(outside, []byte(service("a", "outside", "1")), 0o644))
	put(t, dir, "tenants/acme/..2026/a.yaml", service("a", "mounted", "1"))
	put(t, dir, "tenants/globex/x.yaml", service("a", "theirs", "1"))
	link("..2026", "tenants/acme/..data")
	link("..data/a.yaml", "tenants/acme/a.yaml")
	link(outside, "tenants/acme/b.yaml")
	link("../globex/x.yaml", "tenants/acme/c.yaml")
	link("nowhere.yaml", "tenants/acme/d.yaml")
	link("..", "tenants/acme/loop")
	link(".", "tenants/acme/self")
	objects, report := load(t, dir)
	require.Contains(t, objects, "Service a/mounted")
	require.Len(t, objects, 5)
	texts := errorTexts(report, dir)
	require.Len(t, texts, 6, "%q", texts)
	for i, want := range []string{
		"tenants/acme/b.yaml: cannot be read: the link leads out of its folder",
		"tenants/acme/c.yaml: cannot be read: the link leads out of its folder",
		"tenants/acme/d.yaml: cannot be read: ",
		"tenants/acme/loop: cannot be read, what was read from there stays: the link leads out",
		"tenants/acme/self: cannot be read, what was read from there stays: folders are nested too deep or a link leads back",
		"tenants/globex/x.yaml:1: document 1: Service a/theirs: namespace a does not belong to tenant globex",
	} {
		require.True(t, strings.HasPrefix(texts[i], want), texts[i])
	}
	require.Equal(t, []string{"acme"}, report.Held)
}

// TestProjectedVolume: the folders themselves may be links, as one volume for
// the whole directory has them.
func TestProjectedVolume(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "config")
	put(t, dir, "..2026/platform/x.yaml", tenant("acme")+namespace("a", "acme"))
	put(t, dir, "..2026/tenants/acme/x.yaml", service("a", "s", "1"))
	for _, name := range []string{"platform", "tenants"} {
		require.NoError(t, os.Symlink("..data/"+name, filepath.Join(dir, name)))
	}
	require.NoError(t, os.Symlink("..2026", filepath.Join(dir, "..data")))
	objects, report := load(t, dir)
	require.Empty(t, report.Errors)
	require.Len(t, objects, 3)
}

func TestNotAFile(t *testing.T) {
	dir := mesh(t)
	put(t, dir, "tenants/acme/x.yaml/", "")
	put(t, dir, "tenants/acme/large.yaml", strings.Repeat("#\n", 9<<20))
	_, report := load(t, dir)
	require.Equal(t, []string{"acme"}, report.Held)
	require.True(t, slices.ContainsFunc(errorTexts(report, dir), func(s string) bool { return strings.Contains(s, "longer than") }))
}
