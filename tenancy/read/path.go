package read

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
)

// NormalPath is what a proxy's listener makes of the path of a request before
// policies see it; the error says why it would refuse the request. An empty path
// stays empty.
func NormalPath(p string) (string, error) {
	if p == "" {
		return "", nil
	}
	raw, query, asks := strings.Cut(p, "?")
	lower := strings.ToLower(raw)
	switch {
	case !strings.HasPrefix(raw, "/"):
		return "", errors.New("want a path that begins with a slash")
	case strings.Contains(lower, "%2f") || strings.Contains(lower, "%5c"):
		return "", errors.New("it has an escaped slash, which proxies refuse")
	}
	clean, err := url.PathUnescape(raw)
	if err != nil {
		return "", fmt.Errorf("unescape it: %w", err)
	}
	clean = strings.ReplaceAll(clean, `\`, "/")
	ends := strings.HasSuffix(clean, "/") || strings.HasSuffix(clean, "/.") || strings.HasSuffix(clean, "/..")
	if clean = path.Clean(clean); ends && clean != "/" {
		clean += "/"
	}
	if asks {
		clean += "?" + query
	}
	return clean, nil
}
