package filter

import (
	"bytes"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	"github.com/medilab/webhooks/domain/strictjson"
	"github.com/medilab/webhooks/domain/suggest"
)

// operators compiles an object of operators, all of which must hold.
func (c *compiler) operators(raw []byte, field string, nesting int) *valueTest {
	test := new(valueTest)
	operators := 0
	for m := range strictjson.Members(raw, 0) {
		operator, value := string(m.Key()), raw[m.Off:m.End]
		at := field + "." + operator
		c.count(at)
		operators++
		switch operator {
		case "$eq":
			test.every = append(test.every, newOneOf(c.literal(value, at, whole)))
		case "$ne":
			test.none = append(test.none, newOneOf(c.literal(value, at, whole)))
		case "$in":
			test.every = append(test.every, c.list(value, at))
		case "$nin":
			test.none = append(test.none, c.list(value, at))
		case "$gt", "$gte", "$lt", "$lte":
			test.every = append(test.every, c.comparison(operator, value, at))
		case "$exists":
			if kindOf(value) != boolKind {
				c.refuse(at, "must be true or false")
			}
			test.exists = mustExist
			if value[0] == 'f' {
				test.exists = mustNotExist
			}
		case "$prefix":
			if kindOf(value) != stringKind {
				c.refuse(at, "must be a string")
				continue
			}
			test.every = append(test.every, &prefix{newNode(value).text})
		case "$regex":
			test.text = c.bounds
			pattern := c.pattern(value, at)
			test.every = append(test.every, pattern)
			test.source = pattern.source
		case "$or":
			test.either = append(test.either, c.eitherOf(value, at, nesting+1)...)
		default:
			c.refuseOperator(operator, at)
		}
	}
	if operators > 1 {
		test.source = ""
	}
	return test
}

func (c *compiler) refuseOperator(operator, field string) {
	if !strings.HasPrefix(operator, "$") {
		c.refuse(field, `stands beside operators; to compare with an object write {"$eq": {...}}`)
		return
	}
	c.refuse(field, "is not a known operator"+suggest.DidYouMean(suggest.Nearest(operator, fieldOperators))+" (known: "+fieldOperatorNames+")")
}

// eitherOf compiles a $or within a field.
func (c *compiler) eitherOf(raw []byte, field string, nesting int) []*valueTest {
	if !c.isList(raw, field) || c.tooNested(field, nesting) {
		return nil
	}
	var tests []*valueTest
	for i, element := range elements(raw) {
		c.work++
		tests = append(tests, c.value(element, fmt.Sprintf("%s[%d]", field, i), nesting))
	}
	return tests
}

// list compiles the values of $in and $nin.
func (c *compiler) list(raw []byte, field string) *oneOf {
	o := newOneOf()
	if c.isList(raw, field) {
		for index, element := range elements(raw) {
			o.add(c.literal(element, field, index))
		}
	}
	return o
}

func (c *compiler) comparison(operator string, raw []byte, field string) *comparison {
	if kindOf(raw) != numberKind {
		c.refuse(field, "must be a number")
		return &comparison{}
	}
	return &comparison{operator, c.literal(raw, field, whole).number}
}

func (c *compiler) pattern(raw []byte, field string) *pattern {
	none := &pattern{}
	text, ok := strictjson.Text(raw)
	if !ok {
		c.refuse(field, "must be a string")
		return none
	}
	if len(text) > maxPatternBytes {
		c.refuse(field, fmt.Sprintf("must be at most %d bytes", maxPatternBytes))
		return none
	}
	const tooLarge = "makes the filter's regular expressions too large; use fewer or smaller repetitions"
	if c.program > maxPatternProgram { // said already: compiling more of them would only take time
		return none
	}
	tree, err := syntax.Parse(string(text), syntax.Perl)
	if err != nil {
		c.refuse(field, "is not a regular expression (RE2): "+strings.TrimPrefix(err.Error(), "error parsing regexp: "))
		return none
	}
	program, err := syntax.Compile(tree.Simplify())
	if err == nil {
		c.program += len(program.Inst)
	}
	if err != nil || c.program > maxPatternProgram {
		c.refuse(field, tooLarge)
		return none
	}
	expression, err := regexp.Compile(string(text))
	if err != nil {
		c.refuse(field, tooLarge)
		return none
	}
	return &pattern{string(text), len(program.Inst), expression}
}

// whole is the index of a value that is not in a list.
const whole = -1

// literal takes a plain value apart, and counts what comparing with it costs. It is at the
// index of the field's list, or the whole of it.
func (c *compiler) literal(raw []byte, field string, index int) literal {
	if kind := kindOf(raw); kind != stringKind && kind != numberKind {
		c.work += len(raw)
	}
	l, ok := takeApart(raw)
	if !ok {
		if index != whole {
			field = fmt.Sprintf("%s[%d]", field, index)
		}
		c.refuse(field, "is a number with an exponent too long to compare")
	}
	return l
}

// takeApart reports whether all numbers of the value can be compared.
func takeApart(raw []byte) (l literal, ok bool) {
	l, ok = literal{node: newNode(raw)}, true
	add := func(raw []byte) literal {
		part, comparable := takeApart(raw)
		ok = ok && comparable
		return part
	}
	switch l.kind {
	case numberKind:
		ok = l.exact
	case arrayKind:
		for _, element := range elements(raw) {
			l.items = append(l.items, add(element))
		}
	case objectKind:
		l.fields = make(map[string]literal)
		for m := range strictjson.Members(raw, 0) {
			l.fields[string(m.Key())] = add(raw[m.Off:m.End])
		}
	}
	return l, ok
}

// isList refuses what is no list, or an empty one: nothing would match it, or everything.
func (c *compiler) isList(raw []byte, field string) bool {
	if kindOf(raw) == arrayKind && !isEmpty(raw) {
		return true
	}
	c.refuse(field, "must be a list with at least one value")
	return false
}

// isEmpty is of an object or an array.
func isEmpty(raw []byte) bool {
	return strictjson.SkipSpace(raw, 1) == len(raw)-1
}

// hasOperators reports an object with a key that begins with $.
func hasOperators(raw []byte) bool {
	if kindOf(raw) != objectKind {
		return false
	}
	for m := range strictjson.Members(raw, 0) {
		if bytes.HasPrefix(m.Key(), []byte("$")) {
			return true
		}
	}
	return false
}
