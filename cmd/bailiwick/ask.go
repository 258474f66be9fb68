package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/file"
	"bailiwick.dev/bailiwick/tenancy/object"
	"bailiwick.dev/bailiwick/tenancy/read"
	"bailiwick.dev/bailiwick/xds/ask"
)

// asked is who answers the commands that ask about a mesh.
type asked interface {
	Explain(ctx context.Context, q read.Question) (read.Answer, error)
	Matrix(ctx context.Context) (read.Matrix, error)
	Whoami(ctx context.Context) (read.Whoami, error)
	io.Closer
}

// askFlags say where the answers come from and how to print them.
type askFlags struct {
	configDir     string
	tenant        string
	clusterDomain string
	allowLoopback bool
	output        string
	// Of the server that is asked.
	server, serverID       string
	cert, key, trustBundle string
}

func (a *askFlags) add(cmd *cobra.Command, outputs ...string) {
	f := cmd.Flags()
	f.StringVar(&a.configDir, "config-dir", "", "read the objects in directory `DIR`, as serve would")
	f.StringVar(&a.tenant, "tenant", "", "answer as tenant `NAME` would be answered, with --config-dir")
	f.StringVar(&a.clusterDomain, "cluster-domain", "cluster.local", "`DOMAIN` that service names end in, as serve has it")
	f.BoolVar(&a.allowLoopback, "allow-loopback-endpoints", false, "accept loopback addresses of endpoints, as serve does with this flag")
	f.StringVar(&a.server, "server", "", "ask the server at `ADDRESS` (HOST:PORT of its xDS port), as the workload of --cert; it says what that workload's tenant may know")
	f.StringVar(&a.serverID, "server-id", "", "SPIFFE `ID` of the server, with --server")
	f.StringVar(&a.cert, "cert", "", "certificate chain `FILE` of the own SVID (PEM), with --server")
	f.StringVar(&a.key, "key", "", "private key `FILE` of the own SVID (PEM), with --server")
	f.StringVar(&a.trustBundle, "trust-bundle", "", "CA certificates `FILE` of the server's trust domain (PEM), with --server")
	f.StringVarP(&a.output, "output", "o", outputs[0], "how to print the answer: "+strings.Join(outputs, " or "))
	// It fails for flags that do not exist only.
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp))
	check := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(outputs, a.output) {
			return usagef("-o %s: expected %s", a.output, strings.Join(outputs, " or "))
		}
		return check(cmd, args)
	}
}

// open finds who answers. What the directory has wrong is said to stderr.
func (a *askFlags) open(stderr io.Writer) (asked, error) {
	switch {
	case (a.configDir == "") == (a.server == ""):
		return nil, usagef("whom to ask: give one of --config-dir DIR and --server ADDRESS")
	case a.server != "" && a.tenant != "":
		return nil, usagef("--tenant: the server answers as the tenant of the certificate")
	case a.server != "":
		return a.dial()
	}
	d, err := loadDirectory(a.configDir, a.allowLoopback, a.clusterDomain)
	if err != nil {
		return nil, err
	}
	if n := len(d.report.Errors); n > 0 {
		fmt.Fprintf(stderr, "bailiwick: %s has %d errors, which 'bailiwick validate %s' lists; what they are about is left out\n", a.configDir, n, a.configDir)
	}
	d.scope = read.Platform()
	if a.tenant != "" {
		d.scope = read.OfTenant(a.tenant)
	}
	return d, nil
}

// dial makes a client of the server.
func (a *askFlags) dial() (asked, error) {
	id, err := spiffeid.FromString(a.serverID)
	if err != nil {
		return nil, usagef("--server-id %q: %v", a.serverID, err)
	}
	if a.cert == "" || a.key == "" || a.trustBundle == "" {
		return nil, usagef("--server needs --cert, --key and --trust-bundle")
	}
	source, err := identity.NewFileSource(identity.FileConfig{
		CertFile: a.cert, KeyFile: a.key, Bundles: map[string]string{id.TrustDomain().Name(): a.trustBundle},
	})
	if err != nil {
		return nil, err
	}
	client, err := ask.NewClient(a.server, identity.ClientTLS(source, source, id))
	if err != nil {
		return nil, errors.Join(err, source.Close())
	}
	return remote{client, source}, nil
}

// remote is a server with the certificate that it is asked with.
type remote struct {
	*ask.Client
	source identity.Source
}

// Close implements asked.
func (r remote) Close() error { return errors.Join(r.Client.Close(), r.source.Close()) }

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// directory answers from the objects of a directory.
type directory struct {
	source *file.Source
	events []tenancy.Event
	report file.Report
	model  *tenancy.Model
	scope  read.Scope
	domain string
}

// loadDirectory reads a directory once, as serve would at its start. Whatever
// trust domains the tenants name are taken for accepted: which are is the
// server's to say.
func loadDirectory(dir string, allowLoopback bool, clusterDomain string) (*directory, error) {
	source, err := file.New(file.Config{
		Dir: dir, Options: object.Options{AllowLoopback: allowLoopback}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	d := &directory{source: source, domain: clusterDomain}
	d.events, d.report = source.Load()
	var domains []string
	for _, ev := range d.events {
		if t, ok := ev.Object.(*tenancy.Tenant); ok {
			domains = append(domains, t.TrustDomain)
		}
	}
	d.model = tenancy.NewModel(tenancy.Config{ClusterDomain: clusterDomain, TrustDomains: domains})
	for _, ev := range d.events {
		d.model.Apply(ev)
	}
	return d, nil
}

func (d *directory) reader() *read.Reader {
	return read.New(d.model, d.scope, d.domain, func(ref tenancy.Ref) string {
		place, ok := d.source.Locate(ref)
		if !ok {
			return ""
		}
		return fmt.Sprintf("%s:%d", place.File, place.Line)
	})
}

// Explain implements asked. Where a file that bears on the call cannot be read,
// the answer is not known.
func (d *directory) Explain(_ context.Context, q read.Question) (read.Answer, error) {
	a := d.reader().Explain(q)
	if lost := d.unreadable(q.Namespace, q.From.Namespace); len(lost) > 0 {
		a.Verdict, a.Why = read.Unknown, "what cannot be read may decide it"
		a.Unknown = append(a.Unknown, lost...)
	}
	return a, nil
}

// unreadable are the files that could be about namespaces and cannot be read:
// those of platform/, and those of the namespaces' tenants.
func (d *directory) unreadable(namespaces ...string) []string {
	held := slices.Clone(d.report.Held)
	for _, ns := range namespaces {
		if slices.Contains(d.report.HeldNamespaces, ns) {
			return []string{"may not read the Namespace object of " + ns}
		}
	}
	concerned := func(path string) bool {
		for _, tenant := range held {
			for _, ns := range namespaces {
				if of, ok := d.model.TenantOf(ns); (!ok || of == tenant) && strings.Contains(path, "/tenants/"+tenant+"/") {
					return true
				}
			}
		}
		return !d.report.Ready && !strings.Contains(path, "/tenants/")
	}
	var lost []string
	for _, e := range d.report.Errors {
		if e.Kind == "" && concerned(e.File) {
			lost = append(lost, "may not read "+e.File+": "+e.Message)
		}
	}
	return lost
}

// Matrix implements asked.
func (d *directory) Matrix(context.Context) (read.Matrix, error) {
	if !d.report.Ready || len(d.report.Held)+len(d.report.HeldNamespaces) > 0 {
		return read.Matrix{}, fmt.Errorf("some files cannot be read, and a matrix without them would be wrong: see 'bailiwick validate'")
	}
	return d.reader().Matrix(), nil
}

// Whoami implements asked.
func (d *directory) Whoami(context.Context) (read.Whoami, error) {
	w, ok := d.reader().Whoami()
	if !ok {
		return w, fmt.Errorf("no such tenant: give --tenant NAME of one that the directory has")
	}
	return w, nil
}

// Close implements asked.
func (d *directory) Close() error { return nil }
