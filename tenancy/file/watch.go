package file

import (
	"context"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/fsnotify/fsnotify"

	"bailiwick.dev/bailiwick/tenancy"
)

// Run loads the directory and follows it until ctx is done, then returns nil.
// Nothing that happens to the directory ends it: what cannot be read is
// reported, and read when it can be.
func (s *Source) Run(ctx context.Context, sink Sink) error {
	f := &follower{Source: s, sink: sink}
	if err := f.open(); err != nil {
		s.cfg.Logger.Warn("cannot watch the directory, comparing it from time to time instead", "dir", s.cfg.Dir, "every", s.cfg.Recheck, "err", err)
	}
	defer f.close()
	for {
		again := f.tryPass()
		for _, read := range f.confirming {
			close(read)
		}
		f.confirming = nil
		wait := s.cfg.Recheck
		if again {
			wait = min(wait, s.cfg.Patience)
		}
		if !f.wait(ctx, wait) {
			return nil
		}
	}
}

// follower is one Run.
type follower struct {
	*Source
	sink    Sink
	watcher *fsnotify.Watcher // nil if there is none
	// watched are the real folders under watch, as they were when put there.
	watched map[string]os.FileInfo
	// failed is whether the watch of some folder could not be set.
	failed bool
	// dirty are real paths of files that were written to.
	dirty  map[string]bool
	last   Report
	told   bool // last was reported
	synced bool
	// walk is whether the next pass has to look at everything: what was noticed
	// is not all that happened, or is not known to be. walked is when one did.
	walk   bool
	walked time.Time
	// confirming wait for the next pass, which was asked for by Source.Confirm.
	confirming []chan struct{}
}

func (f *follower) open() error {
	f.watched, f.dirty = make(map[string]os.FileInfo), make(map[string]bool)
	var err error
	f.watcher, err = fsnotify.NewWatcher()
	return err
}

func (f *follower) close() {
	if f.watcher != nil {
		_ = f.watcher.Close()
	}
}

// tryPass is pass; if that panics, everything is read again after a while, and
// what was applied stays.
func (f *follower) tryPass() (again bool) {
	defer func() {
		if r := recover(); r != nil {
			f.cfg.Logger.Error("reading the directory failed, what was read before stays", "dir", f.cfg.Dir, "again_in", f.cfg.Recheck, "panic", r, "stack", string(debug.Stack()))
			if f.cfg.Options.Panicked != nil {
				f.cfg.Options.Panicked(r, debug.Stack())
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			for _, st := range f.store.files {
				st.info = nil
			}
		}
	}()
	return f.pass()
}

// pass reads what changed and tells the sink. It reports whether to look again
// soon.
func (f *follower) pass() bool {
	events, report, again := f.read()
	if len(events) > 0 {
		f.sink.Apply(events)
	}
	if !f.told || !report.equal(f.last) {
		f.sink.Report(report)
		f.told, f.last = true, report // not before: if that panics it is told again
	}
	if report.Ready && !f.synced {
		f.sink.Synced()
		f.synced = true
	}
	return again
}

// read brings the store up to the directory.
func (f *follower) read() (events []tenancy.Event, report Report, again bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	events, again = f.look()
	return events, f.store.report(), again
}

// look reads what was noticed, or everything: where that does not do, and at the
// latest after Recheck, in case that something went unnoticed. The caller holds
// mu.
func (f *follower) look() (events []tenancy.Event, again bool) {
	dirty := f.dirty
	f.dirty = make(map[string]bool)
	walk := f.walk
	f.walk = true // also after a panic
	if len(dirty) > 0 && !walk && !f.failed && time.Since(f.walked) < f.cfg.Recheck {
		if events, again, ok := f.store.glance(dirty); ok {
			f.walk = again // a half-written file may not be written to again
			return events, again
		}
	}
	used := make(map[string]bool)
	// The folder above sees the directory itself come and go.
	f.watch(filepath.Dir(f.store.root), used)
	sc := f.store.scan(func(dir string) { f.watch(dir, used) })
	events, again = f.store.pass(sc, dirty)
	f.unwatch(used)
	f.walk, f.walked = again, time.Now()
	return events, again
}

// watch puts a real folder under watch, again if it is another than before.
func (f *follower) watch(dir string, used map[string]bool) {
	if f.watcher == nil || used[dir] {
		return
	}
	info, err := os.Stat(dir)
	if err != nil {
		return // the scan reports it
	}
	used[dir] = true
	if before, ok := f.watched[dir]; ok {
		if os.SameFile(before, info) {
			return
		}
		_ = f.watcher.Remove(dir)
	}
	if err := f.watcher.Add(dir); err != nil {
		delete(f.watched, dir)
		if !f.failed {
			f.failed = true
			f.cfg.Logger.Warn("cannot watch a folder, comparing it from time to time instead", "dir", dir, "every", f.cfg.Recheck, "err", err)
		}
		return
	}
	f.watched[dir] = info
}

// unwatch forgets the folders that are no longer used.
func (f *follower) unwatch(used map[string]bool) {
	for dir := range f.watched {
		if !used[dir] {
			_ = f.watcher.Remove(dir)
			delete(f.watched, dir)
		}
	}
}

// wait returns when the directory changed and is quiet again, or after limit.
// False means that ctx is done.
func (f *follower) wait(ctx context.Context, limit time.Duration) bool {
	var events chan fsnotify.Event
	var errs chan error
	if f.watcher != nil {
		events, errs = f.watcher.Events, f.watcher.Errors
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	var last <-chan time.Time // the end of settling, once a change came
	for {
		select {
		case <-ctx.Done():
			return false
		case ev, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			if !f.ours(ev.Name) {
				continue
			}
			f.dirty[ev.Name] = true
		case err, ok := <-errs:
			if !ok {
				errs = nil
				continue
			}
			// Events may be lost: compare, and read everything again.
			f.cfg.Logger.Warn("watching the directory failed, reading it again", "dir", f.cfg.Dir, "err", err)
			f.walk = true
			f.mu.Lock()
			for _, st := range f.store.files {
				st.info = nil
			}
			f.mu.Unlock()
		case read := <-f.confirm:
			f.walk, f.confirming = true, append(f.confirming, read)
			f.mu.Lock()
			f.store.confirmed = true
			f.mu.Unlock()
			return true
		case <-timer.C:
			return true
		case <-last:
			return true
		}
		if last == nil {
			last = time.After(10 * f.cfg.Settle)
		}
		timer.Reset(f.cfg.Settle)
	}
}

// ours reports whether an event's path is the directory or within a folder of
// it, and not just next to it.
func (f *follower) ours(name string) bool {
	above := filepath.Dir(f.store.root)
	return filepath.Dir(name) != above || name == f.store.root
}
