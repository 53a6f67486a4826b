package filter

import (
	"bytes"
	"regexp"
)

// predicate is a property of a single value.
type predicate interface {
	// holds spends what takes more than looking at the node. It returns false when the
	// meter is short.
	holds(n *node, m *meter) bool
	needs() jsonKind // the only kind it can hold of; anyKind: depends
}

// oneOf holds of a value that equals one of a list, in a time that does not depend on
// how many strings and numbers are in it.
type oneOf struct {
	texts   map[string]bool
	few     []literal           // numbers, up to fewNumbers
	numbers map[string]bool     // all of them by decimal.appendKey, when they are more
	longest int                 // of the texts and the numbers' keys
	others  []literal           // all else
	work    [objectKind + 1]int // how often a value of each kind is looked through, at most
}

// fewNumbers are compared one by one, which is faster.
const fewNumbers = 8

func newOneOf(values ...literal) *oneOf {
	o := &oneOf{texts: map[string]bool{}, numbers: map[string]bool{}}
	for _, v := range values {
		o.add(v)
	}
	return o
}

func (o *oneOf) add(v literal) {
	switch v.kind {
	case stringKind:
		o.texts[string(v.text)] = true
		o.longest = max(o.longest, len(v.text))
		return
	case numberKind:
		o.addNumber(v)
		return
	}
	o.others = append(o.others, v)
	o.work[v.kind] += v.levels()
}

func (o *oneOf) addNumber(v literal) {
	if len(o.numbers) == 0 && len(o.few) < fewNumbers {
		o.few, o.work[numberKind] = append(o.few, v), 1
		return
	}
	var room [64]byte // for the usual number of digits
	for _, v := range append(o.few, v) {
		key := v.number.appendKey(room[:0])
		o.numbers[string(key)] = true
		o.longest = max(o.longest, len(key))
	}
	o.few, o.work[numberKind] = nil, 0
}

func (o *oneOf) holds(n *node, m *meter) bool {
	switch n.kind {
	case stringKind:
		return len(n.text) <= o.longest && o.texts[string(n.text)]
	case numberKind:
		const usual = 40
		if digits := len(n.number.whole) + len(n.number.fraction); len(o.numbers) > 0 && n.exact && digits <= o.longest &&
			o.numbers[string(n.number.appendKey(make([]byte, 0, usual)))] {
			return true
		}
	}
	if !m.spend((len(o.others)+len(o.few))/bytesPerUnit + o.work[n.kind]*(1+len(n.raw)/bytesPerUnit)) {
		return false
	}
	for _, list := range [...][]literal{o.few, o.others} {
		for i := range list {
			if list[i].equal(n) {
				return true
			}
		}
	}
	return false
}

func (o *oneOf) needs() jsonKind { return anyKind }

// comparison holds of a number that stands so to another.
type comparison struct {
	operator string // $gt, $gte, $lt, $lte
	limit    decimal
}

func (c *comparison) holds(n *node, m *meter) bool {
	if n.kind != numberKind || !n.exact || !m.spend(len(n.raw)/bytesPerUnit) {
		return false
	}
	order := n.number.compare(c.limit)
	switch c.operator {
	case "$gt":
		return order > 0
	case "$gte":
		return order >= 0
	case "$lt":
		return order < 0
	case "$lte":
		return order <= 0
	}
	return false
}

func (c *comparison) needs() jsonKind { return numberKind }

// prefix holds of a string that begins so.
type prefix struct{ text []byte }

func (p *prefix) holds(n *node, _ *meter) bool {
	return n.kind == stringKind && bytes.HasPrefix(n.text, p.text)
}

func (p *prefix) needs() jsonKind { return stringKind }

// pattern holds of a string in which a regular expression finds something.
type pattern struct {
	source     string
	program    int // instructions
	expression *regexp.Regexp
}

func (p *pattern) holds(n *node, m *meter) bool {
	const start = 8 // bytes of text that starting takes as long as
	return n.kind == stringKind && m.spend(p.program*(start+len(n.text))) && p.expression.Match(n.text)
}

func (p *pattern) needs() jsonKind { return stringKind }
