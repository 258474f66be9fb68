package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"bailiwick.dev/bailiwick/tenancy/file"
	"bailiwick.dev/bailiwick/tenancy/kube"
	"bailiwick.dev/bailiwick/tenancy/object"
)

// source is where objects come from: a directory or an API server. Run follows
// it until ctx ends.
type source interface {
	run(ctx context.Context, sink *sink) error
	// confirm takes what has vanished as a whole for gone; it returns when that was
	// read.
	confirm(ctx context.Context) error
	// state is what there is to tell of the source, as JSON.
	state() any
}

// sourceFlags say which source to use: exactly one.
type sourceFlags struct {
	configDir  string
	kubeconfig string
	context    string
	inCluster  bool
}

// check refuses what can be seen to be wrong before anything starts.
func (f *sourceFlags) check() error {
	given := 0
	for _, is := range []bool{f.configDir != "", f.kubeconfig != "", f.inCluster} {
		if is {
			given++
		}
	}
	switch {
	case given == 0:
		return usagef("no source: give --config-dir DIR, --kubeconfig FILE or --in-cluster")
	case given > 1:
		return usagef("--config-dir, --kubeconfig and --in-cluster exclude each other: give one of them")
	case f.context != "" && f.kubeconfig == "":
		return usagef("--context chooses a context of a --kubeconfig: give that too")
	}
	return nil
}

// open makes the source. What it has to read is read at once as far as that says
// whether the command line is right; an API server may be away.
func (f *sourceFlags) open(options object.Options, log *slog.Logger, registerer prometheus.Registerer) (source, error) {
	if f.configDir != "" {
		// A directory that cannot be read at the start is a slip in the command line
		// more often than not. One that vanishes later changes nothing.
		if _, err := os.ReadDir(f.configDir); err != nil {
			return nil, fmt.Errorf("read the directory of objects (--config-dir): %w", err)
		}
		s, err := file.New(file.Config{Dir: f.configDir, Options: options, Logger: log})
		if err != nil {
			return nil, err
		}
		return &fromDirectory{source: s}, nil
	}
	if err := noticeSoon(); err != nil {
		return nil, fmt.Errorf("prepare to follow the API server: %w", err)
	}
	config, err := f.rest()
	if err != nil {
		return nil, err
	}
	s, err := kube.New(kube.Config{REST: config, Options: options, Logger: log, Registerer: registerer})
	if err != nil {
		return nil, err
	}
	return &fromCluster{source: s}, nil
}

// rest is how the API server is reached.
func (f *sourceFlags) rest() (*rest.Config, error) {
	config, err := f.restConfig()
	if err != nil {
		return nil, err
	}
	config.UserAgent = "bailiwick"
	return config, nil
}

func (f *sourceFlags) restConfig() (*rest.Config, error) {
	if f.inCluster {
		config, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, errors.New("--in-cluster: this is no Pod of a cluster: there is no KUBERNETES_SERVICE_HOST; give --kubeconfig FILE outside of one")
		}
		if err != nil {
			return nil, fmt.Errorf("--in-cluster: find the API server (has the Pod a service account token?): %w", err)
		}
		return config, nil
	}
	// Only this file: neither $KUBECONFIG nor the home directory are asked.
	loaded, err := clientcmd.LoadFromFile(f.kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read --kubeconfig: %w", err)
	}
	if f.context != "" && loaded.Contexts[f.context] == nil {
		return nil, fmt.Errorf("--context %q: %s has no such context", f.context, f.kubeconfig)
	}
	if err := clientcmd.ResolveLocalPaths(loaded); err != nil {
		return nil, fmt.Errorf("read --kubeconfig: %w", err)
	}
	overrides := &clientcmd.ConfigOverrides{CurrentContext: f.context}
	config, err := clientcmd.NewDefaultClientConfig(*loaded, overrides).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("use --kubeconfig %s: %w", f.kubeconfig, err)
	}
	return config, nil
}

// fromDirectory is the source of files.
type fromDirectory struct{ source *file.Source }

func (d *fromDirectory) run(ctx context.Context, s *sink) error {
	return d.source.Run(ctx, &directorySink{sink: s})
}

func (d *fromDirectory) confirm(ctx context.Context) error { return d.source.Confirm(ctx) }

func (d *fromDirectory) state() any { return map[string]string{"source": "directory"} }

// fromCluster is the source of an API server.
type fromCluster struct {
	source *kube.Source
}

func (c *fromCluster) run(ctx context.Context, s *sink) error {
	return c.source.Run(ctx, &clusterSink{sink: s})
}

// confirm has nothing to do: an API server that is lost has said nothing.
func (c *fromCluster) confirm(context.Context) error { return nil }

func (c *fromCluster) state() any { return c.source.State() }
