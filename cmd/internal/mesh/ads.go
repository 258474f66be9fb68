package mesh

import (
	"context"
	"fmt"
	"path/filepath"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/xds/adsclient"
	"bailiwick.dev/bailiwick/xds/bootstrap"
)

// ClusterType is the type URL of clusters.
const ClusterType = "type.googleapis.com/envoy.config.cluster.v3.Cluster"

// DialADS connects to the server as the Envoy of that configuration would, with
// the same identity and the same node, and asks for nothing yet. Of the
// configuration Binary and Wrap are not used. Ctx bounds the opening only; close
// the client when done. Edits may make it behave otherwise.
func DialADS(ctx context.Context, config EnvoyConfig, edits ...func(*adsclient.Config)) (*adsclient.Client, error) {
	dir, err := filepath.Abs(config.Dir)
	if err != nil {
		return nil, fmt.Errorf("connect to the server: %w", err)
	}
	config.Dir = dir
	settings, err := config.bootstrap()
	if err != nil {
		return nil, err
	}
	boot, err := bootstrap.Build(settings)
	if err != nil {
		return nil, fmt.Errorf("make the node of %s: %w", config.Pod, err)
	}
	source, err := config.CA.Source(config.Workload.String(), identity.IssueOptions{})
	if err != nil {
		return nil, err
	}
	protocol := adsclient.Delta
	if config.SotW {
		protocol = adsclient.SotW
	}
	client := adsclient.Config{
		Address:  config.XDS[0].String(),
		TLS:      identity.ClientTLS(source, source, settings.ServerID),
		Node:     boot.GetNode(),
		Protocol: protocol,
	}
	for _, edit := range edits {
		edit(&client)
	}
	return adsclient.Dial(ctx, client)
}
