package read

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/policy"
)

// What a cell of a Matrix says.
const (
	// CellAll allows all requests, CellSome those that meet conditions.
	CellAll  = "yes"
	CellSome = "some"
	// CellNone refuses, though the service is visible.
	CellNone = "no"
	// CellHidden: the caller's proxy does not know the service.
	CellHidden = "."
	// CellEmpty: visible, but no Pod is behind it.
	CellEmpty = "empty"
	// CellUnknown: policies that the asker may not read decide.
	CellUnknown = "?"
)

// Matrix says who may call whom.
type Matrix struct {
	Callers  []Caller `json:"callers"`
	Services []Column `json:"services"`
	// Cells[i][j] is what caller i may do at service j.
	Cells [][]string `json:"cells"`
	// conditions are on what the cells depend that say CellSome, by number of
	// caller and service.
	conditions map[[2]int]string
}

// Conditions is on what a cell depends that says CellSome: equal texts mean the
// same, under the same Pod labels. It is empty for others, and for a matrix that
// a server made.
func (m Matrix) Conditions(caller, service int) string { return m.conditions[[2]int{caller, service}] }

// Caller is a row: a service account that Pods use, or in a tenant's matrix
// all workloads of another tenant's namespace that holds a grant.
type Caller struct {
	Tenant    string `json:"tenant"`
	Namespace string `json:"namespace"`
	// Account is "*" for all of the namespace whom no policy names singly.
	Account string `json:"account"`
}

// String is the caller as tables name it.
func (c Caller) String() string { return c.Namespace + "/" + c.Account }

// Column is a service port.
type Column struct {
	Tenant    string `json:"tenant"`
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
	Port      uint16 `json:"port"`
}

// String is the service port as tables name it.
func (c Column) String() string { return fmt.Sprintf("%s/%s:%d", c.Namespace, c.Service, c.Port) }

// Size is how many cells Matrix would fill, for whoever has to bound the work.
func (r *Reader) Size() int {
	callers, columns := 0, 0
	for _, ns := range r.namespaces() {
		callers += len(r.model.AccountsIn(ns))
		for _, key := range r.model.ServicesIn(ns) {
			_, ports, _ := r.model.FindService(key.Namespace, key.Name)
			columns += len(ports)
		}
	}
	return callers * columns
}

// Matrix answers for every caller and service port of the scope at once. It is
// Explain for all requests: a cell is CellSome where that depends on the request.
func (r *Reader) Matrix() Matrix {
	m := Matrix{Callers: []Caller{}, Services: []Column{}, Cells: [][]string{}, conditions: map[[2]int]string{}}
	own := r.namespaces()
	keys := map[Column]tenancy.Key{}
	for _, ns := range own {
		tenant, _ := r.model.TenantOf(ns)
		for _, account := range r.model.AccountsIn(ns) {
			m.Callers = append(m.Callers, Caller{tenant, ns, account})
		}
		for _, key := range r.model.ServicesIn(ns) {
			r.columns(&m, keys, key)
		}
	}
	// What grants show: of others, and to others.
	for _, ns := range own {
		tenant, _ := r.model.TenantOf(ns)
		for _, sight := range r.model.Visible(tenancy.ViewKey{Tenant: tenant, Namespace: ns}) {
			r.columns(&m, keys, sight.Service, sight.Ports)
		}
	}
	m.Callers = append(m.Callers, r.consumers(&m, keys)...)
	for i, c := range m.Callers {
		row := make([]string, len(m.Services))
		for j, s := range m.Services {
			if row[j] = r.cell(c, s, keys[s]); row[j] == CellSome {
				m.conditions[[2]int{i, j}] = r.conditions(c, s, keys[s])
			}
		}
		m.Cells = append(m.Cells, row)
	}
	return m
}

// columns adds the ports of a service (those of visible, where it is given)
// that are not there yet.
func (r *Reader) columns(m *Matrix, keys map[Column]tenancy.Key, key tenancy.Key, visible ...tenancy.PortSet) {
	_, ports, _ := r.model.FindService(key.Namespace, key.Name)
	tenant, _ := r.model.TenantOf(key.Namespace)
	for _, p := range ports {
		c := Column{tenant, key.Namespace, key.Name, p.Port}
		if _, ok := keys[c]; ok || len(visible) > 0 && !visible[0].Has(p.Port) {
			continue
		}
		keys[c] = key
		m.Services = append(m.Services, c)
	}
}

// consumers are the namespaces outside the scope that may call one of its ports.
func (r *Reader) consumers(m *Matrix, keys map[Column]tenancy.Key) []Caller {
	var found []Caller
	for _, c := range m.Services {
		if !r.own(c.Namespace) {
			continue
		}
		for _, j := range r.kinds(keys[c], c.Port).by {
			for _, ref := range slices.Concat(j.port.Floor.Tenant, j.port.Floor.Granted) {
				tenant, ok := r.model.TenantOf(ref.Namespace)
				caller := Caller{tenant, ref.Namespace, "*"}
				if ok && !r.own(ref.Namespace) && !slices.Contains(found, caller) {
					found = append(found, caller)
				}
			}
		}
	}
	slices.SortFunc(found, func(a, b Caller) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Namespace, b.Namespace))
	})
	return found
}

func (r *Reader) cell(c Caller, s Column, key tenancy.Key) string {
	caller, callee := r.own(c.Namespace), r.own(s.Namespace)
	switch {
	case !caller && !callee:
		return CellUnknown
	case !r.sees(c.Namespace, key, s.Port):
		return CellHidden
	case r.plain(c.Namespace, key, s.Port):
		return CellAll
	case !callee:
		return CellUnknown
	}
	by := r.kinds(key, s.Port).by
	if len(by) == 0 {
		return CellEmpty
	}
	id := r.id(c)
	least, most := policy.All, policy.None
	for _, j := range by {
		if j.extents == nil {
			e := j.port.Extents()
			j.extents = &e
		}
		of := j.extents.Of(id)
		least, most = min(least, of), max(most, of)
	}
	switch {
	case most == policy.None:
		return CellNone
	case least == policy.All:
		return CellAll
	default:
		return CellSome
	}
}

// id is that of a caller, or the prefix of all of its namespace.
func (r *Reader) id(c Caller) string {
	if c.Account == "*" {
		return r.workload(c.Namespace, "").String()
	}
	return r.workload(c.Namespace, c.Account).String()
}

func (r *Reader) conditions(c Caller, s Column, key tenancy.Key) string {
	var all []string
	for _, j := range r.kinds(key, s.Port).by {
		if j.conditions == nil {
			j.conditions = j.port.Conditions()
		}
		all = append(all, j.conditions(r.id(c)))
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), "\n")
}
