package domain

import "fmt"

// ObjectFields takes the top-level object in data apart, in its order and without
// copying: raw is the exact bytes of a field's value, inner white space included, and
// shares data's memory; key has its escapes undone. It stops at yield's first error and
// returns it.
//
// data must have passed CheckJSON: values are skipped, not checked. Of other data it
// returns an error or yields something, and never panics. What is not an object is Malformed.
func ObjectFields(data []byte, yield func(key string, raw []byte) error) error {
	i := skipSpace(data, 0)
	if i == len(data) || data[i] != '{' {
		return Malformed("the JSON is not an object")
	}
	i = skipSpace(data, i+1)
	if i < len(data) && data[i] == '}' {
		return nil
	}
	for {
		m, ok := nextMember(data, i)
		if !ok {
			return Malformed(fmt.Sprintf("the JSON object cannot be read at byte %d", i))
		}
		if err := yield(string(m.key()), data[m.off:m.end]); err != nil {
			return err
		}
		i = skipSpace(data, m.end)
		if i < len(data) && data[i] == '}' {
			return nil
		}
		if i == len(data) || data[i] != ',' {
			return Malformed(fmt.Sprintf("the JSON object cannot be read at byte %d", i))
		}
		i = skipSpace(data, i+1)
	}
}

// ArrayElements takes the top-level array in data apart, as ObjectFields does objects.
func ArrayElements(data []byte, yield func(index int, raw []byte) error) error {
	i := skipSpace(data, 0)
	if i == len(data) || data[i] != '[' {
		return Malformed("the JSON is not an array")
	}
	i = skipSpace(data, i+1)
	if i < len(data) && data[i] == ']' {
		return nil
	}
	for index := 0; ; index++ {
		end := skipValue(data, i)
		if end == i {
			return Malformed(fmt.Sprintf("the JSON array cannot be read at byte %d", i))
		}
		if err := yield(index, data[i:end]); err != nil {
			return err
		}
		i = skipSpace(data, end)
		if i < len(data) && data[i] == ']' {
			return nil
		}
		if i == len(data) || data[i] != ',' {
			return Malformed(fmt.Sprintf("the JSON array cannot be read at byte %d", i))
		}
		i = skipSpace(data, i+1)
	}
}

// JSONText gives the text of raw, a JSON string that has passed CheckJSON; false when raw
// is no string.
func JSONText(raw []byte) (string, bool) {
	if len(raw) < 2 || raw[0] != '"' || raw[len(raw)-1] != '"' {
		return "", false
	}
	return string(unescaped(raw[1 : len(raw)-1])), true
}

// member is a key and a value in an object's bytes.
type member struct {
	name     []byte // between the quotes, escapes as they are
	off, end int    // of the value
}

func (m member) key() []byte { return unescaped(m.name) }

// unescaped is raw itself when it has no escapes.
func unescaped(raw []byte) []byte {
	for _, c := range raw {
		if c == '\\' {
			return appendUnescaped(nil, raw)
		}
	}
	return raw
}

// nextMember reads the key and value at i.
func nextMember(data []byte, i int) (member, bool) {
	if i >= len(data) || data[i] != '"' {
		return member{}, false
	}
	end := skipString(data, i+1)
	if end-1 <= i || data[end-1] != '"' {
		return member{}, false
	}
	m := member{name: data[i+1 : end-1]}
	i = skipSpace(data, end)
	if i == len(data) || data[i] != ':' {
		return member{}, false
	}
	m.off = skipSpace(data, i+1)
	m.end = skipValue(data, m.off)
	return m, m.end > m.off
}

// skipValue gives the end of the value at i; i itself when there is none.
func skipValue(data []byte, i int) int {
	begin, depth := i, 0
	for i < len(data) {
		switch data[i] {
		case '"':
			i = skipString(data, i+1)
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

// skipString gives the place after the closing quote of a string whose text begins at i.
func skipString(data []byte, i int) int {
	for {
		i = plainUntil(data, i)
		switch {
		case i >= len(data):
			return len(data)
		case data[i] == '"':
			return i + 1
		case data[i] == '\\':
			i += 2
		default:
			i++ // a control character, which CheckJSON refuses
		}
	}
}
