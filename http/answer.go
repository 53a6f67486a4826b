package http

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
)

var (
	jsonType    = []string{"application/json"}
	problemType = []string{"application/problem+json"}
)

// statuses says what HTTP calls each kind of error, the one place that does.
var statuses = map[domain.Kind]int{
	domain.KindInternal:     http.StatusInternalServerError,
	domain.KindInvalid:      http.StatusUnprocessableEntity,
	domain.KindMalformed:    http.StatusBadRequest,
	domain.KindNotFound:     http.StatusNotFound,
	domain.KindConflict:     http.StatusConflict,
	domain.KindStale:        http.StatusPreconditionFailed,
	domain.KindTooLarge:     http.StatusRequestEntityTooLarge,
	domain.KindUnauthorized: http.StatusUnauthorized,
	domain.KindForbidden:    http.StatusForbidden,
	domain.KindThrottled:    http.StatusTooManyRequests,
	domain.KindUnavailable:  http.StatusServiceUnavailable,
}

// problem is what all problems of one type have in common.
type problem struct{ name, title string }

var titles = map[domain.Kind]string{
	domain.KindInternal:     "The service failed",
	domain.KindInvalid:      "Fields of the request break a rule",
	domain.KindMalformed:    "The request cannot be read",
	domain.KindNotFound:     "There is no such thing",
	domain.KindConflict:     "The request contradicts what is",
	domain.KindStale:        "What is to be changed has changed since",
	domain.KindTooLarge:     "The request is too large",
	domain.KindUnauthorized: "A valid token is required",
	domain.KindForbidden:    "The token may not do this",
	domain.KindThrottled:    "Too many requests",
	domain.KindUnavailable:  "The service cannot do this now",
}

func problemOf(kind domain.Kind) problem { return problem{kind.String(), titles[kind]} }

// unsupportedMedia refuses a body that is no JSON.
type unsupportedMedia struct{ message string }

func (e *unsupportedMedia) Error() string { return e.message }

// fail answers with a problem (RFC 9457). What a caller may see of err is its
// message and fields; the rest is in the log line of the request.
func (s *Server) fail(x *exchange, r *http.Request, err error) {
	err = commands.Failed(r.Method+" "+x.route, err)
	x.err = err
	if x.status != 0 {
		panic(http.ErrAbortHandler) // half an answer is out: the connection ends, visibly
	}
	var media *unsupportedMedia
	if errors.As(err, &media) {
		writeProblem(x, http.StatusUnsupportedMediaType, problem{"unsupported_media_type", "The body must be JSON"}, media.message, nil)
		return
	}
	kind := domain.KindOf(err)
	detail := ""
	var known *domain.Error
	if errors.As(err, &known) && kind != domain.KindInternal {
		detail = known.Message
	}
	switch kind {
	case domain.KindUnauthorized:
		x.Header().Set("WWW-Authenticate", `Bearer realm="medilab-webhooks"`)
	case domain.KindUnavailable, domain.KindThrottled:
		x.Header().Set("Retry-After", "1")
	case domain.KindTooLarge:
		x.Header().Set("Connection", "close")
		defer drain(x, r)
	}
	writeProblem(x, statuses[kind], problemOf(kind), detail, domain.FieldsOf(err))
}

func writeProblem(x *exchange, status int, p problem, detail string, fields []domain.FieldError) {
	x.Header()["Content-Type"] = problemType
	writeBody(x, status, encodeProblem(status, p, detail, fields, x.caller.RequestID))
}

// encodeProblem returns the JSON of a problem (RFC 9457).
func encodeProblem(status int, p problem, detail string, fields []domain.FieldError, requestID string) []byte {
	return encode(struct {
		Type      string       `json:"type"`
		Title     string       `json:"title"`
		Status    int          `json:"status"`
		Detail    string       `json:"detail,omitempty"`
		Errors    []fieldError `json:"errors,omitempty"`
		RequestID string       `json:"request_id,omitempty"`
	}{"urn:medilab:problem:" + p.name, p.title, status, detail, fieldErrors(fields), requestID})
}

// fieldError names a field of a request as the contract's tables do, so that a
// caller finds it among those it sent. Path leads on to the place within it, if
// the fault is not in all of it: filters.a.$gt of filters, events[2] of events.
type fieldError struct {
	Field   string `json:"field"`
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
}

func fieldErrors(fields []domain.FieldError) []fieldError {
	var list []fieldError
	for _, f := range fields {
		view := fieldError{Field: wholeField(f.Field), Message: f.Message}
		if view.Field != f.Field {
			view.Path = f.Field
		}
		list = append(list, view)
	}
	return list
}

// holders are the fields with places within. Other names, such as those that a
// caller made up, stay whole whatever is in them.
var holders = []string{"batch", "event_types", "events", "filters", "headers"}

// wholeField gives the field that holds the place. The events of a batch have
// fields of their own: events[2].event_type is one.
func wholeField(path string) string {
	end := strings.IndexAny(path, ".[")
	if end < 0 || !slices.Contains(holders, path[:end]) || path[end] == '[' && strings.Contains(path, "].") {
		return path
	}
	return path[:end]
}

// answer writes v as JSON.
func (x *exchange) answer(status int, v any) error {
	x.Header()["Content-Type"] = jsonType
	writeBody(x, status, encode(v))
	return nil
}

// writeBody writes a whole answer. That a caller is gone is nobody's error.
func writeBody(x *exchange, status int, body []byte) {
	x.Header()["Content-Length"] = []string{strconv.Itoa(len(body))}
	x.WriteHeader(status)
	_, _ = x.Write(body)
}

// encode gives the JSON of one of our own answers, which always encode, and
// escapes nothing for HTML.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// moment is a time in an answer; zero is null.
type moment time.Time

// MarshalJSON writes RFC 3339 in UTC, or null.
func (m moment) MarshalJSON() ([]byte, error) {
	if time.Time(m).IsZero() {
		return []byte("null"), nil
	}
	return appendMoment(nil, time.Time(m)), nil
}

// appendMoment writes RFC 3339 in UTC with the microseconds that the log keeps.
func appendMoment(dst []byte, at time.Time) []byte {
	const micros = 6
	return append(domain.AppendTime(append(dst, '"'), at, micros), '"')
}

// page is the answer of every list.
type page[T any] struct {
	Items      []T     `json:"items"`
	NextCursor *string `json:"next_cursor"`
}

func newPage[T any](items []T, next string) page[T] {
	p := page[T]{Items: items}
	if p.Items == nil {
		p.Items = []T{}
	}
	if next != "" {
		p.NextCursor = &next
	}
	return p
}

// refused are the problems that net/http refuses by itself, before any handler is called.
var refused = map[int]problem{
	http.StatusBadRequest:                  {"malformed", "The request cannot be read"},
	http.StatusExpectationFailed:           {"expectation_failed", "The request expects what there is not"},
	http.StatusRequestHeaderFieldsTooLarge: {"headers_too_large", "The headers of the request are too large"},
	http.StatusNotImplemented:              {"unsupported_transfer_encoding", "The body comes in an unknown transfer encoding"},
	http.StatusHTTPVersionNotSupported:     {"unsupported_version", "The request is of an unknown version of HTTP"},
}

// Refused returns the problem of a request that was refused before any handler was
// called, see fastpath.Config.
func Refused(status int, detail string) []byte {
	p, known := refused[status]
	if !known {
		p = problem{"refused", http.StatusText(status)}
	}
	return encodeProblem(status, p, detail, nil, "")
}
