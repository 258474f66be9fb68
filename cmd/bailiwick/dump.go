package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bailiwick.dev/bailiwick/snapshot"
)

func newDumpCommand() *cobra.Command {
	var a inquiry
	var want snapshot.Wanted
	cmd := &cobra.Command{
		Use:   "dump NAMESPACE/POD",
		Short: "Show what a server gives to a proxy",
		Long: `Dump asks the admin address of a running server what it gives to the proxies of a
Pod: each resource with its version and the objects that it was made from, and
what the proxy refused, with its own words. --contents shows what is in them, as
protobuf's JSON; of one type or name with --type and --name.`,
		Example: "  bailiwick dump acme-web/web-0 --admin-address 127.0.0.1:18002\n" +
			"  bailiwick dump acme-web/web-0 --admin-address 127.0.0.1:18002 --type cluster --contents -o json",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.check(cmd); err != nil {
				return err
			}
			namespace, pod, ok := strings.Cut(args[0], "/")
			if !ok || namespace == "" || pod == "" {
				return usagef("%q: expected NAMESPACE/POD, as bailiwick proxies lists them", args[0])
			}
			if want.Type != "" && !slices.Contains(resourceTypes(), want.Type) {
				return usagef("--type %q: expected one of %s", want.Type, strings.Join(resourceTypes(), ", "))
			}
			var d proxyDump
			query := url.Values{"type": {want.Type}, "name": {want.Name}}
			if want.Contents {
				query.Set("contents", "yes")
			}
			path := "/proxies/" + url.PathEscape(namespace) + "/" + url.PathEscape(pod) + "?" + query.Encode()
			done, err := a.do(cmd.Context(), http.MethodGet, path, cmd.OutOrStdout(), &d)
			if err != nil {
				return err
			}
			if len(d.Given) == 0 {
				return fmt.Errorf("no proxy of %s is connected to this server", args[0])
			}
			if done {
				return nil
			}
			return printDump(cmd.OutOrStdout(), d)
		},
	}
	a.flags(cmd)
	cmd.Flags().BoolVar(&want.Contents, "contents", false, "show what is in the resources, too")
	cmd.Flags().StringVar(&want.Type, "type", "", "`TYPE` of the resources to show: "+strings.Join(resourceTypes(), ", "))
	cmd.Flags().StringVar(&want.Name, "name", "", "`NAME` of the resources to show")
	// It fails for flags that do not exist only.
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(resourceTypes(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// resourceTypes are the words for types of resources.
func resourceTypes() []string {
	var out []string
	for t := range snapshot.NumTypes {
		out = append(out, t.String())
	}
	return out
}

func printDump(w io.Writer, d proxyDump) error {
	if err := printProxies(w, d.Streams, time.Now()); err != nil {
		return err
	}
	t := table(w)
	for _, g := range d.Given {
		fmt.Fprintf(t, "\nTYPE\tRESOURCE\tVERSION\tBYTES\tMADE FROM\n")
		for _, r := range g.Resources {
			fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\n", r.Type, r.Name, r.Version, r.Bytes, strings.Join(r.Origins, ", "))
		}
		for _, r := range g.Resources {
			if len(r.Content) == 0 {
				continue
			}
			var text bytes.Buffer
			if err := json.Indent(&text, r.Content, "", "  "); err != nil {
				return fmt.Errorf("read %s %s: %w", r.Type, r.Name, err)
			}
			fmt.Fprintf(t, "\n%s %s\n%s\n", r.Type, r.Name, &text)
		}
	}
	for _, p := range d.Streams {
		for _, r := range p.Refused {
			fmt.Fprintf(t, "\nREFUSED %s %s %s\t%s\n", r.Type, r.Resource, strings.Join(r.Parts, ","), r.Detail)
		}
	}
	return t.Flush()
}
