package domain

import "slices"

// shortlist finds, of many webhooks that ask for an event type, those whose filters the
// event can satisfy at all. Most filters name a value that the event must have, such as a
// department: those that name another are not looked at. It decides nothing: whoever is on
// it is still asked, and who is not would say no.
type shortlist struct {
	always []int32 // places of those whose filters name no value
	paths  []*namedPath
	event  uint64 // counts events
	found  []int32
}

// namedPath is who names which value at one path.
type namedPath struct {
	path    string
	longest int // of the values' keys
	values  map[string]*namedValue
}

// namedValue is who names one value.
type namedValue struct {
	places []int32 // ascending
	event  uint64  // the last event that had it
}

const (
	// fewFilters are asked one by one, which is faster.
	fewFilters = 32
	// manyValues of one condition are too many to keep: it counts as naming none.
	manyValues = 64
)

// value is a value at a path that a filter names.
type value struct{ path, key string }

// newShortlist makes the list for the candidates; nil: all are to be asked.
func newShortlist(candidates []*registered) *shortlist {
	if len(candidates) <= fewFilters {
		return nil
	}
	options := make([][][]value, len(candidates))
	names := map[value]int{} // how many name it
	for i, w := range candidates {
		options[i] = w.filter.named()
		for _, option := range options[i] {
			for _, v := range option {
				names[v]++
			}
		}
	}
	s := new(shortlist)
	paths := map[string]*namedPath{}
	for i := range candidates {
		if len(options[i]) == 0 {
			s.always = append(s.always, int32(i))
			continue
		}
		// The values that the fewest name tell the most.
		rarest := slices.MinFunc(options[i], func(a, b []value) int { return sum(names, a) - sum(names, b) })
		for _, v := range rarest {
			p := paths[v.path]
			if p == nil {
				p = &namedPath{path: v.path, values: map[string]*namedValue{}}
				paths[v.path], s.paths = p, append(s.paths, p)
			}
			p.add(v.key, int32(i))
		}
	}
	return s
}

func sum(names map[value]int, values []value) (n int) {
	for _, v := range values {
		n += names[v]
	}
	return n
}

func (p *namedPath) add(key string, place int32) {
	p.longest = max(p.longest, len(key))
	v := p.values[key]
	if v == nil {
		v = new(namedValue)
		p.values[key] = v
	}
	v.places = append(v.places, place)
}

// of gives the places of those that may match the event, ascending, until the next call.
func (s *shortlist) of(doc *Doc) []int32 {
	s.event++
	s.found = s.found[:0]
	if doc.readable() {
		var room [64]byte
		key := room[:0]
		for _, p := range s.paths {
			// No filter looks through more, and whose look is shorter says so itself.
			doc.at(p.path, maxFilterWork).anyCandidate(func(n *node) bool {
				if key = n.appendKey(key[:0], p.longest); len(key) == 0 {
					return false
				}
				if v := p.values[string(key)]; v != nil && v.event != s.event {
					v.event = s.event
					s.found = append(s.found, v.places...)
				}
				return false
			})
		}
	}
	if len(s.found) == 0 {
		return s.always
	}
	s.found = append(s.found, s.always...)
	slices.Sort(s.found)
	s.found = slices.Compact(s.found) // who names several of the event's values
	return s.found
}

// named gives what the filter names: of each of these lists, the event must have one of
// the values for the filter to match. None: it can match whatever the event has.
func (f *Filter) named() (options [][]value) {
	if f == nil {
		return nil
	}
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
		if ok && len(values) <= manyValues {
			options = append(options, values)
		}
	}
	return options
}

// namedByEach gives what the alternatives of a $or name together; false: one names nothing.
func namedByEach(alternatives []*Filter) (values []value, ok bool) {
	for _, f := range alternatives {
		options := f.named()
		if len(options) == 0 || len(values) > manyValues {
			return nil, false
		}
		values = append(values, slices.MinFunc(options, func(a, b []value) int { return len(a) - len(b) })...)
	}
	return values, true
}

// named gives values of which one must be at the path for the test to hold; false: it
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
	if len(o.texts)+len(o.numbers)+len(o.others) > manyValues {
		return nil, false
	}
	for text := range o.texts {
		values = append(values, value{path, string(stringKey) + text})
	}
	for number := range o.numbers {
		values = append(values, value{path, string(numberKey) + number})
	}
	for i := range o.others {
		key := o.others[i].appendKey(nil, maxFilterBytes)
		if len(key) == 0 {
			return nil, false // an array or an object, which the event may write in many ways
		}
		values = append(values, value{path, string(key)})
	}
	return values, true
}

// What a key begins with: values of different types are different.
const (
	nullKey   = 'n'
	boolKey   = 'b'
	numberKey = '0'
	stringKey = '"'
)

// appendKey appends what equal values have in common and others have not, when it is not
// longer than most; nothing of what is no plain value, or equals nothing.
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
