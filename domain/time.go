package domain

import (
	"database/sql/driver"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/medilab/webhooks/domain/strictjson"
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
		return []FieldError{{"to", "must not be before from"}}
	}
	return nil
}

// Moment is a time in an answer.
type Moment struct{ time.Time }

// MarshalJSON writes the time as AppendMoment does.
func (m Moment) MarshalJSON() ([]byte, error) { return AppendMoment(nil, m.Time), nil }

// Value is the time as the database takes it.
func (m Moment) Value() (driver.Value, error) { return m.Time, nil }

// Scan takes a time from the database.
func (m *Moment) Scan(from any) (err error) {
	at, ok := from.(time.Time)
	if m.Time = at; !ok {
		err = fmt.Errorf("%T is no time", from)
	}
	return err
}

// AppendMoment appends RFC 3339 in UTC as a JSON string, with all six digits of the microseconds
// that the log keeps: many readers of ISO 8601 take three digits or six, and no other number.
func AppendMoment(dst []byte, at time.Time) []byte {
	const micros = 6
	return append(strictjson.AppendTime(append(dst, '"'), at, micros), '"')
}
