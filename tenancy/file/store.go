package file

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/object"
)

// store is what is known of the directory: files, the objects that they claim,
// and what is applied. Guarded by Source.mu.
type store struct {
	cfg   Config
	root  string // absolute
	files map[string]*state
	// claims on each object, in order of precedence.
	claims map[tenancy.Ref][]*claim
	// inNamespace are the claimed objects of each namespace.
	inNamespace map[string]map[tenancy.Ref]struct{}
	// applied is what the Model has.
	applied map[tenancy.Ref]tenancy.Object
	// winners are the claims behind applied.
	winners map[tenancy.Ref]*claim
	// refused are claims that do not count, with the reason.
	refused map[*claim]string
	// troubled are the files with errors and those that could never be parsed;
	// objectless are the winners of which no version was ever good.
	troubled   map[string]*state
	objectless map[tenancy.Ref]struct{}
	// folders are the errors of the last scan, about folders and misplaced files.
	folders []*object.Error
	// last is the last scan, without its files; count is how many files there are
	// in platform/ and tenants/.
	last  scanned
	count map[string]int
	// lost is set while platform/ or tenants/ are gone with all they had.
	lost bool
	// confirmed is set for one pass in which nothing is taken for lost.
	confirmed bool
	// loaded is set after the first pass, ready once a pass was complete.
	loaded, ready bool
	// waiting is set while ready is held up by a folder.
	waiting bool
	// heldFolders are tenants whose folder could not be read at the first load
	// and not since.
	heldFolders map[string]bool
}

// claim is one entry of one file.
type claim struct {
	path  string
	index int
	entry *object.Entry
}

func newStore(cfg Config, root string) *store {
	return &store{
		cfg: cfg, root: root, files: make(map[string]*state), claims: make(map[tenancy.Ref][]*claim),
		inNamespace: make(map[string]map[tenancy.Ref]struct{}), applied: make(map[tenancy.Ref]tenancy.Object),
		winners: make(map[tenancy.Ref]*claim), refused: make(map[*claim]string), heldFolders: make(map[string]bool),
		troubled: make(map[string]*state), objectless: make(map[tenancy.Ref]struct{}), count: make(map[string]int),
	}
}

// scan walks the directory; watch may be nil.
func (s *store) scan(watch func(string)) scanned { return newScanner(s.root, watch).walk() }

// name is how a file is named in errors.
func (s *store) name(rel string) string { return filepath.Join(s.cfg.Dir, filepath.FromSlash(rel)) }

// pass brings the store up to a scan and returns the events that follow, and
// whether some file should be looked at again soon. Files whose real path is
// dirty are read even if they look unchanged.
func (s *store) pass(sc scanned, dirty map[string]bool) (events []tenancy.Event, again bool) {
	first := !s.loaded
	s.loaded = true
	events, again = s.update(sc.files, s.missing(sc), dirty, first, func() {
		for rel, err := range sc.unreadable {
			if decodable(rel) && misplaced(rel) == "" {
				s.unreadable(rel, err, first)
			}
		}
		s.noteFolders(sc, first)
	})
	s.last = sc
	s.last.files = nil
	return events, again
}

// update takes files that are there, perhaps with another content, and files
// that are gone, and then does more before it decides about objects.
func (s *store) update(files map[string]found, gone, dirty map[string]bool, first bool, more func()) (events []tenancy.Event, again bool) {
	touched := make(map[tenancy.Ref]struct{})
	for _, rel := range slices.Sorted(maps.Keys(gone)) {
		s.release(s.files[rel], touched)
		delete(s.files, rel)
		delete(s.troubled, rel)
		s.count[group(rel)]--
	}
	for _, rel := range slices.Sorted(maps.Keys(files)) {
		f, st := files[rel], s.file(rel, first)
		if dirty[f.real] {
			st.info = nil
		}
		before := st.entries
		switch st.refresh(f, s.name(rel), s.cfg, first) {
		case unsettled:
			again = true
		case changed:
			s.reclaim(st, before, touched)
		}
		s.note(st)
	}
	more()
	return s.resolve(touched), again
}

// file is what is known of a file, of a new one nothing.
func (s *store) file(rel string, first bool) *state {
	st := s.files[rel]
	if st == nil {
		st = &state{path: rel, atStart: first}
		s.files[rel] = st
		s.count[group(rel)]++
	}
	return st
}

// note keeps the files apart that a report has something to say of.
func (s *store) note(st *state) {
	if len(st.errors) > 0 || !st.parsed {
		s.troubled[st.path] = st
	} else {
		delete(s.troubled, st.path)
	}
}

// unreadable notes a file that is there and cannot be looked at.
func (s *store) unreadable(rel string, err error, first bool) {
	st := s.file(rel, first)
	st.fail(err, s.name(rel))
	s.note(st)
}

// missing are the known files that the scan shows to be gone: not those below a
// folder that cannot be read, and not those of platform/ or tenants/ if these
// are lost.
func (s *store) missing(sc scanned) map[string]bool {
	had, have := make(map[string]int), make(map[string]int)
	for rel := range sc.files {
		have[group(rel)]++
	}
	for rel := range sc.unreadable {
		have[group(rel)]++
	}
	for rel := range s.files {
		had[group(rel)]++
	}
	// Without platform/ there are no tenants, so its last file is never meant to
	// go. That of tenants/ may be, but not with the folder, nor as one of many.
	lost := map[string]bool{platformFolder: had[platformFolder] > 0 && have[platformFolder] == 0}
	lost[tenantsFolder] = had[tenantsFolder] > 0 && have[tenantsFolder] == 0 &&
		(lost[platformFolder] || !sc.tenants || had[tenantsFolder] > 1)
	if s.confirmed {
		clear(lost)
		s.confirmed = false
	}
	s.lost = lost[platformFolder] || lost[tenantsFolder]
	gone := make(map[string]bool)
	for rel := range s.files {
		if _, here := sc.files[rel]; !here && !sc.unreadableAt(rel) && !lost[group(rel)] {
			gone[rel] = true
		}
	}
	s.folders = nil
	for _, g := range []string{platformFolder, tenantsFolder} {
		if lost[g] && !sc.unreadableAt(g) {
			s.folders = append(s.folders, &object.Error{File: s.name(g),
				Message: "vanished, or all its files did at once: what was read from there stays until a file is back, or until 'bailiwick confirm' says that it is meant"})
		}
	}
	s.waiting = have[platformFolder] == 0 && had[platformFolder] == 0
	if s.waiting && !sc.unreadableAt(platformFolder) {
		s.folders = append(s.folders, &object.Error{File: s.name(platformFolder), Message: "no file found: tenants and their namespaces are expected there"})
	}
	return gone
}

// unreadableAt reports whether rel or a folder that it is in is unreadable.
func (sc scanned) unreadableAt(rel string) bool {
	if _, ok := sc.unreadable["."]; ok {
		return true
	}
	for {
		if _, ok := sc.unreadable[rel]; ok {
			return true
		}
		up := parent(rel)
		if up == rel {
			return false
		}
		rel = up
	}
}

// noteFolders records what the scan says of folders and misplaced files.
func (s *store) noteFolders(sc scanned, first bool) {
	held := make(map[string]bool)
	for _, rel := range slices.Sorted(maps.Keys(sc.unreadable)) {
		if decodable(rel) && misplaced(rel) == "" {
			continue // an error of the file
		}
		s.folders = append(s.folders, &object.Error{File: s.name(rel),
			Message: fmt.Sprintf("cannot be read, what was read from there stays: %v", sc.unreadable[rel])})
		switch tenant := tenantOf(rel); {
		case tenant != "" && (first || s.heldFolders[tenant]):
			held[tenant] = true
		case tenant == "" && (rel == "." || group(rel) == platformFolder || rel == tenantsFolder) && !s.ready:
			s.waiting = true
		}
	}
	s.heldFolders = held
	for _, rel := range slices.Sorted(maps.Keys(sc.misplaced)) {
		s.folders = append(s.folders, &object.Error{File: s.name(rel), Message: sc.misplaced[rel]})
	}
}

// reclaim puts the claims of a file that was read again in place of the old.
func (s *store) reclaim(st *state, before []*object.Entry, touched map[tenancy.Ref]struct{}) {
	now := st.entries
	st.entries = before
	s.release(st, touched)
	st.entries = now
	for i, e := range now {
		ref := e.Ref(s.cfg.Options.Source)
		touched[ref] = struct{}{}
		list := append(s.claims[ref], &claim{st.path, i, e})
		slices.SortFunc(list, func(a, b *claim) int {
			return cmp.Or(cmp.Compare(group(a.path), group(b.path)), cmp.Compare(a.path, b.path), cmp.Compare(a.index, b.index))
		})
		s.claims[ref] = list
		if ns := ref.Key.Namespace; ns != "" {
			if s.inNamespace[ns] == nil {
				s.inNamespace[ns] = make(map[tenancy.Ref]struct{})
			}
			s.inNamespace[ns][ref] = struct{}{}
		}
	}
}

// release drops the claims of a file.
func (s *store) release(st *state, touched map[tenancy.Ref]struct{}) {
	for _, e := range st.entries {
		ref := e.Ref(s.cfg.Options.Source)
		touched[ref] = struct{}{}
		kept := slices.DeleteFunc(s.claims[ref], func(c *claim) bool {
			if c.path != st.path {
				return false
			}
			delete(s.refused, c)
			return true
		})
		if len(kept) > 0 {
			s.claims[ref] = kept
			continue
		}
		delete(s.claims, ref)
		delete(s.inNamespace[ref.Key.Namespace], ref)
		if len(s.inNamespace[ref.Key.Namespace]) == 0 {
			delete(s.inNamespace, ref.Key.Namespace)
		}
	}
}

// resolve decides again about the touched objects and returns what changed:
// first what is, in the order of the directory, then what is gone.
func (s *store) resolve(touched map[tenancy.Ref]struct{}) []tenancy.Event {
	type change struct {
		event tenancy.Event
		by    *claim
	}
	var changes []change
	decide := func(ref tenancy.Ref) {
		if ev, by, ok := s.decide(ref); ok {
			changes = append(changes, change{ev, by})
		}
	}
	// Namespaces first: whose a namespace is decides who may claim in it.
	for ref := range maps.Clone(touched) {
		if ref.Kind != tenancy.KindNamespace {
			continue
		}
		before := s.owner(ref.Key.Name)
		decide(ref)
		if s.owner(ref.Key.Name) != before {
			maps.Copy(touched, s.inNamespace[ref.Key.Name])
		}
	}
	for ref := range touched {
		if ref.Kind != tenancy.KindNamespace {
			decide(ref)
		}
	}
	slices.SortFunc(changes, func(a, b change) int {
		if a.by == nil || b.by == nil {
			return cmp.Or(cmpBool(a.by == nil, b.by == nil), compareRefs(a.event.Ref, b.event.Ref))
		}
		return cmp.Or(cmp.Compare(a.by.path, b.by.path), cmp.Compare(a.by.index, b.by.index))
	})
	events := make([]tenancy.Event, len(changes))
	for i, c := range changes {
		events[i] = c.event
	}
	return events
}

func cmpBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func compareRefs(a, b tenancy.Ref) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Key.Namespace, b.Key.Namespace), cmp.Compare(a.Key.Name, b.Key.Name))
}

// decide finds the claim that has the object and applies it. The event is
// returned if anything differs.
func (s *store) decide(ref tenancy.Ref) (tenancy.Event, *claim, bool) {
	var winner *claim
	for _, c := range s.claims[ref] {
		delete(s.refused, c)
		switch why := s.foreign(c); {
		case why != "":
			s.refused[c] = why
		case winner != nil:
			s.refused[c] = fmt.Sprintf("is given already in %s, document %d: that one stays", s.name(winner.path), winner.entry.Document)
		default:
			winner = c
		}
	}
	if winner == nil {
		delete(s.winners, ref)
		delete(s.objectless, ref)
		if _, ok := s.applied[ref]; !ok {
			return tenancy.Event{}, nil, false
		}
		delete(s.applied, ref)
		return tenancy.Event{Ref: ref}, nil, true
	}
	s.winners[ref] = winner
	if winner.entry.Object == nil && s.applied[ref] == nil {
		s.objectless[ref] = struct{}{}
	} else {
		delete(s.objectless, ref)
	}
	if winner.entry.Object == nil || reflect.DeepEqual(s.applied[ref], winner.entry.Object) {
		return tenancy.Event{}, nil, false // the last good one stays, or nothing changed
	}
	if why := unchangeable(s.applied[ref], winner.entry.Object); why != "" {
		s.refused[winner] = why
		return tenancy.Event{}, nil, false
	}
	s.applied[ref] = winner.entry.Object
	return tenancy.Event{Ref: ref, Object: winner.entry.Object}, winner, true
}

// owner is the tenant that a namespace belongs to, "" if nobody's.
func (s *store) owner(namespace string) string {
	ref := tenancy.Ref{Kind: tenancy.KindNamespace, Key: tenancy.Key{Source: s.cfg.Options.Source, Name: namespace}}
	ns, _ := s.applied[ref].(*tenancy.Namespace)
	if ns == nil {
		return ""
	}
	return ns.Tenant
}

// foreign says why a tenant's folder may not hold what is claimed. It must read
// the same for what exists and for what does not.
func (s *store) foreign(c *claim) string {
	tenant := tenantOf(c.path)
	switch {
	case tenant == "":
		return ""
	case !object.Namespaced(c.entry.Kind):
		return fmt.Sprintf("kind %s belongs into platform/: a tenant's folder holds namespaced objects only", c.entry.KindName)
	case s.owner(c.entry.Namespace) != tenant:
		return fmt.Sprintf("namespace %s does not belong to tenant %s", c.entry.Namespace, tenant)
	}
	return ""
}
