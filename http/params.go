package http

import (
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
	"github.com/medilab/webhooks/projections"
)

// param declares a query parameter: how its value is read, and how it is described.
// Operations list the ones they have, and their handlers read them by of.
type param[T any] struct {
	name, text string
	schema     schema
	absent     T    // the value if it is left out or empty
	filled     bool // an empty value is refused
	parse      func(value string, catalog domain.Catalog) (v T, problem string)
}

// queryParam is a param of any type.
type queryParam interface {
	described() (name, text string, s schema)
	read(values []string, catalog domain.Catalog) (v any, problem string)
}

func (p param[T]) described() (name, text string, s schema) { return p.name, p.text, p.schema }

func (p param[T]) read(values []string, catalog domain.Catalog) (any, string) {
	if len(values) == 0 || values[0] == "" && !p.filled {
		return p.absent, ""
	}
	return p.parse(values[0], catalog)
}

// mustFill returns the parameter that is left out or has a value, but is never empty.
func (p param[T]) mustFill() param[T] {
	p.filled = true
	return p
}

// of returns the parameter's value. The request's operation must list the parameter.
func (p param[T]) of(x *request) T { return x.query[p.name].(T) }

// readQuery reads the parameters, and refuses all others: a misspelt one never passes
// silently.
func readQuery(r *http.Request, params []queryParam, catalog domain.Catalog) (map[string]any, error) {
	var refused []domain.FieldError
	refuse := func(name, problem string) {
		if problem != "" {
			refused = append(refused, domain.FieldError{Field: name, Message: problem})
		}
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		refuse("query", "cannot be read")
	}
	query := make(map[string]any, len(params))
	for _, p := range params {
		name, _, _ := p.described()
		if len(values[name]) > 1 {
			refuse(name, "is there twice")
		}
		value, problem := p.read(values[name], catalog)
		refuse(name, problem)
		query[name] = value
		delete(values, name)
	}
	for name := range values {
		refuse(shown(name), "is not a parameter of this path")
	}
	if from, to := query[from.name], query[to.name]; from != nil && to != nil {
		refused = append(refused, domain.CheckRange(from.(time.Time), to.(time.Time))...)
	}
	return query, domain.CheckFields(refused)
}

// refusesType reports whether the error is, among others, about an event type.
func refusesType(err error) bool {
	return slices.ContainsFunc(domain.FieldsOf(err), func(f domain.FieldError) bool { return f.Field == eventType.name })
}

// The parameters that several operations have.
var (
	from      = timeParam("from", "at or after")
	to        = timeParam("to", "before")
	eventType = param[domain.EventType]{name: "event_type", text: "a type of the catalogue, or one that the log has events of", schema: schema{"type": "string"}, parse: parseEventType}

	limit  = countParam("limit", "items of a page", defaultLimit, schema{"type": "integer", "minimum": 1, "maximum": maxLimit, "default": defaultLimit})
	cursor = param[projections.Cursor]{name: "cursor", text: "next_cursor of the page before", schema: schema{"type": "string"}, parse: parseCursor}

	// atMost limits a list that is whole unless it is limited.
	atMost = countParam("limit", "items of a page", math.MaxInt, countSchema)
)

const (
	defaultLimit = 50
	maxLimit     = 1000
)

var countSchema = schema{"type": "integer", "minimum": 1, "maximum": maxLimit}

func textParam(name, text string) param[string] {
	return param[string]{name: name, text: text, schema: schema{"type": "string"}, parse: parseText}
}

func parseText(value string, _ domain.Catalog) (string, string) {
	const longest = 1000
	if len(value) > longest || !isText(value) {
		return "", "must be text of at most 1000 bytes"
	}
	return value, ""
}

func isText(value string) bool { return utf8.ValidString(value) && strings.IndexByte(value, 0) < 0 }

func timeParam(name, text string) param[time.Time] {
	return param[time.Time]{name: name, text: text, schema: schema{"type": "string", "format": "date-time"}, parse: func(value string, _ domain.Catalog) (time.Time, string) {
		at, ok := domain.ParseTime(value)
		if !ok {
			return at, mustBeTime
		}
		return at, ""
	}}
}

// idParam is a UUID; all zero if it is left out.
func idParam[T ~[16]byte](name, text string) param[T] {
	return param[T]{name: name, text: text, schema: schema{"type": "string", "format": "uuid"}, parse: func(value string, _ domain.Catalog) (T, string) {
		id, ok := parseUUID(value)
		if !ok {
			return T{}, "must be a UUID"
		}
		return T(id), ""
	}}
}

const mustBeTime = "must be a time like 2024-01-15T10:30:00Z"

// choiceParam is one of a few values; absent may be one of them.
func choiceParam[T ~string](name, text string, absent T, values ...T) param[T] {
	s := schema{"type": "string", "enum": values}
	if absent != "" {
		s["default"] = absent
	}
	return param[T]{name: name, text: text, schema: s, absent: absent, parse: func(value string, _ domain.Catalog) (T, string) {
		names := make([]string, len(values))
		for i, one := range values {
			if T(value) == one {
				return one, ""
			}
			names[i] = string(one)
		}
		return absent, "must be one of " + strings.Join(names, ", ")
	}}
}

func parseEventType(value string, catalog domain.Catalog) (domain.EventType, string) {
	t := domain.EventType(value)
	if _, known := catalog.Find(t); !known {
		return "", "is not a known event type"
	}
	return t, ""
}

func countParam(name, text string, absent int, s schema) param[int] {
	return param[int]{name: name, text: text, schema: s, absent: absent, parse: func(value string, _ domain.Catalog) (int, string) {
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > maxLimit {
			return 0, fmt.Sprintf("must be from 1 to %d", maxLimit)
		}
		return n, ""
	}}
}

func parseCursor(value string, _ domain.Catalog) (projections.Cursor, string) {
	c, ok := projections.ParseCursor(value)
	if !ok {
		return 0, "must be the next_cursor of an earlier answer"
	}
	return c, ""
}

// position is a position in the log.
var position = param[projections.Position]{
	name: "after", text: "the position of the last line that is known already", schema: schema{"type": "integer", "minimum": 0},
	parse: func(value string, _ domain.Catalog) (projections.Position, string) {
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < 0 {
			return 0, "must be the position of an entry"
		}
		return projections.Position(n), ""
	},
}

// headerParam declares a header.
type headerParam struct{ name, text string }

var (
	ifMatch        = headerParam{"If-Match", "the ETag of the version to change; another version is 412"}
	traceparent    = headerParam{domain.HeaderTraceparent, "the caller's trace (W3C Trace Context), passed on to receivers; an invalid one is ignored"}
	tracestate     = headerParam{domain.HeaderTracestate, "passed on with a valid traceparent; of more than 512 characters, whole members are dropped"}
	idempotencyKey = headerParam{"Idempotency-Key", "makes the request accepted once from this caller: the same key and body answer as the first time, the same key with another body is 409"}
)
