package preview

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"bailiwick.dev/bailiwick/tenancy"
)

// bundles stand for those of trust domains, without which nothing would be
// built: the same one for each, and the same bytes at every time.
func bundles(domains []string) ([]tenancy.Event, error) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) // nobody trusts it
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make a placeholder for trust bundles: %w", err)
	}
	bundle := &tenancy.TrustBundle{PEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	var events []tenancy.Event
	for _, td := range domains {
		events = append(events, tenancy.Event{Ref: tenancy.Ref{Kind: tenancy.KindTrustBundle, Key: tenancy.Key{Name: td}}, Object: bundle})
	}
	return events, nil
}
