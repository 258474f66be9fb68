package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bailiwick.dev/bailiwick/tenancy/read"
)

func newWhoamiCommand() *cobra.Command {
	var a askFlags
	cmd := &cobra.Command{
		Use:   "whoami",
		Short: "Say which tenant a certificate belongs to, with its limits and defaults",
		Long: `Whoami says what the server takes the workload of a certificate for: its tenant,
the tenant's namespaces and defaults, its debounce, and its limits with what is
used of them. With --config-dir and --tenant it says so of any tenant.`,
		Example: `  bailiwick whoami --server 127.0.0.1:18000 --cert svid/web/cert.pem --key svid/web/key.pem \
      --server-id spiffe://platform.example/ns/bailiwick-system/sa/bailiwick --trust-bundle ca/platform/ca.pem`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.whoami(cmd) },
	}
	a.add(cmd, "text", "json")
	return cmd
}

func (a *askFlags) whoami(cmd *cobra.Command) error {
	by, err := a.open(cmd.Context(), cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	defer func() { _ = by.Close() }()
	w, err := by.Whoami(cmd.Context())
	if err != nil {
		return err
	}
	if a.output == "json" {
		err = printJSON(cmd.OutOrStdout(), w)
	} else {
		err = whoamiText(cmd.OutOrStdout(), w)
	}
	if err != nil {
		return fmt.Errorf("print the answer: %w", err)
	}
	return nil
}

func whoamiText(out io.Writer, w read.Whoami) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	duration := func(d time.Duration, none string) string {
		if d == 0 {
			return none
		}
		return d.String()
	}
	const standard, unbounded = "the server's default", "no bound"
	for _, row := range [][2]string{
		{"tenant", w.Tenant}, {"trust domain", w.TrustDomain}, {"namespaces", strings.Join(w.Namespaces, ", ")},
		{"outbound policy", w.Outbound}, {"visibility", w.Visibility}, {"default action", w.DefaultAction}, {"TLS minimum", w.TLSMinimum},
		{"TLS peers", w.Peers}, {"plain destinations", w.PlainDestinations},
		{"connections end after", duration(w.MaxConnectionAge, unbounded)}, {"streams end after", duration(w.MaxStreamAge, unbounded)},
		{"debounce quiet", duration(w.Quiet, standard)}, {"debounce max", duration(w.Max, standard)},
	} {
		fmt.Fprintf(t, "%s\t%s\n", row[0], row[1])
	}
	for _, l := range w.Limits {
		if l.Used < 0 {
			fmt.Fprintf(t, "limit %s\t%d\n", l.Name, l.Most)
		} else {
			fmt.Fprintf(t, "limit %s\t%d of %d used\n", l.Name, l.Used, l.Most)
		}
	}
	return t.Flush()
}
