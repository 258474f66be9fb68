package file

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy"
)

func TestFollowsChanges(t *testing.T) {
	dir := mesh(t)
	put(t, dir, "tenants/acme/x.yaml", service("a", "one", "1")+service("a", "two", "1"))
	r, _ := run(t, dir)
	r.until(t, "synced", func() bool { return r.synced == 1 })
	r.until(t, "loaded", r.has(meshObjects("Service a/one", "Service a/two")...))
	r.now(t, func() bool { return len(r.batches) == 1 }) // the first load is one change

	put(t, dir, "tenants/acme/new/deep/y.json", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"three","namespace":"a"}}`)
	r.until(t, "a file in new folders", r.has(meshObjects("Service a/one", "Service a/two", "Service a/three")...))
	swap(t, dir, "tenants/acme/x.yaml", service("a", "one", "1")+service("a", "two", "2"))
	r.until(t, "a file swapped", func() bool { return r.objects["Service a/two"].(*tenancy.Service).Ports[0].Port == 2 })
	r.now(t, func() bool { return len(r.batches[len(r.batches)-1]) == 1 }) // only what differs is an event
	require.NoError(t, os.Rename(filepath.Join(dir, "tenants/acme/new"), filepath.Join(dir, "tenants/acme/old")))
	put(t, dir, "tenants/acme/old/deep/z.yaml", service("a", "four", "1"))
	r.until(t, "a file in a renamed folder", r.has(meshObjects("Service a/one", "Service a/two", "Service a/three", "Service a/four")...))
	remove(t, dir, "tenants/acme/old")
	r.until(t, "a folder removed", r.has(meshObjects("Service a/one", "Service a/two")...))
	remove(t, dir, "tenants/acme/x.yaml")
	r.until(t, "the last file of tenants/ removed", r.has(meshObjects()...))
	r.now(t, func() bool { return r.synced == 1 && len(r.report.Errors) == 0 })
}

// TestRelabel: whose folder may hold a namespace's objects follows its label.
func TestRelabel(t *testing.T) {
	dir := mesh(t)
	put(t, dir, "tenants/acme/x.yaml", service("a", "s", "1"))
	put(t, dir, "tenants/globex/x.yaml", service("a", "s", "2"))
	r, _ := run(t, dir)
	port := func() uint16 {
		s, _ := r.objects["Service a/s"].(*tenancy.Service)
		if s == nil {
			return 0
		}
		return s.Ports[0].Port
	}
	r.until(t, "acme's", func() bool { return port() == 1 && len(r.report.Errors) == 1 })
	swap(t, dir, "platform/mesh.yaml", tenant("acme")+tenant("globex")+namespace("a", "globex"))
	r.until(t, "globex's", func() bool { return port() == 2 && len(r.report.Errors) == 1 })
	swap(t, dir, "platform/mesh.yaml", tenant("acme")+tenant("globex")+"apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n")
	r.until(t, "nobody's", func() bool { return port() == 0 && len(r.report.Errors) == 2 })
	swap(t, dir, "platform/mesh.yaml", tenant("acme")+tenant("globex")+namespace("a", "acme"))
	r.until(t, "acme's again", func() bool { return port() == 1 })
}

func TestOwnersObjectReturns(t *testing.T) {
	dir := mesh(t)
	put(t, dir, "platform/s.yaml", service("a", "s", "1"))
	put(t, dir, "tenants/acme/s.yaml", service("a", "s", "2"))
	r, _ := run(t, dir)
	port := func(want uint16) func() bool {
		return func() bool {
			s, _ := r.objects["Service a/s"].(*tenancy.Service)
			return s != nil && s.Ports[0].Port == want
		}
	}
	r.until(t, "the platform's", port(1))
	swap(t, dir, "platform/s.yaml", service("a", "s", "0"))
	r.until(t, "an error", func() bool { return len(r.report.Errors) == 2 })
	r.now(t, port(1)) // the owner's last good one stays
	remove(t, dir, "platform/s.yaml")
	r.until(t, "the tenant's", port(2))
}

func TestBrokenWhileRunning(t *testing.T) {
	dir := mesh(t)
	file := "tenants/acme/x.yaml"
	put(t, dir, file, service("a", "s", "1")+deny("a", "p"))
	r, _ := run(t, dir)
	all := meshObjects("Service a/s", "AccessPolicy a/p")
	r.until(t, "loaded", r.has(all...))

	put(t, dir, file, service("a", "s", "2")+"a: [")
	r.until(t, "a syntax error reported", func() bool { return len(r.report.Errors) == 1 })
	r.now(t, r.has(all...))
	r.now(t, func() bool { return r.objects["Service a/s"].(*tenancy.Service).Ports[0].Port == 1 })
	// It was read once, so its streams need not wait.
	r.now(t, func() bool { return len(r.report.Held) == 0 && r.report.Ready })

	put(t, dir, file, service("a", "s", "0")+"apiVersion: bailiwick.dev/v1alpha1\nkind: AccessPoliccy\nmetadata: {name: p, namespace: a}\n")
	r.until(t, "two bad objects reported", func() bool { return len(r.report.Errors) == 2 })
	r.now(t, r.has(all...))
	r.now(t, func() bool { return !r.objects["AccessPolicy a/p"].(*tenancy.AccessPolicy).Invalid })

	put(t, dir, file, service("a", "s", "3")+deny("a", "q"))
	r.until(t, "mended", r.has(meshObjects("Service a/s", "AccessPolicy a/q")...))
	r.until(t, "no errors", func() bool { return len(r.report.Errors) == 0 })

	// What is said of a policy that cannot be honoured is applied at once.
	put(t, dir, file, service("a", "s", "3")+deny("a", "q")+"x: y\n---\nkind: z\n")
	r.until(t, "two nameless documents reported", func() bool { return len(r.report.Errors) > 1 })
	put(t, dir, file, service("a", "s", "3")+"apiVersion: bailiwick.dev/v1alpha1\nkind: AccessPolicy\nmetadata: {name: q, namespace: a}\nspec: {selector: {}, action: Allow}\n")
	r.until(t, "an invalid policy", func() bool { return r.objects["AccessPolicy a/q"].(*tenancy.AccessPolicy).Invalid })
}

// TestHalfWritten: a file that is cut off and then completed loses nothing.
func TestHalfWritten(t *testing.T) {
	dir := mesh(t)
	file := filepath.Join(dir, "tenants/acme/x.yaml")
	put(t, dir, "tenants/acme/x.yaml", service("a", "s", "1")+service("a", "t", "1"))
	s, err := New(Config{Dir: dir, Logger: config(dir).Logger, Patience: time.Hour})
	require.NoError(t, err)
	pass := func() ([]tenancy.Event, bool) { return s.store.pass(s.store.scan(nil), nil) }
	_, again := pass()
	require.False(t, again)
	for _, half := range []string{"", "# nothing yet\n", service("a", "s", "1") + "apiVersion: v1\nkind: Service\nmetadata: {name: t, na"} {
		require.NoError(t, os.WriteFile(file, []byte(half), 0o644))
		events, again := pass()
		require.Empty(t, events, "%q", half)
		require.True(t, again, "%q", half)
		require.Empty(t, s.store.report().Errors)
	}
	// The same an hour later is what is meant: an error, or nothing.
	old := time.Now().Add(-2 * time.Hour)
	require.NoError(t, os.Chtimes(file, old, old))
	events, again := pass()
	require.Empty(t, events)
	require.False(t, again)
	require.Len(t, s.store.report().Errors, 1)
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	require.NoError(t, os.Chtimes(file, old, old))
	events, _ = pass()
	require.Len(t, events, 2)
	require.Empty(t, s.store.report().Errors)
}

func TestHeldUntilItParses(t *testing.T) {
	dir := mesh(t)
	put(t, dir, "tenants/acme/x.yaml", "a: [")
	put(t, dir, "tenants/globex/y.yaml", "a: [")
	put(t, dir, "platform/z.yaml", "a: [")
	r, _ := run(t, dir)
	r.until(t, "reported", func() bool { return len(r.report.Held) == 2 && !r.report.Ready })
	r.now(t, func() bool { return r.synced == 0 })
	swap(t, dir, "tenants/acme/x.yaml", service("a", "s", "1"))
	r.until(t, "acme is let go", func() bool { return len(r.report.Held) == 1 && r.report.Held[0] == "globex" })
	r.now(t, func() bool { return r.synced == 0 })
	swap(t, dir, "platform/z.yaml", "# nothing\n")
	r.until(t, "synced", func() bool { return r.synced == 1 && r.report.Ready })
	remove(t, dir, "tenants/globex/y.yaml")
	r.until(t, "globex is let go", func() bool { return len(r.report.Held) == 0 })
	swap(t, dir, "platform/z.yaml", "a: [")
	r.until(t, "broken again", func() bool { return len(r.report.Errors) == 1 })
	r.now(t, func() bool { return r.report.Ready && r.synced == 1 })
}

func TestVanished(t *testing.T) {
	for name, lose := range map[string]func(t *testing.T, dir string){
		"the directory": func(t *testing.T, dir string) { require.NoError(t, os.Rename(dir, dir+".away")) },
		"emptied": func(t *testing.T, dir string) {
			require.NoError(t, os.Rename(dir, dir+".away"))
			require.NoError(t, os.Mkdir(dir, 0o755))
		},
		"platform and tenants": func(t *testing.T, dir string) {
			require.NoError(t, os.Mkdir(dir+".away", 0o755))
			for _, f := range []string{"platform", "tenants"} {
				require.NoError(t, os.Rename(filepath.Join(dir, f), filepath.Join(dir+".away", f)))
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := mesh(t)
			put(t, dir, "tenants/acme/x.yaml", service("a", "s", "1"))
			r, _ := run(t, dir)
			r.until(t, "loaded", r.has(meshObjects("Service a/s")...))
			lose(t, dir)
			r.until(t, "reported", func() bool { return len(r.report.Errors) > 0 })
			r.now(t, r.has(meshObjects("Service a/s")...))
			r.now(t, func() bool { return r.report.Ready })
			// It comes back, and is compared.
			put(t, dir+".away", "tenants/acme/x.yaml", service("a", "other", "1"))
			require.NoError(t, os.RemoveAll(dir))
			require.NoError(t, os.Rename(dir+".away", dir))
			r.until(t, "compared", r.has(meshObjects("Service a/other")...))
			r.until(t, "no errors", func() bool { return len(r.report.Errors) == 0 })
			swap(t, dir, "tenants/acme/x.yaml", service("a", "third", "1"))
			r.until(t, "followed again", r.has(meshObjects("Service a/third")...))
		})
	}
}

// TestUnreadable: what is there and cannot be looked at keeps what it had. A
// link to nowhere stands for it, because root may read everything.
func TestUnreadable(t *testing.T) {
	dir := mesh(t)
	put(t, dir, "tenants/acme/x.yaml", service("a", "s", "1"))
	put(t, dir, "tenants/acme/sub/y.yaml", service("a", "t", "1"))
	put(t, dir, "tenants/globex/z.yaml", service("g", "u", "1"))
	r, _ := run(t, dir)
	all := meshObjects("Service a/s", "Service a/t", "Service g/u")
	r.until(t, "loaded", r.has(all...))
	for _, name := range []string{"tenants/acme/x.yaml", "tenants/acme/sub"} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.Rename(path, filepath.Join(dir, ".kept")))
		require.NoError(t, os.Symlink("nowhere", path))
		r.until(t, "reported", func() bool { return len(r.report.Errors) == 1 })
		r.now(t, r.has(all...))
		require.NoError(t, os.Remove(path))
		require.NoError(t, os.Rename(filepath.Join(dir, ".kept"), path))
		r.until(t, "mended", func() bool { return len(r.report.Errors) == 0 })
		r.now(t, r.has(all...))
	}
}

func TestForbidden(t *testing.T) {
	if os.Geteuid() == 0 {
		asNobody(t)
		return
	}
	dir := mesh(t)
	put(t, dir, "tenants/acme/x.yaml", service("a", "s", "1"))
	r, _ := run(t, dir)
	r.until(t, "loaded", r.has(meshObjects("Service a/s")...))
	for _, name := range []string{"tenants/acme/x.yaml", "tenants/acme", "platform", "."} {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.NoError(t, os.Chmod(path, 0))
		r.until(t, "reported", func() bool { return len(r.report.Errors) > 0 })
		r.now(t, r.has(meshObjects("Service a/s")...))
		require.NoError(t, os.Chmod(path, info.Mode()))
		r.until(t, "mended", func() bool { return len(r.report.Errors) == 0 })
	}
}

// asNobody runs the test once more in a process that may not read everything, as
// root may.
func asNobody(t *testing.T) {
	t.Helper()
	const nobody = 65534
	home, err := os.MkdirTemp("", "bailiwick-nobody-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	require.NoError(t, os.Chown(home, nobody, nobody))
	self, err := os.Executable()
	require.NoError(t, err)
	program, err := os.ReadFile(self)
	require.NoError(t, err)
	copied := filepath.Join(home, "test")
	require.NoError(t, os.WriteFile(copied, program, 0o755))
	cmd := exec.CommandContext(t.Context(), copied, "-test.v", "-test.run", "^"+t.Name()+"$")
	cmd.Dir, cmd.Env = home, append(os.Environ(), "TMPDIR="+home, "HOME="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "--- PASS: "+t.Name())
}

// TestConfigMapVolume swaps versions as the kubelet does.
func TestConfigMapVolume(t *testing.T) {
	dir := mesh(t)
	mount := filepath.Join(dir, "tenants/acme")
	version := func(name string, files map[string]string) {
		for file, text := range files {
			put(t, mount, name+"/"+file, text)
		}
		require.NoError(t, os.Symlink(name, filepath.Join(mount, "..data_tmp")))
		require.NoError(t, os.Rename(filepath.Join(mount, "..data_tmp"), filepath.Join(mount, "..data")))
		for file := range files {
			if err := os.Symlink("..data/"+file, filepath.Join(mount, file)); err != nil {
				require.ErrorIs(t, err, os.ErrExist)
			}
		}
	}
	put(t, mount, "/", "")
	version("..v1", map[string]string{"a.yaml": service("a", "s", "1"), "b.yaml": service("a", "t", "1")})
	r, _ := run(t, dir)
	r.until(t, "loaded", r.has(meshObjects("Service a/s", "Service a/t")...))
	version("..v2", map[string]string{"a.yaml": service("a", "s", "2"), "c.yaml": service("a", "u", "2")})
	remove(t, mount, "..v1")
	remove(t, mount, "b.yaml")
	r.until(t, "swapped", r.has(meshObjects("Service a/s", "Service a/u")...))
	r.until(t, "no errors", func() bool { return len(r.report.Errors) == 0 })
	version("..v3", map[string]string{"a.yaml": service("a", "s", "3"), "c.yaml": service("a", "u", "2")})
	remove(t, mount, "..v2")
	r.until(t, "swapped again", func() bool { return r.objects["Service a/s"].(*tenancy.Service).Ports[0].Port == 3 })
}

// TestLinkedDirectory: the directory may itself be a link that is swapped.
func TestLinkedDirectory(t *testing.T) {
	base := t.TempDir()
	for _, v := range []string{"v1", "v2"} {
		put(t, base, v+"/platform/x.yaml", tenant("acme")+namespace("a", "acme")+service("a", v, "1"))
	}
	dir := filepath.Join(base, "current")
	require.NoError(t, os.Symlink("v1", dir))
	r, _ := run(t, dir)
	r.until(t, "loaded", r.has("Tenant acme", "Namespace a", "Service a/v1"))
	require.NoError(t, os.Symlink("v2", dir+".new"))
	require.NoError(t, os.Rename(dir+".new", dir))
	r.until(t, "swapped", r.has("Tenant acme", "Namespace a", "Service a/v2"))
	put(t, base, "v2/platform/y.yaml", service("a", "more", "1"))
	r.until(t, "followed", r.has("Tenant acme", "Namespace a", "Service a/v2", "Service a/more"))
}

// TestWithoutNotifications: comparing from time to time finds everything too.
func TestWithoutNotifications(t *testing.T) {
	dir := mesh(t)
	cfg := config(dir)
	cfg.Recheck = time.Millisecond
	s, err := New(cfg)
	require.NoError(t, err)
	r := newRecorder()
	f := &follower{Source: s, sink: r, watched: map[string]os.FileInfo{}, dirty: map[string]bool{}}
	f.pass()
	put(t, dir, "tenants/acme/x.yaml", service("a", "s", "1"))
	require.True(t, f.wait(t.Context(), cfg.Recheck))
	f.pass()
	r.now(t, r.has(meshObjects("Service a/s")...))
}

// An emptied directory keeps all it had, until somebody says that it is meant.
func TestConfirmed(t *testing.T) {
	dir := mesh(t)
	put(t, dir, "tenants/acme/x.yaml", service("a", "s", "1"))
	r, s := run(t, dir)
	r.until(t, "loaded", r.has(meshObjects("Service a/s")...))
	require.NoError(t, os.Rename(dir, dir+".away"))
	for _, folder := range []string{"platform", "tenants"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, folder), 0o755))
	}
	r.until(t, "reported", func() bool { return len(r.report.Errors) > 0 })
	r.now(t, r.has(meshObjects("Service a/s")...))
	require.NoError(t, s.Confirm(t.Context()))
	r.now(t, r.has())
	r.now(t, func() bool { return r.report.Ready })

	put(t, dir, "platform/t.yaml", "# nothing yet\n")
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, os.Rename(dir+".away", dir))
	r.until(t, "back", r.has(meshObjects("Service a/s")...))
	require.NoError(t, os.Rename(filepath.Join(dir, "tenants"), dir+".away"))
	r.until(t, "held again", func() bool { return len(r.report.Errors) > 0 })
	r.now(t, r.has(meshObjects("Service a/s")...))
}
