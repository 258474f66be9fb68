package main

import (
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"bailiwick.dev/bailiwick/snapshot"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/object"
)

// sizeRow is what scoping brings to the proxies of a namespace.
type sizeRow struct {
	snapshot.ViewSize
	// Proxies are Pods of a directory, streams of a running server.
	Proxies int `json:"proxies"`
	// SavedBytes is about how much less memory all of these Envoys need.
	SavedBytes int64 `json:"savedBytes"`
}

func newSizeCommand() *cobra.Command {
	a := inquiry{}
	var domain string
	var loopback bool
	cmd := &cobra.Command{
		Use:   "size [DIR]",
		Short: "Show what scoping saves: configuration and Envoys' memory, by tenant",
		Long: `Size adds up, for each namespace, the clusters that its proxies are given and the
bytes of their clusters, endpoints and virtual hosts (SCOPED), and what they would
be given if everybody saw everything (UNSCOPED). SAVED is about how much less
memory all proxies of the namespace need for it; a cluster takes Envoy some 68 KB.

It reads a directory as serve would, where every Pod counts as a proxy, or asks the
admin address of a running server, which knows of the namespaces of connected
proxies only.`,
		Example: `  bailiwick size deploy/demo --allow-loopback-endpoints
  bailiwick size --admin-address 127.0.0.1:18002 -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (a.address != "") {
				return usagef("give either a directory or an --admin-address")
			}
			if a.output != "table" && a.output != "json" {
				return usagef("-o %s: expected table or json", a.output)
			}
			var rows []sizeRow
			var err error
			if a.address != "" {
				rows, err = sizesOfServer(cmd, a)
			} else {
				rows, err = sizesOfDirectory(args[0], domain, loopback)
			}
			if err != nil {
				return err
			}
			if a.output == "json" {
				return printJSON(cmd.OutOrStdout(), rows)
			}
			return printSizes(cmd.OutOrStdout(), rows)
		},
	}
	a.flags(cmd)
	cmd.Flags().Lookup("admin-address").Usage = "`ADDRESS` of the server's administration, as serve was given it"
	cmd.Flags().StringVar(&domain, "cluster-domain", snapshot.DefaultClusterDomain, "domain that ends the names of services")
	cmd.Flags().BoolVar(&loopback, "allow-loopback-endpoints", false, "accept loopback addresses of endpoints, as serve does with this flag")
	return cmd
}

func sizesOfDirectory(dir, domain string, loopback bool) ([]sizeRow, error) {
	w, err := loadDirectory(dir, object.Options{AllowLoopback: loopback}, domain)
	if err != nil {
		return nil, err
	}
	views, err := snapshot.NewBuilder(snapshot.BuilderConfig{ClusterDomain: domain}).Sizes(w.model)
	if err != nil {
		return nil, err
	}
	if len(views) == 0 {
		return nil, fmt.Errorf("%s: no namespace of a tenant found (bailiwick validate %s says what is wrong with it)", dir, dir)
	}
	pods := map[string]int{}
	for _, ev := range w.events {
		if ev.Ref.Kind == tenancy.KindPod {
			pods[ev.Ref.Key.Namespace]++
		}
	}
	return sizeRows(views, pods), nil
}

func sizesOfServer(cmd *cobra.Command, a inquiry) ([]sizeRow, error) {
	var d snapshot.Dump
	a.output = "" // what is printed is made from the answer
	if _, err := a.do(cmd.Context(), http.MethodGet, "/dump", io.Discard, &d); err != nil {
		return nil, err
	}
	streams := map[string]int{}
	for _, v := range d.Views {
		streams[v.Namespace] += v.Streams
	}
	if len(d.Views) == 0 {
		return nil, fmt.Errorf("no proxy is connected to this server")
	}
	return sizeRows(d.Sizes(), streams), nil
}

func sizeRows(views []snapshot.ViewSize, proxies map[string]int) []sizeRow {
	rows := make([]sizeRow, 0, len(views))
	for _, v := range views {
		n := proxies[v.Namespace]
		saved := int64(v.Unscoped.Clusters-v.Scoped.Clusters) * snapshot.EnvoyBytesPerCluster * int64(n)
		rows = append(rows, sizeRow{v, n, saved})
	}
	return rows
}

func printSizes(w io.Writer, rows []sizeRow) error {
	t := table(w)
	fmt.Fprintf(t, "TENANT\tNAMESPACE\tPROXIES\tSCOPED\t\tUNSCOPED\t\tSAVED\n")
	var saved int64
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d clusters\t%s\t%d clusters\t%s\t%s\n", r.Tenant, r.Namespace, r.Proxies,
			r.Scoped.Clusters, kilobytes(r.Scoped.Bytes), r.Unscoped.Clusters, kilobytes(r.Unscoped.Bytes), megabytes(r.SavedBytes))
		saved += r.SavedBytes
	}
	fmt.Fprintf(t, "all\t\t\t\t\t\t\t%s\n", megabytes(saved))
	return t.Flush()
}

func kilobytes(n int) string { return fmt.Sprintf("%.1f KB", float64(n)/1024) }

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/(1<<20)) }
