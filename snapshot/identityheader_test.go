package snapshot

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestIdentityHeaderNames(t *testing.T) {
	for _, name := range []string{DefaultIdentityHeader, "x-a", "x-caller-id2"} {
		require.NoError(t, CheckIdentityHeader(name), name)
		require.NoError(t, checkRegex(spellings(name)))
	}
	for _, name := range []string{"", "x", "host", "authorization", "X-A", "x_a", "x-a-", "x--a", "x-envoy-peer", "x-forwarded-client-cert", "x-request-id", "x-a:b", "x-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"} {
		require.Error(t, CheckIdentityHeader(name), name)
	}
	all := regexp.MustCompile("^(?:" + spellings(DefaultIdentityHeader) + ")$")
	for _, name := range []string{"x-tenant-identity", "X_TENANT_IDENTITY", "x_tenant-identity"} {
		require.True(t, all.MatchString(name))
	}
	require.False(t, all.MatchString("x-tenant-identity2"))
}
