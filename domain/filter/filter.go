// Package filter is the language in which webhooks say which events they want: it compiles
// filters and matches events against many of them at once.
package filter

import (
	"fmt"
	"math"
	"strings"

	"github.com/medilab/webhooks/domain/strictjson"
)

// Filter decides by an event's data whether a webhook gets the event (the guide's section
// "Фильтрация Событий", contract section 4). It is an object whose conditions must all
// hold. What cannot be evaluated does not match, and Explain says why: a filter never
// lets an event through because something about it is odd.
//
//	{"department": "cardiology"}            equal by JSON type: true is not "true", 1 is 1.0
//	{"department": ["cardiology", "eyes"]}  any of the values
//	{"patient.address.city": "Тула"}        a path: dots descend
//	{"amount_min": 1000, "amount_max": 5e3} inclusive bounds on amount
//	{"amount": {"$gt": 0, "$lt": 100}}      operators: all of them must hold
//	{"$or": [{...}, {...}]}                 any of the filters
//	{"amount": {"$or": [0, {"$gte": 9}]}}   any of the values or operators
//
// Paths. At each object the whole rest of the path is tried as a literal key first, then
// the part before the first dot. A path that meets an array goes on in each of its objects.
//
// Arrays. Where the event has an array, or a path led through one, the condition holds
// when it holds for any one element (all positive operators for the same one) or for the
// array as a whole; $ne and $nin hold when no element, nor the whole, is such a value,
// and none has a number that cannot be compared.
//
// Bounds. x_min and x_max are bounds on x unless the event has the path x_min (x_max)
// itself: then the condition is equality with that. To name such a field in any case,
// write {"x_min": {"$eq": ...}}.
//
// Missing fields match nothing but {"$exists": false}; in particular not $ne, $nin or
// null. A field that is null exists, and equals null.
//
// Operators: $eq, $ne (any value), $in, $nin (a list of values), $gt, $gte, $lt, $lte
// (numbers only, compared exactly, never as floats), $exists (true or false), $prefix (of
// a string), $regex (RE2, found anywhere in a string unless anchored; the strings it is
// looked for in are together at most 16 KB, or less for large expressions).
//
// Work. What one filter can cost one event is bounded: a path with more bytes of arrays
// and objects to look through than its share of maxFilterWork, and more text than fits
// maxPatternWork, cannot be evaluated. Usual filters look through arrays of megabytes.
// What all filters together can cost one event is bounded by Match.
//
// Conditions without expressions are evaluated first.
//
// A Filter never changes once compiled and is safe for concurrent use. A nil Filter and
// one without conditions match everything.
type Filter struct {
	conditions []condition
	named      [][]value // see namedValues; of the outermost filter alone, as is
	work       int       // what is done with each value that the paths lead to
}

// Verdict is a filter's decision and, when it is no, a condition that failed: the first one
// without expressions, if there is one.
type Verdict struct {
	Matched bool
	Field   string // the condition's key in the filter
	Want    string // its value there: JSON, cut when long
	Got     string // what the event has: JSON, cut when long; empty when nothing is there
	Reason  string // in words
}

// MatchesAll reports whether the filter has no conditions.
func (f *Filter) MatchesAll() bool { return f == nil || len(f.conditions) == 0 }

// hasExpressions reports whether a condition has a regular expression.
func (f *Filter) hasExpressions() bool {
	return !f.MatchesAll() && f.conditions[len(f.conditions)-1].hasExpression // they stand last
}

// Match reports whether the filter matches the event when it is the only one.
func (f *Filter) Match(doc *Doc) bool { return f.match(doc, unlimited()) }

// match is Match with a limit on the work. When that is too little, it returns false and
// the meter is short.
func (f *Filter) match(doc *Doc, m *meter) bool {
	return f.MatchesAll() || doc.readable() && f.failing(doc, m) == nil
}

// failing returns the first condition that does not hold, or nil.
func (f *Filter) failing(doc *Doc, m *meter) *condition {
	for i := range f.conditions {
		if c := &f.conditions[i]; !m.spend(conditionWork) || !c.holds(doc, m) {
			return c
		}
	}
	return nil
}

// Explain decides as Match does, and says why not.
func (f *Filter) Explain(doc *Doc) Verdict { return f.explain(doc, unlimited()) }

func (f *Filter) explain(doc *Doc, m *meter) Verdict {
	if f.MatchesAll() {
		return Verdict{Matched: true}
	}
	if !doc.readable() {
		return Verdict{Reason: "event_data is not a JSON object that can be read"}
	}
	switch c := f.failing(doc, m); {
	case c == nil:
		return Verdict{Matched: true}
	case m.short:
		return Verdict{Reason: "the filter does not match; finding out why takes too much work"}
	default:
		return c.explain(doc)
	}
}

// meter limits work. Its unit is about what a regular expression of one instruction takes
// to look at one byte: some nanoseconds.
type meter struct {
	left  int
	short bool // something was not done because it takes more than what was left
}

func unlimited() *meter { return &meter{left: math.MaxInt} }

// spend takes work from what is left, or reports that it does not suffice.
func (m *meter) spend(work int) bool {
	if work > m.left {
		m.short = true
		return false
	}
	m.left -= work
	return true
}

// condition is one key of a filter: a test of what is at a path, or alternatives.
type condition struct {
	field  string // the key
	want   string // the value, JSON
	test   *valueTest
	bounds *bounds

	limited string // of x_min and x_max: x
	limit   *valueTest

	or    []*Filter // of $or, those without expressions first
	first *Filter   // of $or as it is written

	hasExpression bool
}

func (c *condition) holds(doc *Doc, m *meter) bool {
	for _, f := range c.or {
		if f.failing(doc, m) == nil {
			return true
		}
		if m.short {
			return false
		}
	}
	if c.or != nil {
		return false
	}
	_, test, found, ok := c.target(doc, m)
	if !ok {
		return false
	}
	if test.source == "" {
		return test.holds(found, m)
	}
	return doc.holdsExpression(test, c.field, found, m)
}

// holdsExpression evaluates a test that is one regular expression. An expression that
// filters share is looked for once.
func (d *Doc) holdsExpression(t *valueTest, path string, f *found, m *meter) bool {
	if t.tooLong(f, m) {
		return false
	}
	key := expression{path, t.source}
	holds, known := d.expressions[key]
	if !known {
		holds = t.holds(f, m)
	}
	if !known && !m.short {
		if d.expressions == nil {
			d.expressions = map[expression]bool{}
		}
		d.expressions[key] = holds
	}
	return holds
}

// target returns what the condition looks at in this event: the path, the test and the
// value; false when the meter is short.
func (c *condition) target(doc *Doc, m *meter) (string, *valueTest, *found, bool) {
	literal, ok := doc.at(c.field, c.bounds.size, m)
	if ok && c.limit != nil && literal.missing() {
		limited, ok := doc.at(c.limited, c.bounds.size, m)
		return c.limited, c.limit, limited, ok
	}
	return c.field, c.test, literal, ok
}

// explain says why the condition, which was evaluated, does not hold.
func (c *condition) explain(doc *Doc) Verdict {
	v := Verdict{Field: c.field, Want: strictjson.Shorten(c.want, 1000)}
	if c.or != nil {
		v.Reason = c.first.Explain(doc).Reason
		if len(c.or) > 1 {
			v.Reason = fmt.Sprintf("none of the %d alternatives matches; the first: %s", len(c.or), v.Reason)
		}
		return v
	}
	path, test, found, _ := c.target(doc, unlimited())
	v.Got = found.show()
	switch {
	case found.tooMany:
		v.Reason = fmt.Sprintf("%s has more than %d values", path, maxPathValues)
	case found.tooLarge:
		v.Reason = fmt.Sprintf("%s has more than %d bytes to look through, which is too much for this filter", path, c.bounds.size)
	case found.missing():
		v.Reason = "the event has no " + path
	case test.tooLong(found, unlimited()):
		v.Reason = fmt.Sprintf("%s has more than %d bytes of text, which is too much for this filter's expressions", path, c.bounds.text)
	case test.wrongKind(found) != "":
		v.Reason = fmt.Sprintf("%s is no %s", path, test.wrongKind(found))
	case c.limit != nil && test == c.test:
		v.Reason = fmt.Sprintf("the event has a field %s itself, which is not equal", path)
	default:
		v.Reason = path + " is not what the filter asks for"
	}
	return v
}

// valueTest is what a filter asks of the value at a path. Everything in it must hold.
type valueTest struct {
	every  []predicate  // one candidate has all of these
	none   []predicate  // no candidate has any of these
	exists existence    // whether anything must be there
	either []*valueTest // one of these holds
	text   *bounds      // what its expressions may look through; nil: it has none
	source string       // its expression, when there is nothing else in it
}

// tooLong reports whether there is more text than the test's expressions may look through,
// or the meter is too short to know.
func (t *valueTest) tooLong(f *found, m *meter) bool {
	return t.text != nil && (!f.countTexts(m) || f.textBytes > t.text.text || f.texts > t.text.text)
}

type existence uint8

const (
	mayExist existence = iota
	mustExist
	mustNotExist
)

func (t *valueTest) holds(f *found, m *meter) bool {
	switch {
	case f.tooMany, f.tooLarge:
		return false
	case f.missing():
		return t.holdsMissing()
	case t.exists == mustNotExist, t.tooLong(f, m):
		return false
	case len(t.every) > 0 && !f.anyCandidate(t.hasEvery, m):
		return false
	case len(t.none) > 0 && f.isUnclear(m):
		return false
	}
	for _, p := range t.none {
		if f.anyCandidate(p.holds, m) || m.short {
			return false
		}
	}
	for _, alternative := range t.either {
		if alternative.holds(f, m) {
			return true
		}
		if m.short {
			return false
		}
	}
	return len(t.either) == 0
}

func (t *valueTest) hasEvery(n *node, m *meter) bool {
	for _, p := range t.every {
		if !p.holds(n, m) {
			return false
		}
	}
	return true
}

// holdsMissing reports whether the test asks for nothing to be there, and for nothing else.
func (t *valueTest) holdsMissing() bool {
	if len(t.every)+len(t.none) > 0 || t.exists == mustExist {
		return false
	}
	if len(t.either) == 0 {
		return t.exists == mustNotExist
	}
	for _, alternative := range t.either {
		if alternative.holdsMissing() {
			return true
		}
	}
	return false
}

// wrongKind names what the test needs and no candidate is ("number", "string"), or "".
func (t *valueTest) wrongKind(f *found) string {
	for _, p := range t.every {
		kind := p.needs()
		if kind != anyKind && !f.anyCandidate(func(n *node, _ *meter) bool { return n.kind == kind }, unlimited()) {
			return kind.String()
		}
	}
	return ""
}

// show returns the value for a person: its JSON, or a list of what a path through an array
// found.
func (f *found) show() string {
	const most = 200
	if len(f.nodes) == 1 {
		return strictjson.Shorten(string(f.nodes[0].raw[:min(len(f.nodes[0].raw), most+4)]), most)
	}
	var b strings.Builder
	for i := range f.nodes {
		if b.Len() > most {
			break
		}
		b.WriteByte("[,"[min(i, 1)])
		raw := f.nodes[i].raw
		b.Write(raw[:min(len(raw), most+4)])
	}
	if b.Len() > 0 {
		b.WriteByte(']')
	}
	return strictjson.Shorten(b.String(), most)
}
