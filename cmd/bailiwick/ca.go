package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"bailiwick.dev/bailiwick/identity"
)

func newCACommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "A throw-away CA for demos and tests",
		Long: `A throw-away certificate authority of one SPIFFE trust domain, for demos and
tests: its key lies in a file. For anything else use SPIRE or another issuer of
X.509-SVIDs.`,
		Example: `  bailiwick ca init --dir ca --trust-domain acme.example
  bailiwick ca issue --dir ca --spiffe-id spiffe://acme.example/ns/shop/sa/web --out web`,
		Args: knownSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCAInitCommand())
	cmd.AddCommand(newCAIssueCommand())
	return cmd
}

func newCAInitCommand() *cobra.Command {
	var dir, trustDomain string
	cmd := &cobra.Command{
		Use:   "init --dir DIR --trust-domain TD",
		Short: "Make a new CA",
		Long: `Makes a new CA in DIR: ca.pem, which is the trust bundle of the trust domain, and
ca-key.pem, readable by its owner only. An existing CA is never overwritten.`,
		Example: `  bailiwick ca init --dir ca/acme --trust-domain acme.example`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := requireFlags(cmd, "dir", "trust-domain"); err != nil {
				return err
			}
			authority, err := identity.NewAuthority(trustDomain)
			if err != nil {
				return usagef("make a CA: %w", err)
			}
			if err := authority.Save(dir); err != nil {
				if errors.Is(err, fs.ErrExist) {
					return fmt.Errorf("%w (remove it first if nobody needs it any more)", err)
				}
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "CA of trust domain %s in %s\n", trustDomain, dir)
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "directory of the CA (required)")
	cmd.Flags().StringVar(&trustDomain, "trust-domain", "", "SPIFFE trust domain, such as acme.example (required)")
	return cmd
}

func newCAIssueCommand() *cobra.Command {
	var dir, id, out string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "issue --dir DIR --spiffe-id ID --out DIR",
		Short: "Issue an X.509-SVID",
		Long: `Issues an X.509-SVID with a new key and writes cert.pem, key.pem (readable by its
owner only) and bundle.pem (the trust bundle) into the directory of --out. Files
that are there are replaced by rename, so that whoever watches them sees a whole
file: issuing again is a rotation.

An Envoy of the mesh needs an ID of the form
spiffe://<trust domain>/ns/<namespace>/sa/<service account>.`,
		Example: `  bailiwick ca issue --dir ca/acme --spiffe-id spiffe://acme.example/ns/shop/sa/web --out web
  bailiwick ca issue --dir ca/acme --spiffe-id spiffe://acme.example/ns/shop/sa/web --out web --ttl 10m`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := requireFlags(cmd, "dir", "spiffe-id", "out"); err != nil {
				return err
			}
			if ttl <= 0 {
				return usagef("--ttl %s must be positive", ttl)
			}
			parsed, err := spiffeid.FromString(id)
			if err != nil {
				return usagef("--spiffe-id %q: %w", id, err)
			}
			authority, err := identity.LoadAuthority(dir)
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%w (make a CA with 'bailiwick ca init')", err)
			}
			if err != nil {
				return err
			}
			if err := issueInto(out, authority, id, ttl); err != nil {
				return err
			}
			if _, err := identity.ParseWorkload(parsed); err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "bailiwick: note: no Envoy of the mesh can use this certificate: %v\n", err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s\n%s\n%s\n", filepath.Join(out, svidCertFile), filepath.Join(out, svidKeyFile), filepath.Join(out, svidBundleFile))
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "directory of the CA (required)")
	cmd.Flags().StringVar(&id, "spiffe-id", "", "SPIFFE ID of the certificate, in the CA's trust domain (required)")
	cmd.Flags().StringVar(&out, "out", "", "directory for the files, made if need be (required)")
	cmd.Flags().DurationVar(&ttl, "ttl", 24*time.Hour, "life of the certificate")
	return cmd
}

// Names of the files that `ca issue` writes.
const (
	svidCertFile   = "cert.pem"
	svidKeyFile    = "key.pem"
	svidBundleFile = "bundle.pem"
)

// issueInto issues first and writes then, the certificate last: a watcher that
// reads in between finds a pair that does not fit and waits for the rest.
func issueInto(dir string, authority *identity.Authority, id string, ttl time.Duration) error {
	cert, key, err := authority.Issue(id, identity.IssueOptions{TTL: ttl})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the output directory: %w", err)
	}
	for _, file := range []struct {
		name string
		data []byte
		mode os.FileMode
	}{{svidBundleFile, authority.Bundle(), 0o644}, {svidKeyFile, key, 0o600}, {svidCertFile, cert, 0o644}} {
		if err := replaceFile(filepath.Join(dir, file.name), file.data, file.mode); err != nil {
			return fmt.Errorf("write the certificate's files: %w", err)
		}
	}
	return nil
}

// replaceFile renames a complete file into place.
func replaceFile(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".")
	if err != nil {
		return err
	}
	err = f.Chmod(mode)
	if err == nil {
		_, err = f.Write(data)
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
