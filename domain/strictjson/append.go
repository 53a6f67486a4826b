package strictjson

import (
	"time"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// AppendString appends s as a JSON string (RFC 8259): quotes, backslashes and control
// characters are escaped and nothing else is, HTML characters in particular. Bytes that
// are not UTF-8 become U+FFFD, so the result is always valid JSON. The form
// must not change, as bodies that were sent are composed again, byte for byte: jsontext.AppendQuote
// writes \b and \f, this \u0008 and \u000c.
func AppendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	done := 0 // s[:done] is in dst
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			if r, size := utf8.DecodeRuneInString(s[i:]); r == utf8.RuneError && size == 1 {
				dst = append(append(dst, s[done:i]...), "\uFFFD"...)
				i++
				done = i
			} else {
				i += size
			}
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(dst, s[done:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		done = i
	}
	return append(append(dst, s[done:]...), '"')
}

// AppendTime appends at in UTC as RFC 3339 has it, with digits digits of the second's
// fraction; the rest is cut off. Layouts other than RFC3339 itself take package time three
// times as long.
func AppendTime(dst []byte, at time.Time, digits int) []byte {
	at = at.UTC()
	dst = at.AppendFormat(dst, time.RFC3339)
	if digits == 0 {
		return dst
	}
	dst[len(dst)-1] = '.' // for the Z
	for place := 100_000_000; digits > 0; digits-- {
		dst = append(dst, '0'+byte(at.Nanosecond()/place%10))
		place /= 10
	}
	return append(dst, 'Z')
}
