package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/snapshot"
)

func TestSizeOfADirectory(t *testing.T) {
	r := bailiwick(t, "size", "../../deploy/demo", "--allow-loopback-endpoints", "-o", "json")
	require.Equal(t, exitOK, r.code, r.stderr)
	var rows []sizeRow
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &rows))
	require.NotEmpty(t, rows)
	scoped := 0
	for _, row := range rows {
		require.Positive(t, row.Unscoped.Bytes)
		require.Less(t, row.Scoped.Clusters, row.Unscoped.Clusters, row.Namespace)
		require.Less(t, row.Scoped.Bytes, row.Unscoped.Bytes)
		require.Equal(t, int64((row.Unscoped.Clusters-row.Scoped.Clusters)*row.Proxies)*snapshot.EnvoyBytesPerCluster, row.SavedBytes)
		scoped += row.Scoped.Clusters
	}
	require.Positive(t, scoped)
	r = bailiwick(t, "size", "../../deploy/demo", "--allow-loopback-endpoints")
	require.Equal(t, exitOK, r.code, r.stderr)
	require.Len(t, strings.Split(strings.TrimSpace(r.stdout), "\n"), len(rows)+2)
}

func TestSizeOfAServer(t *testing.T) {
	d := snapshot.Dump{Views: []snapshot.ViewDump{
		{Tenant: "acme", Namespace: "a", Streams: 3, Resources: []snapshot.ResourceDump{
			{Type: "cluster", Name: "x", Bytes: 500, Origins: []string{"Service a/x"}}, {Type: "cluster", Name: "blackhole", Bytes: 50},
			{Type: "endpoint", Name: "x", Bytes: 200}, {Type: "route", Name: "http-80", Bytes: 300}, {Type: "listener", Name: "l", Bytes: 900},
		}},
		{Tenant: "globex", Namespace: "g", Streams: 1, Resources: []snapshot.ResourceDump{
			{Type: "cluster", Name: "y", Bytes: 500, Origins: []string{"Service g/y"}},
			{Type: "endpoint", Name: "y", Bytes: 200}, {Type: "route", Name: "http-80", Bytes: 300},
		}},
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/dump" {
			_ = json.NewEncoder(w).Encode(d)
		}
	}))
	defer server.Close()
	r := bailiwick(t, "size", "--admin-address", strings.TrimPrefix(server.URL, "http://"), "-o", "json")
	require.Equal(t, exitOK, r.code, r.stderr)
	var rows []sizeRow
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &rows))
	require.Equal(t, []sizeRow{
		{snapshot.ViewSize{Tenant: "acme", Namespace: "a", Scoped: snapshot.Size{Clusters: 1, Bytes: 1000}, Unscoped: snapshot.Size{Clusters: 2, Bytes: 2000}}, 3, 3 * snapshot.EnvoyBytesPerCluster},
		{snapshot.ViewSize{Tenant: "globex", Namespace: "g", Scoped: snapshot.Size{Clusters: 1, Bytes: 1000}, Unscoped: snapshot.Size{Clusters: 2, Bytes: 2000}}, 1, snapshot.EnvoyBytesPerCluster},
	}, rows)

	require.Equal(t, exitUsage, bailiwick(t, "size").code)
	require.Equal(t, exitUsage, bailiwick(t, "size", "x", "--admin-address", "y").code)
	require.Equal(t, exitFailed, bailiwick(t, "size", t.TempDir()).code)
}
