package mesh

import (
	"fmt"
	"path/filepath"

	"bailiwick.dev/bailiwick/identity"
)

// RotateWith is [Envoy.Rotate] with a certificate that is not like others, such
// as one that ends soon.
func (e *Envoy) RotateWith(options identity.IssueOptions) error {
	id := e.config.Workload.String()
	certPEM, keyPEM, err := e.config.CA.Issue(id, options)
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(e.config.certDir(), KeyFile), keyPEM, 0o600); err != nil {
		return fmt.Errorf("write the key of %s: %w", id, err)
	}
	if err := replaceFile(filepath.Join(e.config.certDir(), CertFile), certPEM, 0o644); err != nil {
		return fmt.Errorf("write the certificate of %s: %w", id, err)
	}
	return nil
}
