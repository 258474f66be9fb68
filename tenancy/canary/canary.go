package canary

import (
	"crypto/x509"
	_ "embed"
	"encoding/pem"
	"fmt"
	"regexp"
	"strings"
	"text/template"
)

//go:embed tenant.yaml
var documents string

// Tenant says whose documents are made.
type Tenant struct {
	// Name is the mark, a lower case word: it is in everything that is a string.
	Name string
	// Peer is the tenant with which live grants are exchanged, Stranger the one
	// that is to hear of nothing. Both have documents of their own.
	Peer, Stranger string
	// Network are the first three numbers of the addresses of its Pods and nodes,
	// such as 10.40.1. Number, not zero, is the third of its cluster IPs.
	Network string
	Number  byte
}

// Document is one object.
type Document struct {
	Kind, Namespace, Name string
	// Path is where it is in a directory of objects.
	Path string
	// Text is YAML.
	Text string
}

// ClusterNetwork is the beginning of the tenant's cluster IPs.
func (t Tenant) ClusterNetwork() string { return fmt.Sprintf("10.96.%d.", t.Number) }

// Marks are what anything of the tenant has in it, in lower case.
func (t Tenant) Marks() []string { return []string{t.Name, t.Network + ".", t.ClusterNetwork()} }

var head = regexp.MustCompile(`(?m)^kind: (\S+)\nmetadata:\n  name: (\S+)\n(?:  namespace: (\S+)\n)?`)

// Documents are the tenant's objects, those first that others are in.
func (t Tenant) Documents() []Document {
	made := 0
	meta := func(namespace, name string, labels ...string) string {
		made++
		var b strings.Builder
		fmt.Fprintf(&b, "metadata:\n  name: %s\n", name)
		if namespace != "" {
			fmt.Fprintf(&b, "  namespace: %s\n", namespace)
		}
		fmt.Fprintf(&b, "  uid: %s-uid-%d\n  annotations: {%s.example/annotation-%d: %s annotation %d}\n", t.Name, made, t.Name, made, t.Name, made)
		fmt.Fprintf(&b, "  labels:\n    %s-label-%d: %s-value-%d\n", t.Name, made, t.Name, made)
		for _, label := range labels {
			fmt.Fprintf(&b, "    %s\n", label)
		}
		return strings.TrimSuffix(b.String(), "\n")
	}
	parsed := template.Must(template.New("tenant.yaml").Option("missingkey=error").
		Funcs(template.FuncMap{"meta": meta, "upper": strings.ToUpper, "inc": func(i int) int { return i + 1 }}).Parse(documents))
	var text strings.Builder
	if err := parsed.Execute(&text, t); err != nil {
		panic(err) // the template is ours
	}
	var out []Document
	for i, one := range strings.Split(text.String(), "\n---\n") {
		found := head.FindStringSubmatch(one)
		d := Document{Kind: found[1], Name: found[2], Namespace: found[3], Text: one + "\n"}
		folder := "tenants/" + t.Name
		if d.Namespace == "" {
			folder = "platform"
		}
		d.Path = fmt.Sprintf("%s/%s-%02d-%s.yaml", folder, t.Name, i, strings.ToLower(d.Kind))
		out = append(out, d)
	}
	return out
}

// pemBlock is a certificate in a text.
var pemBlock = regexp.MustCompile(`(?s)-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----`)

// Readable is a text in lower case, with the names that are in certificates in
// place of the certificates.
func Readable(text string) string {
	text = strings.ReplaceAll(text, `\n`, "\n") // as JSON writes the line ends of certificates
	return strings.ToLower(pemBlock.ReplaceAllStringFunc(text, func(block string) string {
		der, _ := pem.Decode([]byte(block))
		if der == nil {
			return block
		}
		cert, err := x509.ParseCertificate(der.Bytes)
		if err != nil {
			return block
		}
		return fmt.Sprint(cert.Subject, cert.Issuer, cert.URIs, cert.DNSNames)
	}))
}

// Find is the neighbourhood of the first mark of any of the tenants in a text,
// so that a failure shows that and not megabytes; "" if there is none.
func Find(text string, tenants ...Tenant) string {
	text = Readable(text)
	for _, t := range tenants {
		for _, mark := range t.Marks() {
			if i := strings.Index(text, mark); i >= 0 {
				return text[max(0, i-200):min(len(text), i+len(mark)+100)]
			}
		}
	}
	return ""
}

// Without is a text without the words about others that the tenant wrote into
// its own documents: what it may be told again.
func (t Tenant) Without(text string) string {
	text = Readable(text)
	for _, word := range []string{
		t.Stranger + "-shop/" + t.Stranger + "-db", t.Stranger + "-db", t.Stranger + "-shop",
	} {
		text = regexp.MustCompile(`\b`+regexp.QuoteMeta(word)+`\b`).ReplaceAllString(text, "*")
	}
	// The name of a tenant, and not the beginning of a longer word.
	return regexp.MustCompile(`\b`+t.Stranger+`([^-.a-z0-9]|$)`).ReplaceAllString(text, "*$1")
}

// Pods are the names of the services with one Pod each, and of their Pods
// without the mark; the first has the first address of the network.
func (Tenant) Pods() []string { return []string{"web", "orders", "db"} }
