package main

import (
	"bytes"
	"errors"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"bailiwick.dev/bailiwick/snapshot"
)

// Methods of ADS.
const (
	deltaMethod = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
	stateMethod = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
)

// request is a request as far as the clients here make any.
type request struct {
	typ     snapshot.Type
	nodeID  string // with the first request of a stream
	names   []string
	has     map[string]string // delta
	nonce   string
	version string // state of the world
}

func (r request) encode(sotw bool) ([]byte, error) {
	var node *corev3.Node
	if r.nodeID != "" {
		node = &corev3.Node{Id: r.nodeID}
	}
	if sotw {
		return proto.Marshal(&discoveryv3.DiscoveryRequest{
			Node: node, TypeUrl: r.typ.URL(), ResourceNames: r.names, VersionInfo: r.version, ResponseNonce: r.nonce,
		})
	}
	return proto.Marshal(&discoveryv3.DeltaDiscoveryRequest{
		Node: node, TypeUrl: r.typ.URL(), ResourceNamesSubscribe: r.names, InitialResourceVersions: r.has, ResponseNonce: r.nonce,
	})
}

// ackOf encodes the acknowledgement of a delta response.
func ackOf(typeURL string, nonce []byte) []byte {
	out := make([]byte, 0, len(typeURL)+len(nonce)+6)
	out = protowire.AppendString(protowire.AppendTag(out, 2, protowire.BytesType), typeURL)
	return protowire.AppendBytes(protowire.AppendTag(out, 6, protowire.BytesType), nonce)
}

// nonceAtEnd finds the nonce in the tail of a response. All servers here write
// it last, and a nonce holds no byte that looks like its tag.
func nonceAtEnd(tail []byte) ([]byte, error) {
	const tag = 5<<3 | 2
	at := bytes.LastIndexByte(tail, tag)
	if at < 0 || at+2 > len(tail) || int(tail[at+1]) != len(tail)-at-2 {
		return nil, errors.New("a response does not end with its nonce")
	}
	return tail[at+2:], nil
}

// versionAtStart finds the version_info in the head of a DiscoveryResponse. All
// servers here write it first.
func versionAtStart(head []byte) (string, error) {
	number, typ, n := protowire.ConsumeTag(head)
	if n < 0 || number != 1 || typ != protowire.BytesType {
		return "", errors.New("a response does not begin with its version")
	}
	version, n := protowire.ConsumeString(head[n:])
	if n < 0 {
		return "", errors.New("a response does not begin with a version of the usual length")
	}
	return version, nil
}

// response is what a client sees of a response. It refers to the message.
type response struct {
	typeURL   string
	nonce     []byte
	resources []resource
	removed   int
}

type resource struct {
	name, version string
	size          int
}

// scan reads a delta response without decoding what is in its resources.
func scan(message []byte) (response, error) {
	var r response
	err := eachField(message, func(num protowire.Number, v []byte) {
		switch num {
		case 2:
			res := resource{size: len(v)}
			_ = eachField(v, func(num protowire.Number, v []byte) { // a bad one has no name
				switch num {
				case 1:
					res.version = string(v)
				case 3:
					res.name = string(v)
				}
			})
			r.resources = append(r.resources, res)
		case 4:
			r.typeURL = string(v)
		case 5:
			r.nonce = v
		case 6:
			r.removed++
		}
	})
	return r, err
}

func eachField(b []byte, f func(protowire.Number, []byte)) error {
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
		f(num, v)
		b = b[n:]
	}
	return nil
}

// foreign reports whether a message names another namespace than own.
func foreign(message []byte, own string) bool {
	for rest := message; ; {
		at := bytes.Index(rest, []byte(namespaceMark))
		if at < 0 {
			return false
		}
		rest = rest[at:]
		if !bytes.HasPrefix(rest, []byte(own)) && isNamespace(rest) {
			return true
		}
		rest = rest[len(namespaceMark):]
	}
}

// isNamespace tells a namespace's name from the same letters in a hash.
func isNamespace(b []byte) bool {
	const digits = 5
	b = b[len(namespaceMark):]
	if len(b) < digits {
		return false
	}
	return strings.Trim(string(b[:digits]), "0123456789") == ""
}
