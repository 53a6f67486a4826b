package domain

import (
	"errors"
	"strings"
)

// Kind says what sort of refusal or failure an error is. It is a closed set: the edge
// of the program maps each kind to what its protocol calls it, and domain knows no protocol.
type Kind uint8

// The kinds. The zero value is KindInternal, so that an error nobody classified is never
// shown to a caller.
const (
	KindInternal     Kind = iota // something failed that is no fault of the caller
	KindInvalid                  // a well-formed request breaks a rule of one or more fields
	KindMalformed                // the request could not be read at all
	KindNotFound                 // what the request names does not exist
	KindConflict                 // the request contradicts the state of what it names
	KindStale                    // the caller's copy is older than the one it wants to change
	KindTooLarge                 // the request is bigger than the limit
	KindUnauthorized             // nobody is known to be calling
	KindForbidden                // the caller is known and may not do this
	KindThrottled                // too many requests, try later
	KindUnavailable              // the service cannot do this now, try later
)

var kindNames = [...]string{
	KindInternal:     "internal",
	KindInvalid:      "invalid",
	KindMalformed:    "malformed",
	KindNotFound:     "not_found",
	KindConflict:     "conflict",
	KindStale:        "stale",
	KindTooLarge:     "too_large",
	KindUnauthorized: "unauthorized",
	KindForbidden:    "forbidden",
	KindThrottled:    "throttled",
	KindUnavailable:  "unavailable",
}

// String is the kind's stable lower-case name, for logs and metrics.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return kindNames[KindInternal]
}

// Kinds lists every kind, so that a map from kinds to something else can be checked
// to be complete.
func Kinds() []Kind {
	all := make([]Kind, len(kindNames))
	for i := range all {
		all[i] = Kind(i)
	}
	return all
}

// Error makes a kind usable as a target: errors.Is(err, domain.KindNotFound).
func (k Kind) Error() string { return k.String() }

// FieldError names one field of a request and what is wrong with it. Field is a path
// with dots (`filters.amount_min`, `headers.Host`, `events[2]`), Message a sentence part
// that is safe to show.
type FieldError struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

// Error is the one error type that rules return. Message and Fields are safe to show to
// a caller: they never hold a secret, a token or a header's value. Err is the cause, for
// the log only.
type Error struct {
	Kind    Kind
	Message string
	Fields  []FieldError
	Err     error
}

// Error tells all there is, cause included: it is for logs. What a caller may see is
// Message and Fields.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Message != "" {
		b.WriteString(e.Message)
	} else {
		b.WriteString(e.Kind.String())
	}
	for i, f := range e.Fields {
		if i == 0 {
			b.WriteString(": ")
		} else {
			b.WriteString("; ")
		}
		b.WriteString(f.Field)
		b.WriteString(" ")
		b.WriteString(f.Message)
	}
	if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports a match with a Kind, or with an *Error of the same kind and message.
func (e *Error) Is(target error) bool {
	switch t := target.(type) {
	case Kind:
		return e.Kind == t
	case *Error:
		return e == t || e.Kind == t.Kind && e.Message == t.Message && t.Err == nil && len(t.Fields) == 0
	}
	return false
}

// KindOf is the kind of the outermost *Error in err's chain; KindInternal for any other
// error. Of a nil error it is KindInternal too: ask only about errors.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	var k Kind
	if errors.As(err, &k) {
		return k
	}
	return KindInternal
}

// FieldsOf gives the fields that err complains about, if any.
func FieldsOf(err error) []FieldError {
	var e *Error
	if errors.As(err, &e) {
		return e.Fields
	}
	return nil
}

const invalidMessage = "the request has invalid fields"

// Invalid refuses one field.
func Invalid(field, message string) *Error {
	return InvalidFields([]FieldError{{field, message}})
}

// InvalidFields refuses several fields at once, so that a caller mends them in one go.
func InvalidFields(fields []FieldError) *Error {
	return &Error{Kind: KindInvalid, Message: invalidMessage, Fields: fields}
}

// CheckFields is nil when no field was refused, and otherwise the error that names them
// all. It returns the error interface so that callers can return it as it is.
func CheckFields(fields []FieldError) error {
	if len(fields) == 0 {
		return nil
	}
	return InvalidFields(fields)
}

// Malformed refuses a request that could not be read.
func Malformed(message string) *Error { return &Error{Kind: KindMalformed, Message: message} }

// NotFound says that what does not exist: NotFound("webhook") reads "webhook not found".
func NotFound(what string) *Error {
	return &Error{Kind: KindNotFound, Message: what + " not found"}
}

// Conflict refuses what contradicts the present state.
func Conflict(message string) *Error { return &Error{Kind: KindConflict, Message: message} }

// Stale refuses a change of a version that is no longer the newest.
func Stale(message string) *Error { return &Error{Kind: KindStale, Message: message} }

// TooLarge refuses a request over its limit.
func TooLarge(message string) *Error { return &Error{Kind: KindTooLarge, Message: message} }

// Unauthorized refuses a caller that nobody knows.
func Unauthorized(message string) *Error { return &Error{Kind: KindUnauthorized, Message: message} }

// Forbidden refuses a known caller.
func Forbidden(message string) *Error { return &Error{Kind: KindForbidden, Message: message} }

// Throttled asks a caller to come back later because it asks too much.
func Throttled(message string) *Error { return &Error{Kind: KindThrottled, Message: message} }

// Unavailable says that the service cannot do this now; err is the cause.
func Unavailable(message string, err error) *Error {
	return &Error{Kind: KindUnavailable, Message: message, Err: err}
}

// Internal wraps a failure with what was being done; nothing of it is shown.
func Internal(doing string, err error) *Error {
	return &Error{Kind: KindInternal, Message: doing, Err: err}
}
