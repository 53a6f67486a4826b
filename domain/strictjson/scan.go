package strictjson

import (
	"encoding/binary"
	"math/bits"
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

// stringEnd returns the offset after the closing quote of the string whose text begins at i; 0
// if it has none.
func stringEnd(data []byte, i int) int {
	for i = skipPlain(data, i); i < len(data) && data[i] != '"'; i = skipPlain(data, i) {
		if i += 2; data[i-2] != '\\' || i > len(data) {
			return 0
		}
	}
	if i == len(data) {
		return 0
	}
	return i + 1
}
