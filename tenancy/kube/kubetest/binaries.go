package kubetest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// errMissing is the error of a machine without the binaries.
var errMissing = errors.New("no kube-apiserver and etcd: make kubernetes builds them, KUBEBUILDER_ASSETS=/path uses others")

// Binaries returns the folder that has kube-apiserver and etcd: that of the
// environment variable KUBEBUILDER_ASSETS, else the one that the Makefile built.
// Without one the test is skipped, and fails where the environment variable CI
// is "true".
func Binaries(t testing.TB) string {
	t.Helper()
	folder, err := binaries()
	if err == nil {
		return folder
	}
	if os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	t.Skipf("SKIPPED, nothing was tried on a real API server: %v", err)
	return ""
}

// Available reports whether the binaries are there.
func Available() bool {
	_, err := binaries()
	return err == nil
}

func binaries() (string, error) {
	folders := []string{os.Getenv("KUBEBUILDER_ASSETS")}
	if folders[0] == "" {
		dir, err := Root()
		if err != nil {
			return "", err
		}
		// The Makefile leaves one folder there, named by a checksum.
		folders, _ = filepath.Glob(filepath.Join(dir, ".cache", "kubernetes", "*"))
	}
	for _, folder := range folders {
		if executable(filepath.Join(folder, "kube-apiserver")) && executable(filepath.Join(folder, "etcd")) {
			return folder, nil
		}
	}
	return "", fmt.Errorf("looked in %q: %w", folders, errMissing)
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// Root is the nearest directory upwards that has a go.mod: the repository's.
func Root() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find the repository: no go.mod above %s", start)
		}
	}
}
