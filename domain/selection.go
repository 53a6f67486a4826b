package domain

import (
	"fmt"
	"strings"

	"github.com/medilab/webhooks/domain/filter"
	"github.com/medilab/webhooks/domain/strictjson"
)

// Selection is the parts of event_data that a webhook is sent, compiled from its fields. Nil
// selects all. It is immutable and safe for concurrent use.
//
// A dot of a path descends, and a key that holds the dots itself is taken too. Paths that
// overlap are their union. What is kept keeps its bytes, its order and its nesting; an object
// or array of which nothing is kept is left out. A path through an array takes its part of each
// element; an object without the part stays as {}, so that the others keep their index among
// the objects.
type Selection struct {
	whole map[string]bool       // what is left of paths, as one key
	below map[string]*Selection // by the first key of paths with dots
}

// NewSelection returns the selection of the paths, nil for none.
func NewSelection(paths []string) *Selection {
	if len(paths) == 0 {
		return nil
	}
	s := &Selection{whole: map[string]bool{}, below: map[string]*Selection{}}
	further := map[string][]string{}
	for _, path := range paths {
		s.whole[path] = true
		if head, rest, ok := strings.Cut(path, "."); ok {
			further[head] = append(further[head], rest)
		}
	}
	for head, rests := range further {
		s.below[head] = NewSelection(rests)
	}
	return s
}

// Of returns the selected parts of data, an object that has passed CheckJSON; {} if it has none
// of them.
func (s *Selection) Of(data []byte) []byte {
	if s == nil {
		return data
	}
	if selected, some := s.value(nil, data, strictjson.SkipSpace(data, 0)); some {
		return selected
	}
	return []byte("{}")
}

// value appends the parts of the object or array at off, if it has some.
func (s *Selection) value(dst, data []byte, off int) (_ []byte, some bool) {
	switch {
	case off < len(data) && data[off] == '{':
		return s.object(dst, data, off)
	case off < len(data) && data[off] == '[':
		return s.array(dst, data, off)
	}
	return dst, false
}

func (s *Selection) object(dst, data []byte, off int) (_ []byte, some bool) {
	begin := len(dst)
	dst = append(dst, '{')
	for m := range strictjson.Members(data, off) {
		key, before := m.Key(), len(dst)
		below, kept := s.below[string(key)], s.whole[string(key)]
		if !kept && below == nil {
			continue
		}
		if some {
			dst = append(dst, ',')
		}
		dst = append(append(dst, m.Name()...), ':')
		if kept {
			dst = append(dst, data[m.Off:m.End]...)
		} else if dst, kept = below.value(dst, data, m.Off); !kept {
			dst = dst[:before]
		}
		some = some || kept
	}
	if !some {
		return dst[:begin], false
	}
	return append(dst, '}'), true
}

func (s *Selection) array(dst, data []byte, off int) (_ []byte, some bool) {
	begin := len(dst)
	dst = append(dst, '[')
	for m := range strictjson.Members(data, off) {
		if data[m.Off] != '{' && data[m.Off] != '[' {
			continue
		}
		if len(dst) > begin+1 {
			dst = append(dst, ',')
		}
		var kept bool
		if dst, kept = s.value(dst, data, m.Off); !kept {
			dst = append(dst, data[m.Off], data[m.Off]+2) // in ASCII, } and ] stand two after { and [
		}
		some = some || kept
	}
	if !some {
		return dst[:begin], false
	}
	return append(dst, ']'), true
}

// MaxFields is how many paths a webhook may select.
const MaxFields = 100

// checkPaths returns which of the paths cannot be selected.
func checkPaths(field string, paths []string) (refused []FieldError) {
	const longest = 1000
	if len(paths) == 0 || len(paths) > MaxFields {
		return []FieldError{{Field: field, Message: fmt.Sprintf("must have 1 to %d paths", MaxFields)}}
	}
	for i, path := range paths {
		problem := filter.CheckParts(path)
		if path == "" || len(path) > longest {
			problem = fmt.Sprintf("must have 1 to %d bytes", longest)
		}
		if problem != "" {
			refused = append(refused, FieldError{Field: fmt.Sprintf("%s[%d]", field, i), Message: problem})
		}
	}
	return refused
}
