package snapshot

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	fileaccesslogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	envoymatcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The filters under whose names decisions are recorded.
const (
	httpRBACFilter = "envoy.filters.http.rbac"
	tcpRBACFilter  = "envoy.filters.network.rbac"

	observedPolicy = observedPrefix + "shadow_effective_policy_id"
	observedResult = observedPrefix + "shadow_engine_result"
)

// accessLog writes one line of JSON to the proxy's standard output for each
// decision that an auditing or observing policy is the reason to record.
func accessLog(pk *packer, filter string, fields map[string]string) *accesslogv3.AccessLog {
	line := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for name, format := range fields {
		line.Fields[name] = structpb.NewStringValue(format)
	}
	return &accesslogv3.AccessLog{
		Name: "envoy.access_loggers.file",
		Filter: &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_MetadataFilter{MetadataFilter: &accesslogv3.MetadataFilter{
			Matcher: &envoymatcherv3.MetadataMatcher{
				Filter: filter,
				Path:   []*envoymatcherv3.MetadataMatcher_PathSegment{{Segment: &envoymatcherv3.MetadataMatcher_PathSegment_Key{Key: observedPolicy}}},
				// The names of policies hold a slash, and nothing else does.
				Value: &envoymatcherv3.ValueMatcher{MatchPattern: &envoymatcherv3.ValueMatcher_StringMatch{
					StringMatch: &envoymatcherv3.StringMatcher{MatchPattern: &envoymatcherv3.StringMatcher_Contains{Contains: "/"}},
				}},
			},
			MatchIfKeyNotFound: wrapperspb.Bool(false),
		}}},
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: pk.any(&fileaccesslogv3.FileAccessLog{
			Path: "/dev/stdout",
			AccessLogFormat: &fileaccesslogv3.FileAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
				Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: line},
			}},
		})},
	}
}

// commonLog is what lines say of any decision. The path is told without its
// query, which may hold secrets.
func commonLog(filter string) map[string]string {
	return map[string]string{
		"time": "%START_TIME%", "caller": "%DOWNSTREAM_PEER_URI_SAN%", "chain": "%FILTER_CHAIN_NAME%",
		"policy": "%DYNAMIC_METADATA(" + filter + ":" + observedPolicy + ")%",
		"would":  "%DYNAMIC_METADATA(" + filter + ":" + observedResult + ")%",
	}
}

func httpLog() map[string]string {
	log := commonLog(httpRBACFilter)
	log["method"], log["host"], log["path"] = "%REQ(:METHOD)%", "%REQ(:AUTHORITY)%", "%PATH(NQ)%"
	log["code"] = "%RESPONSE_CODE%"
	log["result"] = "%DYNAMIC_METADATA(" + httpRBACFilter + ":enforced_engine_result)%"
	log["decided_by"] = "%DYNAMIC_METADATA(" + httpRBACFilter + ":enforced_effective_policy_id)%"
	return log
}

// tcpLog has no result of its own: where the call was refused, the end says by
// which policy.
func tcpLog() map[string]string {
	log := commonLog(tcpRBACFilter)
	log["end"] = "%CONNECTION_TERMINATION_DETAILS%"
	return log
}
