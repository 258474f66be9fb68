package xds

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/structpb"

	"bailiwick.dev/bailiwick/snapshot"
)

func nodeWith(id string, fields map[string]any) *corev3.Node {
	m, err := structpb.NewStruct(map[string]any{metadataKey: fields})
	if err != nil {
		panic(err)
	}
	return &corev3.Node{Id: id, Cluster: "whatever", Metadata: m}
}

func TestPodIsOfTheVerifiedNamespace(t *testing.T) {
	for id, want := range map[string]string{
		"acme-shop/web-1":                       "web-1",
		"acme-web/web-1":                        "",
		"web-1":                                 "",
		"":                                      "",
		"acme-shop/a/b":                         "",
		"acme-shop/":                            "",
		"acme-shop/" + strings.Repeat("x", 254): "",
	} {
		require.Equal(t, want, podOf(&corev3.Node{Id: id}, shop), id)
	}
	require.Empty(t, podOf(nil, shop))
}

// TestWhoIsToldToFetch: releases whose resolver filters addresses, and nobody
// else.
func TestWhoIsToldToFetch(t *testing.T) {
	for _, c := range []struct {
		major, minor uint32
		want         bool
	}{{1, 38, false}, {1, 39, true}, {1, 40, true}, {2, 0, true}, {0, 99, false}} {
		node := &corev3.Node{UserAgentVersionType: &corev3.Node_UserAgentBuildVersion{UserAgentBuildVersion: &corev3.BuildVersion{
			Version: &typev3.SemanticVersion{MajorNumber: c.major, MinorNumber: c.minor, Patch: 7},
		}}}
		require.Equal(t, c.want, filtersAddresses(node), "%d.%d", c.major, c.minor)
	}
	require.False(t, filtersAddresses(nil))
	require.False(t, filtersAddresses(&corev3.Node{}))
}

func TestVariantFromMetadata(t *testing.T) {
	local := netip.MustParseAddr("127.0.0.1")
	for _, c := range []struct {
		fields map[string]any
		want   snapshot.Variant
		warned bool
	}{
		{nil, snapshot.Variant{}, false},
		{map[string]any{"capture": "transparent", "bind_address": "127.0.0.2"}, snapshot.Variant{}, false},
		{map[string]any{"capture": "explicit"}, snapshot.Variant{Explicit: true, Bind: local, App: local}, false},
		{map[string]any{"capture": "explicit", "bind_address": "127.0.0.2", "app_address": "::1"},
			snapshot.Variant{Explicit: true, Bind: netip.MustParseAddr("127.0.0.2"), App: netip.MustParseAddr("::1")}, false},
		{map[string]any{"capture": "explicit", "bind_address": "nonsense"}, snapshot.Variant{Explicit: true, Bind: local, App: local}, true},
		{map[string]any{"capture": "explicit", "bind_address": 5}, snapshot.Variant{Explicit: true, Bind: local, App: local}, true},
		{map[string]any{"capture": "other"}, snapshot.Variant{}, true},
	} {
		var log bytes.Buffer
		require.Equal(t, c.want, variantOf(nodeWith("x", c.fields), slog.New(slog.NewTextHandler(&log, nil))), "%v", c.fields)
		require.Equal(t, c.warned, log.Len() > 0, "%v", c.fields)
	}
	require.Equal(t, snapshot.Variant{}, variantOf(nil, slog.New(slog.DiscardHandler)))
}
