package domain

import (
	"fmt"
	"strings"
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
// Work. What one filter can cost one event is bounded, whoever writes either: a path that
// has more bytes of arrays and objects to look through than its share of maxFilterWork, and more text than
// fits maxPatternWork, cannot be evaluated. Usual filters look through arrays of megabytes.
//
// A Filter never changes once compiled and is safe for concurrent use. A nil Filter and
// one without conditions match everything.
type Filter struct {
	conditions []condition
}

// Verdict is a filter's decision and, when it is no, the first condition that failed.
type Verdict struct {
	Matched bool
	Field   string // the condition's key in the filter
	Want    string // its value there: JSON, cut when long
	Got     string // what the event has: JSON, cut when long; empty when nothing is there
	Reason  string // in words
}

// MatchesAll reports that the filter has no conditions.
func (f *Filter) MatchesAll() bool { return f == nil || len(f.conditions) == 0 }

// Match decides for one event. To decide for many webhooks, parse once and use MatchDoc.
func (f *Filter) Match(eventData []byte) bool { return f.MatchDoc(ParseDoc(eventData)) }

// MatchDoc decides for one event that was parsed once for all webhooks.
func (f *Filter) MatchDoc(doc *Doc) bool {
	if f.MatchesAll() {
		return true
	}
	return doc.readable() && f.holds(doc)
}

func (f *Filter) holds(doc *Doc) bool {
	for i := range f.conditions {
		if !f.conditions[i].holds(doc) {
			return false
		}
	}
	return true
}

// Explain decides as Match does and tells why not.
func (f *Filter) Explain(eventData []byte) Verdict { return f.ExplainDoc(ParseDoc(eventData)) }

// ExplainDoc decides as MatchDoc does and tells why not.
func (f *Filter) ExplainDoc(doc *Doc) Verdict {
	if f.MatchesAll() {
		return Verdict{Matched: true}
	}
	if !doc.readable() {
		return Verdict{Reason: "event_data is not a JSON object that can be read"}
	}
	for i := range f.conditions {
		if c := &f.conditions[i]; !c.holds(doc) {
			return c.explain(doc)
		}
	}
	return Verdict{Matched: true}
}

// condition is one key of a filter: a test of what is at a path, or alternatives.
type condition struct {
	field  string // the key
	want   string // the value, JSON
	test   *valueTest
	bounds *filterBounds

	limited string // of x_min and x_max: x
	limit   *valueTest

	or []*Filter // of $or
}

func (c *condition) holds(doc *Doc) bool {
	if c.or != nil {
		for _, f := range c.or {
			if f.holds(doc) {
				return true
			}
		}
		return false
	}
	_, test, found := c.target(doc)
	return test.holds(found)
}

// target is what the condition looks at in this event: the path, the test and the value.
func (c *condition) target(doc *Doc) (string, *valueTest, *found) {
	literal := doc.at(c.field, c.bounds.size)
	if c.limit != nil && literal.missing() {
		return c.limited, c.limit, doc.at(c.limited, c.bounds.size)
	}
	return c.field, c.test, literal
}

func (c *condition) explain(doc *Doc) Verdict {
	v := Verdict{Field: c.field, Want: shortened(c.want, 1000)}
	if c.or != nil {
		first := c.or[0].ExplainDoc(doc)
		v.Reason = fmt.Sprintf("none of the %d alternatives matches; the first: %s", len(c.or), first.Reason)
		return v
	}
	path, test, found := c.target(doc)
	v.Got = found.show()
	switch {
	case found.tooMany:
		v.Reason = fmt.Sprintf("%s has more than %d values", path, maxPathValues)
	case found.tooLarge:
		v.Reason = fmt.Sprintf("%s has more than %d bytes to look through, which is too much for this filter", path, c.bounds.size)
	case found.missing():
		v.Reason = "the event has no " + path
	case test.tooLong(found):
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
	every  []predicate   // one candidate has all of these
	none   []predicate   // no candidate has any of these
	exists existence     // whether anything must be there
	either []*valueTest  // one of these holds
	text   *filterBounds // what its expressions may look through; nil: it has none
}

// tooLong reports more text than the test's expressions may look through.
func (t *valueTest) tooLong(f *found) bool { return t.text != nil && f.text() > t.text.text }

type existence uint8

const (
	mayExist existence = iota
	mustExist
	mustNotExist
)

func (t *valueTest) holds(f *found) bool {
	switch {
	case f.tooMany, f.tooLarge:
		return false
	case f.missing():
		return t.holdsMissing()
	case t.exists == mustNotExist, t.tooLong(f):
		return false
	case len(t.every) > 0 && !f.anyCandidate(t.hasEvery):
		return false
	}
	if len(t.none) > 0 && f.isUnclear() {
		return false
	}
	for _, p := range t.none {
		if f.anyCandidate(p.holds) {
			return false
		}
	}
	if len(t.either) == 0 {
		return true
	}
	for _, alternative := range t.either {
		if alternative.holds(f) {
			return true
		}
	}
	return false
}

func (t *valueTest) hasEvery(n *node) bool {
	for _, p := range t.every {
		if !p.holds(n) {
			return false
		}
	}
	return true
}

// holdsMissing is whether the test asks for nothing to be there, and for nothing else.
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
		if kind != anyKind && !f.anyCandidate(func(n *node) bool { return n.kind == kind }) {
			return kind.String()
		}
	}
	return ""
}

// show is the value for a person: its JSON, or a list of what a path through an array found.
func (f *found) show() string {
	const most = 200
	if len(f.nodes) == 1 {
		return shortened(string(f.nodes[0].raw[:min(len(f.nodes[0].raw), most+4)]), most)
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
	return shortened(b.String(), most)
}
