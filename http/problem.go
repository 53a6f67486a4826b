package http

import (
	"cmp"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
)

// problem is what all problems (RFC 9457) of one type have in common.
type problem struct {
	status      int
	name, title string
}

// problems maps each kind of error to its problem.
var problems = map[domain.Kind]problem{
	domain.KindInternal:     {http.StatusInternalServerError, "internal", "The service failed"},
	domain.KindInvalid:      {http.StatusUnprocessableEntity, "invalid", "Fields of the request break a rule"},
	domain.KindMalformed:    malformed,
	domain.KindNotFound:     {http.StatusNotFound, "not_found", "Not found"},
	domain.KindConflict:     {http.StatusConflict, "conflict", "The request conflicts with the current state"},
	domain.KindStale:        {http.StatusPreconditionFailed, "stale", "The resource has changed since you read it"},
	domain.KindTooLarge:     {http.StatusRequestEntityTooLarge, "too_large", "The request is too large"},
	domain.KindUnauthorized: {http.StatusUnauthorized, "unauthorized", "A valid token is required"},
	domain.KindForbidden:    {http.StatusForbidden, "forbidden", "The request is not allowed"},
	domain.KindThrottled:    {http.StatusTooManyRequests, "throttled", "Too many requests"},
	domain.KindUnavailable:  {http.StatusServiceUnavailable, "unavailable", "The service cannot do this now"},
	domain.KindGone:         {http.StatusGone, "gone", "Archived"},
}

// The problems of HTTP itself.
var (
	malformed        = problem{http.StatusBadRequest, "malformed", "The request cannot be read"}
	methodNotAllowed = problem{http.StatusMethodNotAllowed, "method_not_allowed", "The path does not have this method"}
	notJSON          = problem{http.StatusUnsupportedMediaType, "unsupported_media_type", "The body must be JSON"}

	// Those that net/http refuses by itself.
	refusals = []refusal{
		{malformed, "the request line or a header does not follow HTTP/1.1"},
		{problem{http.StatusExpectationFailed, "expectation_failed", "The request expects what there is not"}, "expect nothing but 100-continue"},
		{problem{http.StatusRequestHeaderFieldsTooLarge, "headers_too_large", "The headers of the request are too large"}, "the request line and the headers may have up to 64 KB in all"},
		{problem{http.StatusNotImplemented, "unsupported_transfer_encoding", "The body comes in an unknown transfer encoding"}, "the only transfer encoding is chunked"},
		{problem{http.StatusHTTPVersionNotSupported, "unsupported_version", "The request is of an unknown version of HTTP"}, "unsupported protocol version"},
	}
)

// refusal is a problem of HTTP itself, with its detail, or the one to use where net/http states no
// reason.
type refusal struct {
	problem
	detail string
}

func (e *refusal) Error() string { return e.detail }

// MaxHeaderBytes is how large the request line and the headers may be in all.
const MaxHeaderBytes = 64 << 10

// Refuse answers a request that is refused before any handler is called, see fastpath.Config.
func (s *Server) Refuse(w http.ResponseWriter, r *http.Request, status int, detail string) {
	x := s.begin(w, r)
	if s.config.Proxies != nil {
		defer s.config.Proxies.client(r)()
	}
	defer s.finish(x, r)
	for _, known := range refusals {
		if known.status == status {
			x.respondProblem(known.problem, cmp.Or(detail, known.detail), nil, 0)
			return
		}
	}
	x.respondProblem(problem{status, "refused", http.StatusText(status)}, detail, nil, 0)
}

func (x *request) respondProblem(p problem, detail string, fields []domain.FieldError, archivedTo int64) {
	body := encode(struct {
		Type       string       `json:"type"`
		Title      string       `json:"title"`
		Status     int          `json:"status"`
		Detail     string       `json:"detail,omitempty"`
		Errors     []fieldError `json:"errors,omitempty"`
		ArchivedTo int64        `json:"archived_to,omitempty"`
		RequestID  string       `json:"request_id,omitempty"`
	}{"urn:medilab:problem:" + p.name, p.title, p.status, detail, fieldErrors(fields), archivedTo, x.caller.RequestID})
	x.write(p.status, problemType, x.inLanguage(body))
}

// fail answers with the problem of err, of which a caller sees the message and fields;
// the rest is in the log line of the request.
func (s *Server) fail(x *request, r *http.Request, err error) {
	err = commands.Failed(r.Method+" "+x.route(), err)
	x.err = err
	if x.status != 0 {
		if r.Context().Err() == nil {
			s.logger.Error("an answer was cut off", "path", loggedPath(x, r), "request_id", x.caller.RequestID, "error", err)
		}
		panic(http.ErrAbortHandler) // half an answer is out: the connection ends, visibly
	}
	if refused, ok := errors.AsType[*refusal](err); ok {
		x.respondProblem(refused.problem, refused.detail, nil, 0)
		return
	}
	kind := domain.KindOf(err)
	detail, archivedTo := "", int64(0)
	if known, ok := errors.AsType[*domain.Error](err); ok && kind != domain.KindInternal {
		detail, archivedTo = known.Message, known.ArchivedTo
	}
	switch kind {
	case domain.KindUnauthorized:
		x.Header().Set("WWW-Authenticate", `Bearer realm="medilab-webhooks"`)
	case domain.KindUnavailable, domain.KindThrottled:
		x.Header().Set("Retry-After", "1")
	case domain.KindTooLarge:
		x.Header().Set("Connection", "close")
		defer discard(x, r)
	}
	x.respondProblem(problems[kind], detail, domain.FieldsOf(err), archivedTo)
}

// fieldError names a field of the request as the contract's tables do. Path leads to the
// place within it, if the fault is not in all of it: filters.a.$gt of filters.
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

// nested are the fields with places within. Other names, such as those that a caller made
// up, stay whole whatever is in them.
var nested = []string{"auth", "batch", "event_types", "events", "fields", "filters", "headers", "recipient"}

// wholeField returns the field that holds the place. The events of a batch have fields of
// their own: events[2].event_type is one.
func wholeField(path string) string {
	end := strings.IndexAny(path, ".[")
	if end < 0 || !slices.Contains(nested, path[:end]) || path[end] == '[' && strings.Contains(path, "].") {
		return path
	}
	return path[:end]
}
