package domain

import (
	"encoding/json"
	"time"
)

// A webhook is an outside system's wish to be called.
//
// Its rules:
//   - it is registered once, and deleted for good;
//   - every change is checked whole before any of it is kept;
//   - a change that changes nothing is no event;
//   - secrets and header values reach this package sealed (see Sealed).

// Sealed is a secret as it is stored: encrypted, bound to its webhook and
// field. This package never sees the clear text.
type Sealed string

// SealedHeader is one header that the webhook adds to its calls.
type SealedHeader struct {
	Name  string `json:"name"`
	Value Sealed `json:"value"`
}

// Batch is how a busy receiver wants its events together.
type Batch struct {
	MaxEvents int `json:"max_events"` // 1 to 1000
	MaxWait   int `json:"max_wait"`   // seconds, 1 to 300
}

// Webhook is the state of one webhook: the fold of its stream.
type Webhook struct {
	ID             WebhookID
	Number         int64
	Name           string
	Description    string
	URL            string
	Events         []string // types, groups (patient.*) or *
	Headers        []SealedHeader
	Secret         Sealed // empty: calls are not signed
	PreviousSecret Sealed // signs too until PreviousUntil
	PreviousUntil  time.Time
	MaxRetries     int
	RetryDelay     int             // seconds
	Timeout        int             // seconds
	Filters        json.RawMessage // nil: every event matches
	Batch          *Batch          // nil: one event a call
	PayloadVersion PayloadVersion
	Active         bool
	Deleted        bool
	Version        int64 // how many changes its stream holds
	CreatedAt      time.Time
	UpdatedAt      time.Time
	ActiveChanged  time.Time // when it was last activated or deactivated
}

// Exists tells a webhook that callers may still see from one that was never
// registered or is deleted.
func (w Webhook) Exists() bool { return w.Version > 0 && !w.Deleted }

// WebhookRegistered starts a webhook's stream.
type WebhookRegistered struct {
	ID             WebhookID       `json:"id"`
	Number         int64           `json:"number"`
	Name           string          `json:"name"`
	Description    string          `json:"description"`
	URL            string          `json:"url"`
	Events         []string        `json:"events"`
	Headers        []SealedHeader  `json:"headers"`
	Secret         Sealed          `json:"secret,omitempty"`
	MaxRetries     int             `json:"max_retries"`
	RetryDelay     int             `json:"retry_delay"`
	Timeout        int             `json:"timeout"`
	Filters        json.RawMessage `json:"filters,omitempty"`
	Batch          *Batch          `json:"batch,omitempty"`
	PayloadVersion PayloadVersion  `json:"payload_version"`
	Active         bool            `json:"is_active"`
}

// WebhookChanged holds the fields that changed, and only them, each as it
// became. What it was is the fold before.
type WebhookChanged struct {
	Name           *string          `json:"name,omitempty"`
	Description    *string          `json:"description,omitempty"`
	URL            *string          `json:"url,omitempty"`
	Events         *[]string        `json:"events,omitempty"`
	Headers        *[]SealedHeader  `json:"headers,omitempty"`
	Secret         *Sealed          `json:"secret,omitempty"` // "": cleared
	MaxRetries     *int             `json:"max_retries,omitempty"`
	RetryDelay     *int             `json:"retry_delay,omitempty"`
	Timeout        *int             `json:"timeout,omitempty"`
	Filters        *json.RawMessage `json:"filters,omitempty"` // {}: cleared
	Batch          *Batch           `json:"batch,omitempty"`   // zero: cleared
	PayloadVersion *PayloadVersion  `json:"payload_version,omitempty"`
}

// WebhookActivated lets deliveries go on.
type WebhookActivated struct{}

// WebhookDeactivated makes pending deliveries wait.
type WebhookDeactivated struct{}

// WebhookDeleted ends a webhook; its pending deliveries are cancelled.
type WebhookDeleted struct{}

// WebhookSecretRotated replaces the secret; the one before goes on signing
// beside it until PreviousUntil.
type WebhookSecretRotated struct {
	Secret        Sealed    `json:"secret"`
	PreviousUntil time.Time `json:"previous_until"`
}

// WebhookResealed holds the secrets as sealed with a newer key. They are the same.
type WebhookResealed struct {
	Headers        []SealedHeader `json:"headers"`
	Secret         Sealed         `json:"secret,omitempty"`
	PreviousSecret Sealed         `json:"previous_secret,omitempty"`
}

func (WebhookRegistered) ChangeType() string    { return "webhook.registered" }
func (WebhookChanged) ChangeType() string       { return "webhook.changed" }
func (WebhookActivated) ChangeType() string     { return "webhook.activated" }
func (WebhookDeactivated) ChangeType() string   { return "webhook.deactivated" }
func (WebhookDeleted) ChangeType() string       { return "webhook.deleted" }
func (WebhookSecretRotated) ChangeType() string { return "webhook.secret_rotated" }
func (WebhookResealed) ChangeType() string      { return "webhook.resealed" }

var _ = register(WebhookRegistered{}, WebhookChanged{}, WebhookActivated{}, WebhookDeactivated{}, WebhookDeleted{}, WebhookSecretRotated{}, WebhookResealed{})

// Evolve gives the webhook after the change, which the log recorded at the time.
func (w Webhook) Evolve(change Change, at time.Time) Webhook {
	switch c := change.(type) {
	case WebhookRegistered:
		w = Webhook{
			ID: c.ID, Number: c.Number, Name: c.Name, Description: c.Description, URL: c.URL,
			Events: c.Events, Headers: c.Headers, Secret: c.Secret,
			MaxRetries: c.MaxRetries, RetryDelay: c.RetryDelay, Timeout: c.Timeout,
			Filters: clearedFilters(c.Filters), Batch: clearedBatch(c.Batch), PayloadVersion: c.PayloadVersion,
			Active: c.Active, Version: w.Version, CreatedAt: at, ActiveChanged: at,
		}
	case WebhookChanged:
		w = w.with(c)
	case WebhookActivated:
		w.Active, w.ActiveChanged = true, at
	case WebhookDeactivated:
		w.Active, w.ActiveChanged = false, at
	case WebhookDeleted:
		w.Active, w.Deleted = false, true
	case WebhookSecretRotated:
		w.PreviousSecret, w.PreviousUntil = w.Secret, c.PreviousUntil
		w.Secret = c.Secret
	case WebhookResealed:
		w.Headers, w.Secret, w.PreviousSecret = c.Headers, c.Secret, c.PreviousSecret
	default:
		return w
	}
	w.Version++
	w.UpdatedAt = at
	return w
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
	if c.Secret != nil {
		w.Secret, w.PreviousSecret, w.PreviousUntil = *c.Secret, "", time.Time{}
	}
	if c.Filters != nil {
		w.Filters = clearedFilters(*c.Filters)
	}
	if c.Batch != nil {
		w.Batch = clearedBatch(c.Batch)
	}
	return w
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

func clearedBatch(b *Batch) *Batch {
	if b == nil || *b == (Batch{}) {
		return nil
	}
	return b
}
