// Package strictjson checks, reads and writes JSON (RFC 8259) as exact bytes.
//
// Check refuses what two readers could understand differently. The readers take checked
// data apart without copying or converting it, and the Append functions write the forms
// that are stored and sent.
package strictjson

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"math/bits"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// MaxDepth is how deep objects and arrays may nest.
const MaxDepth = 64

// Error says what is wrong with data that cannot be read. It is safe to show to a caller.
type Error string

func (e Error) Error() string { return string(e) }

// Check returns an Error, with the byte and the field, unless data is one JSON value of
// valid UTF-8 without a byte order mark, without repeated names in an object (compared
// after unescaping), lone surrogates, nesting beyond MaxDepth and numbers whose magnitude
// exceeds 1e308. Numbers of any length and precision are fine, and so is \u0000.
//
// It is linear in the length of data, whatever data is, and does not allocate for usual
// bodies.
func Check(data []byte) error {
	c := checkers.Get().(*checker)
	defer c.release()
	invalid := -1
	if !utf8.Valid(data) {
		invalid = invalidUTF8(data)
		data = data[:invalid] // the syntax before it may be wrong, and leads to the field
	}
	c.data = data
	end := c.document()
	if end >= 0 && invalid < 0 {
		return nil
	}
	if invalid >= 0 && (end >= 0 || c.offset >= invalid) {
		c.problem, c.offset = "is not valid UTF-8", invalid
	}
	where := ""
	if c.path != "" {
		where = " (in " + Shorten(c.path, 200) + ")"
	}
	return Error(fmt.Sprintf("the JSON %s at byte %d%s", c.problem, c.offset, where))
}

// invalidUTF8 returns the offset of the first byte of data that is not valid UTF-8.
func invalidUTF8(data []byte) int {
	i := 0
	for i < len(data) {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		i += size
	}
	return i
}

// checker is the state of one Check. Its methods that check the syntax at an offset return
// the offset after it, or -1 when something is wrong, which fail has noted.
type checker struct {
	data  []byte
	depth int

	names     []name   // of all open objects, outermost first
	table     []uint32 // open addressing: indexes in names, plus 1
	unescaped []byte   // the text of names that have escapes

	problem string
	offset  int
	path    string // of the field with the problem: event_data.items[3].name
}

var checkers = sync.Pool{New: func() any { return new(checker) }}

// release returns c to the pool, without the memory that one unusual body took.
func (c *checker) release() {
	const keep = 4096
	if len(c.table) > keep || cap(c.unescaped) > keep {
		c.names, c.table, c.unescaped = nil, nil, nil
	}
	if len(c.names) > 0 {
		clear(c.table) // it was left in the middle
	}
	*c = checker{names: c.names[:0], table: c.table, unescaped: c.unescaped[:0]}
	checkers.Put(c)
}

// fail notes what is wrong and returns -1.
func (c *checker) fail(problem string, offset int) int {
	c.problem, c.offset = problem, offset
	return -1
}

// within adds the name of an enclosing field to the path of a problem, and returns -1.
func (c *checker) within(field string) int {
	if c.path != "" && c.path[0] != '[' {
		field += "."
	}
	c.path = field + c.path
	return -1
}

const endsEarly = "ends too early"

func (c *checker) document() int {
	begin := SkipSpace(c.data, 0)
	if begin == len(c.data) {
		return c.fail("is empty", begin)
	}
	if bytes.HasPrefix(c.data, []byte("\xef\xbb\xbf")) {
		return c.fail("begins with a byte order mark", 0)
	}
	end := c.value(begin)
	if end < 0 {
		return end
	}
	if end = SkipSpace(c.data, end); end < len(c.data) {
		return c.fail("is followed by something else", end)
	}
	return end
}

func (c *checker) value(i int) int {
	if i == len(c.data) {
		return c.fail(endsEarly, i)
	}
	switch c.data[i] {
	case '"':
		return c.scanned(scanString(c.data, i+1))
	case '{':
		return c.object(i)
	case '[':
		return c.array(i)
	case 't':
		return c.word("true", i)
	case 'f':
		return c.word("false", i)
	case 'n':
		return c.word("null", i)
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return c.scanned(scanNumber(c.data, i))
	}
	return c.fail("has an unexpected character", i)
}

func (c *checker) word(word string, i int) int {
	if !bytes.HasPrefix(c.data[i:], []byte(word)) {
		return c.fail("has an unknown word", i)
	}
	return i + len(word)
}

// scanned takes the end of a string or number, or what is wrong there.
func (c *checker) scanned(end int, problem string) int {
	if problem != "" {
		return c.fail(problem, end)
	}
	return end
}

// open enters the object or array at i and returns the offset of its first member.
func (c *checker) open(i int) int {
	if c.depth == MaxDepth {
		return c.fail("nests deeper than "+strconv.Itoa(MaxDepth), i)
	}
	c.depth++
	return SkipSpace(c.data, i+1)
}

// next returns the offset of the next member, when the one before ended at i, or the one
// after the object or array and true.
func (c *checker) next(i int, closing byte) (int, bool) {
	switch i = SkipSpace(c.data, i); {
	case i == len(c.data):
		return c.fail(endsEarly, i), true
	case c.data[i] == ',':
		return SkipSpace(c.data, i+1), false
	case c.data[i] == closing:
		c.depth--
		return i + 1, true
	}
	return c.fail("lacks a comma or "+string(closing), i), true
}

func (c *checker) array(i int) int {
	i = c.open(i)
	if i >= 0 && i < len(c.data) && c.data[i] == ']' {
		c.depth--
		return i + 1
	}
	for index, closed := 0, i < 0; !closed; index++ {
		if i = c.value(i); i < 0 {
			return c.within("[" + strconv.Itoa(index) + "]")
		}
		i, closed = c.next(i, ']')
	}
	return i
}

func (c *checker) object(i int) int {
	i = c.open(i)
	if i >= 0 && i < len(c.data) && c.data[i] == '}' {
		c.depth--
		return i + 1
	}
	first, unescaped := len(c.names), len(c.unescaped)
	for closed := i < 0; !closed; {
		if i = c.member(i, first); i < 0 {
			return i
		}
		i, closed = c.next(i, '}')
	}
	c.forget(first)
	c.unescaped = c.unescaped[:unescaped]
	return i
}

// member checks the member at i of the object whose names begin at first.
func (c *checker) member(i, first int) int {
	if i == len(c.data) {
		return c.fail(endsEarly, i)
	}
	if c.data[i] != '"' {
		return c.fail("lacks a key in quotes", i)
	}
	end := c.scanned(scanString(c.data, i+1))
	if end < 0 {
		return end
	}
	added := c.add(i+1, end-1, first)
	key := c.names[len(c.names)-1]
	if !added {
		c.fail("repeats a key", i)
		return c.within(Shorten(string(c.text(&key)), 40))
	}
	switch i = SkipSpace(c.data, end); {
	case i == len(c.data):
		i = c.fail(endsEarly, i)
	case c.data[i] != ':':
		i = c.fail("lacks a colon after a key", i)
	default:
		i = c.value(SkipSpace(c.data, i+1))
	}
	if i < 0 {
		return c.within(Shorten(string(c.text(&key)), 40))
	}
	return i
}

// name is the name of a member. off and end are in data or, with a negative off (^off), in
// unescaped.
type name struct {
	hash     uint32
	off, end int
}

func (c *checker) text(n *name) []byte {
	if n.off < 0 {
		return c.unescaped[^n.off:n.end]
	}
	return c.data[n.off:n.end]
}

// seed makes the hashes unpredictable, so that no body can be made of names that collide.
var seed = maphash.MakeSeed()

// add notes the name at data[off:end] and reports whether it is the first such name of its
// object, whose names begin at first.
func (c *checker) add(off, end, first int) bool {
	n := name{off: off, end: end}
	if bytes.IndexByte(c.data[off:end], '\\') >= 0 {
		n.off = ^len(c.unescaped)
		c.unescaped = unquote(c.unescaped, c.data[off-1:end+1])
		n.end = len(c.unescaped)
	}
	text := c.text(&n)
	n.hash = uint32(maphash.Bytes(seed, text)) + uint32(c.depth)*0x9e3779b9 // nested objects often share names
	if 2*len(c.names) >= len(c.table) {
		c.grow()
	}
	mask := uint32(len(c.table) - 1)
	slot := n.hash & mask
	for ; c.table[slot] != 0; slot = (slot + 1) & mask {
		i := int(c.table[slot]) - 1
		if other := &c.names[i]; i >= first && other.hash == n.hash && bytes.Equal(c.text(other), text) {
			c.names = append(c.names, n)
			return false
		}
	}
	c.names = append(c.names, n)
	c.table[slot] = uint32(len(c.names))
	return true
}

// grow makes the table four times as large as there are names.
func (c *checker) grow() {
	const least = 64
	c.table = make([]uint32, max(least, 1<<bits.Len(uint(4*len(c.names)))))
	for i := range c.names {
		c.table[c.free(c.names[i].hash, 0)] = uint32(i) + 1
	}
}

// forget removes the names from first on: the last ones that were added, so that the table
// is as it was before.
func (c *checker) forget(first int) {
	for i := len(c.names); i > first; i-- {
		c.table[c.free(c.names[i-1].hash, uint32(i))] = 0
	}
	c.names = c.names[:first]
}

// free returns the first slot for the hash that holds what is wanted.
func (c *checker) free(hash, wanted uint32) uint32 {
	mask := uint32(len(c.table) - 1)
	slot := hash & mask
	for c.table[slot] != wanted {
		slot = (slot + 1) & mask
	}
	return slot
}

// Shorten cuts a text for a message on a character's boundary and makes it valid UTF-8.
func Shorten(s string, most int) string {
	if len(s) <= most {
		return strings.ToValidUTF8(s, "\uFFFD")
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return strings.ToValidUTF8(s[:most], "\uFFFD") + "…"
}
