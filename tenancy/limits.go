package tenancy

// Limits bound what one tenant, or one stream of it, may cost. Objects are
// checked by the Model, resources and bytes in snapshot, streams and requests
// in xds. A zero field of an override keeps the default.
type Limits struct {
	// Services, Policies and Grants are objects of a tenant; Policies counts
	// Allows only, because no limit drops a Deny.
	Services int
	Policies int
	// PoliciesPerWorkload are the Allows that select one workload and count.
	PoliciesPerWorkload int
	Grants              int
	Requests            int
	// Endpoints of one service port.
	Endpoints int
	// ViewResources and ViewBytes bound one view.
	ViewResources int
	ViewBytes     int
	// Streams of one tenant at one replica, StreamsPerID of one SPIFFE ID.
	Streams      int
	StreamsPerID int
	// RequestsPerSecond of one stream, with a burst of ten seconds' worth.
	RequestsPerSecond int
	// SubscribedNames of one stream and type, RequestBytes of one request.
	SubscribedNames int
	RequestBytes    int
}

// DefaultLimits are those of a tenant that overrides none.
func DefaultLimits() Limits {
	return Limits{
		Services: 5000, Policies: 5000, PoliciesPerWorkload: 1000, Grants: 1000, Requests: 1000,
		Endpoints: 5000, ViewResources: 20000, ViewBytes: 64 << 20,
		Streams: 5000, StreamsPerID: 1000, RequestsPerSecond: 100,
		SubscribedNames: 20000, RequestBytes: 16 << 20,
	}
}

// Override returns l with every non-zero field of o in its place.
func (l Limits) Override(o Limits) Limits {
	set := func(dst *int, v int) {
		if v != 0 {
			*dst = v
		}
	}
	set(&l.Services, o.Services)
	set(&l.Policies, o.Policies)
	set(&l.PoliciesPerWorkload, o.PoliciesPerWorkload)
	set(&l.Grants, o.Grants)
	set(&l.Requests, o.Requests)
	set(&l.Endpoints, o.Endpoints)
	set(&l.ViewResources, o.ViewResources)
	set(&l.ViewBytes, o.ViewBytes)
	set(&l.Streams, o.Streams)
	set(&l.StreamsPerID, o.StreamsPerID)
	set(&l.RequestsPerSecond, o.RequestsPerSecond)
	set(&l.SubscribedNames, o.SubscribedNames)
	set(&l.RequestBytes, o.RequestBytes)
	return l
}
