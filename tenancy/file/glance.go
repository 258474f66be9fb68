package file

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"bailiwick.dev/bailiwick/tenancy"
)

// glance brings the store up to what was noticed since the last pass, without
// a walk: what it costs follows what changed. It returns false, and has changed
// nothing, where only a walk can tell: for folders that come or go, for anything
// that links or is in error, and for the last file of platform/ or tenants/.
func (s *store) glance(dirty map[string]bool) (events []tenancy.Event, again, ok bool) {
	if !s.ready || s.waiting || s.lost || s.last.linked || len(s.last.unreadable) > 0 {
		return nil, false, false
	}
	files, gone := make(map[string]found), make(map[string]bool)
	left := make(map[string]int)
	for at := range dirty {
		folder, known := s.last.folders[filepath.Dir(at)]
		if !known {
			return nil, false, false
		}
		if _, is := s.last.folders[at]; is {
			return nil, false, false
		}
		name := filepath.Base(at)
		if strings.HasPrefix(name, ".") {
			continue
		}
		rel := path.Join(folder, name)
		info, err := os.Lstat(at)
		switch {
		case s.last.misplaced[rel] != "":
			return nil, false, false
		case errors.Is(err, fs.ErrNotExist):
			if s.files[rel] != nil {
				gone[rel] = true
				left[group(rel)]--
			}
		case err != nil || info.IsDir() || info.Mode()&fs.ModeSymlink != 0:
			return nil, false, false
		case !decodable(rel):
		case misplaced(rel) != "" || !info.Mode().IsRegular():
			return nil, false, false
		default:
			files[rel] = found{at, info}
		}
	}
	for g, n := range left {
		if s.count[g]+n <= 0 {
			return nil, false, false
		}
	}
	events, again = s.update(files, gone, dirty, false, func() {})
	return events, again, true
}
