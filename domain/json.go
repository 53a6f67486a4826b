package domain

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"math/bits"
	"strconv"
	"sync"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxJSONDepth is how deep objects and arrays may nest in what is accepted.
const MaxJSONDepth = 64

// CheckJSON reports whether data is one JSON value (RFC 8259) that the service accepts
// (contract section 2). Refused as Malformed, with the place, is what is not valid UTF-8
// or begins with a byte order mark, nests deeper than MaxJSONDepth, repeats a key of an
// object (after undoing escapes), holds a number whose magnitude is beyond 1e308, or half
// of a surrogate pair, and what follows the value. Numbers of any length and small
// magnitude are fine, and so is \u0000.
//
// It is one pass, linear in the length of data whatever data is, and allocates nothing for
// usual bodies: it stands before everything that is accepted.
func CheckJSON(data []byte) error {
	s := jsonScanners.Get().(*jsonScanner)
	defer s.release()
	bad := -1
	if !utf8.Valid(data) {
		bad = firstInvalidUTF8(data)
		data = data[:bad] // what stands before it may be wrong first, and tells the place
	}
	p := s.scan(data)
	switch {
	case p.text == "" && bad < 0:
		return nil
	case bad >= 0 && (p.text == "" || p.at >= bad):
		p = jsonProblem{"is not valid UTF-8", bad}
	}
	where := ""
	if path := s.path(); path != "" {
		where = " (in " + path + ")"
	}
	return Malformed(fmt.Sprintf("the JSON %s at byte %d%s", p.text, p.at, where))
}

// jsonProblem says what is wrong at which byte; the zero value is no problem.
type jsonProblem struct {
	text string
	at   int
}

// jsonScanner holds what CheckJSON needs beside the data, kept from one call to the next.
type jsonScanner struct {
	data    []byte
	depth   int
	frames  [MaxJSONDepth]jsonFrame // frames[:depth] are open
	keys    []jsonKey               // of all open objects, outermost first
	escaped []byte                  // keys that had escapes, with these undone
	grown   int                     // the largest table of all frames
}

// jsonFrame is an open object or array.
type jsonFrame struct {
	object bool
	first  int      // object: its first key's place in keys
	index  int      // array: of the current element
	table  []uint32 // object of many keys: hash table of places in keys, from first, plus 1
	spare  []uint32 // memory for table, kept from object to object
}

// jsonKey is a key seen. off and end are in data, or with a negative off (^off) in escaped.
type jsonKey struct {
	start8   uint64 // its first bytes, to tell most keys apart at once
	off, end int
}

// Up to fewKeys, a key is compared with each one before it. Beyond that there is a hash
// table, seeded anew in each process so that no body can be made to collide.
const fewKeys = 16

var jsonHashSeed = maphash.MakeSeed()

var jsonScanners = sync.Pool{New: func() any { return new(jsonScanner) }}

// release gives the scanner back, without the memory that one unusual body took.
func (s *jsonScanner) release() {
	const keep = 4096
	if s.grown > keep {
		for i := range s.frames {
			s.frames[i].table, s.frames[i].spare = nil, nil
		}
		s.grown = 0
	}
	if cap(s.keys) > keep {
		s.keys = nil
	}
	if cap(s.escaped) > keep {
		s.escaped = nil
	}
	s.data = nil
	jsonScanners.Put(s)
}

const endsEarly = "ends too early"

// scan walks over the value with a stack of its own, so that no nesting can overflow.
func (s *jsonScanner) scan(data []byte) jsonProblem {
	s.data, s.depth, s.keys, s.escaped = data, 0, s.keys[:0], s.escaped[:0]
	i := skipSpace(data, 0)
	if i == len(data) {
		return jsonProblem{"is empty", i}
	}

value: // a value begins at i
	if i == len(data) {
		return jsonProblem{endsEarly, i}
	}
	switch c := data[i]; c {
	case '"':
		end, p := scanString(data, i+1)
		if p.text != "" {
			return p
		}
		i = end
	case '{', '[':
		if s.depth == MaxJSONDepth {
			return jsonProblem{"nests deeper than " + strconv.Itoa(MaxJSONDepth), i}
		}
		f := &s.frames[s.depth]
		f.object, f.first, f.index, f.table = c == '{', len(s.keys), 0, nil
		s.depth++
		i = skipSpace(data, i+1)
		if i < len(data) && data[i] == c+2 { // '}' and ']' stand two after their openers
			s.close()
			i++
			break
		}
		if c == '[' {
			goto value
		}
		goto key
	case 't', 'f', 'n':
		word := "true"
		if c == 'f' {
			word = "false"
		} else if c == 'n' {
			word = "null"
		}
		if len(data)-i < len(word) || string(data[i:i+len(word)]) != word {
			return jsonProblem{"has an unknown word", i}
		}
		i += len(word)
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		end, p := scanNumber(data, i)
		if p.text != "" {
			return p
		}
		i = end
	case 0xef:
		if i == 0 && bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
			return jsonProblem{"begins with a byte order mark", i}
		}
		return jsonProblem{"has an unexpected character", i}
	default:
		return jsonProblem{"has an unexpected character", i}
	}

after: // a value ended before i
	i = skipSpace(data, i)
	if s.depth == 0 {
		if i < len(data) {
			return jsonProblem{"is followed by something else", i}
		}
		return jsonProblem{}
	}
	if i == len(data) {
		return jsonProblem{endsEarly, i}
	}
	{
		f := &s.frames[s.depth-1]
		switch {
		case data[i] == ',' && f.object:
			i = skipSpace(data, i+1)
			goto key
		case data[i] == ',':
			f.index++
			i = skipSpace(data, i+1)
			goto value
		case data[i] == '}' && f.object, data[i] == ']' && !f.object:
			s.close()
			i++
			goto after
		case f.object:
			return jsonProblem{"lacks a comma or }", i}
		}
		return jsonProblem{"lacks a comma or ]", i}
	}

key: // a key begins at i
	if i == len(data) {
		return jsonProblem{endsEarly, i}
	}
	if data[i] != '"' {
		return jsonProblem{"lacks a key in quotes", i}
	}
	{
		end, p := scanString(data, i+1)
		if p.text != "" {
			return p
		}
		if !s.addKey(i+1, end-1) {
			return jsonProblem{"repeats a key", i}
		}
		i = skipSpace(data, end)
	}
	if i == len(data) {
		return jsonProblem{endsEarly, i}
	}
	if data[i] != ':' {
		return jsonProblem{"lacks a colon after a key", i}
	}
	i = skipSpace(data, i+1)
	goto value
}

// close ends the innermost object or array.
func (s *jsonScanner) close() {
	s.depth--
	s.keys = s.keys[:s.frames[s.depth].first]
	if s.depth == 0 {
		s.escaped = s.escaped[:0]
	}
}

// addKey notes a key of the innermost object; false when the object had it. The key is
// noted all the same, for the path.
func (s *jsonScanner) addKey(off, end int) bool {
	key := jsonKey{off: off, end: end}
	if raw := s.data[off:end]; bytes.IndexByte(raw, '\\') >= 0 {
		begin := len(s.escaped)
		s.escaped = appendUnescaped(s.escaped, raw)
		key.off, key.end = ^begin, len(s.escaped)
	}
	text := s.text(key)
	key.start8 = startOf(text)
	f := &s.frames[s.depth-1]
	siblings := s.keys[f.first:]
	s.keys = append(s.keys, key)
	if len(siblings) < fewKeys {
		for i := range siblings {
			if siblings[i].start8 == key.start8 && bytes.Equal(s.text(siblings[i]), text) {
				return false
			}
		}
		return true
	}
	if 2*len(siblings) >= len(f.table) {
		s.growTable(f, siblings)
	}
	slot := s.slot(f, text)
	if f.table[slot] != 0 {
		return false
	}
	f.table[slot] = uint32(len(siblings)) + 1
	return true
}

// growTable makes a hash table with room for twice as many keys again.
func (s *jsonScanner) growTable(f *jsonFrame, keys []jsonKey) {
	size := 1 << bits.Len(uint(4*len(keys)))
	if cap(f.spare) < size {
		f.spare = make([]uint32, size)
		s.grown = max(s.grown, size)
	}
	f.table = f.spare[:size]
	clear(f.table)
	for i := range keys {
		f.table[s.slot(f, s.text(keys[i]))] = uint32(i) + 1
	}
}

// slot is where text is in the table of f, or the free place for it.
func (s *jsonScanner) slot(f *jsonFrame, text []byte) int {
	mask := len(f.table) - 1
	start8 := startOf(text)
	for slot := int(maphash.Bytes(jsonHashSeed, text)) & mask; ; slot = (slot + 1) & mask {
		n := f.table[slot]
		if n == 0 {
			return slot
		}
		key := &s.keys[f.first+int(n)-1]
		if key.start8 == start8 && bytes.Equal(s.text(*key), text) {
			return slot
		}
	}
}

func (s *jsonScanner) text(k jsonKey) []byte {
	if k.off < 0 {
		return s.escaped[^k.off:k.end]
	}
	return s.data[k.off:k.end]
}

// startOf packs the first bytes of a key, to tell most keys apart at once.
func startOf(text []byte) uint64 {
	if len(text) >= 8 {
		return binary.LittleEndian.Uint64(text)
	}
	n := uint64(0)
	for i := range text {
		n = n<<8 | uint64(text[i])
	}
	return n
}

// path names the place where the scan stopped: `event_data.items[3].name`.
func (s *jsonScanner) path() string {
	var path []byte
	for i := range s.frames[:s.depth] {
		f := &s.frames[i]
		if !f.object {
			path = append(strconv.AppendInt(append(path, '['), int64(f.index), 10), ']')
			continue
		}
		end := len(s.keys)
		if i+1 < s.depth {
			end = s.frames[i+1].first
		}
		if end == f.first {
			continue // an object before its first key
		}
		if len(path) > 0 {
			path = append(path, '.')
		}
		path = append(path, shortened(string(s.text(s.keys[end-1])), 40)...)
	}
	return shortened(string(path), 200)
}

func skipSpace(data []byte, i int) int {
	for i < len(data) && (data[i] == ' ' || data[i] == '\n' || data[i] == '\r' || data[i] == '\t') {
		i++
	}
	return i
}

// plainUntil is where the first quote, backslash or control character is at or after i,
// eight bytes at a time: in x^n a byte is zero where x has n, and (x - ones) &^ x keeps
// the high bit of the lowest zero byte; the same with 0x20 for what is below a space.
func plainUntil(data []byte, i int) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for ; i+8 <= len(data); i += 8 {
		x := binary.LittleEndian.Uint64(data[i:])
		quote, slash := x^ones*'"', x^ones*'\\'
		if hit := ((x-ones*' ')&^x | (quote-ones)&^quote | (slash-ones)&^slash) & highs; hit != 0 {
			return i + bits.TrailingZeros64(hit)/8
		}
	}
	for i < len(data) && data[i] >= ' ' && data[i] != '"' && data[i] != '\\' {
		i++
	}
	return i
}

// scanString gives the place after the closing quote of a string whose text begins at i.
func scanString(data []byte, i int) (int, jsonProblem) {
	for {
		i = plainUntil(data, i)
		switch {
		case i == len(data):
			return i, jsonProblem{endsEarly, i}
		case data[i] == '"':
			return i + 1, jsonProblem{}
		case data[i] != '\\':
			return i, jsonProblem{"has a control character in a string", i}
		case i+1 == len(data):
			return i, jsonProblem{endsEarly, i + 1}
		}
		switch data[i+1] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			i += 2
		case 'u':
			size := unicodeEscape(data[i:])
			if size == 0 {
				return i, jsonProblem{"has a broken \\u escape", i}
			}
			i += size
		default:
			return i, jsonProblem{"has an unknown escape", i}
		}
	}
}

// unicodeEscape gives the length of the \uXXXX or surrogate pair \uXXXX\uXXXX that raw
// begins with; 0 when it is broken or half a pair.
func unicodeEscape(raw []byte) int {
	r, ok := hex4(raw)
	if !ok {
		return 0
	}
	if !utf16.IsSurrogate(r) {
		return 6
	}
	if low, ok := hex4(raw[6:]); ok && utf16.DecodeRune(r, low) != utf8.RuneError {
		return 12
	}
	return 0
}

// hex4 reads a leading \uXXXX.
func hex4(raw []byte) (rune, bool) {
	if len(raw) < 6 || raw[0] != '\\' || raw[1] != 'u' {
		return 0, false
	}
	r := rune(0)
	for _, c := range raw[2:6] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// appendUnescaped appends the text of a string's inside, which scanString has accepted.
// Of anything else it makes some text, and never panics.
func appendUnescaped(dst, raw []byte) []byte {
	for {
		slash := bytes.IndexByte(raw, '\\')
		if slash < 0 || slash+1 == len(raw) {
			return append(dst, raw...)
		}
		dst, raw = append(dst, raw[:slash]...), raw[slash:]
		if raw[1] != 'u' {
			dst, raw = append(dst, unescapedByte(raw[1])), raw[2:]
			continue
		}
		r, ok := hex4(raw)
		if !ok {
			dst, raw = append(dst, raw[:2]...), raw[2:]
			continue
		}
		size := 6
		if low, ok := hex4(raw[6:]); ok && utf16.DecodeRune(r, low) != utf8.RuneError {
			r, size = utf16.DecodeRune(r, low), 12
		}
		dst, raw = utf8.AppendRune(dst, r), raw[size:]
	}
}

func unescapedByte(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	}
	return c
}

// scanNumber gives the place after the number that begins at begin.
func scanNumber(data []byte, begin int) (int, jsonProblem) {
	const broken = "has a broken number"
	i := begin
	if data[i] == '-' {
		i++
	}
	whole := i
	i = skipDigits(data, i)
	digits := i - whole
	if digits == 0 || digits > 1 && data[whole] == '0' {
		return i, jsonProblem{broken, begin}
	}
	if i < len(data) && data[i] == '.' {
		fraction := i + 1
		if i = skipDigits(data, fraction); i == fraction {
			return i, jsonProblem{broken, begin}
		}
	}
	hasExponent := i < len(data) && (data[i] == 'e' || data[i] == 'E')
	if hasExponent {
		i++
		if i < len(data) && (data[i] == '+' || data[i] == '-') {
			i++
		}
		exponent := i
		if i = skipDigits(data, exponent); i == exponent {
			return i, jsonProblem{broken, begin}
		}
	}
	if hasExponent || digits > 308 {
		if d, _ := parseDecimal(data[begin:i]); d.beyondRange() {
			return i, jsonProblem{"has a number beyond 1e308", begin}
		}
	}
	return i, jsonProblem{}
}

func skipDigits(data []byte, i int) int {
	for i < len(data) && data[i] >= '0' && data[i] <= '9' {
		i++
	}
	return i
}

// firstInvalidUTF8 is the place of the first byte that is not UTF-8; len(data) if none.
func firstInvalidUTF8(data []byte) int {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return len(data)
}
