package snapshot

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	xdsmatcherv3 "github.com/cncf/xds/go/xds/type/matcher/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"bailiwick.dev/bailiwick/tenancy/policy"
)

// Check reports why Envoy would refuse r, or would take it and be less than
// what it is meant to be: an invalid resource takes an arbitrary part of its
// siblings with it. It decodes all of r; builders look at the parts of large
// composites one by one instead.
func Check(r *Resource) error {
	msg, err := decode(r)
	if err != nil {
		return err
	}
	if name := resourceName(msg); name != r.name {
		return fmt.Errorf("check %s %q: it calls itself %q", r.typ, r.name, name)
	}
	if err := checkMessage(msg); err != nil {
		return fmt.Errorf("check %s %q: %w", r.typ, r.name, err)
	}
	return nil
}

// decode returns the message of a resource.
func decode(r *Resource) (proto.Message, error) {
	a := &anypb.Any{TypeUrl: r.typ.URL(), Value: r.Value()}
	msg, err := a.UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("decode %s %q: %w", r.typ, r.name, err)
	}
	return msg, nil
}

func resourceName(m proto.Message) string {
	if cla, ok := m.(*endpointv3.ClusterLoadAssignment); ok {
		return cla.GetClusterName()
	}
	named, _ := m.(interface{ GetName() string })
	if named == nil {
		return ""
	}
	return named.GetName()
}

// checkMessage checks a resource or a part: the rules of every message, and
// those of messages packed into Any, however deep; then our own.
func checkMessage(m proto.Message) error {
	if v, ok := m.(interface{ ValidateAll() error }); ok {
		if err := v.ValidateAll(); err != nil {
			return err
		}
	}
	return checkTree(m.ProtoReflect())
}

func checkTree(m protoreflect.Message) error {
	if len(m.GetUnknown()) > 0 {
		return fmt.Errorf("%s has unknown fields", m.Descriptor().Name())
	}
	if packed, ok := m.Interface().(*anypb.Any); ok {
		inner, err := packed.UnmarshalNew()
		if err != nil {
			return fmt.Errorf("unpack %q: %w", packed.GetTypeUrl(), err)
		}
		return checkMessage(inner)
	}
	if err := checkRules(m.Interface()); err != nil {
		return fmt.Errorf("%s: %w", m.Descriptor().Name(), err)
	}
	// Of fields only those that hold messages are looked at: Range would ask every
	// one whether it is set, and most are numbers and names.
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		if f := fields.Get(i); f.Message() != nil && m.Has(f) {
			if err := checkField(f, m.Get(f)); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkField(f protoreflect.FieldDescriptor, v protoreflect.Value) error {
	var err error
	switch {
	case f.IsMap():
		if f.MapValue().Message() == nil {
			return nil
		}
		v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
			err = checkTree(v.Message())
			return err == nil
		})
	case f.Message() == nil:
	case f.IsList():
		for i := 0; i < v.List().Len() && err == nil; i++ {
			err = checkTree(v.List().Get(i).Message())
		}
	default:
		err = checkTree(v.Message())
	}
	return err
}

// checkRules is what the validation rules of the protos do not see.
func checkRules(m proto.Message) error {
	switch m := m.(type) {
	case *durationpb.Duration:
		if err := m.CheckValid(); err != nil {
			return err
		}
		if m.AsDuration() < 0 {
			return errors.New("is negative")
		}
	case *corev3.SocketAddress:
		if _, err := netip.ParseAddr(m.GetAddress()); err != nil {
			return err
		}
	case *matcherv3.RegexMatcher:
		return checkRegex(m.GetRegex())
	case *xdsmatcherv3.RegexMatcher:
		if m.GetGoogleRe2() == nil {
			return errors.New("names no engine")
		}
		return checkRegex(m.GetRegex())
	case *xdsmatcherv3.Matcher:
		if m.GetOnNoMatch().GetOnMatch() == nil {
			return errors.New("has no on_no_match: what it misses would fall to the outer matcher")
		}
	case *httprbacv3.RBAC:
		if m.GetMatcher() == nil {
			return errors.New("has no matcher: it would let everybody in")
		}
	case *netrbacv3.RBAC:
		if m.GetMatcher() == nil {
			return errors.New("has no matcher: it would let everybody in")
		}
	case *clusterv3.Cluster:
		return checkCluster(m)
	case *routev3.RouteConfiguration:
		return checkDomains(m.GetVirtualHosts())
	case *routev3.VirtualHost:
		return checkDomains([]*routev3.VirtualHost{m})
	case *routev3.WeightedCluster:
		return checkWeights(m)
	case *listenerv3.Listener:
		return checkChains(m)
	case *hcmv3.HttpConnectionManager:
		return checkFilters(m.GetHttpFilters())
	case *tlsv3.UpstreamTlsContext:
		return checkPins(m.GetCommonTlsContext())
	case *tlsv3.DownstreamTlsContext:
		if !m.GetRequireClientCertificate().GetValue() {
			return errors.New("asks for no client certificate")
		}
	case *tlsv3.SPIFFECertValidatorConfig:
		return checkTrust(m)
	}
	return nil
}

// checkPins reports a client that would believe a certificate that it should
// not.
func checkPins(c *tlsv3.CommonTlsContext) error {
	validation := c.GetCombinedValidationContext().GetDefaultValidationContext()
	if public := c.GetValidationContext(); public != nil {
		if validation = public; public.GetTrustedCa() == nil {
			return errors.New("trusts no authority: it would believe anybody")
		}
	}
	if len(validation.GetMatchTypedSubjectAltNames()) == 0 {
		return errors.New("pins no name: it would believe anybody")
	}
	return nil
}

func checkRegex(regex string) error {
	n, err := policy.RegexSteps(regex)
	if err == nil && n > policy.MaxRegexSteps {
		err = fmt.Errorf("regex is %d steps long, at most %d are safe with Envoy", n, policy.MaxRegexSteps)
	}
	return err
}

func checkCluster(c *clusterv3.Cluster) error {
	switch c.GetType() {
	case clusterv3.Cluster_EDS:
		if c.GetEdsClusterConfig().GetEdsConfig() == nil {
			return errors.New("does not say where its endpoints are")
		}
	case clusterv3.Cluster_ORIGINAL_DST:
		if c.GetLbPolicy() != clusterv3.Cluster_CLUSTER_PROVIDED {
			return errors.New("chooses among endpoints that it does not have")
		}
	}
	return nil
}

// checkDomains reports names that stand twice, or with "*" where it is not all
// of the name or its beginning or end.
func checkDomains(hosts []*routev3.VirtualHost) error {
	taken := map[string]struct{}{}
	for _, h := range hosts {
		for _, d := range h.GetDomains() {
			d = strings.ToLower(d)
			if _, ok := taken[d]; ok {
				return fmt.Errorf("domain %q of virtual host %q is there twice", d, h.GetName())
			}
			taken[d] = struct{}{}
			inner := strings.TrimSuffix(strings.TrimPrefix(d, "*"), "*")
			if strings.Contains(inner, "*") || len(d) > 1 && len(d)-len(inner) > 1 {
				return fmt.Errorf("domain %q of virtual host %q has a wildcard inside", d, h.GetName())
			}
		}
	}
	return nil
}

func checkWeights(w *routev3.WeightedCluster) error {
	var sum uint64
	for _, c := range w.GetClusters() {
		sum += uint64(c.GetWeight().GetValue())
	}
	if sum == 0 || sum > 1<<32-1 {
		return fmt.Errorf("weights add up to %d", sum)
	}
	return nil
}

// checkChains reports chains that Envoy could not tell apart.
func checkChains(l *listenerv3.Listener) error {
	if len(l.GetFilterChains()) == 0 && l.GetDefaultFilterChain() == nil {
		return errors.New("has no filter chain")
	}
	matches, names := map[string]string{}, map[string]bool{}
	for _, c := range l.GetFilterChains() {
		if names[c.GetName()] {
			return fmt.Errorf("filter chain %q is there twice", c.GetName())
		}
		names[c.GetName()] = true
		match, err := marshal(c.GetFilterChainMatch())
		if err != nil {
			return err
		}
		if other, ok := matches[string(match)]; ok {
			return fmt.Errorf("filter chains %q and %q match the same", other, c.GetName())
		}
		matches[string(match)] = c.GetName()
	}
	return nil
}

func checkFilters(filters []*hcmv3.HttpFilter) error {
	if len(filters) == 0 {
		return errors.New("has no router")
	}
	if last := filters[len(filters)-1]; last.GetTypedConfig().GetTypeUrl() != typeURL(&routerv3.Router{}) {
		return fmt.Errorf("ends in %q, not in the router: requests would hang", last.GetName())
	}
	return nil
}

func checkTrust(c *tlsv3.SPIFFECertValidatorConfig) error {
	if len(c.GetTrustDomains()) == 0 {
		return errors.New("trusts no domain")
	}
	taken := map[string]bool{}
	for _, td := range c.GetTrustDomains() {
		if taken[td.GetName()] {
			return fmt.Errorf("trust domain %q is there twice", td.GetName())
		}
		taken[td.GetName()] = true
		if err := checkBundle([]byte(td.GetTrustBundle().GetInlineString())); err != nil {
			return fmt.Errorf("bundle of trust domain %q: %w", td.GetName(), err)
		}
	}
	return nil
}
