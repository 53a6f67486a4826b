package filter

import (
	"bytes"
	"iter"

	"github.com/medilab/webhooks/domain/strictjson"
)

// elements iterates over the elements of an array's bytes.
func elements(raw []byte) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		i := 0
		for m := range strictjson.Members(raw, 0) {
			if !yield(i, raw[m.Off:m.End]) {
				return
			}
			i++
		}
	}
}

// jsonKind is the type of a JSON value.
type jsonKind uint8

const (
	anyKind jsonKind = iota
	nullKind
	boolKind
	numberKind
	stringKind
	arrayKind
	objectKind
)

// String is the kind's name for a message.
func (k jsonKind) String() string {
	return [...]string{"value", "null", "boolean", "number", "string", "array", "object"}[k]
}

func kindOf(raw []byte) jsonKind {
	switch raw[0] {
	case 'n':
		return nullKind
	case 't', 'f':
		return boolKind
	case '"':
		return stringKind
	case '[':
		return arrayKind
	case '{':
		return objectKind
	}
	return numberKind
}

// node is a JSON value, ready to be compared.
type node struct {
	kind   jsonKind
	raw    []byte
	text   []byte  // of a string
	number decimal // of a number
	exact  bool    // number can be compared
}

// newNode reads one value, which has passed strictjson.Check.
func newNode(raw []byte) node {
	n := node{kind: kindOf(raw), raw: raw}
	switch n.kind {
	case stringKind:
		n.text, _ = strictjson.Text(raw)
	case numberKind:
		n.number, n.exact = parseDecimal(raw)
	}
	return n
}

// unclear reports a number, within the value too, whose exponent is too long to compare:
// it equals nothing, and that it differs is not known either. One pass, whatever nests.
func (n *node) unclear() bool {
	for i := 0; i < len(n.raw); {
		switch c := n.raw[i]; {
		case c == '"':
			i = strictjson.SkipValue(n.raw, i)
		case c == '-' || c >= '0' && c <= '9':
			end := strictjson.SkipValue(n.raw, i)
			if _, exact := parseDecimal(n.raw[i:end]); !exact {
				return true
			}
			i = end
		default:
			i++
		}
	}
	return false
}

// literal is a value that a filter names, taken apart as far as comparing needs.
type literal struct {
	node
	items  []literal          // of an array
	fields map[string]literal // of an object
}

// levels returns how many levels of a value equal looks through.
func (l *literal) levels() int {
	deepest := 0
	for i := range l.items {
		deepest = max(deepest, l.items[i].levels())
	}
	for _, field := range l.fields {
		deepest = max(deepest, field.levels())
	}
	return 1 + deepest
}

// equal is JSON equality by type: numbers by value, objects whatever the order of keys.
func (l *literal) equal(n *node) bool {
	if l.kind != n.kind {
		return false
	}
	switch l.kind {
	case boolKind:
		return l.raw[0] == n.raw[0]
	case numberKind:
		return l.exact && n.exact && l.number.compare(n.number) == 0
	case stringKind:
		return bytes.Equal(l.text, n.text)
	case arrayKind:
		return l.equalItems(n.raw)
	case objectKind:
		return l.equalFields(n.raw)
	}
	return true // null
}

func (l *literal) equalItems(raw []byte) bool {
	count := 0
	for i, element := range elements(raw) {
		if i == len(l.items) {
			return false
		}
		if n := newNode(element); !l.items[i].equal(&n) {
			return false
		}
		count++
	}
	return count == len(l.items)
}

func (l *literal) equalFields(raw []byte) bool {
	count := 0
	for m := range strictjson.Members(raw, 0) {
		want, ok := l.fields[string(m.Key())]
		if !ok {
			return false
		}
		if n := newNode(raw[m.Off:m.End]); !want.equal(&n) {
			return false
		}
		count++
	}
	return count == len(l.fields)
}
