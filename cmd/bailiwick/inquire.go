package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bailiwick.dev/bailiwick/tenancy/condition"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// userAgent begins that of our requests to an admin address.
const userAgent = "bailiwick/"

// inquiry is a question to the admin address of a running server.
type inquiry struct {
	address string
	output  string
}

func (a *inquiry) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.address, "admin-address", "", "`ADDRESS` of the server's administration, as serve was given it (required)")
	cmd.Flags().StringVarP(&a.output, "output", "o", "table", "how to print: table or json")
	// It fails for flags that do not exist only.
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

func (a *inquiry) check(cmd *cobra.Command) error {
	if err := requireFlags(cmd, "admin-address"); err != nil {
		return err
	}
	if a.output != "table" && a.output != "json" {
		return usagef("-o %s: expected table or json", a.output)
	}
	return nil
}

// do asks; the answer goes to into, or as JSON to out if that is wanted.
func (a *inquiry) do(ctx context.Context, method, path string, out io.Writer, into any) (printed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*adminPatience)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	host := a.address
	if socket, isUnix := strings.CutPrefix(a.address, "unix:"); isUnix {
		host = "localhost"
		client.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+host+path, http.NoBody)
	if err != nil {
		return false, usagef("--admin-address %s: %w", a.address, err)
	}
	req.Header.Set("User-Agent", userAgent+version())
	resp, err := client.Do(req)
	if err != nil {
		return false, fmt.Errorf("ask the server (does serve run with --admin-address %s?): %w", a.address, err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return false, fmt.Errorf("read the server's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return false, fmt.Errorf("the server answers %s: %s", resp.Status, strings.TrimSpace(string(body)))
	}
	if err := json.Unmarshal(body, into); err != nil {
		return false, fmt.Errorf("read the server's answer: %w", err)
	}
	if a.output == "json" {
		_, err := out.Write(body)
		return true, err
	}
	return false, nil
}

func newProxiesCommand() *cobra.Command {
	var a inquiry
	cmd := &cobra.Command{
		Use:   "proxies",
		Short: "List the proxies that are connected to a server",
		Long: `Proxies asks the admin address of a running server which proxies are connected:
their tenant, how many responses they were sent and have acknowledged (ACKED) or
refused (NACKED), since when something has been without an answer (WAITS), and
how many resources they do not take (REFUSED). "bailiwick dump" shows one of them
closely.`,
		Example: "  bailiwick proxies --admin-address 127.0.0.1:18002\n  bailiwick proxies --admin-address unix:/run/bailiwick/admin.sock -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.check(cmd); err != nil {
				return err
			}
			var list []proxyStatus
			if done, err := a.do(cmd.Context(), http.MethodGet, "/proxies", cmd.OutOrStdout(), &list); done || err != nil {
				return err
			}
			return printProxies(cmd.OutOrStdout(), list, time.Now())
		},
	}
	a.flags(cmd)
	return cmd
}

func table(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 0, 2, ' ', 0) }

func printProxies(w io.Writer, list []proxyStatus, now time.Time) error {
	slices.SortFunc(list, func(a, b proxyStatus) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Stream, b.Stream))
	})
	t := table(w)
	fmt.Fprintln(t, "TENANT\tPROXY\tREPLICA\tSENT\tACKED\tNACKED\tWAITS\tREFUSED\tAGE")
	for _, p := range list {
		waits := "-"
		if len(p.Unanswered) > 0 {
			waits = age(now.Sub(slices.MinFunc(slices.Collect(maps.Values(p.Unanswered)), time.Time.Compare)))
		}
		if p.Behind {
			waits += " (behind)"
		}
		fmt.Fprintf(t, "%s\t%s/%s\t%s\t%d\t%d\t%d\t%s\t%d\t%s\n", orNone(p.Tenant), p.Namespace, orNone(p.Pod), p.Replica,
			p.Sent, p.Acked, p.Nacked, waits, len(p.Refused), age(now.Sub(p.Opened)))
	}
	return t.Flush()
}

func orNone(s string) string { return cmp.Or(s, "-") }

// age is a duration as one looks at it.
func age(d time.Duration) string {
	switch d = max(d, 0); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

func newStatusCommand() *cobra.Command {
	var a inquiry
	var all bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what becomes of the objects that a server was given",
		Long: `Status asks the admin address of a running server for the conditions of its
objects, as kubectl shows them where they come from Kubernetes: Accepted (valid as
written), ResolvedRefs (what it refers to is available) and Programmed (no
connected proxy of its tenant lacks it); of a Tenant also Degraded (its limits
leave something out). Objects that are in order are left out unless --all is given. Objects whose removal is held are listed below.

Exit codes: 0 everything is in order or unknown, 1 something is not, 2 a mistake in
the command line.`,
		Example: "  bailiwick status --admin-address 127.0.0.1:18002\n  bailiwick status --all --admin-address 127.0.0.1:18002",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.check(cmd); err != nil {
				return err
			}
			var st statuses
			done, err := a.do(cmd.Context(), http.MethodGet, "/status", cmd.OutOrStdout(), &st)
			if err != nil {
				return err
			}
			if !done {
				if err := printStatus(cmd.OutOrStdout(), st, all); err != nil {
					return err
				}
			}
			if n := st.wrong(); n > 0 || len(st.Held) > 0 {
				return fmt.Errorf("%d objects are not in order, %d removals are held", n, len(st.Held))
			}
			return nil
		},
	}
	a.flags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "list objects that are in order, too")
	return cmd
}

// worst is the condition to look at first: one that is false, or Degraded.
func (o *objectStatus) worst() (c metav1.Condition, bad bool) {
	for _, t := range condition.Types() {
		if i := slices.IndexFunc(o.Conditions, func(c metav1.Condition) bool { return c.Type == t && condition.Wrong(&c) }); i >= 0 {
			return o.Conditions[i], true
		}
	}
	return metav1.Condition{}, false
}

func (st *statuses) wrong() (n int) {
	for i := range st.Objects {
		if _, bad := st.Objects[i].worst(); bad {
			n++
		}
	}
	return n
}

func printStatus(w io.Writer, st statuses, all bool) error {
	t := table(w)
	fmt.Fprintln(t, "KIND\tOBJECT\tACCEPTED\tRESOLVED\tPROGRAMMED\tREASON\tMESSAGE")
	for i := range st.Objects {
		o := &st.Objects[i]
		c, bad := o.worst()
		if !bad && !all {
			continue
		}
		cell := map[string]string{}
		for _, c := range o.Conditions {
			cell[c.Type] = string(c.Status)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", o.Kind, qualified(o.Namespace, o.Name), orNone(cell[v1alpha1.ConditionAccepted]),
			orNone(cell[v1alpha1.ConditionResolvedRefs]), orNone(cell[v1alpha1.ConditionProgrammed]), orNone(c.Reason), c.Message)
	}
	for i, h := range st.Held {
		if i == 0 {
			fmt.Fprintln(t, "\nREMOVAL HELD\tOBJECT\tSINCE")
		}
		fmt.Fprintf(t, "%s\t%s\t%s\n", h.Kind, qualified(h.Namespace, h.Name), h.Since.Format(time.RFC3339))
	}
	return t.Flush()
}

func qualified(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

func newConfirmCommand() *cobra.Command {
	var a inquiry
	cmd := &cobra.Command{
		Use:   "confirm",
		Short: "Confirm the removals that a server holds",
		Long: `Confirm tells a running server that the removals it holds (see "bailiwick status")
are meant: the objects are honoured no longer.`,
		Example: "  bailiwick status --admin-address 127.0.0.1:18002\n  bailiwick confirm --admin-address 127.0.0.1:18002",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := a.check(cmd); err != nil {
				return err
			}
			var c confirmed
			if done, err := a.do(cmd.Context(), http.MethodPost, "/confirm", cmd.OutOrStdout(), &c); done || err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d objects are removed\n", c.Objects)
			return err
		},
	}
	a.flags(cmd)
	return cmd
}
