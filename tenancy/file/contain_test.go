package file

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/tenancy/object"
)

// fragile is a Sink that panics over the first reports.
type fragile struct {
	*recorder
	left int
}

func (f *fragile) Report(r Report) {
	if f.left--; f.left >= 0 {
		panic("planted")
	}
	f.recorder.Report(r)
}

// A panic while the directory is followed ends neither the source nor the
// program: it is counted and told with its stack each time, and all is read again
// after a while.
func TestAPanicOfAPassIsContained(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "platform"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "platform", "a.yaml"), []byte("{apiVersion: v1, kind: Namespace, metadata: {name: a}}"), 0o600))
	var logged bytes.Buffer // of one goroutine, until Run has returned
	panics := 0
	src, err := New(Config{Dir: dir, Recheck: 20 * time.Millisecond, Logger: slog.New(slog.NewJSONHandler(&logged, nil)), Options: object.Options{
		Panicked: func(any, []byte) { panics++ },
	}})
	require.NoError(t, err)
	sink := &fragile{recorder: newRecorder(), left: 3}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- src.Run(ctx, sink) }() // ends with cancel
	sink.until(t, "it is read after all", func() bool { return sink.reports > 0 && sink.objects["Namespace a"] != nil && sink.synced == 1 })
	cancel()
	require.NoError(t, <-ended)
	require.Positive(t, panics)
	require.Equal(t, panics, bytes.Count(logged.Bytes(), []byte("planted")), "each is told")
	require.Contains(t, logged.String(), "contain_test.go", "the log has the stack")
}
