package inject

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"sigs.k8s.io/yaml"

	"bailiwick.dev/bailiwick/tenancy/object"
)

// tree is a JSON object.
type tree = map[string]any

// File returns a file's documents with every Pod template in them injected.
// The error joins all that is wrong, each with document, object and field.
func File(name string, data []byte, c Config) ([]byte, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	docs, err := object.Split(name, data)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	var out bytes.Buffer
	var errs []error
	for i, doc := range docs {
		text, err := document(doc, c)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: document %d: %w", name, doc.Index, err))
			continue
		}
		if i > 0 && !doc.JSON {
			out.WriteString("---\n")
		}
		out.Write(bytes.TrimLeft(text, "\r\n"))
		if !bytes.HasSuffix(text, []byte("\n")) {
			out.WriteByte('\n')
		}
	}
	return out.Bytes(), errors.Join(errs...)
}

// document returns the text of one document, as it was if nothing is changed.
func document(doc object.Document, c Config) ([]byte, error) {
	raw, err := yaml.YAMLToJSONStrict(doc.Data)
	if err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	root, err := parse(raw)
	if err != nil {
		return nil, err
	}
	changed, err := injectObject(root, c)
	if err != nil || !changed {
		return doc.Data, err
	}
	if doc.JSON {
		return json.MarshalIndent(root, "", "  ")
	}
	text, err := json.Marshal(root)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return yaml.JSONToYAML(text)
}

// parse keeps numbers as they were written.
func parse(raw []byte) (tree, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var root any
	if err := dec.Decode(&root); err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	object, ok := root.(tree)
	if !ok {
		return nil, errors.New("parse: an object is expected")
	}
	return object, nil
}

// injectObject injects the Pod templates of an object, or of a List's items, and
// reports whether anything is ours or was.
func injectObject(root tree, c Config) (bool, error) {
	kind, _ := root["kind"].(string)
	if items, ok := root["items"].([]any); ok {
		var errs []error
		changed := false
		for i, item := range items {
			if one, ok := item.(tree); ok {
				did, err := injectObject(one, c)
				changed = changed || did
				if err != nil {
					errs = append(errs, fmt.Errorf("items[%d]: %w", i, err))
				}
			}
		}
		return changed, errors.Join(errs...)
	}
	pod, path := template(root, kind)
	if pod == nil {
		return false, nil
	}
	changed, err := injectPod(pod, c)
	if err != nil {
		meta, _ := root["metadata"].(tree)
		return false, fmt.Errorf("%s %v: %w", kind, meta["name"], prefixed(path, err))
	}
	return changed, nil
}

// template finds the Pod template of an object: of a kind that is known, or at
// spec.template of any other. Nil if there is none.
func template(root tree, kind string) (tree, string) {
	switch kind {
	case "Pod":
		return root, ""
	case "PodTemplate":
		return at(root, "template"), "template."
	case "CronJob":
		return at(root, "spec", "jobTemplate", "spec", "template"), "spec.jobTemplate.spec.template."
	}
	found := at(root, "spec", "template")
	switch kind {
	case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job":
	default:
		if _, ok := at(found, "spec")["containers"].([]any); !ok {
			return nil, ""
		}
	}
	return found, "spec.template."
}

func at(root tree, path ...string) tree {
	for _, name := range path {
		root, _ = root[name].(tree)
	}
	return root
}

// prefixed puts the path of the template before each of the errors' fields.
func prefixed(path string, err error) error {
	var many interface{ Unwrap() []error }
	if !errors.As(err, &many) {
		return fmt.Errorf("%s%w", path, err)
	}
	var out []error
	for _, one := range many.Unwrap() {
		out = append(out, fmt.Errorf("%s%w", path, one))
	}
	return errors.Join(out...)
}
