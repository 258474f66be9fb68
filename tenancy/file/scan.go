package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// The two folders of a directory.
const (
	platformFolder = "platform"
	tenantsFolder  = "tenants"
)

// maxFolders is how deep folders may be nested.
const maxFolders = 32

// scanner walks the directory once.
type scanner struct {
	root string // absolute
	// watch is called for each real folder before it is read, so that no change
	// after that goes unnoticed; nil for a one-shot load.
	watch func(realDir string)
	out   scanned
	// below are the real folders that the walk is in, against loops of links.
	below []string
}

// scanned is what a walk found. Paths are relative to the directory and use
// slashes.
type scanned struct {
	files map[string]found
	// unreadable are folders and files that are there but cannot be looked at;
	// what is known of them and below them stays.
	unreadable map[string]error
	// misplaced are files where none belong.
	misplaced map[string]string
	// tenants is whether the folder tenants/ is there.
	tenants bool
	// folders are the real folders that were walked, with their relative paths;
	// linked is whether some link led to one of them or to a file.
	folders map[string]string
	linked  bool
}

// found is one file.
type found struct {
	real string
	info fs.FileInfo
}

func newScanner(root string, watch func(string)) *scanner {
	if watch == nil {
		watch = func(string) {}
	}
	return &scanner{root: root, watch: watch, out: scanned{
		files: make(map[string]found), unreadable: make(map[string]error), misplaced: make(map[string]string),
		folders: make(map[string]string),
	}}
}

// walk reads the whole directory.
func (s *scanner) walk() scanned {
	real, err := filepath.EvalSymlinks(s.root)
	if err != nil {
		s.out.unreadable["."] = err
		return s.out
	}
	s.out.linked = real != s.root
	s.folder(".", real, real)
	return s.out
}

// folder reads the folder rel, which really is at real; links may not lead out
// of within.
func (s *scanner) folder(rel, real, within string) {
	if slices.Contains(s.below, real) || len(s.below) > maxFolders {
		s.out.unreadable[rel] = errors.New("folders are nested too deep or a link leads back to one it is in")
		return
	}
	s.below = append(s.below, real)
	defer func() { s.below = s.below[:len(s.below)-1] }()
	s.watch(real)
	s.out.folders[real] = rel
	entries, err := os.ReadDir(real)
	if err != nil {
		s.out.unreadable[rel] = err
		return
	}
	for _, entry := range entries {
		// What begins with a dot is nobody's object: ConfigMap volumes keep their
		// versions there, editors and git their own files.
		if !strings.HasPrefix(entry.Name(), ".") {
			s.entry(path.Join(rel, entry.Name()), filepath.Join(real, entry.Name()), within)
		}
	}
}

func (s *scanner) entry(rel, at, within string) {
	info, err := os.Lstat(at)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.out.unreadable[rel] = err
		}
		return
	}
	real := at
	if info.Mode()&fs.ModeSymlink != 0 {
		s.out.linked = true
		if real, info, err = follow(at, within); err != nil {
			s.link(rel, err)
			return
		}
		s.watch(filepath.Dir(real))
	}
	if info.IsDir() {
		s.subfolder(rel, real, within)
		return
	}
	if !decodable(rel) {
		return
	}
	if why := misplaced(rel); why != "" {
		s.out.misplaced[rel] = why
		return
	}
	if !info.Mode().IsRegular() {
		s.out.unreadable[rel] = errors.New("not a regular file")
		return
	}
	s.out.files[rel] = found{real, info}
}

// subfolder goes into a folder, if anything in it can count.
func (s *scanner) subfolder(rel, real, within string) {
	parts := strings.Split(rel, "/")
	s.out.tenants = s.out.tenants || rel == tenantsFolder
	// platform/ and each tenant's folder are closed: no link leads out of them.
	if rel == platformFolder || (parts[0] == tenantsFolder && len(parts) == 2) {
		within = real
	}
	s.folder(rel, real, within)
}

// link notes a link that cannot be followed, if it could have been a file or
// folder of ours.
func (s *scanner) link(rel string, err error) {
	if decodable(rel) || path.Ext(rel) == "" {
		s.out.unreadable[rel] = err
	}
}

// follow resolves a link.
func follow(at, within string) (string, fs.FileInfo, error) {
	real, err := filepath.EvalSymlinks(at)
	if err != nil {
		return "", nil, err
	}
	if real != within && !strings.HasPrefix(real, within+string(filepath.Separator)) {
		return "", nil, errors.New("the link leads out of its folder")
	}
	info, err := os.Stat(real)
	return real, info, err
}

func decodable(rel string) bool {
	switch path.Ext(rel) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// misplaced says why a file does not belong where it is.
func misplaced(rel string) string {
	parts := strings.Split(rel, "/")
	switch {
	case parts[0] == platformFolder && len(parts) > 1:
		return ""
	case parts[0] != tenantsFolder || len(parts) < 3:
		return "not read: objects belong into platform/ or tenants/<name>/"
	case len(validation.IsDNS1123Label(parts[1])) > 0:
		return fmt.Sprintf("not read: %q cannot be the name of a tenant", parts[1])
	}
	return ""
}

// tenantOf is the tenant whose folder rel is in; "" in platform/.
func tenantOf(rel string) string {
	if rest, ok := strings.CutPrefix(rel, tenantsFolder+"/"); ok {
		name, _, _ := strings.Cut(rest, "/")
		return name
	}
	return ""
}

// group is which of the two folders rel is in.
func group(rel string) string {
	first, _, _ := strings.Cut(rel, "/")
	return first
}
