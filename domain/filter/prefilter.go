package filter

import (
	"iter"
	"math/bits"
	"slices"
)

// prefilter finds, of many filters, those that an event can satisfy. Most name a value
// that the event must have, such as a department. It never changes. The filters that it
// finds are still evaluated; others cannot match.
type prefilter struct {
	always bitset // filters that name no value
	paths  []*namedPath
}

// namedPath holds which filters name which value at one path.
type namedPath struct {
	path    string
	all     bitset
	longest int               // of the values' keys
	values  map[string]bitset // by key
}

const (
	// fewFilters are evaluated one by one on small events, which is faster.
	fewFilters = 32
	smallEvent = 2 << 10
	// manyValues of one filter are too many to index: further conditions count as naming
	// none.
	manyValues = 64
)

// value is a value at a path that a filter names.
type value struct{ path, key string }

// newPrefilter indexes the filters.
func newPrefilter(filters []*Filter) *prefilter {
	names := map[value]int{} // how many name it
	for _, f := range filters {
		for _, option := range f.options() {
			for _, v := range option {
				names[v]++
			}
		}
	}
	p := &prefilter{always: newBitset(len(filters))}
	paths := map[string]*namedPath{}
	for i, f := range filters {
		if len(f.options()) == 0 {
			p.always.add(i)
			continue
		}
		// The values that the fewest name exclude the most.
		rarest := slices.MinFunc(f.options(), func(a, b []value) int { return sum(names, a) - sum(names, b) })
		for _, v := range rarest {
			at := paths[v.path]
			if at == nil {
				at = &namedPath{path: v.path, all: newBitset(len(filters)), values: map[string]bitset{}}
				paths[v.path], p.paths = at, append(p.paths, at)
			}
			if at.values[v.key] == nil {
				at.values[v.key] = newBitset(len(filters))
			}
			at.all.add(i)
			at.values[v.key].add(i)
			at.longest = max(at.longest, len(v.key))
		}
	}
	return p
}

func sum(names map[value]int, values []value) (n int) {
	for _, v := range values {
		n += names[v]
	}
	return n
}

// possible returns the filters that may match the event, in room if it suffices. Looking
// at a path beyond a small allowance is paid from the budget; when that does not suffice,
// all filters that name the path are possible.
func (p *prefilter) possible(doc *Doc, room bitset, budget *int) bitset {
	found := append(room[:0], p.always...)
	if !doc.readable() {
		return found
	}
	var buffer [64]byte
	key := buffer[:0]
	for _, path := range p.paths {
		m := meter{left: pathWork + 2*len(path.values) + *budget}
		// No filter looks through more, and one that looks through less says so itself.
		values, ok := doc.at(path.path, maxFilterWork, &m)
		switch {
		case !ok || len(values.nodes) == 0:
		case len(values.nodes) == 1 && values.nodes[0].kind != arrayKind:
			if key = values.nodes[0].appendKey(key[:0], path.longest); len(key) > 0 {
				found.addAll(path.values[string(key)])
			}
		case values.countKeys(&m) && m.spend(len(path.values)):
			for key, filters := range path.values {
				if values.keys[key] {
					found.addAll(filters)
				}
			}
		}
		if m.short {
			found.addAll(path.all)
		}
		*budget = min(*budget, m.left)
	}
	return found
}

// countKeys notes the keys of all candidates, unless the meter is short.
func (f *found) countKeys(m *meter) bool {
	if f.keys != nil {
		return true
	}
	keys := map[string]bool{}
	var key []byte
	half := meter{left: 2 * m.left} // noting a key takes half as long as a comparison
	f.anyCandidate(func(n *node, m *meter) bool {
		if key = n.appendKey(key[:0], maxFilterBytes); len(key) > 0 && !keys[string(key)] && m.spend(keyWork) {
			keys[string(key)] = true
		}
		return m.short
	}, &half)
	if m.left, m.short = half.left/2, half.short; m.short {
		return false
	}
	f.keys = keys
	return true
}

// keyWork is twice the work of noting a key.
const keyWork = 16

// bitset is a set of small integers.
type bitset []uint64

// newBitset returns an empty set of integers below n.
func newBitset(n int) bitset { return make(bitset, (n+63)/64) }

func (b bitset) add(i int) { b[i/64] |= 1 << (i % 64) }

// addAll adds a set of the same size, or none.
func (b bitset) addAll(other bitset) {
	for i, word := range other {
		b[i] |= word
	}
}

// all returns the integers in ascending order.
func (b bitset) all() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i, word := range b {
			for ; word != 0; word &= word - 1 {
				if !yield(i*64 + bits.TrailingZeros64(word)) {
					return
				}
			}
		}
	}
}

// options returns what namedValues found.
func (f *Filter) options() [][]value {
	if f == nil {
		return nil
	}
	return f.named
}

// namedValues returns what the filter names: of each of these lists, the event must have
// one of the values for the filter to match. Without lists it can match any event.
func (f *Filter) namedValues() (options [][]value) {
	left := manyValues
	for i := range f.conditions {
		c := &f.conditions[i]
		var values []value
		ok := false
		switch {
		case c.or != nil:
			values, ok = namedByEach(c.or)
		case c.limit == nil:
			values, ok = c.test.named(c.field)
		}
		if ok && len(values) <= left {
			options, left = append(options, values), left-len(values)
		}
	}
	return options
}

// namedByEach returns what the alternatives of a $or name together; false if one names nothing.
func namedByEach(alternatives []*Filter) (values []value, ok bool) {
	for _, f := range alternatives {
		options := f.namedValues()
		if len(options) == 0 || len(values) > manyValues {
			return nil, false
		}
		values = append(values, slices.MinFunc(options, func(a, b []value) int { return len(a) - len(b) })...)
	}
	return values, true
}

// named returns values of which one must be at the path for the test to hold; false if it
// holds of others too.
func (t *valueTest) named(path string) (values []value, ok bool) {
	for _, p := range t.every {
		if one, is := p.(*oneOf); is {
			if values, ok = one.named(path); ok {
				return values, true
			}
		}
	}
	if len(t.either) == 0 {
		return nil, false
	}
	for _, alternative := range t.either {
		more, ok := alternative.named(path)
		if !ok || len(values) > manyValues {
			return nil, false
		}
		values = append(values, more...)
	}
	return values, true
}

func (o *oneOf) named(path string) (values []value, ok bool) {
	if len(o.texts)+len(o.numbers)+len(o.few)+len(o.others) > manyValues {
		return nil, false
	}
	for text := range o.texts {
		values = append(values, value{path, string(stringKey) + text})
	}
	for number := range o.numbers {
		values = append(values, value{path, string(numberKey) + number})
	}
	for _, l := range slices.Concat(o.others, o.few) {
		key := l.appendKey(nil, maxFilterBytes)
		if len(key) == 0 {
			return nil, false // an array or an object, which the event may write in many ways
		}
		values = append(values, value{path, string(key)})
	}
	return values, true
}

// What a key begins with, so that values of different types differ.
const (
	nullKey   = 'n'
	boolKey   = 'b'
	numberKey = '0'
	stringKey = '"'
)

// appendKey appends a key that equal values share and others do not, unless it is longer
// than most. Arrays, objects and numbers that cannot be compared have no key.
func (n *node) appendKey(dst []byte, most int) []byte {
	switch n.kind {
	case nullKind:
		return append(dst, nullKey)
	case boolKind:
		return append(dst, boolKey, n.raw[0])
	case numberKind:
		if n.exact && len(n.number.whole)+len(n.number.fraction) < most {
			return n.number.appendKey(append(dst, numberKey))
		}
	case stringKind:
		if len(n.text) < most {
			return append(append(dst, stringKey), n.text...)
		}
	}
	return dst
}
