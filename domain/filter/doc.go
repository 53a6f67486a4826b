package filter

import (
	"strings"

	"github.com/medilab/webhooks/domain/strictjson"
)

// Doc is an event's data, taken apart no further than the filters ask, and each path once
// for all of them. It is for one goroutine.
type Doc struct {
	data        []byte
	state       docState
	found       map[string]*found
	expressions map[expression]bool     // whether they were found
	indexes     map[int]map[string]span // of larger objects, by their offset in data
	root        int                     // the offset of the object that all of it is
	looks       int                     // at keys of it
	room        []found                 // for the next paths
	large       *found                  // the last that was too large, which many paths may share
	meter       meter                   // of one filter at a time, see Match
	looking     int                     // what first looks at paths may cost all filters together
}

type docState uint8

const (
	docUnread docState = iota
	docReadable
	docUnreadable
)

// expression is a regular expression that is looked for at a path.
type expression struct{ path, source string }

// Parse prepares event data for matching: the exact bytes of a JSON object. Nothing is
// copied, so they must not change. It reads nothing yet: an event whose webhooks have no
// filters costs nothing.
func Parse(eventData []byte) *Doc { return &Doc{data: eventData} }

// readable checks the data once: an object by the rules of strictjson, so no key is ambiguous.
func (d *Doc) readable() bool {
	if d.state == docUnread {
		d.state = docUnreadable
		begin := strictjson.SkipSpace(d.data, 0)
		if begin < len(d.data) && d.data[begin] == '{' && strictjson.Check(d.data) == nil {
			d.state, d.root = docReadable, begin
			d.found = make(map[string]*found)
		}
	}
	return d.state == docReadable
}

// span is where a value is in the data.
type span struct{ off, end int }

// maxPathValues bounds what one path through arrays is compared with.
const maxPathValues = 10_000

// found is what an event has at a path.
type found struct {
	nodes    []node // none: missing; several when the path led through an array
	tooMany  bool
	tooLarge bool // size would be beyond limit
	size     int  // bytes of the arrays that the path leads through, and of what is no string at its end
	limit    int  // up to which size was looked
	needs    int  // when tooLarge: a smaller limit finds no more
	deep     int  // bytes of arrays and objects at its end
	pass     int  // the work of looking at every candidate once

	counted   bool // the next two are known
	textBytes int  // of all strings among the candidates
	texts     int  // how many strings there are
	unclear   tristate
	keys      map[string]bool // of all candidates; nil: not known
	one       [1]node         // room for the usual number of nodes
}

type tristate int8

const (
	unknown tristate = iota
	yes
	no
)

// What most events have at most paths, and what is larger than a filter's bounds. They
// never change.
var (
	nothing      = &found{counted: true, unclear: no}
	beyondBounds = &found{counted: true, unclear: no, tooLarge: true}
)

// The work of a condition, of finding what is known of its path, of looking at one value
// there, of reading an element of an array there, and how many bytes of it add a unit.
const (
	conditionWork = 16
	pathWork      = 12
	nodeWork      = 4
	elementWork   = 12
	bytesPerUnit  = 4
)

func (f *found) missing() bool { return len(f.nodes) == 0 && !f.tooMany && !f.tooLarge }

// through counts what is looked through, and reports whether it is within the limit.
func (f *found) through(bytes int) bool {
	if f.size+bytes > f.limit {
		f.nodes, f.tooLarge, f.needs = nil, true, f.size+bytes
		return false
	}
	f.size += bytes
	return true
}

// add notes a value at the end of the path.
func (f *found) add(raw []byte) {
	if len(f.nodes) == maxPathValues {
		f.nodes, f.tooMany = nil, true
		return
	}
	n := newNode(raw)
	f.nodes = append(f.nodes, n)
	if n.kind == arrayKind || n.kind == objectKind || n.kind == numberKind { // of any length
		if !f.through(len(raw)) {
			return
		}
	}
	if n.kind == arrayKind || n.kind == objectKind {
		f.deep += len(raw)
	}
	f.pass += nodeWork
	if n.kind == arrayKind {
		f.pass += len(raw) / bytesPerUnit
		for range strictjson.Members(raw, 0) {
			f.pass += elementWork
		}
	}
}

// countTexts counts the strings among the candidates, unless the meter is short.
func (f *found) countTexts(m *meter) bool {
	if f.counted {
		return true
	}
	f.textBytes, f.texts = 0, 0
	f.anyCandidate(func(n *node, _ *meter) bool {
		if n.kind == stringKind {
			f.textBytes += len(n.text)
			f.texts++
		}
		return false
	}, m)
	f.counted = !m.short
	return f.counted
}

// isUnclear reports whether a candidate has a number that cannot be compared, or the meter
// is too short to know.
func (f *found) isUnclear(m *meter) bool {
	if f.unclear != unknown {
		return f.unclear == yes
	}
	if !m.spend(f.deep) {
		return true
	}
	f.unclear = no
	for i := range f.nodes { // with all elements
		switch n := &f.nodes[i]; n.kind {
		case numberKind:
			if !n.exact {
				f.unclear = yes
			}
		case arrayKind, objectKind:
			if n.unclear() {
				f.unclear = yes
			}
		}
	}
	return f.unclear == yes
}

// anyCandidate reports whether holds is true of any value found or, where one is an
// array, of any of its elements. It ends when the meter is short, and does not begin when
// that could happen by looking at all of them: nothing would be gained by a part.
func (f *found) anyCandidate(holds func(*node, *meter) bool, m *meter) bool {
	if f.pass > m.left {
		m.short = true
		return false
	}
	for i := range f.nodes {
		n := &f.nodes[i]
		if !m.spend(nodeWork) || holds(n, m) {
			return !m.short
		}
		if n.kind != arrayKind {
			continue
		}
		var element node // one for all, as holds makes it escape
		for _, raw := range elements(n.raw) {
			if !m.spend(elementWork + len(raw)/bytesPerUnit) {
				return false
			}
			if element = newNode(raw); holds(&element, m) {
				return true
			}
		}
	}
	return false
}

// at looks a path up, once, through at most so many bytes: beyond them it is too large,
// which depends on the event and the filter alone. The first look is paid for; false means
// that the meter is short.
func (d *Doc) at(path string, size int, m *meter) (*found, bool) {
	if !m.spend(pathWork) {
		return nothing, false
	}
	f, known := d.found[path]
	if known && (size <= f.limit || !f.tooLarge) {
		if f.tooLarge || f.size > size {
			return beyondBounds, true
		}
		return f, true
	}
	parts := strings.Count(path, ".") + 1 // each may read all that is looked through
	limit := min(size, max(m.left, d.looking)/parts)
	if known && limit < size && limit < f.needs {
		m.short = true
		return f, false
	}
	if !known || limit > f.limit {
		f = d.look(path, limit)
		if work := parts * f.size; work <= d.looking {
			d.looking -= work
		} else {
			m.spend(work)
		}
	}
	if f.tooLarge && limit < size {
		m.short = true
		return f, false
	}
	return f, true
}

func (d *Doc) look(path string, limit int) *found {
	const usual, many = 2, 64
	if len(d.room) == 0 {
		d.room = make([]found, min(many, max(usual, len(d.found))))
	}
	f := &d.room[0]
	*f = found{limit: limit}
	f.nodes = f.one[:0]
	d.descend(span{d.root, len(d.data)}, path, f)
	switch {
	case f.size == 0 && f.missing():
		f = nothing
	case f.tooLarge && d.large != nil && d.large.limit == limit && d.large.needs == f.needs && d.large.size == f.size:
		f = d.large
	default:
		d.room = d.room[1:]
		if f.tooLarge {
			d.large = f
		}
	}
	d.found[path] = f
	return f
}

func (d *Doc) descend(s span, path string, f *found) {
	switch d.data[s.off] {
	case '{':
		once := f.size > 0 // within an array, of which each object is looked at
		if value, ok := d.lookup(s, path, once); ok {
			f.add(d.data[value.off:value.end])
			return
		}
		if head, rest, ok := strings.Cut(path, "."); ok {
			if value, ok := d.lookup(s, head, once); ok {
				d.descend(value, rest, f)
			}
		}
	case '[':
		if !f.through(s.end - s.off) {
			return
		}
		for at := range strictjson.Members(d.data, s.off) {
			if d.data[at.Off] == '{' {
				d.descend(span{at.Off, at.End}, path, f)
			}
			if f.tooMany || f.tooLarge {
				return
			}
		}
	}
}

// lookup finds a key of the object at s. A small object is read through, as is one that is
// looked at once; of a larger one, and of one that is looked at often, an index is made.
func (d *Doc) lookup(s span, key string, once bool) (span, bool) {
	const small, often = 1024, 20
	if s.off == d.root {
		d.looks++
	}
	if once || s.end-s.off <= small && (s.off != d.root || d.looks <= often) {
		for m := range strictjson.Members(d.data, s.off) {
			if string(m.Key()) == key {
				return span{m.Off, m.End}, true
			}
		}
		return span{}, false
	}
	index, ok := d.indexes[s.off]
	if !ok {
		index = make(map[string]span)
		for m := range strictjson.Members(d.data, s.off) {
			index[string(m.Key())] = span{m.Off, m.End}
		}
		if d.indexes == nil {
			d.indexes = make(map[int]map[string]span)
		}
		d.indexes[s.off] = index
	}
	value, ok := index[key]
	return value, ok
}
