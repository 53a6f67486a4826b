package projections

import "encoding/binary"

// varints encodes values or decodes them in the same order, so that a form is
// written down once.
type varints struct {
	bytes    []byte // encoded so far, or still to be decoded
	decoding bool
	failed   bool // bytes ended before a value did
}

func (v *varints) int(value *int64) {
	if !v.decoding {
		v.bytes = binary.AppendVarint(v.bytes, *value)
		return
	}
	n := 0
	if *value, n = binary.Varint(v.bytes); n <= 0 {
		v.fail()
		*value = 0
		return
	}
	v.bytes = v.bytes[n:]
}

func (v *varints) bool(value *bool) {
	n := int64(0)
	if *value {
		n = 1
	}
	v.int(&n)
	*value = n == 1
}

func (v *varints) text(value *string) {
	n := int64(len(*value))
	v.int(&n)
	switch {
	case !v.decoding:
		v.bytes = append(v.bytes, *value...)
	case n < 0 || n > int64(len(v.bytes)):
		v.fail()
	default:
		*value, v.bytes = string(v.bytes[:n]), v.bytes[n:]
	}
}

func (v *varints) fail() { v.failed, v.bytes = true, nil }

// codeList codes a list of items that take two bytes or more each.
func codeList[L ~[]T, T any](v *varints, list *L, item func(*T)) {
	n := int64(len(*list))
	v.int(&n)
	if v.decoding {
		if n < 0 || n > int64(len(v.bytes)/2) {
			v.fail()
			return
		}
		*list = make(L, n, n+1) // room for what is counted next
	}
	for i := range *list {
		item(&(*list)[i])
	}
}
