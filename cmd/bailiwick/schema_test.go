package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"bailiwick.dev/bailiwick/cmd/internal/preview"
	"bailiwick.dev/bailiwick/tenancy/read"
)

// Scripts read what these commands print: a field that goes, or becomes another
// type, breaks them. To add one is to add it here.
func TestSchemasOfAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer any
		want   []string
	}{
		"explain": {read.Answer{}, []string{
			"at string?", "by string?", "change []string?", "ends []string?", "from string", "looked []Looked?", "looked.action string", "looked.at string?",
			"looked.outcome string", "looked.policy string", "request string?", "to string", "unknown []string?", "verdict string", "visible string", "why string",
		}},
		"matrix": {read.Matrix{}, []string{
			"callers []Caller", "callers.account string", "callers.namespace string", "callers.tenant string", "cells [][]string",
			"services []Column", "services.namespace string", "services.port uint16", "services.service string", "services.tenant string",
		}},
		"whoami": {read.Whoami{}, []string{
			"debounceMax Duration", "debounceQuiet Duration", "defaultAction string", "limits []Limit", "limits.most int", "limits.name string", "limits.used int",
			"maxConnectionAge Duration", "maxStreamAge Duration", "namespaces []string", "outboundPolicy string", "plainDestinations string",
			"tenant string", "tlsMinimum string", "tlsPeers string", "trustDomain string", "visibility string",
		}},
		"preview": {preview.Diff{}, []string{
			"bytes int", "calls []Call", "calls.after string", "calls.before string", "calls.from string", "calls.less bool", "calls.more bool", "calls.to string",
			"came []string", "clusters []Cluster", "clusters.appears bool", "clusters.changes string?", "clusters.name string", "clusters.namespace string",
			"ends []End", "ends.at string", "ends.object string", "ends.over bool", "gone []string", "proxies int",
			"touched []Proxy", "touched.bytes int", "touched.name string", "touched.removed int", "touched.resources int",
		}},
	} {
		require.Equal(t, c.want, schema("", reflect.TypeOf(c.answer)), name)
	}
}

// schema lists the fields that are printed as JSON, with a ? where they may be left
// out.
func schema(prefix string, of reflect.Type) (fields []string) {
	for i := range of.NumField() {
		f := of.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" {
			continue
		}
		kind := strings.NewReplacer("read.", "", "preview.", "", "time.", "").Replace(f.Type.String())
		if options == "omitempty" {
			kind += "?"
		}
		fields = append(fields, fmt.Sprintf("%s%s %s", prefix, name, kind))
		if inner := f.Type; inner.Kind() == reflect.Slice && inner.Elem().Kind() == reflect.Struct {
			fields = append(fields, schema(prefix+name+".", inner.Elem())...)
		}
	}
	slices.Sort(fields)
	return fields
}
