package domain

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain/strictjson"
)

// form writes the JSON of an event, or reads exactly what it writes: one list of fields
// serves both ways. It is for the events that make up nearly all of a log, and several
// times as fast as encoding/json, which decides how long a rebuild takes. Data that has
// another form (of an older version, with escapes) is bad: encoding/json reads it, with
// the same result.
//
// A field's name is given with what stands around it: `,"url":`.
type form struct {
	out []byte // what is written

	reading bool
	in      []byte // what is left to read
	bad     bool   // in has another form: nothing that was read counts
}

// formed is an event that form writes and reads.
type formed interface {
	Change
	AppendJSON(dst []byte) []byte
	read(f *form) Change
}

// readFormed decodes data into an event of zero's type; false when it has another form.
func readFormed(zero formed, data []byte) (Change, bool) {
	f := form{in: data, reading: true}
	c := zero.read(&f)
	return c, !f.bad && len(f.in) == 0
}

// has steps over the letters if they come next.
func (f *form) has(letters string) bool {
	if f.bad || len(f.in) < len(letters) || string(f.in[:len(letters)]) != letters {
		return false
	}
	f.in = f.in[len(letters):]
	return true
}

// letters are always there.
func (f *form) letters(letters string) *form {
	if !f.reading {
		f.out = append(f.out, letters...)
	} else if !f.has(letters) {
		f.bad = true
	}
	return f
}

// optional letters are written when they are wanted, and reported when they are read.
func (f *form) optional(letters string, wanted bool) bool {
	if f.reading {
		return f.has(letters)
	}
	if wanted {
		f.out = append(f.out, letters...)
	}
	return wanted
}

// quoted reads the inside of a string without escapes.
func (f *form) quoted() []byte {
	if f.bad || len(f.in) == 0 || f.in[0] != '"' {
		f.bad = true
		return nil
	}
	ascii := true
	for i := 1; i < len(f.in); i++ {
		switch c := f.in[i]; {
		case c == '"':
			inside := f.in[1:i]
			f.in = f.in[i+1:]
			f.bad = !ascii && !utf8.Valid(inside)
			return inside
		case c == '\\' || c < ' ':
			f.bad = true
			return nil
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	f.bad = true
	return nil
}

// base64 decodes a string of base64, which has none of what JSON escapes.
func (f *form) base64() (decoded []byte) {
	end := -1
	if f.has(`"`) {
		end = bytes.IndexByte(f.in, '"')
	}
	if end < 0 || bytes.IndexByte(f.in[:end], '\n') >= 0 || bytes.IndexByte(f.in[:end], '\r') >= 0 { // which the decoder would skip
		f.bad = true
		return nil
	}
	decoded, err := base64.StdEncoding.AppendDecode(nil, f.in[:end])
	f.in = f.in[end+1:]
	f.bad = err != nil || len(decoded) == 0
	return decoded
}

// copied returns the text, without a copy of what nearly every call repeats.
func copied(raw []byte) string {
	switch string(raw) {
	case string(OutcomeSuccess):
		return string(OutcomeSuccess)
	case string(OutcomeTimeout):
		return string(OutcomeTimeout)
	case "Content-Type":
		return "Content-Type"
	case "Content-Length":
		return "Content-Length"
	case "Date":
		return "Date"
	}
	return string(raw)
}

func text[T ~string](f *form, name string, p *T) {
	if !f.reading {
		f.out = strictjson.AppendString(append(f.out, name...), string(*p))
		return
	}
	f.letters(name)
	*p = T(copied(f.quoted()))
}

// textOrNone is a text that is left out when it is empty.
func textOrNone[T ~string](f *form, name string, p *T) {
	if f.optional(name, *p != "") {
		text(f, "", p)
	}
}

// number is read without a sign, and when it surely fits.
func number[T ~int | ~int64](f *form, name string, p *T) {
	if !f.reading {
		f.out = strconv.AppendInt(append(f.out, name...), int64(*p), 10)
		return
	}
	f.letters(name)
	const most = 18 // digits
	n, i := int64(0), 0
	for ; i < len(f.in) && i < most && '0' <= f.in[i] && f.in[i] <= '9'; i++ {
		n = 10*n + int64(f.in[i]-'0')
	}
	if f.bad || i == 0 || i == most || i > 1 && f.in[0] == '0' {
		f.bad = true
		return
	}
	f.in = f.in[i:]
	*p = T(n)
}

// numberOrNone is a number that is left out when it is 0.
func numberOrNone[T ~int | ~int64](f *form, name string, p *T) {
	if f.optional(name, *p != 0) {
		number(f, "", p)
	}
}

func id[T ~[16]byte](f *form, name string, p *T) {
	if !f.reading {
		f.out = appendID(f.out, name, uuid.UUID(*p))
		return
	}
	f.letters(name)
	const usual = 36 // uuid reads other forms too
	raw := f.quoted()
	parsed, err := uuid.ParseBytes(raw)
	f.bad = f.bad || err != nil || len(raw) != usual
	*p = T(parsed)
}

// idOrNone is an id that is left out when it is zero.
func idOrNone[T ~[16]byte](f *form, name string, p *T) {
	if f.optional(name, *p != T{}) {
		id(f, "", p)
	}
}

// timeOrNone is a time that is left out when it is zero.
func (f *form) timeOrNone(name string, p *time.Time) {
	if f.optional(name, !p.IsZero()) {
		f.time("", p)
	}
}

// time has the microseconds that Postgres keeps, in the fewest digits.
func (f *form) time(name string, p *time.Time) {
	if !f.reading {
		f.out = appendStoredTime(append(f.out, name...), *p)
		return
	}
	f.letters(name)
	raw := f.quoted()
	at, err := time.Parse(time.RFC3339, string(raw))
	f.bad = f.bad || err != nil || raw[len(raw)-1] != 'Z'
	*p = at
}

// bytes are in base64, and left out when there are none.
func (f *form) bytes(name string, p *[]byte) {
	if !f.optional(name, len(*p) > 0) {
		return
	}
	if !f.reading {
		f.out = append(base64.StdEncoding.AppendEncode(append(f.out, '"'), *p), '"')
		return
	}
	*p = f.base64()
}

// list begins a list, when it is wanted or there.
func list[T any](f *form, name string, p *[]T, wanted bool) bool {
	if !f.optional(name, wanted) {
		return false
	}
	if f.reading {
		*p = []T{}
	}
	return true
}

// more reports whether the list, of n elements when it is written, goes on with element i,
// which it then has room for.
func more[T any](f *form, p *[]T, i int) bool {
	goesOn := false
	switch {
	case !f.reading:
		goesOn = i < len(*p)
		if goesOn && i > 0 {
			f.out = append(f.out, ',')
		}
	case i == 0:
		goesOn = len(f.in) > 0 && f.in[0] != ']'
	default:
		goesOn = f.has(",")
	}
	if !goesOn {
		f.letters("]")
		return false
	}
	if f.reading {
		*p = append(*p, *new(T))
	}
	return !f.bad
}

// data is the last field: its bytes are kept as they are.
func (f *form) data(name string, p *json.RawMessage) *form {
	if !f.reading {
		if f.out = append(f.out, name...); len(*p) == 0 {
			f.out = append(f.out, "null"...) // erased
		}
		f.out = append(append(f.out, *p...), '}')
		return f
	}
	f.letters(name)
	last := len(f.in) - 1
	if f.bad || last < 1 || f.in[last] != '}' || isSpace(f.in[0]) || isSpace(f.in[last-1]) {
		f.bad = true
		return f
	}
	*p = json.RawMessage(f.in[:last:last])
	f.in = nil
	f.bad = !json.Valid(*p)
	return f
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }
