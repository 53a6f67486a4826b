package domain

import (
	"cmp"
	"errors"
)

// Kind classifies errors. It is a closed set, which http maps to statuses.
type Kind uint8

// The kinds. Internal is the zero value: an unclassified error is not shown to a caller.
const (
	KindInternal     Kind = iota // a failure that is not the caller's fault
	KindInvalid                  // fields of a well-formed request break a rule
	KindMalformed                // the request cannot be read
	KindNotFound                 // what the request names does not exist
	KindConflict                 // the request contradicts the state of what it names
	KindStale                    // the resource has changed since the caller read it
	KindTooLarge                 // the request exceeds a limit
	KindUnauthorized             // the caller is not known
	KindForbidden                // the caller is known and may not do this
	KindThrottled                // too many requests; try later
	KindUnavailable              // the service cannot do this now; try later
	KindGone                     // it is archived
)

var kindNames = [...]string{
	"internal", "invalid", "malformed", "not_found", "conflict", "stale", "too_large",
	"unauthorized", "forbidden", "throttled", "unavailable", "gone",
}

// String returns the kind's stable name, for logs, metrics and problem types.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return kindNames[KindInternal]
}

// Error makes a kind usable as a target: errors.Is(err, domain.KindNotFound).
func (k Kind) Error() string { return k.String() }

// FieldError says what is wrong with one field of a request. Field is a path
// (`filters.amount_min`, `events[2]`), Message the rest of a sentence that begins with it,
// safe to show.
type FieldError struct {
	Field   string `json:"field"`
	Message string `json:"message"`
	// Public is Field without names that the caller made up, which may be patients' data;
	// empty: there are none.
	Public string `json:"-"`
}

// Within puts the place in the request in front of the field.
func (f *FieldError) Within(place string) {
	if f.Field = place + f.Field; f.Public != "" {
		f.Public = place + f.Public
	}
}

// String returns what can be logged and stored.
func (f FieldError) String() string { return cmp.Or(f.Public, f.Field) + " " + f.Message }

// Error is the error that rules return. Message and Fields are safe to show to the caller:
// they never hold a secret, a token or a header's value. Err is the cause, for the log.
type Error struct {
	Kind    Kind
	Message string
	Public  string // Message without names that the caller made up; empty: there are none
	Fields  []FieldError
	Err     error
	// ArchivedTo is the last position of the log that is archived, if that is why it is not there.
	ArchivedTo int64
}

// Error returns all of it that can be logged and stored, with the cause.
func (e *Error) Error() string {
	text := cmp.Or(e.Public, e.Message, e.Kind.String())
	separator := ": "
	for _, f := range e.Fields {
		text += separator + f.String()
		separator = "; "
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is e's Kind, or an *Error of the same kind and message.
func (e *Error) Is(target error) bool {
	switch t := target.(type) {
	case Kind:
		return e.Kind == t
	case *Error:
		return e == t || e.Kind == t.Kind && e.Message == t.Message && t.Err == nil && len(t.Fields) == 0
	}
	return false
}

// KindOf returns the kind of the outermost *Error in err's chain; KindInternal if none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	k, _ := errors.AsType[Kind](err)
	return k
}

// FieldsOf returns the fields that err complains about.
func FieldsOf(err error) []FieldError {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Fields
	}
	return nil
}

// CheckFields returns InvalidFields of the fields, or nil if there are none.
func CheckFields(fields []FieldError) error {
	if len(fields) == 0 {
		return nil
	}
	return InvalidFields(fields)
}

// InvalidFields refuses several fields at once.
func InvalidFields(fields []FieldError) *Error {
	return &Error{Kind: KindInvalid, Message: "the request has invalid fields", Fields: fields}
}

// Invalid refuses one field.
func Invalid(field, message string) *Error {
	return InvalidFields([]FieldError{{Field: field, Message: message}})
}

// NotFound returns "what not found".
func NotFound(what string) *Error { return &Error{Kind: KindNotFound, Message: what + " not found"} }

// The other kinds of errors. Err, where there is one, is the cause; of Internal, nothing
// is shown, and doing says what failed.

func Malformed(message string) *Error    { return &Error{Kind: KindMalformed, Message: message} }
func Conflict(message string) *Error     { return &Error{Kind: KindConflict, Message: message} }
func Stale(message string) *Error        { return &Error{Kind: KindStale, Message: message} }
func TooLarge(message string) *Error     { return &Error{Kind: KindTooLarge, Message: message} }
func Unauthorized(message string) *Error { return &Error{Kind: KindUnauthorized, Message: message} }
func Forbidden(message string) *Error    { return &Error{Kind: KindForbidden, Message: message} }
func Throttled(message string) *Error    { return &Error{Kind: KindThrottled, Message: message} }

func Unavailable(message string, err error) *Error {
	return &Error{Kind: KindUnavailable, Message: message, Err: err}
}

func Internal(doing string, err error) *Error {
	return &Error{Kind: KindInternal, Message: doing, Err: err}
}
