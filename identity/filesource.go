package identity

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// settle is how long a change may go on before the files are read: key and
// certificate are two renames. It is not extended by further events, so that a
// busy directory cannot hold a rotation back.
const settle = 50 * time.Millisecond

// FileConfig names the files of a [NewFileSource].
type FileConfig struct {
	// CertFile is a PEM chain, leaf first; KeyFile its private key in PEM. They
	// may be one file.
	CertFile, KeyFile string
	// Bundles maps a trust domain to a PEM file with its X.509 authorities.
	Bundles map[string]string
	// Logger receives what changed and what could not be read; nil discards it.
	Logger *slog.Logger
}

// fileSource reads files again when they change. Only the goroutine that
// NewFileSource starts writes its fields after construction.
type fileSource struct {
	holder
	config  FileConfig
	log     *slog.Logger
	watcher *fsnotify.Watcher
	watched watchSet

	svid    *x509svid.SVID
	bundles map[string]*x509bundle.Bundle
	// failing holds the last error of each item, so that a file that stays
	// broken is reported once.
	failing map[string]string

	closeOnce sync.Once
	closeErr  error
	ended     chan struct{}
}

// NewFileSource reads the files, fails if one of them is missing, broken or
// expired, and from then on watches them, replaced by rename or by the swap of a
// symbolic link anywhere in their path. Later, a file that cannot be read, or a
// pair that does not fit together, leaves the item as it was.
func NewFileSource(config FileConfig) (Source, error) {
	log := config.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	config.Bundles = maps.Clone(config.Bundles)
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch certificate files (is fs.inotify.max_user_instances too low?): %w", err)
	}
	s := &fileSource{
		holder: newHolder(), config: config, log: log, watcher: watcher,
		bundles: make(map[string]*x509bundle.Bundle, len(config.Bundles)),
		failing: make(map[string]string),
		ended:   make(chan struct{}),
	}
	// Watch first: what changes between watching and reading is read once more.
	if err := s.watch(); err != nil {
		return nil, errors.Join(err, watcher.Close())
	}
	if err := s.load(); err != nil {
		return nil, errors.Join(err, watcher.Close())
	}
	go s.run() // ends when Close closes the watcher
	return s, nil
}

func (s *fileSource) Close() error {
	s.closeOnce.Do(func() {
		s.closeErr = s.watcher.Close()
		<-s.ended
	})
	return s.closeErr
}

func (s *fileSource) run() {
	defer close(s.ended)
	var due <-chan time.Time // set while a change settles
	for {
		select {
		case event, ok := <-s.watcher.Events:
			if !ok {
				return
			}
			if due == nil && s.watched.concerns(event.Name) && !event.Has(fsnotify.Chmod) {
				due = time.After(settle)
			}
		case err, ok := <-s.watcher.Errors:
			if !ok {
				return
			}
			// Most of all an overflow: events were lost, so look again.
			s.log.Warn("watching certificate files", "err", err)
			if due == nil {
				due = time.After(settle)
			}
		case <-due:
			due = nil
			s.reload()
		}
	}
}

// reload looks at the paths before and after reading: a link that was swapped in
// between leads to directories that are not watched yet.
func (s *fileSource) reload() {
	for range 3 {
		before := s.watched
		if err := s.watch(); err != nil {
			s.report("watch", err)
		} else {
			s.recovered("watch")
		}
		_ = s.load() // reported item by item
		if before.equal(s.watched) && s.watched.equal(findWatches(s.paths())) {
			return
		}
	}
}

func (s *fileSource) paths() []string {
	paths := []string{s.config.CertFile, s.config.KeyFile}
	for _, name := range sortedKeys(s.config.Bundles) {
		paths = append(paths, s.config.Bundles[name])
	}
	return paths
}

// load reads every item and publishes those that are good beside those that were
// there before. The error is the first one, for the constructor.
func (s *fileSource) load() error {
	var first error
	keep := func(item string, err error) {
		if first == nil {
			first = err
		}
		s.report(item, err)
	}
	if svid, err := s.loadSVID(); err != nil {
		keep("certificate", err)
	} else {
		if s.svid != nil && !sameSVID(s.svid, svid) {
			s.log.Info("certificate rotated", "spiffe_id", svid.ID.String(), "not_after", svid.Certificates[0].NotAfter)
		}
		s.svid = svid
		s.recovered("certificate")
	}
	for _, name := range sortedKeys(s.config.Bundles) {
		item := "trust bundle of " + name
		bundle, err := loadBundle(name, s.config.Bundles[name])
		if err != nil {
			keep(item, err)
			continue
		}
		if old, ok := s.bundles[name]; ok && !old.Equal(bundle) {
			s.log.Info("trust bundle changed", "trust_domain", name, "authorities", len(bundle.X509Authorities()))
		}
		s.bundles[name] = bundle
		s.recovered(item)
	}
	s.set(s.svid, s.bundles)
	return first
}

func (s *fileSource) loadSVID() (*x509svid.SVID, error) {
	cert, err := os.ReadFile(s.config.CertFile)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	key, err := os.ReadFile(s.config.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read private key: %w", err)
	}
	svid, err := parseSVID(cert, key, time.Now())
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", s.config.CertFile, s.config.KeyFile, err)
	}
	return svid, nil
}

func loadBundle(name, path string) (*x509bundle.Bundle, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read trust bundle of %q: %w", name, err)
	}
	bundle, err := parseBundle(name, raw)
	if err != nil {
		return nil, fmt.Errorf("file %s: %w", path, err)
	}
	return bundle, nil
}

// report says once that an item could not be renewed. The constructor returns
// the error instead, and nothing runs yet that would lose it.
func (s *fileSource) report(item string, err error) {
	if s.current.Load() == nil || s.failing[item] == err.Error() {
		return
	}
	s.failing[item] = err.Error()
	s.log.Error("cannot renew, keeping the last good one", "item", item, "err", err)
}

func (s *fileSource) recovered(item string) {
	delete(s.failing, item)
}
