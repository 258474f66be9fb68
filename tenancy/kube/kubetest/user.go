package kubetest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Admin is the user who may do everything: one of system:masters.
const Admin = "admin"

// User is somebody who may log in with a token. What a user may do follows from
// the Roles that the test makes.
type User struct {
	Name   string
	Groups []string
}

// token is not secret: it works on this loopback address for as long as the test.
func token(user string) string { return "token-of-" + user }

func (c *Cluster) writeTokens(users []User) error {
	var b strings.Builder
	for i, u := range users {
		fmt.Fprintf(&b, "%s,%s,%d,%q\n", token(u.Name), u.Name, i+1, strings.Join(u.Groups, ","))
	}
	if err := os.WriteFile(filepath.Join(c.dir, tokenFile), []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("write the users' tokens: %w", err)
	}
	return nil
}

// REST is the configuration of a client of that user, who need not be one of the
// cluster's: others are refused by the API server.
func (c *Cluster) REST(user string) *rest.Config { return c.restTo(c.Address, user) }

func (c *Cluster) restTo(address, user string) *rest.Config {
	return &rest.Config{
		Host: "https://" + address, BearerToken: token(user), TLSClientConfig: rest.TLSClientConfig{CAData: c.certificate},
		QPS: -1, // tests are not to be held back
	}
}

// Kubeconfig writes a kubeconfig of that user and returns its path.
func (c *Cluster) Kubeconfig(user string) (string, error) { return c.kubeconfigTo(c.Address, user) }

func (c *Cluster) kubeconfigTo(address, user string) (string, error) {
	config := clientcmdapi.NewConfig()
	config.Clusters["kubetest"] = &clientcmdapi.Cluster{Server: "https://" + address, CertificateAuthorityData: c.certificate}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{Token: token(user)}
	config.Contexts[user] = &clientcmdapi.Context{Cluster: "kubetest", AuthInfo: user}
	config.CurrentContext = user
	path := filepath.Join(c.dir, fmt.Sprintf("kubeconfig-%s-%s", user, address[strings.LastIndex(address, ":")+1:]))
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return "", fmt.Errorf("write a kubeconfig for %s: %w", user, err)
	}
	return path, nil
}
