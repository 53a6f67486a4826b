package strictjson

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// SkipSpace returns the offset of the first byte at or after i that is not white space.
func SkipSpace(data []byte, i int) int {
	for i < len(data) && (data[i] == ' ' || data[i] == '\n' || data[i] == '\r' || data[i] == '\t') {
		i++
	}
	return i
}

// skipPlain returns the offset of the first quote, backslash or control character at or
// after i. It reads eight bytes at a time: in x^n a byte is zero where x has n, and
// (x - ones) &^ x keeps the high bit of the lowest zero byte; the same with 0x20 for
// what is below a space.
func skipPlain(data []byte, i int) int {
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

// scanString returns the offset after the closing quote of the string whose text begins at
// i, or what is wrong, and where.
func scanString(data []byte, i int) (end int, problem string) {
	for {
		i = skipPlain(data, i)
		switch {
		case i == len(data):
			return i, endsEarly
		case data[i] == '"':
			return i + 1, ""
		case data[i] != '\\':
			return i, "has a control character in a string"
		case i+1 == len(data):
			return i + 1, endsEarly
		}
		switch data[i+1] {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			i += 2
		case 'u':
			size := unicodeEscape(data[i:])
			if size == 0 {
				return i, "has a broken \\u escape"
			}
			i += size
		default:
			return i, "has an unknown escape"
		}
	}
}

// unicodeEscape returns the length of the \uXXXX or surrogate pair \uXXXX\uXXXX that raw
// begins with; 0 when it is broken or half of a pair.
func unicodeEscape(raw []byte) int {
	r := hex4(raw)
	switch {
	case r < 0:
		return 0
	case !utf16.IsSurrogate(r):
		return 6
	case utf16.DecodeRune(r, hex4(raw[6:])) != utf8.RuneError:
		return 12
	}
	return 0
}

// hex4 reads a leading \uXXXX; -1 when there is none.
func hex4(raw []byte) rune {
	if len(raw) < 6 || raw[0] != '\\' || raw[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(string(raw[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(n)
}

// scanNumber returns the offset after the number that begins at begin, or begin and what is
// wrong with it.
func scanNumber(data []byte, begin int) (end int, problem string) {
	const broken = "has a broken number"
	i := begin
	if data[i] == '-' {
		i++
	}
	whole := i
	i = skipDigits(data, i)
	digits := i - whole
	if digits == 0 || digits > 1 && data[whole] == '0' {
		return begin, broken
	}
	if i < len(data) && data[i] == '.' {
		fraction := i + 1
		if i = skipDigits(data, fraction); i == fraction {
			return begin, broken
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
			return begin, broken
		}
	}
	if (hasExponent || digits > maxExponent) && tooLarge(data[begin:i]) {
		return begin, "has a number beyond 1e308"
	}
	return i, ""
}

func skipDigits(data []byte, i int) int {
	for i < len(data) && data[i] >= '0' && data[i] <= '9' {
		i++
	}
	return i
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
