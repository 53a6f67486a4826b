package filter

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// maxKeyLook bounds the arrays that a path is followed through for a key.
const maxKeyLook = 64 << 10

// CheckPath returns what is wrong with a path by itself, "" if nothing is.
func CheckPath(path string) string {
	if path == "" || len(path) > maxPathBytes || strings.Count(path, ".") >= maxPathParts || strings.HasPrefix(path, "$") {
		return fmt.Sprintf("must be a path of 1 to %d bytes and at most %d parts, as in filters", maxPathBytes, maxPathParts)
	}
	return CheckParts(path)
}

// CheckParts returns what is wrong with the parts of a path between its dots. Filters alone
// may name empty keys.
func CheckParts(path string) string {
	if slices.Contains(strings.Split(path, "."), "") {
		return "must have no empty part: no dot at its beginning or end, nor two in a row"
	}
	return ""
}

// Key returns a hash of the one value at the path, which is the same for equal values.
// False: there is none, or several, or it is null, an array, an object or a number that
// cannot be compared.
func (d *Doc) Key(path string) (uint64, bool) {
	if !d.readable() {
		return 0, false
	}
	f := &found{limit: maxKeyLook}
	f.nodes = f.one[:0]
	d.descend(span{d.root, len(d.data)}, path, f)
	if f.tooMany || f.tooLarge || len(f.nodes) != 1 {
		return 0, false
	}
	n := &f.nodes[0]
	h := sha256.New()
	switch n.kind {
	case stringKind:
		h.Write([]byte{'"'})
		h.Write(n.text)
	case boolKind:
		h.Write(n.raw[:1])
	case numberKind:
		if !n.exact {
			return 0, false
		}
		h.Write(n.number.appendKey(nil))
	default:
		return 0, false
	}
	return binary.BigEndian.Uint64(h.Sum(nil)), true
}
