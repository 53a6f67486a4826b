// Package suggest finds what somebody meant who mistyped a name.
package suggest

import (
	"strings"
	"unicode/utf8"
)

// MaxLength bounds the work of a suggestion: nothing longer is a slip of the finger.
const MaxLength = 100

// DidYouMean returns the end of a message that names a suggestion; "" without one.
func DidYouMean(suggestion string) string {
	if suggestion == "" {
		return ""
	}
	return "; did you mean " + suggestion + "?"
}

// Nearest returns the candidate with the fewest edits, at most a third of the letters, or
// "".
func Nearest(typed string, candidates []string) string {
	if len(typed) > MaxLength || !utf8.ValidString(typed) {
		return ""
	}
	typed = strings.ToLower(strings.TrimSpace(typed))
	best, bestDistance := "", utf8.RuneCountInString(typed)/3+1
	for _, candidate := range candidates {
		if d := Distance(typed, candidate); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// Distance returns how many insertions, deletions, replacements and swaps of neighbours
// (optimal string alignment) lead from one text to the other.
func Distance(from, to string) int {
	a, b := []rune(from), []rune(to)
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
