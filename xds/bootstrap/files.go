package bootstrap

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// JSON is the bootstrap as Envoy reads it: indented, keys sorted, the same bytes
// for the same configuration.
func JSON(c Config) ([]byte, error) {
	b, err := Build(c)
	if err != nil {
		return nil, err
	}
	return stableJSON(b)
}

// Write writes bootstrap.json and, unless certificates come from a socket, the
// SDS files into dir, which has to be Envoy's working directory. It returns the
// paths written. Each file is put in place by rename, the bootstrap last.
func Write(dir string, c Config) ([]string, error) {
	bootstrap, err := JSON(c)
	if err != nil {
		return nil, err
	}
	type file struct {
		name string
		data []byte
	}
	var files []file
	if c.SDSSocket == "" {
		own, err := secretJSON(ownSecret(c))
		if err != nil {
			return nil, err
		}
		server, err := secretJSON(serverSecret(c))
		if err != nil {
			return nil, err
		}
		files = append(files, file{SecretFile, own}, file{ServerSecretFile, server})
	}
	var paths []string
	for _, f := range append(files, file{File, bootstrap}) {
		path := filepath.Join(dir, f.name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return paths, fmt.Errorf("make the output directory: %w", err)
		}
		if err := os.WriteFile(path+".tmp", f.data, 0o644); err != nil {
			return paths, fmt.Errorf("write the bootstrap's files: %w", err)
		}
		if err := os.Rename(path+".tmp", path); err != nil {
			return paths, fmt.Errorf("write the bootstrap's files: %w", err)
		}
		paths = append(paths, path)
	}
	return paths, nil
}

// Process is how Envoy runs, beside its bootstrap.
type Process struct {
	// Concurrency is the number of worker threads.
	Concurrency uint32
	// DrainTime is how long connections of a listener or chain that was changed
	// or removed live on. It should be above the longest usual request.
	DrainTime time.Duration
}

// Args are Envoy's arguments for a bootstrap that [Write] wrote into its working
// directory.
func (p Process) Args() []string {
	return []string{
		"-c", File,
		"--concurrency", strconv.FormatUint(uint64(p.Concurrency), 10),
		"--drain-time-s", strconv.FormatInt(int64(p.DrainTime/time.Second), 10),
		// Close at the drain time, not at random before it.
		"--drain-strategy", "immediate",
		"--disable-hot-restart",
		"--file-flush-interval-msec", "1000",
	}
}

func ownSecret(c Config) *tlsv3.Secret {
	return &tlsv3.Secret{Name: SecretName, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: filename(c.CertFile),
		PrivateKey:       filename(c.KeyFile),
		WatchedDirectory: &corev3.WatchedDirectory{Path: filepath.Dir(c.CertFile)},
	}}}
}

func serverSecret(c Config) *tlsv3.Secret {
	return &tlsv3.Secret{Name: serverBundleName(c), Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
		TrustedCa:        filename(c.TrustBundle),
		WatchedDirectory: &corev3.WatchedDirectory{Path: filepath.Dir(c.TrustBundle)},
	}}}
}

func filename(path string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: path}}
}

func secretJSON(secret *tlsv3.Secret) ([]byte, error) {
	packed, err := anypb.New(secret)
	if err != nil {
		return nil, fmt.Errorf("encode secret %s: %w", secret.GetName(), err)
	}
	return stableJSON(&discoveryv3.DiscoveryResponse{Resources: []*anypb.Any{packed}})
}

// stableJSON goes through encoding/json, because protojson varies its spacing on
// purpose.
func stableJSON(m proto.Message) ([]byte, error) {
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode JSON: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		return nil, fmt.Errorf("read JSON back: %w", err)
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(tree); err != nil {
		return nil, fmt.Errorf("encode JSON: %w", err)
	}
	return out.Bytes(), nil
}
