package steward

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/v1alpha1"
)

// HoldingsManager owns what the status of a Tenant remembers of namespaces.
const HoldingsManager = "bailiwick-holdings"

// mostHeld is how many namespaces the schema lets a status remember.
const mostHeld = 4096

// Ledger is what the model knows of who has and had which namespace, on its way
// into the status of Tenants. Note may be called by anybody and does not block.
type Ledger struct {
	loaded <-chan struct{}

	mu      sync.Mutex
	tenants map[string][]tenancy.Held // guarded by mu
	news    bool                      // guarded by mu
}

// NewLedger makes an empty Ledger. Before loaded is closed it does not know what
// there is, and nothing is written from it.
func NewLedger(loaded <-chan struct{}) *Ledger {
	return &Ledger{loaded: loaded, tenants: map[string][]tenancy.Held{}}
}

// Note takes all names of each tenant for which they changed.
func (l *Ledger) Note(changed map[string][]tenancy.Held) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for tenant, held := range changed {
		if l.tenants[tenant] = held; len(held) == 0 {
			delete(l.tenants, tenant)
		}
	}
	l.news = true
}

// News reports whether something was noted since the last pass of a Steward.
func (l *Ledger) News() bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.news
}

// read takes note that what is there now will be looked at.
func (l *Ledger) read() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.news = false
}

// of are the names of a tenant, of its trust domain alone; known is false until
// all is loaded.
func (l *Ledger) of(tenant, trustDomain string) (held []tenancy.Held, known bool) {
	select {
	case <-l.loaded:
	default:
		return nil, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.tenants[tenant] {
		if h.TrustDomain == trustDomain {
			held = append(held, h)
		}
	}
	return held, true
}

// remember writes what the ledger has of a Tenant into its status, if something
// else stands there, and reports whether names wait for it.
func (s *Steward) remember(ctx context.Context, resource dynamic.ResourceInterface, t *unstructured.Unstructured) (waits bool, err error) {
	if s.ledger == nil {
		return false, nil
	}
	domain, _, _ := unstructured.NestedString(t.Object, "spec", "trustDomain")
	held, known := s.ledger.of(t.GetName(), domain)
	if !known {
		return true, nil
	}
	waits = slices.ContainsFunc(held, func(h tenancy.Held) bool { return h.Until != 0 })
	if len(held) > mostHeld {
		// What is lost is more than what is had: that is written down again.
		slices.SortStableFunc(held, func(a, b tenancy.Held) int { return min(1, int(b.Until)) - min(1, int(a.Until)) })
		s.log.Warn("the status of a Tenant cannot remember all of its namespaces", "tenant", t.GetName(), "namespaces", len(held), "most", mostHeld)
		held = held[:mostHeld]
	}
	want := make([]v1alpha1.NamespaceHeld, len(held))
	for i, h := range held {
		want[i] = v1alpha1.NamespaceHeld{Name: v1alpha1.Name(h.Namespace), UID: h.UID}
		if h.Until != 0 {
			want[i].Until = v1alpha1.Timestamp(time.Unix(h.Until, 0).UTC().Format(time.RFC3339))
		}
	}
	var is v1alpha1.Tenant
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(t.Object, &is); err == nil && slices.Equal(is.Status.Namespaces, want) {
		return waits, nil
	}
	return waits, write(ctx, resource, t, want)
}

// write has t be as it is afterwards.
func write(ctx context.Context, resource dynamic.ResourceInterface, t *unstructured.Unstructured, want []v1alpha1.NamespaceHeld) error {
	raw, err := json.Marshal(map[string]any{"status": v1alpha1.TenantStatus{Namespaces: want}})
	if err != nil {
		return fmt.Errorf("encode its namespaces: %w", err)
	}
	obj := &unstructured.Unstructured{}
	if err := json.Unmarshal(raw, &obj.Object); err != nil {
		return fmt.Errorf("encode its namespaces: %w", err)
	}
	obj.SetAPIVersion(v1alpha1.GroupVersion().String())
	obj.SetKind("Tenant")
	obj.SetName(t.GetName())
	now, err := resource.ApplyStatus(ctx, t.GetName(), obj, metav1.ApplyOptions{FieldManager: HoldingsManager, Force: true})
	if err != nil {
		return fmt.Errorf("remember its namespaces: %w", err)
	}
	t.Object = now.Object
	return nil
}
