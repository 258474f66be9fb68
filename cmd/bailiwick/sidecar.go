package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// sidecarTimeout bounds one question to Envoy.
const sidecarTimeout = 3 * time.Second

func newSidecarCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sidecar",
		Short: "Ask or tell the Envoy in the same Pod; for its probe and hook",
		Long: `What the probe and the hook of an injected Pod run: Envoy's images have no shell, and
its admin interface is reached from inside the Pod only.`,
		Example: `  bailiwick sidecar ready
  bailiwick sidecar drain --wait 5s`,
		Args: knownSubcommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	admin := cmd.PersistentFlags().String("admin-address", "127.0.0.1:15000", "loopback `IP:PORT` of Envoy's admin interface")
	cmd.AddCommand(&cobra.Command{
		Use:   "ready",
		Short: "Succeed if Envoy runs and has been given listeners",
		Long: `Succeeds if Envoy is live and the server has given it listeners, be it none: an
Envoy that never heard of its server also becomes live, but refuses everything.`,
		Example: "  bailiwick sidecar ready --admin-address 127.0.0.1:15000",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return sidecarReady(cmd.Context(), *admin) },
	})
	drain := &cobra.Command{
		Use:   "drain",
		Short: "Have Envoy tell its callers to go elsewhere, and wait a while",
		Long: `Drains the inbound listeners: answers close their connections (HTTP/2: GOAWAY), new
connections are admitted until Envoy's drain time is over. Outbound traffic goes
on. The command returns after --wait. Envoy needs bootstrap --admin-drain.`,
		Example: "  bailiwick sidecar drain --wait 5s",
		Args:    cobra.NoArgs,
	}
	wait := drain.Flags().Duration("wait", 5*time.Second, "how long to wait afterwards")
	drain.RunE = func(cmd *cobra.Command, _ []string) error { return sidecarDrain(cmd.Context(), *admin, *wait) }
	cmd.AddCommand(drain)
	return cmd
}

func sidecarReady(ctx context.Context, admin string) error {
	if _, err := askEnvoy(ctx, http.MethodGet, admin, "/ready"); err != nil {
		return err
	}
	const stat = "listener_manager.lds.update_success"
	text, err := askEnvoy(ctx, http.MethodGet, admin, "/stats?filter=^"+stat+"$")
	if err != nil {
		return err
	}
	if _, count, ok := strings.Cut(strings.TrimSpace(text), ": "); !ok || count == "0" {
		return fmt.Errorf("Envoy at %s has no listeners from its server yet", admin)
	}
	return nil
}

func sidecarDrain(ctx context.Context, admin string, wait time.Duration) error {
	if _, err := askEnvoy(ctx, http.MethodPost, admin, "/drain_listeners?inboundonly&graceful"); err != nil {
		return err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil
}

// askEnvoy returns what the admin interface answers, which has to be 200.
func askEnvoy(ctx context.Context, method, admin, path string) (string, error) {
	if at, err := netip.ParseAddrPort(admin); err != nil || !at.Addr().IsLoopback() {
		return "", usagef("--admin-address %q: want a loopback IP:PORT", admin)
	}
	ctx, cancel := context.WithTimeout(ctx, sidecarTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+admin+path, nil)
	if err != nil {
		return "", fmt.Errorf("ask Envoy: %w", err)
	}
	transport := &http.Transport{DisableKeepAlives: true} // no proxy: it is here
	res, err := transport.RoundTrip(req)
	if err != nil {
		return "", fmt.Errorf("ask Envoy at %s: %w", admin, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return "", fmt.Errorf("read Envoy's answer: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("Envoy at %s answers %s to %s %s: %s", admin, res.Status, method, path, strings.TrimSpace(string(body)))
	}
	return string(body), nil
}
