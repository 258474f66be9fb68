package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/object"
)

// directory is the demo's own copy of a directory of objects.
type directory struct{ root string }

// copyDirectory copies the YAML and JSON files below from.
func copyDirectory(from, to string) (directory, error) {
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), raw, 0o644)
	})
	if err != nil {
		return directory{}, fmt.Errorf("copy the directory %s (run the demo from the top of the repository, or give --dir): %w", from, err)
	}
	return directory{to}, nil
}

// placed is an object with where it stands.
type placed struct {
	tenancy.Event
	file     string
	document int
}

// read decodes all objects.
func (d directory) read() ([]placed, error) {
	var all []placed
	err := filepath.WalkDir(d.root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)) {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		decoded := object.DecodeAll(path, raw, object.Options{AllowLoopback: true})
		for _, problem := range decoded.Errors() {
			return problem
		}
		for _, e := range decoded.Entries {
			if e.Object != nil {
				all = append(all, placed{tenancy.Event{Ref: e.Ref(""), Object: e.Object}, path, e.Document})
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the objects: %w", err)
	}
	return all, nil
}

// world reads the directory through the model.
func (d directory) world() (*world, error) {
	all, err := d.read()
	if err != nil {
		return nil, err
	}
	return newWorld(eventsOf(all))
}

func eventsOf(all []placed) []tenancy.Event {
	events := make([]tenancy.Event, len(all))
	for i, p := range all {
		events[i] = p.Event
	}
	return events
}

// folder is where the objects of a tenant's namespaces stand.
func (d directory) folder(tenant string) string { return filepath.Join(d.root, "tenants", tenant) }

// write puts a file in place by rename, as an editor or a sync tool would.
func (d directory) write(path string, data []byte) error {
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(temp, data, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(temp, path)
}

// remove takes one object out of its file, and the file if it held no other.
func (d directory) remove(ref tenancy.Ref) error {
	all, err := d.read()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(p placed) bool { return p.Ref == ref })
	if i < 0 {
		return fmt.Errorf("remove %s/%s: it is not in the directory", ref.Key.Namespace, ref.Key.Name)
	}
	file, document := all[i].file, all[i].document
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	docs, err := object.Split(file, raw)
	if err != nil {
		return err
	}
	var rest [][]byte
	for _, doc := range docs {
		if doc.JSON {
			return errors.New("remove an object from a JSON file: not something the demo does")
		}
		if doc.Index != document {
			rest = append(rest, bytes.TrimPrefix(doc.Data, []byte("\n")))
		}
	}
	if len(rest) == 0 {
		return os.Remove(file)
	}
	return d.write(file, bytes.Join(rest, []byte("---\n")))
}

// relative is a path as the demo prints it.
func (d directory) relative(path string) string {
	rel, err := filepath.Rel(d.root, path)
	if err != nil || strings.HasPrefix(rel, "..") {
		return path
	}
	return rel
}
