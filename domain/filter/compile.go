package filter

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/medilab/webhooks/domain/strictjson"
)

// Bounds on one filter. They keep what a webhook costs each event small; all are far
// above what people write.
const (
	maxFilterBytes     = 64 << 10
	maxConditions      = 200
	maxFilterNesting   = 8 // of $or
	maxPathBytes       = 256
	maxPathParts       = 16
	maxPatternBytes    = 1000
	maxPatternProgram  = 1000      // instructions of all expressions together
	maxFilterErrors    = 20        // told at once
	maxFilterWork      = 2 << 20   // bytes of arrays and objects looked through, times how often
	maxPatternWork     = 256 << 10 // bytes of text times instructions that look at each
	maxPatternText     = 16 << 10  // bytes, however small the expressions
	root               = "filters" // what the names of problems begin with
	fieldOperatorNames = "$eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists, $prefix, $regex, $or"
)

// fieldOperators stand inside a field.
var fieldOperators = strings.Split(fieldOperatorNames, ", ")

// Problem is what is wrong with one part of a filter. Field says where it is, as in
// filters.department or filters.$or[1].amount.$gt.
type Problem struct {
	Field   string
	Message string
}

// Compile reads a webhook's filters, refusing what could never work: an unknown
// operator, a bound that is no number, a regular expression that is not RE2, an empty
// list or object of operators, a filter beyond the bounds above. Every field error is
// named by where it is: `filters.department`, `filters.$or[1].amount.$gt`. Nothing, null
// and {} are a filter that matches everything. raw is not kept. Filters that are in use
// are not compiled again.
func Compile(raw []byte) (*Filter, []Problem) {
	raw = bytes.Trim(raw, " \n\r\t")
	if len(raw) == 0 || string(raw) == "null" {
		return &Filter{}, nil
	}
	if len(raw) > maxFilterBytes {
		return nil, []Problem{{root, fmt.Sprintf("must be at most %d bytes", maxFilterBytes)}}
	}
	return shared.get(raw)
}

func compile(raw []byte) (*Filter, []Problem) {
	if err := strictjson.Check(raw); err != nil {
		return nil, []Problem{{root, "cannot be read: " + err.Error()}}
	}
	if raw[0] != '{' {
		return nil, []Problem{{root, "must be an object of conditions, or null"}}
	}
	c := compiler{bounds: new(bounds)}
	f := c.filter(bytes.Clone(raw), root, 0)
	if c.problems != nil {
		return nil, c.problems
	}
	c.bounds.size = maxFilterWork / max(1, c.work)
	c.bounds.text = min(maxPatternText, maxPatternWork/max(1, c.program))
	f.named, f.work = f.namedValues(), c.work
	return f, nil
}

// bounds are what one filter may look through of one event, made of what it asks:
// the same for every event, and whatever other webhooks there are.
type bounds struct {
	size int // bytes of the arrays on the way of one condition, and of what is at its end
	text int // bytes of text of one condition's expressions
}

// compiler collects what is wrong while it goes on, so that all is told at once.
// What it makes of a refused part is never used.
type compiler struct {
	problems   []Problem
	conditions int
	program    int // instructions of expressions so far
	work       int // what is done with each value at a path so far
	bounds     *bounds
}

func (c *compiler) refuse(field, message string) {
	if len(c.problems) < maxFilterErrors {
		c.problems = append(c.problems, Problem{strictjson.Shorten(field, 300), message})
	}
}

// count bounds the conditions and operators of a filter.
func (c *compiler) count(field string) {
	c.work++
	if c.conditions++; c.conditions == maxConditions+1 {
		c.refuse(field, fmt.Sprintf("is one condition too many; a filter has at most %d", maxConditions))
	}
}

// filter compiles an object of conditions.
func (c *compiler) filter(raw []byte, field string, nesting int) *Filter {
	f := new(Filter)
	for m := range strictjson.Members(raw, 0) {
		key, value := string(m.Key()), raw[m.Off:m.End]
		at := field + "." + key
		c.count(at)
		switch {
		case key == "$or":
			f.conditions = append(f.conditions, c.anyFilter(value, at, nesting+1))
		case slices.Contains(fieldOperators, key):
			c.refuse(at, `is an operator, which stands inside a field: {"field": {"`+key+`": ...}}`)
		case strings.HasPrefix(key, "$"):
			c.refuse(at, "is not a known operator; here only $or is")
		default:
			f.conditions = append(f.conditions, c.condition(key, value, at, nesting))
		}
	}
	expressionsLast(f.conditions, func(c condition) bool { return c.hasExpression })
	return f
}

// expressionsLast sorts what has regular expressions behind all else.
func expressionsLast[T any](list []T, hasExpressions func(T) bool) {
	slices.SortStableFunc(list, func(a, b T) int {
		switch x, y := hasExpressions(a), hasExpressions(b); {
		case x == y:
			return 0
		case y:
			return -1
		}
		return 1
	})
}

// anyFilter compiles $or.
func (c *compiler) anyFilter(raw []byte, field string, nesting int) condition {
	made := condition{field: "$or", want: string(raw)}
	program := c.program
	if made.or = c.alternatives(raw, field, nesting); c.problems == nil {
		made.first, made.hasExpression = made.or[0], c.program > program
		expressionsLast(made.or, (*Filter).hasExpressions)
	}
	return made
}

// alternatives compiles the list of $or.
func (c *compiler) alternatives(raw []byte, field string, nesting int) []*Filter {
	if !c.isList(raw, field) || c.tooNested(field, nesting) {
		return nil
	}
	var all []*Filter
	for i, value := range elements(raw) {
		at := fmt.Sprintf("%s[%d]", field, i)
		if kindOf(value) != objectKind || isEmpty(value) {
			c.refuse(at, "must be an object of conditions")
			all = append(all, nil)
			continue
		}
		all = append(all, c.filter(value, at, nesting))
	}
	return all
}

func (c *compiler) tooNested(field string, nesting int) bool {
	if nesting <= maxFilterNesting {
		return false
	}
	c.refuse(field, fmt.Sprintf("nests deeper than %d", maxFilterNesting))
	return true
}

// condition compiles one key and its value.
func (c *compiler) condition(key string, raw []byte, field string, nesting int) condition {
	if len(key) > maxPathBytes || strings.Count(key, ".") >= maxPathParts {
		c.refuse(field, fmt.Sprintf("must be a path of at most %d bytes and %d parts", maxPathBytes, maxPathParts))
	}
	made := condition{field: key, want: string(raw), bounds: c.bounds}
	limited, operator := boundOf(key)
	if operator == "" || hasOperators(raw) {
		program := c.program
		made.test = c.value(raw, field, nesting)
		made.hasExpression = c.program > program
		return made
	}
	if kindOf(raw) != numberKind {
		c.refuse(field, fmt.Sprintf(`must be a number, because it is a bound on %s; a field of this very name is meant by {"$eq": ...}`, limited))
		return made
	}
	equal := c.literal(raw, field, whole)
	made.test = &valueTest{every: []predicate{newOneOf(equal)}}
	made.limited = limited
	made.limit = &valueTest{every: []predicate{&comparison{operator, equal.number}}}
	return made
}

// boundOf takes x_min and x_max apart; no operator for any other key.
func boundOf(key string) (limited, operator string) {
	if x, ok := strings.CutSuffix(key, "_min"); ok && x != "" && !strings.HasSuffix(x, ".") {
		return x, "$gte"
	}
	if x, ok := strings.CutSuffix(key, "_max"); ok && x != "" && !strings.HasSuffix(x, ".") {
		return x, "$lte"
	}
	return "", ""
}

// value compiles what a field is compared with: operators, a list of which any will do,
// or a plain value.
func (c *compiler) value(raw []byte, field string, nesting int) *valueTest {
	switch kindOf(raw) {
	case objectKind:
		if isEmpty(raw) {
			c.refuse(field, `is empty; to compare with an empty object write {"$eq": {}}`)
			return nil
		}
		if hasOperators(raw) {
			return c.operators(raw, field, nesting)
		}
	case arrayKind:
		return c.anyOf(raw, field, nesting)
	}
	return &valueTest{every: []predicate{newOneOf(c.literal(raw, field, whole))}}
}

// anyOf compiles a list of plain values, among which operators may stand too.
func (c *compiler) anyOf(raw []byte, field string, nesting int) *valueTest {
	if !c.isList(raw, field) || c.tooNested(field, nesting) {
		return nil
	}
	values := newOneOf()
	var either []*valueTest
	for index, element := range elements(raw) {
		if kindOf(element) == objectKind && hasOperators(element) {
			either = append(either, c.operators(element, fmt.Sprintf("%s[%d]", field, index), nesting+1))
		} else {
			values.add(c.literal(element, field, index))
		}
	}
	plain := &valueTest{every: []predicate{values}}
	if len(either) == 0 {
		return plain
	}
	return &valueTest{either: append(either, plain)}
}
