package domain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
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

// set tells whether the field has a value.
func (a Asked[T]) set() bool { return a.Given && !a.Null }

// or gives the value, or the default when there is none.
func (a Asked[T]) or(otherwise T) T {
	if a.set() {
		return a.Value
	}
	return otherwise
}

// WebhookSpec is what a caller asks of a webhook, as it was asked: nothing of it
// is checked yet, and secrets are in clear. CheckSpec makes an ApprovedSpec of it.
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
	PayloadVersion Asked[PayloadVersion]
	Active         Asked[bool]
}

// ApprovedSpec is a WebhookSpec that keeps every rule. Only CheckSpec makes one.
type ApprovedSpec struct{ spec WebhookSpec }

// Headers gives the headers that were asked for, values in clear, by name.
func (a ApprovedSpec) Headers() []Header { return a.spec.Headers.or(nil) }

// Secret gives the secret that was asked for; zero when none was.
func (a ApprovedSpec) Secret() Secret { return a.spec.Secret.or(Secret{}) }

// Sealing holds the secrets of an ApprovedSpec as they are to be stored. What
// did not change must be sealed as it is stored already, since sealing the same
// text twice gives two texts.
type Sealing struct {
	Headers []SealedHeader
	Secret  Sealed
}

// What a webhook has when the caller leaves it out (contract section 2).
const (
	defaultMaxRetries = 3
	defaultRetryDelay = 60 // seconds
	defaultTimeout    = 30 // seconds
)

const (
	maxName = 200 // characters

	cannotBeNull = "cannot be null"
	isRequired   = "is required"
)

// CheckSpec checks all of a request by the rules of contract section 2, and
// names every field that breaks one at once:
//
//	name             1 to 200 characters, required
//	url              CheckURL, required
//	events           Catalog.ParseSubscriptions, required
//	headers          CheckHeaders
//	secret           CheckSecret
//	max_retries      0 to 10
//	retry_delay      1 to 86400 seconds
//	timeout          1 to 300 seconds
//	filters          filter.Compile
//	batch            max_events 1 to 1000, max_wait 1 to 300 seconds
//	payload_version  "1", "2", "cloudevents"
//
// creating says that the webhook is new, so that what is required must be there.
func CheckSpec(catalog Catalog, spec WebhookSpec, creating bool) (ApprovedSpec, error) {
	c := specCheck{creating: creating}
	c.text("name", spec.Name, 1, maxName)
	if spec.Description.set() {
		c.printable("description", spec.Description.Value)
	}
	if c.required("url", spec.URL.Given, spec.URL.Null) {
		c.add(FieldsOf(CheckURL(spec.URL.Value))...)
	}
	if c.required("events", spec.Events.Given, spec.Events.Null) {
		events, refused := catalog.ParseSubscriptions("events", spec.Events.Value)
		c.add(refused...)
		spec.Events.Value = subscriptionTexts(events)
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
	c.number("max_retries", spec.MaxRetries, 0, 10, "")
	c.number("retry_delay", spec.RetryDelay, 1, 86400, " seconds")
	c.number("timeout", spec.Timeout, 1, 300, " seconds")
	if spec.Filters.set() {
		if _, err := compileFilter(spec.Filters.Value); err != nil {
			c.refuse("filters", err)
		}
		spec.Filters.Value = compacted(spec.Filters.Value)
	}
	if spec.Batch.set() {
		c.within("batch.max_events", spec.Batch.Value.MaxEvents, 1, 1000, "")
		c.within("batch.max_wait", spec.Batch.Value.MaxWait, 1, 300, " seconds")
	}
	if spec.PayloadVersion.set() && !spec.PayloadVersion.Value.Known() {
		c.add(FieldError{"payload_version", `must be "1", "2" or "cloudevents"`})
	}
	if spec.Active.Null {
		c.add(FieldError{"is_active", cannotBeNull})
	}
	if err := CheckFields(c.refused); err != nil {
		return ApprovedSpec{}, err
	}
	return ApprovedSpec{spec}, nil
}

// specCheck gathers what is wrong with a spec.
type specCheck struct {
	creating bool
	refused  []FieldError
}

func (c *specCheck) add(refused ...FieldError) { c.refused = append(c.refused, refused...) }

// refuse adds the fields that err names, or the field with err's message.
func (c *specCheck) refuse(field string, err error) {
	if fields := FieldsOf(err); len(fields) > 0 {
		c.add(fields...)
		return
	}
	c.add(FieldError{field, "cannot be read"})
}

// required tells whether there is a value to check.
func (c *specCheck) required(field string, given, null bool) bool {
	switch {
	case null && !c.creating:
		c.add(FieldError{field, cannotBeNull})
	case null, !given && c.creating:
		c.add(FieldError{field, isRequired})
	}
	return given && !null
}

func (c *specCheck) text(field string, asked Asked[string], least, most int) {
	if !c.required(field, asked.Given, asked.Null) {
		return
	}
	if n := utf8.RuneCountInString(asked.Value); n < least || n > most {
		c.add(FieldError{field, fmt.Sprintf("must have %d to %d characters", least, most)})
		return
	}
	c.printable(field, asked.Value)
}

// printable refuses what no text column and no page can hold.
func (c *specCheck) printable(field, text string) {
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		c.add(FieldError{field, noNUL})
	}
}

const noNUL = "must be text without the character U+0000"

func (c *specCheck) number(field string, asked Asked[int], least, most int, unit string) {
	if asked.set() {
		c.within(field, asked.Value, least, most, unit)
	}
}

func (c *specCheck) within(field string, n, least, most int, unit string) {
	if n < least || n > most {
		c.add(FieldError{field, fmt.Sprintf("must be from %d to %d%s", least, most, unit)})
	}
}

func (c *specCheck) noMasks(headers []Header) {
	for _, h := range headers {
		if h.Value == Masked {
			c.add(FieldError{"headers." + shortened(h.Name, 100), "has the mask for a value; give the value itself"})
		}
	}
}

func subscriptionTexts(list Subscriptions) []string {
	texts := make([]string, len(list))
	for i, s := range list {
		texts[i] = string(s)
	}
	return texts
}

// compacted is JSON without white space, as the log keeps it.
func compacted(raw json.RawMessage) json.RawMessage {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return raw // it was refused already
	}
	return b.Bytes()
}

// DecideRegister starts a webhook's stream with what the caller asked for and
// the defaults of what it left out.
func DecideRegister(id WebhookID, number int64, asked ApprovedSpec, sealing Sealing) WebhookRegistered {
	s := asked.spec
	return WebhookRegistered{
		ID: id, Number: number, Name: s.Name.Value, Description: s.Description.or(""), URL: s.URL.Value,
		Events: s.Events.Value, Headers: sealing.Headers, Secret: sealing.Secret,
		MaxRetries: s.MaxRetries.or(defaultMaxRetries), RetryDelay: s.RetryDelay.or(defaultRetryDelay),
		Timeout: s.Timeout.or(defaultTimeout), Filters: clearedFilters(s.Filters.or(nil)),
		Batch: clearedBatch(batchOf(s.Batch)), PayloadVersion: s.PayloadVersion.or(PayloadV1),
		Active: s.Active.or(true),
	}
}

// DecideChange says what the request changes: an event with the fields that
// become other than they are, and besides it one that activates or deactivates.
// No event: nothing changes.
func DecideChange(w Webhook, asked ApprovedSpec, sealing Sealing) ([]Change, error) {
	if !w.Exists() {
		return nil, NotFound("webhook")
	}
	s := asked.spec
	var c WebhookChanged
	change(&c.Name, s.Name, "", w.Name)
	change(&c.Description, s.Description, "", w.Description)
	change(&c.URL, s.URL, "", w.URL)
	change(&c.Events, s.Events, nil, w.Events)
	change(&c.MaxRetries, s.MaxRetries, defaultMaxRetries, w.MaxRetries)
	change(&c.RetryDelay, s.RetryDelay, defaultRetryDelay, w.RetryDelay)
	change(&c.Timeout, s.Timeout, defaultTimeout, w.Timeout)
	change(&c.PayloadVersion, s.PayloadVersion, PayloadV1, w.PayloadVersion)
	if s.Headers.Given && !slices.Equal(sealing.Headers, w.Headers) {
		c.Headers = &sealing.Headers
	}
	if s.Secret.Given && sealing.Secret != w.Secret {
		c.Secret = &sealing.Secret
	}
	if filters := clearedFilters(s.Filters.or(nil)); s.Filters.Given && !bytes.Equal(filters, w.Filters) {
		if filters == nil {
			filters = json.RawMessage("{}")
		}
		c.Filters = &filters
	}
	if batch := batchOf(s.Batch); s.Batch.Given && !reflect.DeepEqual(clearedBatch(batch), w.Batch) {
		c.Batch = batch
	}

	var changes []Change
	if c != (WebhookChanged{}) {
		changes = append(changes, c)
	}
	if s.Active.set() {
		changes = append(changes, activation(w, s.Active.Value)...)
	}
	return changes, nil
}

// change notes the field when the request makes it other than it is.
func change[T any](field **T, asked Asked[T], otherwise, is T) {
	if !asked.Given {
		return
	}
	if becomes := asked.or(otherwise); !reflect.DeepEqual(becomes, is) {
		*field = &becomes
	}
}

// batchOf is the batch asked for; zero when it is cleared.
func batchOf(asked Asked[Batch]) *Batch {
	batch := asked.or(Batch{})
	return &batch
}

func activation(w Webhook, active bool) []Change {
	switch {
	case active == w.Active:
		return nil
	case active:
		return []Change{WebhookActivated{}}
	}
	return []Change{WebhookDeactivated{}}
}

// DecideActivate lets a webhook's deliveries go on; when they do, it is no event.
func DecideActivate(w Webhook) ([]Change, error) {
	if !w.Exists() {
		return nil, NotFound("webhook")
	}
	return activation(w, true), nil
}

// DecideDeactivate makes a webhook's deliveries wait; when they do, it is no event.
func DecideDeactivate(w Webhook) ([]Change, error) {
	if !w.Exists() {
		return nil, NotFound("webhook")
	}
	return activation(w, false), nil
}

// DecideDelete ends a webhook for good.
func DecideDelete(w Webhook) ([]Change, error) {
	if !w.Exists() {
		return nil, NotFound("webhook")
	}
	return []Change{WebhookDeleted{}}, nil
}

// How long a rotated secret goes on signing beside the new one.
const (
	DefaultOverlap = 24 * time.Hour
	MaxOverlap     = 30 * 24 * time.Hour
)

// CheckRotation checks what a rotation asks for: the secret by CheckSecret, and
// an overlap of 0 to 30 days.
func CheckRotation(secret Secret, overlap time.Duration) error {
	refused := CheckSecret("secret", secret)
	if overlap < 0 || overlap > MaxOverlap {
		refused = append(refused, FieldError{"overlap_seconds", fmt.Sprintf("must be from 0 to %d", int(MaxOverlap/time.Second))})
	}
	return CheckFields(refused)
}

// DecideRotateSecret replaces the secret. The one before signs beside it until
// the overlap after now is over.
func DecideRotateSecret(w Webhook, secret Sealed, now time.Time, overlap time.Duration) ([]Change, error) {
	if !w.Exists() {
		return nil, NotFound("webhook")
	}
	return []Change{WebhookSecretRotated{Secret: secret, PreviousUntil: now.Add(overlap).UTC()}}, nil
}
