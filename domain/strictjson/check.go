// Package strictjson checks, reads and writes JSON (RFC 8259) as exact bytes.
//
// Check refuses what two readers could understand differently. The readers take checked
// data apart without copying or converting it, and the Append functions write the forms
// that are stored and sent.
package strictjson

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// MaxDepth is how deep objects and arrays may nest.
const MaxDepth = 64

// Error says what is wrong with data that cannot be read.
type Error struct {
	Message string // safe to show to whoever sent the data
	Public  string // Message without the field, whose name is the data's own: safe to log and to store
}

func (e Error) Error() string { return e.Message }

// Check returns an Error, with the byte and the field, unless data is one JSON value of
// valid UTF-8 without a byte order mark, without repeated names in an object (compared
// after unescaping), lone surrogates, nesting beyond MaxDepth and numbers whose magnitude
// exceeds 1e308. Numbers of any length and precision are fine, and so is \u0000.
//
// It is linear in the length of data, whatever data is, and does not allocate for usual
// bodies.
func Check(data []byte) error {
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		return problem("begins with a byte order mark", 0, "")
	}
	c := checkers.Get().(*checker)
	c.text = *bytes.NewBuffer(data)
	c.decoder.Reset(&c.text)
	err := c.value()
	const usual = 64 << 10
	if len(data) <= usual { // a decoder that has grown is not kept
		checkers.Put(c)
	}
	return err
}

// checker is a decoder that reads its data in place. It is reused.
type checker struct {
	text    bytes.Buffer
	decoder jsontext.Decoder
}

var checkers = sync.Pool{New: func() any { return new(checker) }}

// value checks that the data are one value.
func (c *checker) value() error {
	d := &c.decoder
	for first := true; first || d.StackDepth() > 0; first = false {
		if d.PeekKind() == jsontext.KindNumber {
			number, err := d.ReadValue()
			if err != nil {
				return c.broken(err)
			}
			if tooLarge(number) {
				return problem("has a number beyond 1e308", d.InputOffset()-int64(len(number)), d.StackPointer())
			}
		} else if _, err := d.ReadToken(); err != nil {
			return c.broken(err)
		}
		if d.StackDepth() > MaxDepth {
			return problem("nests deeper than "+strconv.Itoa(MaxDepth), d.InputOffset()-1, d.StackPointer())
		}
	}
	if rest := d.UnreadBuffer(); SkipSpace(rest, 0) < len(rest) {
		return problem("is followed by something else", d.InputOffset()+int64(SkipSpace(rest, 0)), "")
	}
	return nil
}

// broken returns what the decoder's error says.
func (c *checker) broken(err error) error {
	const endsEarly = "unexpected EOF" // io's error, which the domain does not import
	syntax, ok := errors.AsType[*jsontext.SyntacticError](err)
	switch {
	case !ok:
		return problem("is empty", c.decoder.InputOffset(), "")
	case syntax.Err.Error() == endsEarly:
		return problem("ends too early", syntax.ByteOffset, syntax.JSONPointer)
	case syntax.Err == jsontext.ErrDuplicateName:
		return problem("repeats a key", syntax.ByteOffset, syntax.JSONPointer)
	}
	where, in := place(syntax.ByteOffset, syntax.JSONPointer)
	why := syntax.Err.Error()
	message := "the JSON is not valid" + where
	return Error{message + in + ": " + Shorten(why, 200), message + ": " + withoutQuote(why)}
}

// withoutQuote returns an error of the decoder without what it quotes, but for a single character.
func withoutQuote(why string) string {
	for _, what := range []string{"invalid escape sequence", "invalid surrogate pair"} {
		if strings.HasPrefix(why, what) {
			return what + " in string"
		}
	}
	return why
}

// problem says what is wrong, and where.
func problem(what string, offset int64, at jsontext.Pointer) Error {
	where, in := place(offset, at)
	return Error{"the JSON " + what + where + in, "the JSON " + what + where}
}

// place says where, and in which field if it is in one: event_data.items[3].name.
func place(offset int64, at jsontext.Pointer) (where, in string) {
	var field strings.Builder
	for name := range at.Tokens() {
		if _, err := strconv.Atoi(name); err == nil {
			name = "[" + name + "]"
		} else if field.Len() > 0 {
			name = "." + name
		}
		field.WriteString(Shorten(name, 40))
	}
	if field.Len() > 0 {
		in = fmt.Sprintf(" (in %s)", Shorten(field.String(), 200))
	}
	return fmt.Sprintf(" at byte %d", offset), in
}

const maxExponent = 308

// tooLarge reports whether the magnitude of a number exceeds 1e308, by its digits: no
// float is exact enough.
func tooLarge(number []byte) bool {
	mantissa, exponent := bytes.TrimPrefix(number, []byte("-")), int64(0)
	if e := bytes.IndexAny(mantissa, "eE"); e >= 0 {
		const saturating = 48 // bits: more than the digits of any text make up for
		exponent, _ = strconv.ParseInt(string(mantissa[e+1:]), 10, saturating)
		mantissa = mantissa[:e]
	} else if len(mantissa) <= maxExponent {
		return false
	}
	whole, fraction, _ := bytes.Cut(mantissa, []byte("."))
	exponent += int64(len(whole)) - 1 // of the first digit
	zeros := 0
	for _, part := range [][]byte{whole, fraction} {
		trimmed := bytes.TrimLeft(part, "0")
		zeros += len(part) - len(trimmed)
		if len(trimmed) > 0 {
			break
		}
	}
	if zeros == len(whole)+len(fraction) || exponent-int64(zeros) < maxExponent {
		return false
	}
	return exponent-int64(zeros) > maxExponent || string(bytes.Trim(bytes.Replace(mantissa, []byte("."), nil, 1), "0")) != "1"
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
