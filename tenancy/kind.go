package tenancy

var kindNames = [...]string{
	KindNamespace: "Namespace", KindService: "Service", KindEndpointSlice: "EndpointSlice", KindPod: "Pod",
	KindTenant: "Tenant", KindServiceGrant: "ServiceGrant", KindServiceRequest: "ServiceRequest",
	KindClusterServiceGrant: "ClusterServiceGrant", KindAccessPolicy: "AccessPolicy", KindTrustBundle: "TrustBundle",
	KindClusterAccessPolicy: "ClusterAccessPolicy", KindPeerTLS: "PeerTLS", KindHoldings: "Holdings",
}

// String is the kind as it stands in YAML.
func (k Kind) String() string {
	if k == 0 || int(k) >= len(kindNames) {
		return "Unknown"
	}
	return kindNames[k]
}
