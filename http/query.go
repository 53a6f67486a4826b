package http

import (
	"encoding/base64"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/medilab/webhooks/domain"
)

// query reads the parameters of a request's query, and gathers what is wrong
// with them. A parameter without a value is as good as left out.
type query struct {
	values  url.Values
	known   map[string]bool
	refused []domain.FieldError
}

func readQuery(r *http.Request) *query {
	values, err := url.ParseQuery(r.URL.RawQuery)
	q := &query{values: values, known: map[string]bool{}}
	if err != nil {
		q.refuse("query", "cannot be read")
	}
	return q
}

func (q *query) refuse(field, message string) {
	q.refused = append(q.refused, domain.FieldError{Field: field, Message: message})
}

// get gives the parameter's value; "" when it is left out.
func (q *query) get(name string) string {
	q.known[name] = true
	values := q.values[name]
	if len(values) > 1 {
		q.refuse(name, "is there twice")
	}
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

func (q *query) text(name string) string {
	value := q.get(name)
	const most = 1000
	if len(value) > most || !isText(value) {
		q.refuse(name, "must be text of at most 1000 bytes")
		return ""
	}
	return value
}

// choice gives one of the values, the first of them when it is left out.
func (q *query) choice(name string, values ...string) string {
	value := q.get(name)
	if value == "" {
		return values[0]
	}
	for _, one := range values {
		if value == one {
			return value
		}
	}
	named := slices.DeleteFunc(slices.Clone(values), func(one string) bool { return one == "" })
	q.refuse(name, "must be one of "+strings.Join(named, ", "))
	return values[0]
}

func (q *query) time(name string) time.Time {
	value := q.get(name)
	if value == "" {
		return time.Time{}
	}
	at, ok := parseTime(value)
	if !ok {
		q.refuse(name, mustBeTime)
	}
	return at
}

const mustBeTime = "must be a time like 2024-01-15T10:30:00Z"

// parseTime reads RFC 3339, with any offset, within the years that Postgres and
// RFC 3339 both know. The zero time is none of them.
func parseTime(text string) (time.Time, bool) {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, false
	}
	at = at.UTC()
	if at.Year() < 1 || at.Year() > 9999 || at.IsZero() {
		return time.Time{}, false
	}
	return at, true
}

// eventType gives a type of the catalogue; "" when it is left out.
func (q *query) eventType(catalog domain.Catalog) domain.EventType {
	t := domain.EventType(q.get("event_type"))
	if t == "" {
		return ""
	}
	if _, known := catalog.Find(t); !known {
		q.refuse("event_type", "is not a known event type")
	}
	return t
}

const (
	defaultLimit = 50
	maxLimit     = 1000
)

func (q *query) limit() int {
	value := q.get("limit")
	if value == "" {
		return defaultLimit
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > maxLimit {
		q.refuse("limit", fmt.Sprintf("must be from 1 to %d", maxLimit))
		return defaultLimit
	}
	return n
}

// cursor gives where the page before ended: 0 at the beginning.
func (q *query) cursor() int64 {
	value := q.get("cursor")
	if value == "" {
		return 0
	}
	n, ok := parseCursor(value)
	if !ok {
		q.refuse("cursor", "is not a next_cursor of this list")
	}
	return n
}

// part is what a caller wants of a list that is whole at hand. Unlike of a list
// that grows with use, that is all of it unless the caller gives a limit.
type part struct{ after, limit int }

func (q *query) part() part {
	p := part{after: int(q.cursor()), limit: math.MaxInt}
	if q.get("limit") != "" {
		p.limit = q.limit()
	}
	return p
}

// partOf gives the page of the list that the part asks for.
func partOf[T any](list []T, p part) page[T] {
	rest := list[min(p.after, len(list)):]
	if len(rest) <= p.limit {
		return newPage(rest, "")
	}
	return newPage(rest[:p.limit], newCursor(int64(p.after+p.limit)))
}

// done refuses the request when anything is wrong, parameters that nobody asked
// for included: a misspelt filter never passes silently.
func (q *query) done() error {
	for name := range q.values {
		if !q.known[name] {
			q.refuse(shown(name), "is not a parameter of this path")
		}
	}
	return domain.CheckFields(q.refused)
}

// A cursor is opaque to callers. It names the last item of its page, so that
// what is added meanwhile neither repeats nor hides an item.
const cursorMark = "v1."

func newCursor(last int64) string {
	return base64.RawURLEncoding.EncodeToString([]byte(cursorMark + strconv.FormatInt(last, 10)))
}

func parseCursor(text string) (int64, bool) {
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(data) < len(cursorMark) || string(data[:len(cursorMark)]) != cursorMark {
		return 0, false
	}
	n, err := strconv.ParseInt(string(data[len(cursorMark):]), 10, 64)
	return n, err == nil && n > 0
}

// isText tells what a text column can hold.
func isText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }
