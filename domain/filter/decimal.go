package filter

import (
	"bytes"
	"strconv"
)

// decimal is a JSON number taken apart for exact comparison, without ever writing its
// zeros out: 1e308 costs as much as 1. Its value is
//
//	0.<whole><fraction> * 10^exponent
//
// with no zero at either end of the digits, so equal numbers have equal parts however
// they were written (1, 1.0, 10e-1). Zero has no digits. The digits are parts of the
// bytes it was read from.
type decimal struct {
	negative        bool
	whole, fraction []byte
	exponent        int64
}

// saturated is the exponent beyond which numbers are no longer told apart. It is far
// beyond what the length of any text can make up for. In exponentBits, what is larger is
// beyond it too.
const (
	saturated    = int64(1) << 50
	exponentBits = 52
)

// parseDecimal reads raw, which must be a JSON number by its grammar. False means that
// its exponent is too far from zero to compare with; sign and digits are right all the same.
func parseDecimal(raw []byte) (decimal, bool) {
	var d decimal
	if raw[0] == '-' {
		d.negative, raw = true, raw[1:]
	}
	exponent := int64(0)
	if e := bytes.IndexAny(raw, "eE"); e >= 0 {
		exponent, _ = strconv.ParseInt(string(raw[e+1:]), 10, exponentBits)
		raw = raw[:e]
	}
	d.whole = raw
	if dot := bytes.IndexByte(raw, '.'); dot >= 0 {
		d.whole, d.fraction = raw[:dot], raw[dot+1:]
	}
	d.whole = bytes.TrimLeft(d.whole, "0")
	d.exponent = exponent + int64(len(d.whole))
	if len(d.whole) == 0 {
		trimmed := bytes.TrimLeft(d.fraction, "0")
		d.exponent -= int64(len(d.fraction) - len(trimmed))
		d.fraction = trimmed
	}
	d.fraction = bytes.TrimRight(d.fraction, "0")
	if len(d.fraction) == 0 {
		d.whole = bytes.TrimRight(d.whole, "0")
	}
	if d.isZero() {
		return decimal{}, true
	}
	return d, exponent > -saturated && exponent < saturated
}

// appendKey appends what equal numbers have in common and others have not.
func (d decimal) appendKey(dst []byte) []byte {
	sign := byte('+')
	if d.negative {
		sign = '-'
	}
	dst = append(append(append(dst, sign), d.whole...), d.fraction...)
	return strconv.AppendInt(append(dst, 'e'), d.exponent, 10)
}

func (d decimal) isZero() bool { return len(d.whole)+len(d.fraction) == 0 }

func (d decimal) digit(i int) byte {
	switch {
	case i < len(d.whole):
		return d.whole[i]
	case i < len(d.whole)+len(d.fraction):
		return d.fraction[i-len(d.whole)]
	}
	return '0'
}

// compare is -1, 0 or 1 as d is less than, equal to or greater than other.
func (d decimal) compare(other decimal) int {
	switch {
	case d.isZero() && other.isZero():
		return 0
	case d.isZero():
		return other.sign(-1)
	case other.isZero():
		return d.sign(1)
	case d.negative != other.negative:
		return d.sign(1)
	case d.exponent < other.exponent:
		return d.sign(-1)
	case d.exponent > other.exponent:
		return d.sign(1)
	}
	for i := range max(len(d.whole)+len(d.fraction), len(other.whole)+len(other.fraction)) {
		if a, b := d.digit(i), other.digit(i); a < b {
			return d.sign(-1)
		} else if a > b {
			return d.sign(1)
		}
	}
	return 0
}

// sign turns a comparison of magnitudes into one of values.
func (d decimal) sign(magnitude int) int {
	if d.negative {
		return -magnitude
	}
	return magnitude
}
