package domain

import (
	"bytes"
	"regexp"
)

// predicate is a property of a single value.
type predicate interface {
	holds(n *node) bool
	needs() jsonKind // the only kind it can hold of; anyKind: depends
}

// oneOf holds of a value that equals one of a list.
type oneOf struct {
	texts  map[string]bool
	others []literal // what is no string
}

func newOneOf(values []literal) *oneOf {
	o := new(oneOf)
	for _, v := range values {
		if v.kind != stringKind {
			o.others = append(o.others, v)
			continue
		}
		if o.texts == nil {
			o.texts = make(map[string]bool, len(values))
		}
		o.texts[string(v.text)] = true
	}
	return o
}

func (o *oneOf) holds(n *node) bool {
	if n.kind == stringKind {
		return o.texts[string(n.text)]
	}
	for i := range o.others {
		if o.others[i].equal(n) {
			return true
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

func (c *comparison) holds(n *node) bool {
	if n.kind != numberKind || !n.exact {
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

func (p *prefix) holds(n *node) bool { return n.kind == stringKind && bytes.HasPrefix(n.text, p.text) }

func (p *prefix) needs() jsonKind { return stringKind }

// maxPatternText bounds the text that an expression is run over, and with the bound on
// expressions the time that one condition can take.
const maxPatternText = 16 << 10

// pattern holds of a string in which a regular expression finds something.
type pattern struct{ expression *regexp.Regexp }

func (p *pattern) holds(n *node) bool {
	return n.kind == stringKind && len(n.text) <= maxPatternText && p.expression.Match(n.text)
}

func (p *pattern) needs() jsonKind { return stringKind }
