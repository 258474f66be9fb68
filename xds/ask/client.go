package ask

import (
	"context"
	"crypto/tls"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"bailiwick.dev/bailiwick/tenancy/read"
)

// Client asks a server.
type Client struct {
	conn *grpc.ClientConn
	rpc  AskClient
}

// NewClient makes a Client of the server at address (host:port), which has to
// have the identity that the TLS configuration pins. It connects when it is
// first asked.
func NewClient(address string, config *tls.Config) (*Client, error) {
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return &Client{conn, NewAskClient(conn)}, nil
}

// Explain asks about one call.
func (c *Client) Explain(ctx context.Context, q read.Question) (read.Answer, error) {
	request, err := requestOf(q)
	if err != nil {
		return read.Answer{}, fmt.Errorf("ask the server: %w", err)
	}
	m, err := c.rpc.Explain(ctx, request)
	if err != nil {
		return read.Answer{}, fmt.Errorf("ask the server: %w", err)
	}
	return answerOf(m), nil
}

// Matrix asks who may call whom.
func (c *Client) Matrix(ctx context.Context) (read.Matrix, error) {
	m, err := c.rpc.Matrix(ctx, &MatrixRequest{})
	if err != nil {
		return read.Matrix{}, fmt.Errorf("ask the server: %w", err)
	}
	return matrixOf(m)
}

// Whoami asks what the tenant of the own certificate is.
func (c *Client) Whoami(ctx context.Context) (read.Whoami, error) {
	m, err := c.rpc.Whoami(ctx, &WhoamiRequest{})
	if err != nil {
		return read.Whoami{}, fmt.Errorf("ask the server: %w", err)
	}
	return whoamiOf(m), nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }
