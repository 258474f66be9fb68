package kubetest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// Compact makes etcd forget all revisions but the last, as it is done every five
// minutes: a watch from before is told 410 Gone by an API server that starts
// after it.
func (c *Cluster) Compact(ctx context.Context) error {
	var status struct {
		Header struct {
			Revision string `json:"revision"`
		} `json:"header"`
	}
	if err := c.callEtcd(ctx, "POST", "/v3/maintenance/status", map[string]string{}, &status); err != nil {
		return err
	}
	return c.callEtcd(ctx, "POST", "/v3/kv/compaction", map[string]any{"revision": status.Header.Revision, "physical": true}, nil)
}

// PutRaw writes a value to etcd past the API server: for objects that no API
// server would have taken. The key is such as /registry/pods/ns/name. Watches of
// a running API server see it.
func (c *Cluster) PutRaw(ctx context.Context, key string, value []byte) error {
	return c.callEtcd(ctx, "POST", "/v3/kv/put", map[string][]byte{"key": []byte(key), "value": value}, nil)
}

// GetRaw reads a value as it is stored; nil if there is none.
func (c *Cluster) GetRaw(ctx context.Context, key string) ([]byte, error) {
	var answer struct {
		Kvs []struct {
			Value []byte `json:"value"`
		} `json:"kvs"`
	}
	if err := c.callEtcd(ctx, "POST", "/v3/kv/range", map[string][]byte{"key": []byte(key)}, &answer); err != nil || len(answer.Kvs) == 0 {
		return nil, err
	}
	return answer.Kvs[0].Value, nil
}

// DeleteRaw removes values below a prefix past the API server.
func (c *Cluster) DeleteRaw(ctx context.Context, prefix string, keys ...string) error {
	for _, key := range keys {
		if err := c.callEtcd(ctx, "POST", "/v3/kv/deleterange", map[string][]byte{"key": []byte(prefix + key)}, nil); err != nil {
			return err
		}
	}
	return nil
}

// callEtcd speaks JSON to etcd's gateway.
func (c *Cluster) callEtcd(ctx context.Context, method, path string, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("ask etcd %s: %w", path, err)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.etcdAddress+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("ask etcd %s: %w", path, err)
	}
	// A connection each: none is to be left when the test ends.
	raw, err := exchange(&http.Transport{DisableKeepAlives: true}, req)
	if err != nil || answer == nil {
		return err
	}
	if err := json.Unmarshal(raw, answer); err != nil {
		return fmt.Errorf("read the answer of etcd %s: %w", path, err)
	}
	return nil
}

func (c *Cluster) transport() *http.Transport {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.certificate)
	return &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}
}

func get(ctx context.Context, transport http.RoundTripper, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return fmt.Errorf("get %s: %w", url, err)
	}
	_, err = exchange(transport, req)
	return err
}

// exchange returns the body of an answer; any status but 200 is an error.
func exchange(transport http.RoundTripper, req *http.Request) ([]byte, error) {
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", req.URL, err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", req.URL, err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask %s: %s: %.300s", req.URL, resp.Status, raw)
	}
	return raw, nil
}
