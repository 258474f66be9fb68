// Package status is where replicas that read one API server tell each other what
// their streams lack, and where conditions are written into the status of
// objects.
//
// Each replica keeps one ProxyReport in the server's namespace with its
// condition.Report: exceptions only. The one that holds the Lease sums them up
// and writes. The Lease is also where an operator confirms removals that are
// held, for all replicas at once.
//
// Invariants:
//
//  1. Serving needs none of this: whatever fails here is retried and reported,
//     and nothing else.
//  2. Who loses the Lease stops writing; who gets it first reads what stands in
//     the objects, so that no condition is lost and none is written twice.
//  3. A replica counts as long as its report moves; one that ended in order takes
//     its report with it. Whether it does is judged by the reader's own clock.
//  4. Events say what conditions say, word for word, when one turns False; the same
//     again is counted, and those of one namespace are paced. Losing one loses nothing.
//  5. Only the conditions are written, by server-side apply, on change only.
package status
