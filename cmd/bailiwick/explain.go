package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy/policy"
	"bailiwick.dev/bailiwick/tenancy/read"
)

// explainFlags are the flags of explain as they were given.
type explainFlags struct {
	askFlags
	from, to           string
	method, path, host string
	headers, claims    []string
	token              string
}

func newExplainCommand() *cobra.Command {
	var e explainFlags
	cmd := &cobra.Command{
		Use:   "explain --from spiffe://TD/ns/NAMESPACE/sa/ACCOUNT --to NAMESPACE/SERVICE:PORT",
		Short: "Say whether a call is allowed, why, and what would change it",
		Long: `Explain judges one call as the proxies would: whether the caller's proxy may know
the service, and whether the workloads behind it let the call in. It names the
policy that decides, every other policy that was looked at with the reason why it
does not decide, and what to write to have it otherwise. A caller without a
certificate is "plaintext"; the request's token is said by --token and --claim.

Exit codes: 0 allowed, 3 denied, 4 unknown because something may not be read,
1 failure, 2 a mistake in the command line.`,
		Example: `  bailiwick explain --from spiffe://acme.example/ns/acme-web/sa/web \
      --to acme-shop/orders:8080 --method POST --config-dir deploy/demo --allow-loopback-endpoints`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return e.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&e.from, "from", "", "SPIFFE `ID` of the caller, or \"plaintext\" for one without a certificate (required)")
	f.StringVar(&e.to, "to", "", "`NAMESPACE/SERVICE:PORT` that is called, by the service's port (required)")
	f.StringVar(&e.method, "method", "", "HTTP `METHOD` of the request (default GET)")
	f.StringVar(&e.path, "path", "", "`PATH` of the request (default /)")
	f.StringVar(&e.host, "host", "", "`HOST` of the request (default the service's full name)")
	f.StringArrayVar(&e.headers, "header", nil, "`NAME=VALUE` of the request; may be repeated")
	f.StringVar(&e.token, "token", "", "the request has a valid token of `PROVIDER`, by its name in the Tenant")
	f.StringArrayVar(&e.claims, "claim", nil, "`PATH=VALUE` of a claim of that token, names of nested objects with dots between them; several of one path are a list")
	e.add(cmd, "text", "json")
	return cmd
}

func (e *explainFlags) run(cmd *cobra.Command) error {
	if err := requireFlags(cmd, "from", "to"); err != nil {
		return err
	}
	q, err := e.question()
	if err != nil {
		return err
	}
	by, err := e.open(cmd.Context(), cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	defer func() { _ = by.Close() }()
	a, err := by.Explain(cmd.Context(), q)
	if err != nil {
		return err
	}
	if e.output == "json" {
		err = printJSON(cmd.OutOrStdout(), a)
	} else {
		err = a.Text(cmd.OutOrStdout())
	}
	switch {
	case err != nil:
		return fmt.Errorf("print the answer: %w", err)
	case a.Verdict == read.Allowed:
		return nil
	case a.Verdict == read.Denied:
		return exitCode(exitDenied)
	default:
		return exitCode(exitUnknown)
	}
}

func (e *explainFlags) question() (read.Question, error) {
	var q read.Question
	if q.Plaintext = e.from == read.Plaintext; !q.Plaintext {
		id, err := spiffeid.FromString(e.from)
		if err == nil {
			q.From, err = identity.ParseWorkload(id)
		}
		if err != nil {
			return q, usagef("--from %q: %v (a caller without a certificate is %q)", e.from, err, read.Plaintext)
		}
	}
	target, port, err := net.SplitHostPort(e.to)
	if err != nil {
		return q, usagef("--to %q: want NAMESPACE/SERVICE:PORT", e.to)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	namespace, service, ok := strings.Cut(target, "/")
	if err != nil || n == 0 || !ok || namespace == "" || service == "" || strings.Contains(service, "/") {
		return q, usagef("--to %q: want NAMESPACE/SERVICE:PORT", e.to)
	}
	q.Namespace, q.Service, q.Port = namespace, service, uint16(n)
	q.Request, err = e.request()
	return q, err
}

// request is the one that is asked about.
func (e *explainFlags) request() (policy.Request, error) {
	r := policy.Request{Method: e.method, Host: e.host}
	var err error
	if r.Path, err = read.NormalPath(e.path); err != nil {
		return r, usagef("--path %q: %v", e.path, err)
	}
	for _, h := range e.headers {
		name, value, ok := strings.Cut(h, "=")
		if !ok || name == "" {
			return r, usagef("--header %q: want NAME=VALUE", h)
		}
		if r.Headers == nil {
			r.Headers = map[string]string{}
		}
		name = strings.ToLower(name)
		if had, twice := r.Headers[name]; twice {
			value = had + "," + value
		}
		r.Headers[name] = value
	}
	if len(e.claims) > 0 && e.token == "" {
		return r, usagef("--claim needs --token PROVIDER")
	}
	if e.token != "" {
		r.Token = &policy.Token{Provider: e.token, Claims: map[string]any{}}
	}
	for _, c := range e.claims {
		path, value, ok := strings.Cut(c, "=")
		if !ok || !claim(r.Token.Claims, strings.Split(path, "."), value) {
			return r, usagef("--claim %q: want PATH=VALUE, of which no path is the beginning of another", c)
		}
	}
	return r, nil
}

// claim adds a value at a path; it fails where another claim is in the way.
func claim(claims map[string]any, path []string, value string) bool {
	for _, name := range path[:len(path)-1] {
		if claims[name] == nil {
			claims[name] = map[string]any{}
		}
		inner, ok := claims[name].(map[string]any)
		if !ok {
			return false
		}
		claims = inner
	}
	last := path[len(path)-1]
	switch had := claims[last].(type) {
	case nil:
		claims[last] = value
	case string:
		claims[last] = []any{had, value}
	case []any:
		claims[last] = append(had, value)
	default:
		return false
	}
	return last != ""
}
