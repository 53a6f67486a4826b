package domain

import (
	"errors"
	"strings"
)

// Kind says what sort of refusal or failure an error is. It is a closed set: the edge
// of the program maps each kind to what its protocol calls it, and domain knows no protocol.
type Kind uint8

// The kinds. The zero value is Internal, so that an error nobody classified is never
// shown to a caller.
const (
	Internal     Kind = iota // something failed that is no fault of the caller
	Invalid                  // a well-formed request breaks a rule of one or more fields
	Malformed                // the request could not be read at all
	NotFound                 // what the request names does not exist
	Conflict                 // the request contradicts the state of what it names
	Stale                    // the caller's copy is older than the one it wants to change
	TooLarge                 // the request is bigger than the limit
	Unauthorized             // nobody is known to be calling
	Forbidden                // the caller is known and may not do this
	Throttled                // too many requests, try later
	Unavailable              // the service cannot do this now, try later
)

var kindNames = [...]string{
	Internal:     "internal",
	Invalid:      "invalid",
	Malformed:    "malformed",
	NotFound:     "not_found",
	Conflict:     "conflict",
	Stale:        "stale",
	TooLarge:     "too_large",
	Unauthorized: "unauthorized",
	Forbidden:    "forbidden",
	Throttled:    "throttled",
	Unavailable:  "unavailable",
}

// String is the kind's stable lower-case name, for logs and metrics.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return kindNames[Internal]
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

// Error makes a kind usable as a target: errors.Is(err, domain.NotFound).
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

// KindOf is the kind of the outermost *Error in err's chain; Internal for any other
// error. Of a nil error it is Internal too: ask only about errors.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	var k Kind
	if errors.As(err, &k) {
		return k
	}
	return Internal
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

// ErrInvalid refuses one field.
func ErrInvalid(field, message string) *Error {
	return ErrInvalidFields([]FieldError{{field, message}})
}

// ErrInvalidFields refuses several fields at once, so that a caller mends them in one go.
func ErrInvalidFields(fields []FieldError) *Error {
	return &Error{Kind: Invalid, Message: invalidMessage, Fields: fields}
}

// CheckFields is nil when no field was refused, and otherwise the error that names them
// all. It returns the error interface so that callers can return it as it is.
func CheckFields(fields []FieldError) error {
	if len(fields) == 0 {
		return nil
	}
	return ErrInvalidFields(fields)
}

// ErrMalformed refuses a request that could not be read.
func ErrMalformed(message string) *Error { return &Error{Kind: Malformed, Message: message} }

// ErrNotFound says that what does not exist: ErrNotFound("webhook") reads "webhook not found".
func ErrNotFound(what string) *Error {
	return &Error{Kind: NotFound, Message: what + " not found"}
}

// ErrConflict refuses what contradicts the present state.
func ErrConflict(message string) *Error { return &Error{Kind: Conflict, Message: message} }

// ErrStale refuses a change of a version that is no longer the newest.
func ErrStale(message string) *Error { return &Error{Kind: Stale, Message: message} }

// ErrTooLarge refuses a request over its limit.
func ErrTooLarge(message string) *Error { return &Error{Kind: TooLarge, Message: message} }

// ErrUnauthorized refuses a caller that nobody knows.
func ErrUnauthorized(message string) *Error { return &Error{Kind: Unauthorized, Message: message} }

// ErrForbidden refuses a known caller.
func ErrForbidden(message string) *Error { return &Error{Kind: Forbidden, Message: message} }

// ErrThrottled asks a caller to come back later because it asks too much.
func ErrThrottled(message string) *Error { return &Error{Kind: Throttled, Message: message} }

// ErrUnavailable says that the service cannot do this now; err is the cause.
func ErrUnavailable(message string, err error) *Error {
	return &Error{Kind: Unavailable, Message: message, Err: err}
}

// ErrInternal wraps a failure with what was being done; nothing of it is shown.
func ErrInternal(doing string, err error) *Error {
	return &Error{Kind: Internal, Message: doing, Err: err}
}
