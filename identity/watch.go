package identity

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
)

// watchSet is what has to be watched to see any change of some files.
type watchSet struct {
	// dirs maps each directory to whether its watch is needed (the file's own
	// directory) or only helps (an ancestor that may be replaced).
	dirs map[string]bool
	// names are the entries of these directories that lead to the files.
	names map[string]struct{}
}

func (w watchSet) concerns(path string) bool {
	_, ok := w.names[path]
	return ok
}

// need adds a directory; once needed, it stays so.
func (w watchSet) need(dir string, needed bool) {
	w.dirs[dir] = w.dirs[dir] || needed
}

func (w watchSet) equal(o watchSet) bool {
	return maps.Equal(w.dirs, o.dirs) && maps.Equal(w.names, o.names)
}

// findWatches follows the paths through every symbolic link: a Kubernetes volume
// swaps the link "..data", others swap a link to a release directory. Files are
// never watched themselves, because a rename would leave the watch on the old
// one.
func findWatches(paths []string) watchSet {
	w := watchSet{dirs: make(map[string]bool), names: make(map[string]struct{})}
	for _, path := range paths {
		w.follow(path)
	}
	return w
}

// maxLinks is where Linux gives up with ELOOP, too.
const maxLinks = 40

func (w watchSet) follow(path string) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return // only if there is no working directory: reading will fail and say so
	}
	dir, rest := string(filepath.Separator), split(abs)
	for links := 0; len(rest) > 0 && links < maxLinks; {
		if rest[0] == ".." {
			dir, rest = filepath.Dir(dir), rest[1:]
			continue
		}
		entry := filepath.Join(dir, rest[0])
		w.names[entry] = struct{}{}
		info, err := os.Lstat(entry)
		switch {
		case err != nil: // whatever appears here is the next step
			w.need(dir, len(rest) == 1)
			return
		case info.Mode()&fs.ModeSymlink != 0:
			links++
			w.need(dir, true)
			target, err := os.Readlink(entry)
			if err != nil {
				return
			}
			rest = append(split(target), rest[1:]...)
			if filepath.IsAbs(target) {
				dir = string(filepath.Separator)
			}
			continue
		case len(rest) == 1:
			w.need(dir, true)
		case len(rest) == 2: // the file's directory may be replaced as a whole
			w.need(dir, false)
		}
		dir, rest = entry, rest[1:]
	}
}

func split(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == filepath.Separator })
}

// watch brings the watcher's directories in line with the paths as they are now.
func (s *fileSource) watch() error {
	next := findWatches(s.paths())
	var failed error
	for dir, needed := range next.dirs {
		// Adding again is harmless, and renews the watch of a directory that was
		// removed and made anew.
		if err := s.watcher.Add(dir); err != nil && needed && failed == nil {
			failed = fmt.Errorf("watch directory %s: %w", dir, err)
		}
	}
	for _, dir := range s.watcher.WatchList() {
		if _, ok := next.dirs[dir]; ok {
			continue
		}
		// A directory that is gone took its watch with it.
		_ = s.watcher.Remove(dir)
	}
	s.watched = next
	return failed
}
