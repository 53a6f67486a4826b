package strictjson

import (
	"bytes"
	"fmt"
	"iter"

	"github.com/go-json-experiment/json/jsontext"
)

// The readers are for data that has passed Check: values are skipped, not checked. Of
// other data they return an Error or something, and never panic.

// Fields calls yield with the fields of the object in data, in their order. raw is the
// exact bytes of a value, inner white space included, and shares data's memory; key is
// unescaped. It stops at yield's first error and returns it. When data is not an object,
// it returns an Error.
func Fields(data []byte, yield func(key string, raw []byte) error) error {
	return each(data, '{', "object", func(_ int, m Member) error {
		return yield(string(m.Key()), data[m.Off:m.End])
	})
}

// Elements calls yield with the elements of the array in data, as Fields does with the
// fields of an object.
func Elements(data []byte, yield func(index int, raw []byte) error) error {
	return each(data, '[', "array", func(index int, m Member) error {
		return yield(index, data[m.Off:m.End])
	})
}

func each(data []byte, opening byte, what string, yield func(index int, m Member) error) error {
	begin := SkipSpace(data, 0)
	if begin == len(data) || data[begin] != opening {
		message := "the JSON is not an " + what
		return Error{message, message}
	}
	var err error
	index := 0
	stopped := walk(data, begin, func(m Member) bool {
		err = yield(index, m)
		index++
		return err == nil
	})
	if err == nil && stopped >= 0 {
		message := fmt.Sprintf("the JSON %s cannot be read at byte %d", what, stopped)
		err = Error{message, message}
	}
	return err
}

// Member is a member of an object, or an element of an array: its place in the data.
type Member struct {
	Off, End int    // of the value
	name     []byte // in quotes, as it was written
}

// Key returns the unescaped name of an object's member, which may share the data's memory.
func (m Member) Key() []byte { return unquoted(m.name) }

// Name returns the name of an object's member in quotes, as it was written.
func (m Member) Name() []byte { return m.name }

// Members iterates over the members of the object, or the elements of the array, that
// begins at off. In data that has not passed Check it may end early.
func Members(data []byte, off int) iter.Seq[Member] {
	return func(yield func(Member) bool) { walk(data, off, yield) }
}

// walk is Members, and returns the offset at which the data could not be read, or -1.
func walk(data []byte, off int, yield func(Member) bool) (stopped int) {
	end, ok := Visit(data, off, func(m Member) int {
		if m.End = SkipValue(data, m.Off); m.End > m.Off && !yield(m) {
			return -1
		}
		return m.End
	})
	if ok || end < 0 {
		return -1
	}
	return end
}

// Visit is Members for who goes into the values, so that none is read twice: visit gets members
// without their end and returns it, or -1 to stop. It returns the offset after the object or
// array and true, else that at which the data could not be read, or -1.
func Visit(data []byte, off int, visit func(Member) (end int)) (end int, ok bool) {
	closing := data[off] + 2 // in ASCII, } and ] stand two after { and [
	i := SkipSpace(data, off+1)
	if i < len(data) && data[i] == closing {
		return i + 1, true
	}
	for {
		m, ok := memberAt(data, i, closing == '}')
		if !ok {
			return i, false
		}
		end := visit(m)
		if end <= m.Off {
			return min(i, end), false
		}
		if i = SkipSpace(data, end); i == len(data) {
			return i, false
		}
		if data[i] != ',' {
			if data[i] == closing {
				return i + 1, true
			}
			return i, false
		}
		i = SkipSpace(data, i+1)
	}
}

// memberAt returns the member at i, without its end.
func memberAt(data []byte, i int, named bool) (m Member, ok bool) {
	if named {
		if i == len(data) || data[i] != '"' {
			return m, false
		}
		end := stringEnd(data, i+1)
		if end == 0 {
			return m, false
		}
		m.name = data[i:end]
		if i = SkipSpace(data, end); i == len(data) || data[i] != ':' {
			return m, false
		}
		i = SkipSpace(data, i+1)
	}
	m.Off = i
	return m, i < len(data)
}

// SkipValue returns the offset after the value at i; i itself when there is none.
func SkipValue(data []byte, i int) int {
	begin, depth := i, 0
	for i < len(data) {
		switch data[i] {
		case '"':
			if i = stringEnd(data, i+1); i == 0 {
				return begin
			}
		case '{', '[':
			depth++
			i++
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
			i++
		case ',', ' ', '\n', '\r', '\t':
			if depth == 0 {
				return i
			}
			i++
			continue
		default:
			i++
			continue // within a number or a word
		}
		if depth == 0 {
			return i
		}
	}
	if depth > 0 {
		return begin
	}
	return i
}

// Text returns the text of raw, a JSON string, and reports whether it is one. Without
// escapes the text shares raw's memory.
func Text(raw []byte) (text []byte, ok bool) {
	if len(raw) < 2 || raw[0] != '"' || raw[len(raw)-1] != '"' {
		return nil, false
	}
	return unquoted(raw), true
}

// unquoted returns the text of a string in quotes: a part of it when there are no escapes.
func unquoted(quoted []byte) []byte {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return quoted[1 : len(quoted)-1]
	}
	return unquote(nil, quoted)
}

func unquote(dst, quoted []byte) []byte {
	dst, _ = jsontext.AppendUnquote(dst, quoted) // what has passed Check has no error
	return dst
}
