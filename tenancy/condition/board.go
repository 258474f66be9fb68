package condition

import (
	"cmp"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"bailiwick.dev/bailiwick/tenancy"
	"bailiwick.dev/bailiwick/tenancy/object"
)

// Board knows the objects that have conditions. Its methods may be called by
// anybody and do not block.
type Board struct {
	clock  func() time.Time
	settle time.Duration

	mu      sync.Mutex
	objects map[tenancy.Ref]*entry // guarded by mu
	// problems are the model's last word, guarded by mu. It says only what
	// changed, so they outlive an object that goes and comes back at once.
	problems map[tenancy.Ref][]tenancy.Problem
	steps    uint64 // guarded by mu
	// open is how many objects the last Say could not speak of; guarded by mu.
	open int
}

type entry struct {
	object     tenancy.Object // nil if it could never be read
	generation int64
	errors     []object.FieldError
	// since is when the source last said something of it, step which step of
	// the Board that was.
	since time.Time
	step  uint64
	said  []metav1.Condition
	// turned are the conditions that became Wrong, or so for another reason, with
	// the last Say that returned the object.
	turned []string
	// again is set while what was said did not reach its place.
	again bool
}

// NewBoard makes an empty Board that takes the time from clock. Of an object that
// changed nothing is said before settle has passed: for sources that tell its
// errors after its events.
func NewBoard(clock func() time.Time, settle time.Duration) *Board {
	return &Board{clock: clock, settle: settle, objects: map[tenancy.Ref]*entry{}, problems: map[tenancy.Ref][]tenancy.Problem{}}
}

func has(kind tenancy.Kind) bool { return slices.Contains(Kinds(), kind) }

func (b *Board) entry(ref tenancy.Ref) *entry {
	e := b.objects[ref]
	if e == nil {
		e = &entry{}
		b.objects[ref] = e
	}
	b.steps++
	e.since, e.step = b.clock(), b.steps
	return e
}

// Apply takes the events that go to the model, before they do.
func (b *Board) Apply(events []tenancy.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ev := range events {
		switch {
		case !has(ev.Ref.Kind):
		case ev.Object == nil:
			delete(b.objects, ev.Ref)
		default:
			e := b.entry(ev.Ref)
			e.object, e.generation = ev.Object, ev.Generation
		}
	}
}

// Errors says what is wrong with an object as it is written, in that generation,
// or with no errors that nothing is any more. Of an object without an event, because nothing of it can be
// honoured, this is all that is known.
func (b *Board) Errors(ref tenancy.Ref, generation int64, errs []object.FieldError) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !has(ref.Kind) || (len(errs) == 0 && b.objects[ref] == nil) {
		return
	}
	e := b.entry(ref)
	if len(errs) == 0 && e.object == nil {
		delete(b.objects, ref)
		return
	}
	if e.errors = errs; len(errs) > 0 {
		e.generation = generation
	}
}

// Problems takes what the model says of objects; see snapshot.Config.
func (b *Board) Problems(changed map[tenancy.Ref][]tenancy.Problem) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for ref, list := range changed {
		if !has(ref.Kind) {
			continue
		}
		b.steps++
		if b.problems[ref] = list; len(list) == 0 {
			delete(b.problems, ref)
		}
	}
}

// Mark returns the present step, for Say: once the model has absorbed all that
// was handed to it before, it is known what becomes of it.
func (b *Board) Mark() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.steps
}

// Recall says what stands in the status of an object, from before this process.
func (b *Board) Recall(ref tenancy.Ref, conditions []metav1.Condition) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.objects[ref]; e != nil {
		e.said = conditions
	}
}

// Again lets the next Say return an object once more, whose conditions could not
// be written down.
func (b *Board) Again(ref tenancy.Ref) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.objects[ref]; e != nil {
		e.again = true
		b.open++
	}
}

// Said is one object with its conditions.
type Said struct {
	Ref        tenancy.Ref        `json:"-"`
	Conditions []metav1.Condition `json:"conditions"`
	// Turned are the types of those that have become [Wrong], or so for another
	// reason or generation.
	Turned []string `json:"-"`
}

// Say brings the conditions of all objects up to date that have not changed
// after mark, and returns those that differ from what was said before, sorted.
func (b *Board) Say(fleet *Fleet, mark uint64) []Said {
	b.mu.Lock()
	defer b.mu.Unlock()
	clock := b.clock()
	now := clock.UTC().Truncate(time.Second)
	var out []Said
	b.open = 0
	for ref, e := range b.objects {
		if e.step > mark || clock.Sub(e.since) < b.settle {
			b.open++
			continue
		}
		delivery := fleet.delivery(ref, e.object, e.since)
		if delivery.Unsettled {
			b.open++
		}
		after, changed := Merge(e.said, Of(Facts{
			Kind: ref.Kind, Generation: e.generation, Errors: e.errors, Problems: b.problems[ref], Delivery: delivery,
		}), now)
		if changed {
			e.turn(after)
		}
		if e.said = after; changed || e.again {
			e.again = false
			out = append(out, Said{ref, after, e.turned})
		}
	}
	sortSaid(out)
	return out
}

// turn notes which conditions are going to be Wrong that were not, or not for this
// reason. Those that could not be written yet are kept.
func (e *entry) turn(after []metav1.Condition) {
	var turned []string
	for i := range after {
		c := &after[i]
		before := slices.IndexFunc(e.said, func(b metav1.Condition) bool { return b.Type == c.Type })
		is := before < 0 || !Wrong(&e.said[before]) || e.said[before].Reason != c.Reason ||
			e.said[before].ObservedGeneration != c.ObservedGeneration
		if Wrong(c) && (is || e.again && slices.Contains(e.turned, c.Type)) {
			turned = append(turned, c.Type)
		}
	}
	e.turned = turned
}

// Open reports whether there may be more to say although nothing changes: of
// objects that the last Say could not speak of, or that Again was called for.
func (b *Board) Open() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open > 0
}

// All returns what was last said of all objects, sorted.
func (b *Board) All() []Said {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]Said, 0, len(b.objects))
	for ref, e := range b.objects {
		out = append(out, Said{Ref: ref, Conditions: e.said})
	}
	sortSaid(out)
	return out
}

func sortSaid(s []Said) {
	slices.SortFunc(s, func(a, b Said) int {
		return cmp.Or(cmp.Compare(a.Ref.Kind, b.Ref.Kind), cmp.Compare(a.Ref.Key.Namespace, b.Ref.Key.Namespace),
			cmp.Compare(a.Ref.Key.Name, b.Ref.Key.Name), cmp.Compare(a.Ref.Key.Source, b.Ref.Key.Source))
	})
}
