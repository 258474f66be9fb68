package ask

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"bailiwick.dev/bailiwick/identity"
	"bailiwick.dev/bailiwick/tenancy/policy"
	"bailiwick.dev/bailiwick/tenancy/read"
)

// requestOf is a question as a message.
func requestOf(q read.Question) (*ExplainRequest, error) {
	m := &ExplainRequest{
		From: q.Caller(), Namespace: q.Namespace, Service: q.Service, Port: uint32(q.Port),
		Method: q.Request.Method, Path: q.Request.Path, Host: q.Request.Host, Headers: maps.Clone(q.Request.Headers),
	}
	if t := q.Request.Token; t != nil {
		claims, err := json.Marshal(t.Claims)
		if err != nil {
			return nil, fmt.Errorf("claims: %w", err)
		}
		m.TokenProvider, m.Claims = t.Provider, string(claims)
	}
	return m, nil
}

// questionOf is the opposite; the error says which field is wrong.
func questionOf(m *ExplainRequest) (read.Question, error) {
	q := read.Question{Namespace: m.GetNamespace(), Service: m.GetService(), Port: uint16(m.GetPort())}
	var err error
	if q.Plaintext = m.GetFrom() == read.Plaintext; !q.Plaintext {
		var id spiffeid.ID
		if id, err = spiffeid.FromString(m.GetFrom()); err == nil {
			q.From, err = identity.ParseWorkload(id)
		}
	}
	switch {
	case err != nil:
		return q, fmt.Errorf("from: %w", err)
	case q.Namespace == "" || q.Service == "":
		return q, fmt.Errorf("namespace and service are required")
	case m.GetPort() == 0 || m.GetPort() > math.MaxUint16:
		return q, fmt.Errorf("port: %d is none", m.GetPort())
	}
	q.Request = policy.Request{Method: m.GetMethod(), Host: m.GetHost(), Headers: m.GetHeaders()}
	if q.Request.Path, err = read.NormalPath(m.GetPath()); err != nil {
		return q, fmt.Errorf("path: %w", err)
	}
	if m.GetTokenProvider() != "" {
		q.Request.Token = &policy.Token{Provider: m.GetTokenProvider(), Claims: map[string]any{}}
		if m.GetClaims() == "" {
			return q, nil
		}
		if err := json.Unmarshal([]byte(m.GetClaims()), &q.Request.Token.Claims); err != nil {
			return q, fmt.Errorf("claims: %w", err)
		}
	}
	return q, nil
}

func responseOf(a read.Answer) *ExplainResponse {
	m := &ExplainResponse{
		From: a.From, To: a.To, Request: a.Request, Verdict: a.Verdict, Visible: a.Visible, Why: a.Why, By: a.By,
		Unknown: a.Unknown, Change: a.Change, Ends: a.Ends,
	}
	for _, l := range a.Looked {
		m.Looked = append(m.Looked, &Looked{Policy: l.Policy, Action: l.Action, Outcome: l.Outcome})
	}
	return m
}

func answerOf(m *ExplainResponse) read.Answer {
	a := read.Answer{
		From: m.GetFrom(), To: m.GetTo(), Request: m.GetRequest(), Verdict: m.GetVerdict(), Visible: m.GetVisible(), Why: m.GetWhy(), By: m.GetBy(),
		Unknown: m.GetUnknown(), Change: m.GetChange(), Ends: m.GetEnds(),
	}
	for _, l := range m.GetLooked() {
		a.Looked = append(a.Looked, read.Looked{Policy: l.GetPolicy(), Action: l.GetAction(), Outcome: l.GetOutcome()})
	}
	return a
}

func matrixResponse(m read.Matrix) *MatrixResponse {
	out := &MatrixResponse{}
	for _, c := range m.Callers {
		out.Callers = append(out.Callers, &Caller{Tenant: c.Tenant, Namespace: c.Namespace, Account: c.Account})
	}
	for _, s := range m.Services {
		out.Services = append(out.Services, &ServicePort{Tenant: s.Tenant, Namespace: s.Namespace, Service: s.Service, Port: uint32(s.Port)})
	}
	for _, row := range m.Cells {
		out.Rows = append(out.Rows, &Row{Cells: row})
	}
	return out
}

// matrixOf is the opposite; a matrix that is not whole is an error.
func matrixOf(m *MatrixResponse) (read.Matrix, error) {
	out := read.Matrix{Callers: []read.Caller{}, Services: []read.Column{}, Cells: [][]string{}}
	for _, c := range m.GetCallers() {
		out.Callers = append(out.Callers, read.Caller{Tenant: c.GetTenant(), Namespace: c.GetNamespace(), Account: c.GetAccount()})
	}
	for _, s := range m.GetServices() {
		out.Services = append(out.Services, read.Column{Tenant: s.GetTenant(), Namespace: s.GetNamespace(), Service: s.GetService(), Port: uint16(s.GetPort())})
	}
	if len(m.GetRows()) != len(out.Callers) {
		return out, fmt.Errorf("the matrix has %d rows for %d callers", len(m.GetRows()), len(out.Callers))
	}
	for _, row := range m.GetRows() {
		if len(row.GetCells()) != len(out.Services) {
			return out, fmt.Errorf("a row has %d cells for %d services", len(row.GetCells()), len(out.Services))
		}
		out.Cells = append(out.Cells, append([]string{}, row.GetCells()...))
	}
	return out, nil
}

func whoamiResponse(w read.Whoami) *WhoamiResponse {
	m := &WhoamiResponse{
		Tenant: w.Tenant, TrustDomain: w.TrustDomain, Namespaces: w.Namespaces, OutboundPolicy: w.Outbound, Visibility: w.Visibility,
		DefaultAction: w.DefaultAction, TlsMinimum: w.TLSMinimum, DebounceQuietMs: w.Quiet.Milliseconds(), DebounceMaxMs: w.Max.Milliseconds(),
		TlsPeers: w.Peers, PlainDestinations: w.PlainDestinations, MaxConnectionAgeMs: w.MaxConnectionAge.Milliseconds(), MaxStreamAgeMs: w.MaxStreamAge.Milliseconds(),
	}
	for _, l := range w.Limits {
		m.Limits = append(m.Limits, &Limit{Name: l.Name, Used: int64(l.Used), Most: int64(l.Most)})
	}
	return m
}

func whoamiOf(m *WhoamiResponse) read.Whoami {
	w := read.Whoami{
		Tenant: m.GetTenant(), TrustDomain: m.GetTrustDomain(), Namespaces: m.GetNamespaces(), Outbound: m.GetOutboundPolicy(), Visibility: m.GetVisibility(),
		DefaultAction: m.GetDefaultAction(), TLSMinimum: m.GetTlsMinimum(),
		Quiet: time.Duration(m.GetDebounceQuietMs()) * time.Millisecond, Max: time.Duration(m.GetDebounceMaxMs()) * time.Millisecond,
		Peers: m.GetTlsPeers(), PlainDestinations: m.GetPlainDestinations(),
		MaxConnectionAge: time.Duration(m.GetMaxConnectionAgeMs()) * time.Millisecond, MaxStreamAge: time.Duration(m.GetMaxStreamAgeMs()) * time.Millisecond,
	}
	for _, l := range m.GetLimits() {
		w.Limits = append(w.Limits, read.Limit{Name: l.GetName(), Used: int(l.GetUsed()), Most: int(l.GetMost())})
	}
	return w
}
