package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"bailiwick.dev/bailiwick/identity"
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
	source        sourceFlags
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
	f.StringVar(&a.source.configDir, "config-dir", "", "read the objects in directory `DIR`, as serve would")
	f.StringVar(&a.source.kubeconfig, "kubeconfig", "", "read the objects of the API server that `FILE` leads to, as serve would")
	f.StringVar(&a.source.context, "context", "", "`CONTEXT` of the kubeconfig, its current one if not given")
	f.StringVar(&a.tenant, "tenant", "", "answer as tenant `NAME` would be answered, with --config-dir or --kubeconfig")
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

// open finds who answers. What is wrong with the objects is said to stderr.
func (a *askFlags) open(ctx context.Context, stderr io.Writer) (asked, error) {
	local := a.source.configDir != "" || a.source.kubeconfig != ""
	switch {
	case local == (a.server != ""):
		return nil, usagef("whom to ask: give one of --config-dir DIR, --kubeconfig FILE and --server ADDRESS")
	case a.server != "" && a.tenant != "":
		return nil, usagef("--tenant: the server answers as the tenant of the certificate")
	case a.server != "":
		return a.dial()
	}
	w, err := a.load(ctx, stderr)
	if err != nil {
		return nil, err
	}
	if a.tenant != "" {
		w.scope = read.OfTenant(a.tenant)
	}
	return w, nil
}

// load reads the objects that the flags lead to.
func (a *askFlags) load(ctx context.Context, stderr io.Writer) (*world, error) {
	if err := a.source.check(); err != nil {
		return nil, err
	}
	options := object.Options{AllowLoopback: a.allowLoopback}
	var w *world
	var err error
	if a.source.kubeconfig != "" {
		w, err = loadCluster(ctx, &a.source, options, a.clusterDomain)
	} else {
		w, err = loadDirectory(a.source.configDir, options, a.clusterDomain)
	}
	if err != nil {
		return nil, err
	}
	if n := len(w.errors); n > 0 {
		fmt.Fprintf(stderr, "bailiwick: %d objects or files are in error, and left out; the first: %v\n", n, w.errors[0])
	}
	return w, nil
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
