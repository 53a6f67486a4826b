package domain

import (
	"regexp"
	"strings"
	"time"
)

// rfc3339 is what RFC 3339 allows; package time also takes hours of one digit, a comma
// before the fraction and offsets of a day.
var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// ParseTime parses a time of RFC 3339, with any offset and in any letter case, within the
// years that Postgres and RFC 3339 share. The zero time is not one of them. The result is
// in UTC.
func ParseTime(text string) (time.Time, bool) {
	text = strings.ToUpper(text)
	if !rfc3339.MatchString(text) {
		return time.Time{}, false
	}
	at, err := time.Parse(time.RFC3339, text)
	at = at.UTC()
	if err != nil || at.Year() < 1 || at.Year() > 9999 || at.IsZero() {
		return time.Time{}, false
	}
	return at, true
}

// CheckRange returns what is wrong with the fields from and to; a zero time is no bound.
func CheckRange(from, to time.Time) []FieldError {
	if !to.IsZero() && from.After(to) {
		return []FieldError{{Field: "to", Message: "must not be before from"}}
	}
	return nil
}
