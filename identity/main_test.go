package identity

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	idShop   = "spiffe://acme.example/ns/acme-shop/sa/web"
	idServer = "spiffe://mesh.example/ns/bailiwick-system/sa/bailiwick"
)

func newAuthority(t testing.TB, td string) *Authority {
	t.Helper()
	a, err := NewAuthority(td)
	require.NoError(t, err)
	return a
}

func issue(t testing.TB, a *Authority, id string, options IssueOptions) (certPEM, keyPEM []byte) {
	t.Helper()
	certPEM, keyPEM, err := a.Issue(id, options)
	require.NoError(t, err)
	return certPEM, keyPEM
}

func staticSource(t testing.TB, cert, key []byte, bundles map[string][]byte) Source {
	t.Helper()
	s, err := NewStaticSource(cert, key, bundles)
	require.NoError(t, err)
	return s
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, data, 0o600))
}

// replace renames a new file over an old one, as careful writers do.
func replace(t testing.TB, path string, data []byte) {
	t.Helper()
	write(t, path+".new", data)
	require.NoError(t, os.Rename(path+".new", path))
}

// serial tells certificates apart.
func serial(t testing.TB, s Source) string {
	t.Helper()
	svid, err := s.GetX509SVID()
	require.NoError(t, err)
	return svid.Certificates[0].SerialNumber.String()
}

// await fails the test if nothing comes; the time is only there to end it.
func await(t testing.TB, c <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(30 * time.Second):
		require.FailNow(t, "nothing happened", what)
	}
}

// journal is a log that can be waited for.
type journal struct {
	mu    sync.Mutex
	text  bytes.Buffer
	wrote chan struct{}
}

func newJournal() *journal { return &journal{wrote: make(chan struct{}, 1)} }

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.text.Write(p)
	select {
	case j.wrote <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (j *journal) count(words string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Count(j.text.String(), words)
}

func (j *journal) await(t testing.TB, words string) {
	t.Helper()
	for j.count(words) == 0 {
		await(t, j.wrote, "log line with "+words)
	}
}

func parseID(t testing.TB, id string) spiffeid.ID {
	t.Helper()
	parsed, err := spiffeid.FromString(id)
	require.NoError(t, err)
	return parsed
}
