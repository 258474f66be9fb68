package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"bailiwick.dev/bailiwick/cmd/internal/preview"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/object"
)

func newPreviewCommand() *cobra.Command {
	var a askFlags
	cmd := &cobra.Command{
		Use:   "preview DIR",
		Short: "Say what a change would do before it is applied",
		Long: `Preview compares the objects as they are with those in DIR: which calls become
allowed or denied, which clusters appear in or vanish from proxies, which proxies
are sent how much, and what of the change ends by itself. It builds both with the server's own builders and
applies nothing. Every Pod that could have a proxy is taken to have one.

With --config-dir, DIR is what would stand there instead. With --kubeconfig, DIR is
what would be applied: what it has replaces what the cluster has under the same
name, and nothing is removed.

Exit codes: 0 no call changes, 3 some do, 4 unknown because something may not be
read, 1 failure, 2 a mistake in the command line.`,
		Example: `  git worktree add /tmp/main main
  bailiwick preview ./mesh --config-dir /tmp/main/mesh
  bailiwick preview ./change --kubeconfig ~/.kube/config -o json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.preview(cmd, args[0]) },
	}
	a.add(cmd, "text", "json")
	for _, flag := range []string{"tenant", "server", "server-id", "cert", "key", "trust-bundle"} {
		_ = cmd.Flags().MarkHidden(flag) // there is one
	}
	return cmd
}

func (a *askFlags) preview(cmd *cobra.Command, dir string) error {
	if a.tenant != "" || a.server != "" {
		return usagef("preview compares whole meshes: give --config-dir DIR or --kubeconfig FILE alone")
	}
	before, err := a.load(cmd.Context(), cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	var events []tenancy.Event
	if a.source.kubeconfig != "" {
		events, err = overlay(before.events, dir, object.Options{AllowLoopback: a.allowLoopback})
	} else {
		events, err = a.instead(dir)
	}
	if err != nil {
		return err
	}
	if lost := before.unreadable(); len(lost) > 0 {
		return unknown(lost)
	}
	was, err := a.stateOf(cmd.Context(), before.events)
	if err != nil {
		return err
	}
	now, err := a.stateOf(cmd.Context(), events)
	if err != nil {
		return err
	}
	diff := preview.Compare(was, now)
	diff.Ends = preview.Ends(before.events, events, time.Now())
	if a.output == "json" {
		err = printJSON(cmd.OutOrStdout(), diff)
	} else {
		err = diff.Text(cmd.OutOrStdout())
	}
	if err != nil {
		return fmt.Errorf("print the difference: %w", err)
	}
	if len(diff.Calls) > 0 {
		return exitCode(exitDenied)
	}
	return nil
}

// instead are the events of a directory that stands in another's place.
func (a *askFlags) instead(dir string) ([]tenancy.Event, error) {
	if _, err := os.ReadDir(dir); err != nil {
		return nil, fmt.Errorf("read the directory of objects: %w", err)
	}
	w, err := loadDirectory(dir, object.Options{AllowLoopback: a.allowLoopback}, a.clusterDomain)
	if err != nil {
		return nil, err
	}
	if len(w.errors) > 0 {
		return nil, fmt.Errorf("%s has %d errors, see 'bailiwick validate'; the first: %w", dir, len(w.errors), w.errors[0])
	}
	return w.events, nil
}

// overlay puts the objects of a directory, in whatever folders, over events.
func overlay(events []tenancy.Event, dir string, options object.Options) ([]tenancy.Event, error) {
	at := map[tenancy.Ref]int{}
	events = slices.Clone(events)
	for i, ev := range events {
		at[ev.Ref] = i
	}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)) {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		decoded := object.DecodeAll(path, raw, options)
		if decoded.Unreadable != nil {
			return decoded.Unreadable
		}
		for _, entry := range decoded.Entries {
			if len(entry.Errors) > 0 {
				return errors.Join(fmt.Errorf("%s has errors", path), entry.Errors[0])
			}
			ev := tenancy.Event{Ref: entry.Ref(options.Source), Object: entry.Object}
			if i, ok := at[ev.Ref]; ok {
				events[i] = ev
				continue
			}
			at[ev.Ref] = len(events)
			events = append(events, ev)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read what would be applied: %w", err)
	}
	return events, nil
}

func (a *askFlags) stateOf(ctx context.Context, events []tenancy.Event) (*preview.State, error) {
	return preview.StateOf(ctx, events, tenancy.Config{ClusterDomain: a.clusterDomain, TrustDomains: domainsOf(events)})
}
