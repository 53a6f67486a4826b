package domain

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// IsUnshowable reports whether r would change how the text around it is shown, in a
// terminal or on a page: control characters, line breaks, and what sets the direction of
// writing.
func IsUnshowable(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r)
}

// isVisible reports whether r leaves a mark by itself: no space, combining mark or filler.
func isVisible(r rune) bool {
	const blankBraille = '\u2800'
	return unicode.In(r, unicode.L, unicode.N, unicode.P, unicode.S) && r != blankBraille &&
		!unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r)
}

// textProblem says why a text that people are shown cannot be taken; "" when it can.
func textProblem(text string) string {
	switch {
	case !utf8.ValidString(text):
		return "must be valid UTF-8"
	case strings.ContainsFunc(text, IsUnshowable):
		return "must be one line without control characters, or characters that set the direction of writing"
	}
	return ""
}

// Storable replaces what Postgres does not take in a text.
func Storable(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}
