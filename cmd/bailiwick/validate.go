package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/file"
	"bailiwick.dev/bailiwick/tenancy/object"
)

// validateOptions are the flags of validate.
type validateOptions struct {
	output        string
	strict        bool
	allowLoopback bool
}

// newValidateCommand returns the command that checks a directory as serve would
// load it.
func newValidateCommand() *cobra.Command {
	var opts validateOptions
	cmd := &cobra.Command{
		Use:   "validate DIR",
		Short: "Check a directory of objects as serve would load it",
		Long: `Validate loads a directory as "bailiwick serve --config-dir DIR" would and prints
every error with its file, line, document, object and field, one on a line, to
standard output. What is valid by itself but leads nowhere together with the
other objects, such as a request that nobody grants, is printed as a warning. A
summary goes to standard error.

Exit codes: 0 no errors, 1 there are some, 2 a mistake in the command line.`,
		Example: `  # Before a change is merged
  bailiwick validate config/

  # For an editor or a script
  bailiwick validate config/ -o json

  # The demo runs everything on one machine
  bailiwick validate deploy/demo --allow-loopback-endpoints`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if opts.output != "text" && opts.output != "json" {
				return usagef("-o %s: expected text or json", opts.output)
			}
			return validate(args[0], opts, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringVarP(&opts.output, "output", "o", "text", "how to print errors: text or json")
	cmd.Flags().BoolVar(&opts.strict, "strict", false, "count warnings as errors")
	cmd.Flags().BoolVar(&opts.allowLoopback, "allow-loopback-endpoints", false,
		"accept loopback addresses of endpoints, as serve does with this flag")
	complete := cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)
	// It fails for flags that do not exist only.
	_ = cmd.RegisterFlagCompletionFunc("output", complete)
	return cmd
}

// validated is what validate prints as JSON.
type validated struct {
	file.Report
	// Warnings are what only the objects together show.
	Warnings []*object.Error `json:"warnings"`
	// Notes are what is as it should be and may still surprise; they are in no
	// text, and no error for anybody.
	Notes []*object.Error `json:"notes"`
}

// validate loads dir and prints what is wrong with it; the error is the summary.
func validate(dir string, opts validateOptions, stdout, stderr io.Writer) error {
	d, err := loadDirectory(dir, object.Options{AllowLoopback: opts.allowLoopback}, "cluster.local")
	if err != nil {
		return err
	}
	report := *d.report
	out := validated{Report: report, Notes: []*object.Error{}}
	out.Warnings = slices.DeleteFunc(d.warnings(), func(e *object.Error) bool {
		note := strings.HasPrefix(e.Message, tenancy.ReasonNarrows+": ")
		if note {
			out.Notes = append(out.Notes, e)
		}
		return note
	})
	d.hints(out.Errors)
	d.hints(out.Warnings)
	if err := out.print(stdout, opts.output); err != nil {
		return fmt.Errorf("print the errors: %w", err)
	}
	summary := fmt.Sprintf("%s: %d errors and %d warnings in %d files with %d valid objects",
		dir, len(out.Errors), len(out.Warnings), report.Files, report.Objects)
	if len(out.Errors) > 0 || opts.strict && len(out.Warnings) > 0 {
		return fmt.Errorf("%s", summary)
	}
	_, err = fmt.Fprintln(stderr, summary)
	return err
}

// warnings are what only the objects together show: references that lead
// nowhere, conflicts, limits.
func (w *world) warnings() []*object.Error {
	problems := w.model.TakeProblems()
	out := []*object.Error{}
	for _, ev := range w.events {
		for _, p := range problems[ev.Ref] {
			if p.Reason == tenancy.ReasonInvalid {
				continue // an error of the object, reported with its field
			}
			place, _ := w.locate(ev.Ref)
			out = append(out, &object.Error{
				File: place.File, Document: place.Document, Line: place.Line, Kind: object.KindName(ev.Ref.Kind),
				Namespace: ev.Ref.Key.Namespace, Name: ev.Ref.Key.Name, Field: p.Field, Message: p.Reason + ": " + p.Message,
			})
		}
	}
	return out
}

func (v validated) print(w io.Writer, output string) error {
	if output == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	for _, e := range v.Errors {
		if _, err := fmt.Fprintln(w, e); err != nil {
			return err
		}
	}
	for _, e := range v.Warnings {
		if _, err := fmt.Fprintf(w, "%s (warning)\n", e); err != nil {
			return err
		}
	}
	return nil
}
