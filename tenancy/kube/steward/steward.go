package steward

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// Names that others may rely on.
const (
	// Finalizer is on every Tenant.
	Finalizer = v1alpha1.Group + "/namespaces"
	// Guarded is the condition of a Tenant whose label is guarded by admission.
	Guarded = "Guarded"
	// FieldManager owns that condition.
	FieldManager = "bailiwick-steward"
)

// The reasons of Guarded.
const (
	ReasonGuarded = "Guarded"
	ReasonMissing = "AdmissionMissing"
)

// page is how many objects are read at a time.
const page = 500

// policies are those of deploy/ that tenancy relies on.
func policies() []string { return []string{"bailiwick-tenant-label", "bailiwick-status"} }

// Config says where. REST and Logger are required.
type Config struct {
	REST   *rest.Config
	Logger *slog.Logger
	// Registerer takes the metric of what is missing; nil registers none.
	Registerer prometheus.Registerer
	// Ledger has what Tenants are to remember; nil for nothing, where nobody waits.
	Ledger *Ledger
}

// Steward is used by one goroutine.
type Steward struct {
	meta    metadata.Interface
	dynamic dynamic.Interface
	log     *slog.Logger
	ledger  *Ledger
	missing *prometheus.GaugeVec
	// said is what was logged last.
	said string
}

// New makes a Steward; it talks to nobody yet.
func New(c Config) (*Steward, error) {
	if c.REST == nil || c.Logger == nil {
		return nil, errors.New("steward: REST and Logger are required")
	}
	config := rest.CopyConfig(c.REST)
	config.QPS, config.Burst, config.Timeout = 20, 40, 10*time.Second
	s := &Steward{log: c.Logger, ledger: c.Ledger, missing: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: "bailiwick", Subsystem: "admission", Name: "missing",
		Help: "1 for each admission policy or binding that guards tenants and is not in the API server.",
	}, []string{"object"})}
	var err error
	if s.meta, err = metadata.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("steward: make a client: %w", err)
	}
	if s.dynamic, err = dynamic.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("steward: make a client: %w", err)
	}
	if c.Registerer != nil {
		if err := c.Registerer.Register(s.missing); err != nil {
			return nil, fmt.Errorf("steward: register the metric: %w", err)
		}
	}
	return s, nil
}

// Pass looks once whether everything is as it has to be. Only who leads writes.
func (s *Steward) Pass(ctx context.Context, leads bool) error {
	s.ledger.read()
	missing, err := s.admission(ctx)
	if err != nil {
		return err
	}
	if !leads {
		return nil
	}
	return s.tenants(ctx, missing)
}

// admission returns which policies and bindings are missing, as kind/name, or
// bind nothing.
func (s *Steward) admission(ctx context.Context) ([]string, error) {
	var missing []string
	for kind, resource := range map[string]string{"policy": "validatingadmissionpolicies", "binding": "validatingadmissionpolicybindings"} {
		list, err := s.dynamic.Resource(schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: resource}).
			List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("look for the admission policies that guard tenants: %w", err)
		}
		for _, name := range policies() {
			there := 0.0
			if !slices.ContainsFunc(list.Items, func(u unstructured.Unstructured) bool { return guards(kind, name, &u) }) {
				missing, there = append(missing, kind+"/"+name), 1
			}
			s.missing.WithLabelValues(kind + "/" + name).Set(there)
		}
	}
	slices.Sort(missing)
	if said := strings.Join(missing, " "); said != s.said {
		if s.said = said; said != "" {
			s.log.Warn("admission policies are missing: namespaces can be given to tenants by whoever may label them", "missing", missing)
		} else {
			s.log.Info("the admission policies that guard tenants are there")
		}
	}
	return missing, nil
}

// guards reports whether u is the policy of that name, or binds it so that what
// it refuses is refused.
func guards(kind, name string, u *unstructured.Unstructured) bool {
	if kind == "policy" {
		fails, _, _ := unstructured.NestedString(u.Object, "spec", "failurePolicy")
		return u.GetName() == name && fails != "Ignore"
	}
	bound, _, _ := unstructured.NestedString(u.Object, "spec", "policyName")
	actions, _, _ := unstructured.NestedStringSlice(u.Object, "spec", "validationActions")
	return bound == name && slices.Contains(actions, "Deny")
}

// tenants keeps finalizers and the condition of all Tenants.
func (s *Steward) tenants(ctx context.Context, missing []string) error {
	labelled, err := s.labelled(ctx)
	if err != nil {
		return err
	}
	resource := s.dynamic.Resource(v1alpha1.GroupVersion().WithResource("tenants"))
	opts := metav1.ListOptions{Limit: page}
	var errs []error
	for {
		list, err := resource.List(ctx, opts)
		if err != nil {
			return errors.Join(append(errs, fmt.Errorf("read the Tenants: %w", err))...)
		}
		for i := range list.Items {
			t := &list.Items[i]
			if err := s.tenant(ctx, resource, t, labelled[t.GetName()], missing); err != nil && !apierrors.IsNotFound(err) {
				errs = append(errs, fmt.Errorf("look after Tenant %s: %w", t.GetName(), err))
			}
		}
		if opts.Continue = list.GetContinue(); opts.Continue == "" {
			return errors.Join(errs...)
		}
	}
}

// labelled are the tenants that a namespace's label names.
func (s *Steward) labelled(ctx context.Context) (map[string]bool, error) {
	found := map[string]bool{}
	opts := metav1.ListOptions{Limit: page, LabelSelector: v1alpha1.TenantLabel}
	for {
		list, err := s.meta.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}).List(ctx, opts)
		if err != nil {
			return nil, fmt.Errorf("read which namespaces carry label %s: %w", v1alpha1.TenantLabel, err)
		}
		for i := range list.Items {
			found[list.Items[i].Labels[v1alpha1.TenantLabel]] = true
		}
		if opts.Continue = list.GetContinue(); opts.Continue == "" {
			return found, nil
		}
	}
}

func (s *Steward) tenant(ctx context.Context, resource dynamic.ResourceInterface, t *unstructured.Unstructured, labelled bool, missing []string) error {
	waits, err := s.remember(ctx, resource, t)
	if err != nil {
		return err
	}
	has := slices.Contains(t.GetFinalizers(), Finalizer)
	ending := t.GetDeletionTimestamp() != nil
	switch {
	case !ending && !has:
		if err := s.finalizers(ctx, resource, t, append(t.GetFinalizers(), Finalizer)); err != nil {
			return err
		}
	case ending && has && !labelled && !waits:
		rest := slices.DeleteFunc(t.GetFinalizers(), func(f string) bool { return f == Finalizer })
		return s.finalizers(ctx, resource, t, rest)
	}
	return s.condition(ctx, resource, t, missing)
}

// finalizers writes them unless the Tenant has changed since it was read.
func (s *Steward) finalizers(ctx context.Context, resource dynamic.ResourceInterface, t *unstructured.Unstructured, to []string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"finalizers": to, "resourceVersion": t.GetResourceVersion()}})
	if err != nil {
		return err
	}
	_, err = resource.Patch(ctx, t.GetName(), types.MergePatchType, patch, metav1.PatchOptions{FieldManager: FieldManager})
	if apierrors.IsConflict(err) {
		return nil // the next pass sees what it is now
	}
	return err
}

// condition says whether the label is guarded, if that is not what stands there.
func (s *Steward) condition(ctx context.Context, resource dynamic.ResourceInterface, t *unstructured.Unstructured, missing []string) error {
	want := metav1.Condition{
		Type: Guarded, Status: metav1.ConditionTrue, Reason: ReasonGuarded, ObservedGeneration: t.GetGeneration(),
		Message: "admission guards which namespaces are this tenant's", LastTransitionTime: metav1.NewTime(time.Now().Truncate(time.Second)),
	}
	if len(missing) > 0 {
		want.Status, want.Reason = metav1.ConditionFalse, ReasonMissing
		want.Message = "whoever may label namespaces can make them this tenant's: missing " + strings.Join(missing, ", ")
	}
	var typed v1alpha1.Tenant
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(t.Object, &typed); err != nil {
		return fmt.Errorf("read its status: %w", err)
	}
	if is := meta.FindStatusCondition(typed.Status.Conditions, Guarded); is != nil && is.Status == want.Status {
		want.LastTransitionTime = is.LastTransitionTime
		if is.Message == want.Message && is.ObservedGeneration == want.ObservedGeneration {
			return nil
		}
	}
	encoded, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&want)
	if err != nil {
		return fmt.Errorf("encode the condition: %w", err)
	}
	obj := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"conditions": []any{encoded}}}}
	obj.SetAPIVersion(v1alpha1.GroupVersion().String())
	obj.SetKind("Tenant")
	obj.SetName(t.GetName())
	_, err = resource.ApplyStatus(ctx, t.GetName(), obj, metav1.ApplyOptions{FieldManager: FieldManager, Force: true})
	return err
}
