package adsclient

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Message is a response as it was received. It is immutable.
type Message struct {
	// Stream counts the client's streams from 1, At is when it was received.
	Stream int
	At     time.Time

	TypeURL string
	Nonce   string
	// Version is version_info (SotW) or system_version_info (Delta).
	Version string
	// Resources in their order; empty at Detail Counts.
	Resources []Resource
	// Removed names (Delta); empty at Detail Counts.
	Removed []string
	// Count and CountRemoved are the numbers of resources and removed names.
	Count, CountRemoved int
	// Size is the length of the message on the wire in bytes, without the
	// five bytes of gRPC's own frame.
	Size int
	// Raw is the message on the wire at Detail Full.
	Raw []byte
}

// Names are those of the resources, in their order.
func (m *Message) Names() []string {
	out := make([]string, 0, len(m.Resources))
	for _, r := range m.Resources {
		out = append(out, r.Name)
	}
	return out
}

// Resource is one resource of a response.
type Resource struct {
	Name string
	// Version is the resource's own (Delta) or the response's (SotW).
	Version string
	// Any is the encoded google.protobuf.Any as it was received, at Detail Full.
	Any []byte
}

// Value is the encoded resource inside the Any; nil if there is none.
func (r Resource) Value() []byte {
	_, value, err := scanAny(r.Any)
	if err != nil {
		return nil
	}
	return value
}

// Decode returns the resource as a message. Its type must be linked in.
func (r Resource) Decode() (proto.Message, error) {
	var a anypb.Any
	if err := proto.Unmarshal(r.Any, &a); err != nil {
		return nil, fmt.Errorf("decode resource %q: %w", r.Name, err)
	}
	m, err := a.UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("decode resource %q: %w", r.Name, err)
	}
	return m, nil
}

// Field numbers of discovery.v3.DiscoveryResponse, DeltaDiscoveryResponse and
// Resource, and of google.protobuf.Any.
const (
	fieldVersionInfo     = 1
	fieldResources       = 2
	fieldTypeURL         = 4
	fieldNonce           = 5
	fieldRemoved         = 6
	fieldResourceVersion = 1
	fieldResourceAny     = 2
	fieldResourceName    = 3
	fieldAnyTypeURL      = 1
	fieldAnyValue        = 2
	// fieldName is the name in every xDS resource that is served here, and the
	// cluster_name of an assignment.
	fieldName = 1
)

// scan reads what is asked for from an encoded response and skips the rest.
// The message refers to b only at Detail Full.
func scan(b []byte, p Protocol, d Detail) (*Message, error) {
	m := &Message{Size: len(b)}
	if d == Full {
		m.Raw = b
	}
	err := fields(b, func(num protowire.Number, v []byte) error {
		switch num {
		case fieldVersionInfo:
			m.Version = string(v)
		case fieldTypeURL:
			m.TypeURL = string(v)
		case fieldNonce:
			m.Nonce = string(v)
		case fieldResources:
			m.Count++
			if d == Counts {
				return nil
			}
			r, err := scanResource(v, p, d)
			if err != nil {
				return err
			}
			m.Resources = append(m.Resources, r)
		case fieldRemoved:
			if p == SotW {
				return nil
			}
			m.CountRemoved++
			if d != Counts {
				m.Removed = append(m.Removed, string(v))
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("scan a response of %d bytes: %w", len(b), err)
	}
	if p == SotW {
		for i := range m.Resources {
			m.Resources[i].Version = m.Version
		}
	}
	return m, nil
}

func scanResource(b []byte, p Protocol, d Detail) (Resource, error) {
	var r Resource
	if p == SotW {
		name, err := nameOf(b)
		if err != nil {
			return r, err
		}
		r.Name = name
		if d == Full {
			r.Any = b
		}
		return r, nil
	}
	err := fields(b, func(num protowire.Number, v []byte) error {
		switch num {
		case fieldResourceName:
			r.Name = string(v)
		case fieldResourceVersion:
			r.Version = string(v)
		case fieldResourceAny:
			if d == Full {
				r.Any = v
			}
		}
		return nil
	})
	return r, err
}

// nameOf reads the name of a resource out of its Any.
func nameOf(b []byte) (string, error) {
	_, value, err := scanAny(b)
	if err != nil {
		return "", err
	}
	var name string
	err = fields(value, func(num protowire.Number, v []byte) error {
		if num == fieldName {
			name = string(v)
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return name, err
}

// errFound ends a walk over fields early.
var errFound = errors.New("found")

func scanAny(b []byte) (url string, value []byte, err error) {
	err = fields(b, func(num protowire.Number, v []byte) error {
		switch num {
		case fieldAnyTypeURL:
			url = string(v)
		case fieldAnyValue:
			value = v
		}
		return nil
	})
	return url, value, err
}

// fields calls f for each length-delimited field of an encoded message.
func fields(b []byte, f func(num protowire.Number, v []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if typ != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
				return protowire.ParseError(n)
			}
			b = b[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := f(num, v); err != nil {
			return err
		}
	}
	return nil
}
