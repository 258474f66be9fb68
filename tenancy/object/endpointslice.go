package object

import (
	"slices"
	"unicode/utf8"
	intern "unique"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"bailiwick.dev/bailiwick/tenancy"
)

// FromEndpointSlice reads an EndpointSlice; nil if there are errors. Slices
// that belong to no service, or hold names in place of addresses, are errors.
func FromEndpointSlice(in *discoveryv1.EndpointSlice, opts Options) (*tenancy.EndpointSlice, []FieldError) {
	p := &problems{}
	out := &tenancy.EndpointSlice{Meta: metaOf(p, in), Service: in.Labels[discoveryv1.LabelServiceName]}
	label := field.NewPath("metadata", "labels").Key(discoveryv1.LabelServiceName)
	if errs := validation.IsDNS1123Label(out.Service); out.Service == "" {
		p.add(label, "required: it names the service that the endpoints are of")
	} else if len(errs) > 0 {
		p.add(label, "%s: %s", quote(out.Service), errs[0])
	}
	switch in.AddressType {
	case discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6:
	case discoveryv1.AddressTypeFQDN:
		p.add(field.NewPath("addressType"), "FQDN is refused: names are no addresses of workloads")
	default:
		p.add(field.NewPath("addressType"), "%s is none of IPv4, IPv6", quote(string(in.AddressType)))
	}
	out.Ports = slicePorts(p, field.NewPath("ports"), in.Ports)
	path := field.NewPath("endpoints")
	if len(in.Endpoints) > maxSliceEndpoints {
		p.add(path, "more than %d", maxSliceEndpoints)
		return result(out, p)
	}
	for i := range in.Endpoints {
		out.Endpoints = append(out.Endpoints, endpoint(p, path.Index(i), in, &in.Endpoints[i], opts))
	}
	return result(out, p)
}

func slicePorts(p *problems, path *field.Path, in []discoveryv1.EndpointPort) []tenancy.SlicePort {
	if len(in) > maxSlicePorts {
		p.add(path, "more than %d", maxSlicePorts)
		return nil
	}
	var out []tenancy.SlicePort
	names := make(map[string]bool)
	for i, port := range in {
		at := path.Index(i)
		name := value(port.Name, "")
		portName(p, at.Child("name"), name, false, names)
		tcp := isTCP(p, at.Child("protocol"), value(port.Protocol, ""))
		if port.Port == nil {
			p.add(at.Child("port"), "required")
		} else if number, ok := portNumber(p, at.Child("port"), *port.Port); ok && tcp {
			out = append(out, tenancy.SlicePort{Name: name, Port: number})
		}
	}
	return out
}

func endpoint(p *problems, at *field.Path, slice *discoveryv1.EndpointSlice, in *discoveryv1.Endpoint, opts Options) tenancy.Endpoint {
	ready := value(in.Conditions.Ready, true)
	out := tenancy.Endpoint{
		Ready: ready, Serving: value(in.Conditions.Serving, ready), Terminating: value(in.Conditions.Terminating, false),
		Hostname: value(in.Hostname, ""),
	}
	if errs := validation.IsDNS1123Label(out.Hostname); out.Hostname != "" && len(errs) > 0 {
		p.add(at.Child("hostname"), "%s: %s", quote(out.Hostname), errs[0])
	}
	if n := len(in.Addresses); n == 0 || n > maxEndpointAddresses {
		p.add(at.Child("addresses"), "%d given, 1 to %d expected", n, maxEndpointAddresses)
	} else {
		for i, s := range in.Addresses {
			ip, ok := address(p, at.Child("addresses").Index(i), s, opts)
			if ok && ip.Is4() != (slice.AddressType == discoveryv1.AddressTypeIPv4) {
				p.add(at.Child("addresses").Index(i), "%s is not of addressType %s", ip, quote(string(slice.AddressType)))
			}
			out.Addresses = append(out.Addresses, ip)
		}
	}
	topology(p, at, in, &out)
	ref := in.TargetRef
	if ref == nil || ref.Kind != "Pod" {
		return out
	}
	target := at.Child("targetRef")
	if ref.Namespace != "" && ref.Namespace != slice.Namespace {
		p.add(target.Child("namespace"), "a slice has Pods of its own namespace only")
	}
	if errs := validation.IsDNS1123Subdomain(ref.Name); ref.Name != "" && len(errs) > 0 {
		p.add(target.Child("name"), "%s: %s", quote(ref.Name), errs[0])
	}
	if len(ref.UID) > maxUID || !utf8.ValidString(string(ref.UID)) {
		p.add(target.Child("uid"), "longer than %d bytes or invalid UTF-8", maxUID)
	}
	out.PodName, out.PodUID = ref.Name, string(ref.UID)
	return out
}

// topology reads where an endpoint is and for whom.
func topology(p *problems, at *field.Path, in *discoveryv1.Endpoint, out *tenancy.Endpoint) {
	out.Zone = topologyName(p, at.Child("zone"), value(in.Zone, ""), content.IsLabelValue)
	out.Node = topologyName(p, at.Child("nodeName"), value(in.NodeName, ""), validation.IsDNS1123Subdomain)
	if in.Hints == nil {
		return
	}
	zones, nodes := at.Child("hints", "forZones"), at.Child("hints", "forNodes")
	if len(in.Hints.ForZones) > maxHints {
		p.add(zones, "more than %d", maxHints)
		return
	}
	if len(in.Hints.ForNodes) > maxHints {
		p.add(nodes, "more than %d", maxHints)
		return
	}
	var hints tenancy.Hints
	add := func(names *[]string, name string) {
		if name != "" && !slices.Contains(*names, name) {
			*names = append(*names, name)
		}
	}
	for i, hint := range in.Hints.ForZones {
		add(&hints.Zones, topologyName(p, zones.Index(i).Child("name"), hint.Name, content.IsLabelValue))
	}
	for i, hint := range in.Hints.ForNodes {
		add(&hints.Nodes, topologyName(p, nodes.Index(i).Child("name"), hint.Name, validation.IsDNS1123Subdomain))
	}
	if len(hints.Zones)+len(hints.Nodes) > 0 {
		out.Hints = &hints
	}
}

// topologyName checks the name of a zone or of a node. The same few are in many
// endpoints, and kept once.
func topologyName(p *problems, at *field.Path, name string, check func(string) []string) string {
	if name == "" {
		return ""
	}
	if errs := check(name); len(errs) > 0 {
		p.add(at, "%s: %s", quote(name), errs[0])
	}
	return intern.Make(name).Value()
}
