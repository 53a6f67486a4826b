package domain

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"time"
)

// A webhook is an outside system's request to be called.
//
// Its rules:
//   - it is registered once, and deleted for good;
//   - every change is checked whole before any of it is kept;
//   - a change that changes nothing makes no event;
//   - secrets and header values are in the log encrypted (see Sealed).

// Sealed is a secret as it is stored: encrypted, bound to its webhook and
// field. This package never sees the clear text.
type Sealed string

// SealedHeader is one header that the webhook adds to its calls.
type SealedHeader struct {
	Name  string `json:"name"`
	Value Sealed `json:"value"`
}

// PreviousSecret is a secret that was rotated and signs too until its time. The newest
// stands first.
type PreviousSecret struct {
	Secret Sealed
	Until  time.Time
}

// maxPrevious bounds the previous secrets, and so the signatures of a call.
const maxPrevious = 8

// Batch says how events of a webhook are batched.
type Batch struct {
	MaxEvents int `json:"max_events"` // 1 to 1000
	MaxWait   int `json:"max_wait"`   // seconds, 1 to 300
}

// DataRecipient says who receives a webhook's data, for those who account for it.
type DataRecipient struct {
	Name    string `json:"name"`
	Country string `json:"country,omitempty"`
	Purpose string `json:"purpose,omitempty"`
}

// WebhookRegistered starts a webhook's stream.
type WebhookRegistered struct {
	ID             WebhookID       `json:"id"`
	Number         int64           `json:"number"`
	Name           string          `json:"name"`
	Description    string          `json:"description"`
	URL            string          `json:"url"`
	Events         []string        `json:"events"` // types, groups (patient.*) or *
	Headers        []SealedHeader  `json:"headers"`
	Secret         Sealed          `json:"secret,omitempty"`     // empty: calls are not signed
	PublicKey      string          `json:"public_key,omitempty"` // of a secret that is a private key
	MaxRetries     int             `json:"max_retries"`
	RetryDelay     int             `json:"retry_delay"`                // seconds
	Timeout        int             `json:"timeout"`                    // seconds
	Filters        json.RawMessage `json:"filters,omitempty"`          // nil: every event matches
	Batch          *Batch          `json:"batch,omitempty"`            // nil: one event a call
	OrderBy        string          `json:"order_by,omitempty"`         // a path, or OrderAll; empty: deliveries are not ordered
	OrderOnFailure OrderOnFailure  `json:"order_on_failure,omitempty"` // empty: skip
	Sequence       bool            `json:"sequence,omitempty"`         // deliveries are numbered
	PayloadVersion PayloadVersion  `json:"payload_version"`
	MaxConcurrent  int             `json:"max_concurrent,omitempty"` // calls in flight at once, on all nodes; 0: no limit
	RateLimit      float64         `json:"rate_limit,omitempty"`     // calls a second, of all nodes; 0: no limit
	Fields         []string        `json:"fields,omitempty"`         // paths of event_data that are sent; nil: all of it
	Recipient      *DataRecipient  `json:"recipient,omitempty"`      // nil: not said
	Auth           *Auth           `json:"auth,omitempty"`           // nil: calls do not say who makes them
	Active         bool            `json:"is_active"`

	AutoDeactivateAfter int `json:"auto_deactivate_after,omitempty"` // seconds of nothing but failures; 0: never
}

// WebhookSettings are what a webhook was registered with, as they are by now.
type WebhookSettings WebhookRegistered

// Webhook is the state of one webhook: the fold of its stream.
type Webhook struct {
	WebhookSettings
	Previous      []PreviousSecret
	SequenceSince int64 // the version from which deliveries are numbered; 0: they are not
	Deleted       bool
	Version       int64 // how many changes its stream holds
	CreatedAt     time.Time
	UpdatedAt     time.Time
	ActiveChanged time.Time // when it was last activated or deactivated
	Deactivated   DeactivationReason
}

// Exists reports whether the webhook was registered and is not deleted.
func (w Webhook) Exists() bool { return w.Version > 0 && !w.Deleted }

// WebhookChanged holds the fields that changed, and only them, each as it
// became. What it was is the fold before.
type WebhookChanged struct {
	Name           *string          `json:"name,omitempty"`
	Description    *string          `json:"description,omitempty"`
	URL            *string          `json:"url,omitempty"`
	Events         *[]string        `json:"events,omitempty"`
	Headers        *[]SealedHeader  `json:"headers,omitempty"`
	Secret         *Sealed          `json:"secret,omitempty"`     // "": cleared
	PublicKey      string           `json:"public_key,omitempty"` // of the secret
	MaxRetries     *int             `json:"max_retries,omitempty"`
	RetryDelay     *int             `json:"retry_delay,omitempty"`
	Timeout        *int             `json:"timeout,omitempty"`
	Filters        *json.RawMessage `json:"filters,omitempty"` // {}: cleared
	Batch          *Batch           `json:"batch,omitempty"`   // zero: cleared
	OrderBy        *string          `json:"order_by,omitempty"`
	OrderOnFailure *OrderOnFailure  `json:"order_on_failure,omitempty"`
	Sequence       *bool            `json:"sequence,omitempty"`
	PayloadVersion *PayloadVersion  `json:"payload_version,omitempty"`
	MaxConcurrent  *int             `json:"max_concurrent,omitempty"` // 0: cleared
	RateLimit      *float64         `json:"rate_limit,omitempty"`     // 0: cleared
	Fields         *[]string        `json:"fields,omitempty"`         // []: cleared
	Recipient      *DataRecipient   `json:"recipient,omitempty"`      // zero: cleared
	Auth           *Auth            `json:"auth,omitempty"`           // zero: cleared

	AutoDeactivateAfter *int `json:"auto_deactivate_after,omitempty"` // 0: cleared
}

// WebhookActivated lets deliveries go on.
type WebhookActivated struct{}

// WebhookDeactivated makes pending deliveries wait.
type WebhookDeactivated struct {
	Reason DeactivationReason `json:"reason,omitempty"`
}

// DeactivationReason says why the system deactivated a webhook; "" is a caller's wish. Each
// is the kind of an alert too.
type DeactivationReason string

// The reasons of the system.
const (
	DeactivatedGone    DeactivationReason = "gone"             // the receiver answered 410
	DeactivatedFailing DeactivationReason = "auto_deactivated" // see AutoDeactivateAfter
)

// WebhookDeleted ends a webhook; its pending deliveries are cancelled.
type WebhookDeleted struct{}

// WebhookSecretRotated replaces the secret; calls are signed with both until
// PreviousUntil.
type WebhookSecretRotated struct {
	Secret        Sealed    `json:"secret"`
	PublicKey     string    `json:"public_key,omitempty"`
	PreviousUntil time.Time `json:"previous_until"`
}

// WebhookResealed holds the same secrets, encrypted with a newer key.
type WebhookResealed struct {
	Headers        []SealedHeader `json:"headers"`
	Secret         Sealed         `json:"secret,omitempty"`
	PreviousSecret Sealed         `json:"previous_secret,omitempty"` // the newest
	OlderSecrets   []Sealed       `json:"older_secrets,omitempty"`   // and those before it
	Auth           *Auth          `json:"auth,omitempty"`
}

// The stored names.

func (WebhookRegistered) ChangeType() string    { return "webhook.registered" }
func (WebhookChanged) ChangeType() string       { return "webhook.changed" }
func (WebhookActivated) ChangeType() string     { return "webhook.activated" }
func (WebhookDeactivated) ChangeType() string   { return "webhook.deactivated" }
func (WebhookDeleted) ChangeType() string       { return "webhook.deleted" }
func (WebhookSecretRotated) ChangeType() string { return "webhook.secret_rotated" }
func (WebhookResealed) ChangeType() string      { return "webhook.resealed" }

var _ = register(WebhookRegistered{}, WebhookChanged{}, WebhookActivated{}, WebhookDeactivated{},
	WebhookDeleted{}, WebhookSecretRotated{}, WebhookResealed{})

// Evolve returns the webhook after a change that the log recorded at the time.
func (w Webhook) Evolve(change Change, at time.Time) Webhook {
	switch c := change.(type) {
	case WebhookRegistered:
		c.Filters, c.Batch, c.Auth = clearedFilters(c.Filters), cleared(c.Batch), cleared(c.Auth)
		c.OrderOnFailure = cmp.Or(c.OrderOnFailure, OrderSkip)
		w = Webhook{WebhookSettings: WebhookSettings(c), SequenceSince: numberedSince(0, c.Sequence, w.Version+1),
			Version: w.Version, CreatedAt: at, ActiveChanged: at}
	case WebhookChanged:
		w = w.with(c)
	case WebhookActivated:
		w.Active, w.ActiveChanged, w.Deactivated = true, at, ""
	case WebhookDeactivated:
		w.Active, w.ActiveChanged, w.Deactivated = false, at, c.Reason
	case WebhookDeleted:
		w.Active, w.Deleted = false, true
	case WebhookSecretRotated:
		w.Previous = w.previousAt(at)
		if w.Secret != "" {
			w.Previous = slices.Insert(w.Previous, 0, PreviousSecret{w.Secret, c.PreviousUntil})
		}
		w.Secret, w.PublicKey = c.Secret, c.PublicKey
	case WebhookResealed:
		w.Headers, w.Secret, w.Previous = c.Headers, c.Secret, slices.Clone(w.Previous)
		if c.Auth != nil {
			w.Auth = c.Auth
		}
		for i, again := range append([]Sealed{c.PreviousSecret}, c.OlderSecrets...) {
			if i < len(w.Previous) && again != "" {
				w.Previous[i].Secret = again
			}
		}
	default:
		return w
	}
	w.Version++
	w.UpdatedAt = at
	return w
}

// previousAt returns the previous secrets that sign at the time.
func (w Webhook) previousAt(at time.Time) (signing []PreviousSecret) {
	for _, p := range w.Previous {
		if at.Before(p.Until) {
			signing = append(signing, p)
		}
	}
	return signing
}

func (w Webhook) with(c WebhookChanged) Webhook {
	set(&w.Name, c.Name)
	set(&w.Description, c.Description)
	set(&w.URL, c.URL)
	set(&w.Events, c.Events)
	set(&w.Headers, c.Headers)
	set(&w.MaxRetries, c.MaxRetries)
	set(&w.RetryDelay, c.RetryDelay)
	set(&w.Timeout, c.Timeout)
	set(&w.PayloadVersion, c.PayloadVersion)
	set(&w.OrderBy, c.OrderBy)
	set(&w.OrderOnFailure, c.OrderOnFailure)
	set(&w.Sequence, c.Sequence)
	w.SequenceSince = numberedSince(w.SequenceSince, w.Sequence, w.Version+1)
	set(&w.MaxConcurrent, c.MaxConcurrent)
	set(&w.RateLimit, c.RateLimit)
	set(&w.AutoDeactivateAfter, c.AutoDeactivateAfter)
	if c.Secret != nil {
		w.Secret, w.PublicKey, w.Previous = *c.Secret, c.PublicKey, nil
	}
	if c.Filters != nil {
		w.Filters = clearedFilters(*c.Filters)
	}
	if c.Batch != nil {
		w.Batch = cleared(c.Batch)
	}
	if c.Fields != nil {
		w.Fields = clearedList(*c.Fields)
	}
	if c.Recipient != nil {
		w.Recipient = cleared(c.Recipient)
	}
	if c.Auth != nil {
		w.Auth = cleared(c.Auth)
	}
	return w
}

// numberedSince returns the version from which deliveries are numbered, after a change that
// makes the version now.
func numberedSince(before int64, wanted bool, now int64) int64 {
	switch {
	case !wanted:
		return 0
	case before > 0:
		return before
	}
	return now
}

func set[T any](field *T, to *T) {
	if to != nil {
		*field = *to
	}
}

func clearedFilters(f json.RawMessage) json.RawMessage {
	if s := string(f); s == "" || s == "null" || s == "{}" {
		return nil
	}
	return f
}

func clearedList(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return list
}

// cleared returns nil for the zero value, which stands for none.
func cleared[T comparable](value *T) *T {
	if value == nil || *value == *new(T) {
		return nil
	}
	return value
}

// DecideRegister starts a webhook's stream, with defaults for what the request leaves out.
func DecideRegister(id WebhookID, number int64, asked ApprovedSpec, sealing Sealing) WebhookRegistered {
	s := asked.spec
	return WebhookRegistered{
		ID: id, Number: number, Name: s.Name.Value, Description: s.Description.or(""), URL: s.URL.Value,
		Events: s.Events.Value, Headers: sealing.Headers, Secret: sealing.Secret, PublicKey: s.Secret.Value.PublicKey(),
		MaxRetries: s.MaxRetries.or(MaxRetriesRange.Default), RetryDelay: s.RetryDelay.or(RetryDelayRange.Default),
		Timeout: s.Timeout.or(TimeoutRange.Default), Filters: clearedFilters(s.Filters.or(nil)),
		Batch: cleared(valueOf(s.Batch)), PayloadVersion: s.PayloadVersion.or(PayloadV1),
		OrderBy: s.OrderBy.or(""), OrderOnFailure: s.OrderOnFailure.or(""), Sequence: s.Sequence.or(false),
		MaxConcurrent: s.MaxConcurrent.or(0), RateLimit: s.RateLimit.or(0),
		Fields: clearedList(s.Fields.or(nil)), Recipient: cleared(valueOf(s.Recipient)), Auth: cleared(&sealing.Auth), AutoDeactivateAfter: s.AutoDeactivateAfter.or(0),
		Active: s.Active.or(true),
	}
}

// DecideChange returns an event with the fields that the request changes, if any, and one
// that activates or deactivates the webhook, if it does.
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
	change(&c.MaxRetries, s.MaxRetries, MaxRetriesRange.Default, w.MaxRetries)
	change(&c.RetryDelay, s.RetryDelay, RetryDelayRange.Default, w.RetryDelay)
	change(&c.Timeout, s.Timeout, TimeoutRange.Default, w.Timeout)
	change(&c.PayloadVersion, s.PayloadVersion, PayloadV1, w.PayloadVersion)
	change(&c.OrderBy, s.OrderBy, "", w.OrderBy)
	change(&c.OrderOnFailure, s.OrderOnFailure, OrderSkip, w.OrderOnFailure)
	change(&c.Sequence, s.Sequence, false, w.Sequence)
	change(&c.MaxConcurrent, s.MaxConcurrent, 0, w.MaxConcurrent)
	change(&c.RateLimit, s.RateLimit, 0, w.RateLimit)
	change(&c.AutoDeactivateAfter, s.AutoDeactivateAfter, 0, w.AutoDeactivateAfter)
	if s.Headers.Given && !slices.Equal(sealing.Headers, w.Headers) {
		c.Headers = &sealing.Headers
	}
	if publicKey := s.Secret.Value.PublicKey(); s.Secret.Given && (sealing.Secret != w.Secret || publicKey != w.PublicKey) {
		c.Secret, c.PublicKey = &sealing.Secret, publicKey
	}
	if filters := clearedFilters(s.Filters.or(nil)); s.Filters.Given && !sameJSON(filters, w.Filters) {
		if filters == nil {
			filters = json.RawMessage("{}")
		}
		c.Filters = &filters
	}
	if batch := valueOf(s.Batch); s.Batch.Given && !reflect.DeepEqual(cleared(batch), w.Batch) {
		c.Batch = batch
	}
	change(&c.Fields, s.Fields, []string{}, append([]string{}, w.Fields...))
	if recipient := valueOf(s.Recipient); s.Recipient.Given && !reflect.DeepEqual(cleared(recipient), w.Recipient) {
		c.Recipient = recipient
	}
	if s.Auth.Given && !reflect.DeepEqual(cleared(&sealing.Auth), w.Auth) {
		c.Auth = &sealing.Auth
	}

	var changes []Change
	if c != (WebhookChanged{}) {
		changes = append(changes, c)
	}
	if s.Active.set() {
		activated, _ := activation(w, s.Active.Value) // it exists
		changes = append(changes, activated...)
	}
	return changes, nil
}

// change sets the field to what the request asks for, unless it is that already.
func change[T any](field **T, asked Asked[T], otherwise, is T) {
	if !asked.Given {
		return
	}
	if becomes := asked.or(otherwise); !reflect.DeepEqual(becomes, is) {
		*field = &becomes
	}
}

// sameJSON reports whether two values are the same, however they are written.
func sameJSON(a, b json.RawMessage) bool {
	if len(a) == 0 || len(b) == 0 {
		return len(a) == len(b)
	}
	var values [2]any
	for i, raw := range [][]byte{a, b} {
		decoder := json.NewDecoder(bytes.NewReader(raw))
		decoder.UseNumber() // exact
		if decoder.Decode(&values[i]) != nil {
			return false
		}
	}
	return reflect.DeepEqual(values[0], values[1])
}

// valueOf returns what the request asks for; zero when it clears it.
func valueOf[T any](asked Asked[T]) *T {
	value := asked.or(*new(T))
	return &value
}

func activation(w Webhook, active bool) ([]Change, error) {
	switch {
	case !w.Exists():
		return nil, NotFound("webhook")
	case active == w.Active:
		return nil, nil
	case active:
		return []Change{WebhookActivated{}}, nil
	}
	return []Change{WebhookDeactivated{}}, nil
}

// DecideActivate lets a webhook's deliveries go on.
func DecideActivate(w Webhook) ([]Change, error) { return activation(w, true) }

// DecideDeactivate makes a webhook's deliveries wait.
func DecideDeactivate(w Webhook) ([]Change, error) { return activation(w, false) }

// DecideSystemDeactivate deactivates a webhook for the reason, if it is active.
func DecideSystemDeactivate(w Webhook, reason DeactivationReason) []Change {
	if !w.Exists() || !w.Active {
		return nil
	}
	return []Change{WebhookDeactivated{Reason: reason}}
}

// DecideDelete ends a webhook for good.
func DecideDelete(w Webhook) ([]Change, error) {
	if !w.Exists() {
		return nil, NotFound("webhook")
	}
	return []Change{WebhookDeleted{}}, nil
}

// DecideRotateSecret replaces the secret. Calls are signed with both until the overlap,
// which begins now, has ended; an older secret signs until its own overlap has.
func DecideRotateSecret(w Webhook, sealed Sealed, publicKey string, now time.Time, overlap time.Duration) ([]Change, error) {
	switch {
	case !w.Exists():
		return nil, NotFound("webhook")
	case overlap > 0 && len(w.previousAt(now)) >= maxPrevious:
		return nil, Conflict(fmt.Sprintf("%d secrets before this one still sign; wait until the overlap of one has ended, or rotate with an overlap of 0", maxPrevious))
	}
	return []Change{WebhookSecretRotated{Secret: sealed, PublicKey: publicKey, PreviousUntil: now.Add(overlap).UTC()}}, nil
}
