package bootstrap

import (
	"fmt"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	downstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	fixedheapv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
)

// fetchTimeout is how long Envoy waits at its start for a configuration that
// does not come, before it goes on without.
const fetchTimeout = 2 * time.Second

// adminPaths may be asked on the admin interface: what only reads. Envoy matches
// with the query, which exact matches would refuse.
const adminPaths = `/(ready|stats|stats/prometheus|config_dump|init_dump|clusters|listeners|certs|memory|server_info)(\?.*)?`

// drainPath is allowed beside them where the configuration says so.
const drainPath = "/drain_listeners"

// Build returns the bootstrap. It fails only for what [Config.Check] reports.
func Build(c Config) (*bootstrapv3.Bootstrap, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	clusters, err := staticClusters(c)
	if err != nil {
		return nil, err
	}
	overload, err := overloadManager(c)
	if err != nil {
		return nil, err
	}
	return &bootstrapv3.Bootstrap{
		Node:             node(c),
		Admin:            admin(c),
		DynamicResources: dynamicResources(c),
		StaticResources:  &bootstrapv3.Bootstrap_StaticResources{Clusters: clusters},
		StatsConfig:      statsConfig(c),
		OverloadManager:  overload,
		LayeredRuntime:   answers(),
	}, nil
}

// maxAnswer is the most that is read of an answer that a filter waits for, such
// as an issuer's keys: Envoy's own bound is 32 MB, for each of those who wait.
const maxAnswer = 1 << 20

// answers is the runtime of the proxy; nothing changes it.
func answers() *bootstrapv3.LayeredRuntime {
	return &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
		Name: "static",
		LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{Fields: map[string]*structpb.Value{
			"http.async_response_buffer_limit": structpb.NewNumberValue(maxAnswer),
		}}},
	}}}
}

func node(c Config) *corev3.Node {
	capture := map[string]*structpb.Value{"capture": structpb.NewStringValue("transparent")}
	if c.Explicit {
		capture["capture"] = structpb.NewStringValue("explicit")
	}
	if c.Bind.IsValid() {
		capture["bind_address"] = structpb.NewStringValue(c.Bind.String())
	}
	if c.App.IsValid() {
		capture["app_address"] = structpb.NewStringValue(c.App.String())
	}
	return &corev3.Node{
		Id:      c.NodeID(),
		Cluster: c.Workload.Namespace,
		Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{
			"bailiwick": structpb.NewStructValue(&structpb.Struct{Fields: capture}),
		}},
	}
}

func admin(c Config) *bootstrapv3.Admin {
	a := &bootstrapv3.Admin{
		Address: socketAddress(c.Admin.Addr().String(), uint32(c.Admin.Port())),
		// An overloaded proxy must still say so.
		IgnoreGlobalConnLimit: true,
		AllowPaths: []*matcherv3.StringMatcher{{
			MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: adminPaths}},
		}},
	}
	if c.AdminDrain {
		a.AllowPaths = append(a.AllowPaths, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: drainPath}})
	}
	return a
}

func dynamicResources(c Config) *bootstrapv3.Bootstrap_DynamicResources {
	api := corev3.ApiConfigSource_DELTA_GRPC
	if c.SotW {
		api = corev3.ApiConfigSource_GRPC
	}
	ads := &corev3.ApiConfigSource{
		ApiType:             api,
		TransportApiVersion: corev3.ApiVersion_V3,
		// A node is some 60 KB; every delta request would carry it.
		SetNodeOnFirstMessageOnly: true,
		GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
			ClusterName: ServerCluster,
			RetryPolicy: &corev3.RetryPolicy{RetryBackOff: &corev3.BackoffStrategy{
				BaseInterval: durationpb.New(100 * time.Millisecond),
				MaxInterval:  durationpb.New(time.Second),
			}},
		}}}},
	}
	return &bootstrapv3.Bootstrap_DynamicResources{LdsConfig: overADS(), CdsConfig: overADS(), AdsConfig: ads}
}

func overADS() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
		InitialFetchTimeout:   durationpb.New(fetchTimeout),
	}
}

// statsConfig keeps few metrics per cluster and outbound listener, because their
// number grows with the view: with all of them a large view costs half as much
// memory again and more than twice the time to apply. What is there once per
// proxy or per port of its Pod is kept whole.
func statsConfig(c Config) *metricsv3.StatsConfig {
	var patterns []*matcherv3.StringMatcher
	for _, prefix := range append([]string{
		"server.", "cluster_manager.", "control_plane.", "listener_manager.", "overload.",
		"cluster." + ServerCluster + ".", "cluster." + SDSCluster + ".", "cluster.blackhole.", "cluster.passthrough.",
		"sds.", "http.inbound_", "tcp.inbound_", "tcp.in_blackhole.", "tcp.out_blackhole.", "tcp.loop.",
	}, c.StatsPrefixes...) {
		patterns = append(patterns, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix}})
	}
	for _, suffix := range []string{
		".upstream_rq_5xx", ".upstream_cx_active", ".init_fetch_timeout", ".update_rejected", ".rbac.allowed", ".rbac.denied",
		".shadow_allowed", ".shadow_denied",
	} {
		patterns = append(patterns, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: suffix}})
	}
	return &metricsv3.StatsConfig{StatsMatcher: &metricsv3.StatsMatcher{
		StatsMatcher: &metricsv3.StatsMatcher_InclusionList{InclusionList: &matcherv3.ListStringMatcher{Patterns: patterns}},
	}}
}

func overloadManager(c Config) (*overloadv3.OverloadManager, error) {
	connections, err := monitor("envoy.resource_monitors.global_downstream_max_connections",
		&downstreamv3.DownstreamConnectionsConfig{MaxActiveDownstreamConnections: int64(c.MaxConnections)})
	if err != nil {
		return nil, err
	}
	m := &overloadv3.OverloadManager{
		RefreshInterval:  durationpb.New(250 * time.Millisecond),
		ResourceMonitors: []*overloadv3.ResourceMonitor{connections},
	}
	if c.MaxHeapBytes == 0 {
		return m, nil
	}
	const heapMonitor = "envoy.resource_monitors.fixed_heap"
	heap, err := monitor(heapMonitor, &fixedheapv3.FixedHeapConfig{MaxHeapSizeBytes: c.MaxHeapBytes})
	if err != nil {
		return nil, err
	}
	m.ResourceMonitors = append(m.ResourceMonitors, heap)
	m.Actions = []*overloadv3.OverloadAction{
		actionAt("envoy.overload_actions.shrink_heap", heapMonitor, 0.95),
		actionAt("envoy.overload_actions.stop_accepting_requests", heapMonitor, 0.98),
	}
	return m, nil
}

func monitor(name string, config proto.Message) (*overloadv3.ResourceMonitor, error) {
	packed, err := anypb.New(config)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", name, err)
	}
	return &overloadv3.ResourceMonitor{Name: name, ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: packed}}, nil
}

func actionAt(action, monitor string, share float64) *overloadv3.OverloadAction {
	return &overloadv3.OverloadAction{Name: action, Triggers: []*overloadv3.Trigger{{
		Name:         monitor,
		TriggerOneof: &overloadv3.Trigger_Threshold{Threshold: &overloadv3.ThresholdTrigger{Value: share}},
	}}}
}
