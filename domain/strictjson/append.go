package strictjson

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// AppendString appends s as a JSON string (RFC 8259): quotes, backslashes and control
// characters are escaped and nothing else is, HTML characters in particular. Bytes that
// are not UTF-8 become U+FFFD, so the result is always valid JSON.
func AppendString(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s) // the error says that there was no UTF-8
	return dst
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
