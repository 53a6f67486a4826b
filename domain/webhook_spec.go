package domain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/medilab/webhooks/domain/filter"
	"github.com/medilab/webhooks/domain/strictjson"
)

// Asked is one field of a request: left out, given as null, or given a value.
type Asked[T any] struct {
	Given bool
	Null  bool // given as null: back to the default
	Value T
}

// Ask is a field that was given a value.
func Ask[T any](value T) Asked[T] { return Asked[T]{Given: true, Value: value} }

// AskNull is a field that was given as null.
func AskNull[T any]() Asked[T] { return Asked[T]{Given: true, Null: true} }

// set reports whether the field has a value.
func (a Asked[T]) set() bool { return a.Given && !a.Null }

// or returns the value, or the default if there is none.
func (a Asked[T]) or(otherwise T) T {
	if a.set() {
		return a.Value
	}
	return otherwise
}

// WebhookSpec is a request to create or change a webhook, before it is checked. Secrets
// are in clear.
type WebhookSpec struct {
	Name           Asked[string]
	Description    Asked[string]
	URL            Asked[string]
	Events         Asked[[]string]
	Headers        Asked[[]Header] // a value that is Masked keeps what is stored
	Secret         Asked[Secret]
	MaxRetries     Asked[int]
	RetryDelay     Asked[int] // seconds
	Timeout        Asked[int] // seconds
	Filters        Asked[json.RawMessage]
	Batch          Asked[Batch]
	OrderBy        Asked[string]
	OrderOnFailure Asked[OrderOnFailure]
	Sequence       Asked[bool]
	PayloadVersion Asked[PayloadVersion]
	MaxConcurrent  Asked[int]
	RateLimit      Asked[float64]
	Fields         Asked[[]string]
	Recipient      Asked[DataRecipient]
	Auth           Asked[AuthSpec] // a secret that is Masked keeps what is stored
	Active         Asked[bool]

	AutoDeactivateAfter Asked[int] // seconds
}

// ApprovedSpec is a WebhookSpec that has passed CheckSpec.
type ApprovedSpec struct {
	spec   WebhookSpec
	filter *filter.Filter // compiled, so that nobody compiles it again
}

// Headers returns the requested headers, values in clear.
func (a ApprovedSpec) Headers() []Header { return a.spec.Headers.or(nil) }

// Secret returns the requested secret; zero if none.
func (a ApprovedSpec) Secret() Secret { return a.spec.Secret.or(Secret{}) }

// Auth returns the requested credentials, in clear; zero if none.
func (a ApprovedSpec) Auth() AuthSpec { return a.spec.Auth.or(AuthSpec{}) }

// Sealing holds the encrypted secrets of an ApprovedSpec. Values that do not change must
// be the stored ones: encrypting the same text again makes another ciphertext.
type Sealing struct {
	Headers []SealedHeader
	Secret  Sealed
	Auth    Auth // zero: none
}

// Range is the values that a number of a webhook may have (contract section 2).
type Range struct {
	Min, Max, Default int
	unit              string // for messages
}

// The ranges.
var (
	MaxRetriesRange     = Range{Min: 0, Max: 10, Default: 3}
	RetryDelayRange     = Range{Min: 1, Max: 86400, Default: 60, unit: " seconds"}
	TimeoutRange        = Range{Min: 1, Max: 300, Default: 30, unit: " seconds"}
	AutoDeactivateRange = Range{Min: 3600, Max: 2592000, unit: " seconds"}
	BatchEventsRange    = Range{Min: 1, Max: MaxBatchMembers}
	BatchWaitRange      = Range{Min: 1, Max: 300, unit: " seconds"}
	MaxConcurrentRange  = Range{Min: 1, Max: 512}
)

// The calls a second that a webhook may be limited to.
const (
	MinRateLimit = 0.01
	MaxRateLimit = 10_000
)

// MaxNameLength is the longest name of a webhook, in characters.
const MaxNameLength = 200

const (
	cannotBeNull = "cannot be null"
	isRequired   = "is required"
	hasMask      = "has the mask for a value; give the value itself"
)

// CheckSpec checks a request by the rules of contract section 2, and names all fields that
// break one. A new webhook (creating) must have a name, a url and events.
func CheckSpec(catalog Catalog, spec WebhookSpec, creating bool) (ApprovedSpec, error) {
	c := specCheck{creating: creating}
	approved := ApprovedSpec{}
	c.text("name", spec.Name, 1, MaxNameLength)
	if spec.Description.set() {
		c.shown("description", spec.Description.Value)
	}
	if c.required("url", spec.URL.Given, spec.URL.Null) {
		c.add(FieldsOf(CheckURL(spec.URL.Value))...)
	}
	if c.required("events", spec.Events.Given, spec.Events.Null) {
		events, refused := catalog.ParseSubscriptions("events", spec.Events.Value)
		c.add(refused...)
		spec.Events.Value = events
	}
	if spec.Headers.set() {
		c.add(CheckHeaders(spec.Headers.Value)...)
		if creating {
			c.noMasks(spec.Headers.Value)
		}
	}
	if spec.Secret.set() {
		c.add(CheckSecret("secret", spec.Secret.Value)...)
	}
	c.number("max_retries", spec.MaxRetries, MaxRetriesRange)
	c.number("retry_delay", spec.RetryDelay, RetryDelayRange)
	c.number("timeout", spec.Timeout, TimeoutRange)
	c.number("auto_deactivate_after", spec.AutoDeactivateAfter, AutoDeactivateRange)
	if spec.Filters.set() {
		var err error
		spec.Filters.Value = compacted(spec.Filters.Value) // the form in which it is kept and shared
		approved.filter, err = compileFilter(spec.Filters.Value)
		c.add(FieldsOf(err)...)
	}
	if spec.Batch.set() {
		c.within("batch.max_events", spec.Batch.Value.MaxEvents, BatchEventsRange)
		c.within("batch.max_wait", spec.Batch.Value.MaxWait, BatchWaitRange)
	}
	c.add(spec.checkOrder()...)
	if spec.PayloadVersion.set() && !spec.PayloadVersion.Value.Known() {
		c.add(FieldError{Field: "payload_version", Message: `must be "1", "2" or "cloudevents"`})
	}
	c.number("max_concurrent", spec.MaxConcurrent, MaxConcurrentRange)
	if rate := spec.RateLimit; rate.set() && !(rate.Value >= MinRateLimit && rate.Value <= MaxRateLimit) {
		c.add(FieldError{Field: "rate_limit", Message: fmt.Sprintf("must be from %v to %v", MinRateLimit, MaxRateLimit)})
	}
	if spec.Fields.set() {
		c.add(checkPaths("fields", spec.Fields.Value)...)
	}
	if spec.Recipient.set() {
		c.recipient(spec.Recipient.Value)
	}
	if spec.Auth.set() {
		c.auth(spec.Auth.Value)
	}
	if spec.Active.Null {
		c.add(FieldError{Field: "is_active", Message: cannotBeNull})
	}
	if err := CheckFields(c.refused); err != nil {
		return ApprovedSpec{}, err
	}
	approved.spec = spec
	return approved, nil
}

// specCheck collects what is wrong with a spec.
type specCheck struct {
	creating bool
	refused  []FieldError
}

func (c *specCheck) add(refused ...FieldError) { c.refused = append(c.refused, refused...) }

// required reports whether there is a value to check.
func (c *specCheck) required(field string, given, null bool) bool {
	switch {
	case null && !c.creating:
		c.add(FieldError{Field: field, Message: cannotBeNull})
	case null, !given && c.creating:
		c.add(FieldError{Field: field, Message: isRequired})
	}
	return given && !null
}

func (c *specCheck) text(field string, asked Asked[string], least, most int) {
	if !c.required(field, asked.Given, asked.Null) {
		return
	}
	if n := utf8.RuneCountInString(asked.Value); n < least || n > most {
		c.add(FieldError{Field: field, Message: fmt.Sprintf("must have %d to %d characters", least, most)})
		return
	}
	if least > 0 && !strings.ContainsFunc(asked.Value, isVisible) {
		c.add(FieldError{Field: field, Message: "must have a visible character"})
		return
	}
	c.shown(field, asked.Value)
}

func (c *specCheck) recipient(r DataRecipient) {
	const longest = 1000
	c.text("recipient.name", Ask(r.Name), 1, MaxNameLength)
	c.text("recipient.country", Ask(r.Country), 0, MaxNameLength)
	c.text("recipient.purpose", Ask(r.Purpose), 0, longest)
}

func (c *specCheck) shown(field, text string) {
	if problem := textProblem(text); problem != "" {
		c.add(FieldError{Field: field, Message: problem})
	}
}

func (c *specCheck) number(field string, asked Asked[int], allowed Range) {
	if asked.set() {
		c.within(field, asked.Value, allowed)
	}
}

func (c *specCheck) within(field string, n int, allowed Range) {
	if n < allowed.Min || n > allowed.Max {
		c.add(FieldError{Field: field, Message: fmt.Sprintf("must be from %d to %d%s", allowed.Min, allowed.Max, allowed.unit)})
	}
}

func (c *specCheck) noMasks(headers []Header) {
	for _, h := range headers {
		if h.Value == Masked {
			c.add(FieldError{Field: "headers." + strictjson.Shorten(h.Name, 100), Message: hasMask})
		}
	}
}

// compacted is JSON without white space, as the log keeps it.
func compacted(raw json.RawMessage) json.RawMessage {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return raw // it was refused already
	}
	return b.Bytes()
}

// How long calls are signed with the old secret too.
const (
	DefaultOverlap = 24 * time.Hour
	MaxOverlap     = 30 * 24 * time.Hour
)

// CheckRotation checks the secret and the overlap, of at most MaxOverlap, of a rotation.
func CheckRotation(secret Secret, overlap time.Duration) error {
	refused := CheckSecret("secret", secret)
	if overlap < 0 || overlap > MaxOverlap {
		refused = append(refused, FieldError{Field: "overlap_seconds", Message: fmt.Sprintf("must be from 0 to %d", int(MaxOverlap/time.Second))})
	}
	return CheckFields(refused)
}
