package filter

import (
	"cmp"
	"slices"
	"sync"
)

// Set is an immutable list of filters, prepared to match one event against all of them.
// It is safe for concurrent use.
type Set struct {
	filters        []*Filter
	prefilter      func() *prefilter // of two filters or more; made when first needed
	work           int               // of all conditions, for one value each
	hasExpressions bool
}

// NewSet returns a set of the filters.
func NewSet(filters []*Filter) *Set {
	prefilter := sync.OnceValue(func() *prefilter { return newPrefilter(filters) })
	work := 0
	for _, f := range filters {
		if f != nil {
			work += f.work
		}
	}
	return &Set{filters, prefilter, work, slices.ContainsFunc(filters, (*Filter).hasExpressions)}
}

// Costly reports whether matching an event of so many bytes with all of the sets, of which
// some are nil, may take a millisecond or more.
func Costly(size int, sets []*Set) bool {
	const large, many = 16 << 10, 8 << 10
	work := 0
	for _, s := range sets {
		if s == nil {
			continue
		}
		if work += s.work + len(s.filters); work > many || s.hasExpressions || size > large {
			return true
		}
	}
	return false
}

// What matching one event may cost, in the unit of a meter.
const (
	// Each filter may do so much, which is enough for usual ones: the less, the more
	// filters there are.
	minAllowance, maxAllowance = 160, 512
	// Filters that need more share this much,
	eventWork = 480 << 10
	// and for each byte of the event this much more: a caller that sends large events
	// waits for them.
	workPerByte = 12
	// A filter that is not decided tries again with so many times more.
	growth = 8
	// Each try costs so much, however soon it ends.
	tryWork = 16
)

// Ref names a filter by the index of its set and its own within the set.
type Ref struct{ Set, Index int }

func (r Ref) compare(other Ref) int {
	return cmp.Or(cmp.Compare(r.Set, other.Set), cmp.Compare(r.Index, other.Index))
}

// Matches is what Match decided.
type Matches struct {
	Matched []Ref // in ascending order
	cut     []Ref // the filters that were not evaluated, in ascending order

	doc        *Doc
	sets       []*Set
	explaining meter
}

// Match decides which filters match the event. Nil sets are skipped.
func Match(doc *Doc, sets []*Set) Matches {
	result := Matches{doc: doc, sets: sets}
	result.decide(doc, sets)
	return result
}

// Matched returns what Match has in Matched, for callers that need no explanation.
func Matched(doc *Doc, sets []*Set) []Ref {
	var result Matches
	result.decide(doc, sets)
	return result.Matched
}

// decide fills in Matched and cut.
//
// The work is bounded, whatever the filters and the event. Each filter has a small
// allowance. Filters that need more share a budget, those that need little before those
// that need much: in rounds, in which each may use some times more than in the one before,
// until the budget is used up. A filter for which it does not suffice is not evaluated and
// does not match. So an expensive filter never keeps a cheap one from being evaluated, and
// the decision depends on nothing but the event and the filters.
func (result *Matches) decide(doc *Doc, sets []*Set) {
	budget := eventWork + workPerByte*len(doc.data)
	filters := 0
	for _, set := range sets {
		if set != nil {
			filters += len(set.filters)
		}
	}
	prefiltering := budget / 2
	doc.looking = budget / 8
	budget -= prefiltering + doc.looking
	allowance := min(maxAllowance, max(minAllowance, eventWork/max(1, filters)))
	m, spent := &doc.meter, 0
	var undecided []Ref
	for s, set := range sets {
		if set == nil {
			continue
		}
		for i := range set.possible(doc, &prefiltering) {
			ref := Ref{s, i}
			*m = meter{left: allowance}
			switch matched := set.filters[i].match(doc, m); {
			case m.short:
				undecided = append(undecided, ref)
			case matched:
				result.Matched = append(result.Matched, ref)
			}
			spent += tryWork + allowance - m.left
		}
	}
	budget += prefiltering + doc.looking
	doc.looking = 0
	// What allowances took is not there to be shared, but for a part.
	budget = max(budget/4, budget-spent)
	result.explaining.left = filters*allowance + 4*budget
	if len(undecided) == 0 {
		return
	}
	result.share(doc, sets, undecided, budget)
	slices.SortFunc(result.Matched, Ref.compare)
}

// share evaluates the filters that need more than the allowance.
func (result *Matches) share(doc *Doc, sets []*Set, undecided []Ref, budget int) {
	work := &doc.meter
	for quota, last := growth*minAllowance, false; !last && len(undecided) > 0; quota *= growth {
		last = quota >= budget // nobody gets more in another round
		again := undecided[:0]
		for _, ref := range undecided {
			limit := min(quota, budget)
			*work = meter{left: limit}
			matched := sets[ref.Set].filters[ref.Index].match(doc, work)
			budget = max(0, budget-(limit-work.left)-tryWork)
			switch {
			case work.short:
				again = append(again, ref)
			case matched:
				result.Matched = append(result.Matched, ref)
			}
		}
		undecided = again
	}
	result.cut = undecided
}

// possible calls yield with the filters that may match the event, in ascending order.
func (s *Set) possible(doc *Doc, budget *int) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		if len(s.filters) < 2 || len(s.filters) <= fewFilters && len(doc.data) <= smallEvent {
			for i := range s.filters {
				if !yield(i) {
					return
				}
			}
			return
		}
		var room [4]uint64 // for the usual number of filters
		s.prefilter().possible(doc, room[:], budget).all()(yield)
	}
}

// Explain returns the verdict of one of the filters, which agrees with what was decided. Those that
// are asked for share the work that it may take to say why.
func (result *Matches) Explain(ref Ref) Verdict {
	if _, found := slices.BinarySearchFunc(result.Matched, ref, Ref.compare); found {
		return Verdict{Matched: true}
	}
	if _, found := slices.BinarySearchFunc(result.cut, ref, Ref.compare); found {
		return Verdict{Reason: "matching this event against all filters takes more work than one event may cost; this filter was not evaluated"}
	}
	result.explaining.short = false
	return result.sets[ref.Set].filters[ref.Index].explain(result.doc, &result.explaining)
}
