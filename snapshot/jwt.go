package snapshot

// jwtFilter is the filter that verifies tokens, and the name under which it
// leaves what they say.
const jwtFilter = "envoy.filters.http.jwt_authn"
