package domain

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain/filter"
)

// A replay sends history again to one webhook: the events of a range that match
// it as it is now. Each is asked for as a retry is (DeliveryRetryRequested), under
// the delivery id that it has for this webhook.

// ReplayID names one replay.
type ReplayID uuid.UUID

// Stream names the log's stream of the replay.
func (id ReplayID) Stream() string { return "replay-" + uuid.UUID(id).String() }

func (id ReplayID) String() string                { return uuid.UUID(id).String() }
func (id ReplayID) MarshalText() ([]byte, error)  { return uuid.UUID(id).MarshalText() }
func (id *ReplayID) UnmarshalText(b []byte) error { return (*uuid.UUID)(id).UnmarshalText(b) }

// ReplayRequested starts a replay's stream.
type ReplayRequested struct {
	ID         ReplayID  `json:"id"`
	WebhookID  WebhookID `json:"webhook_id"`
	From       time.Time `json:"from"`
	To         time.Time `json:"to"`
	EventTypes []string  `json:"event_types,omitempty"` // types, groups or *; none: all that the webhook asks for
	OnlyFailed bool      `json:"only_failed,omitempty"`
	Matched    int       `json:"matched"` // when it was requested
	// WebhookVersion is whose events and filters decide. 0: an earlier release wrote
	// this, which queued a replay within its request and never went on with one.
	WebhookVersion int64 `json:"webhook_version,omitempty"`
}

// ReplayQueued lists the next of a replay's deliveries that were asked for, in
// the same transaction.
type ReplayQueued struct {
	Deliveries []DeliveryID `json:"deliveries"`
}

// ReplayCompleted says that all of a replay was asked for.
type ReplayCompleted struct{}

func (ReplayRequested) ChangeType() string { return "replay.requested" }
func (ReplayQueued) ChangeType() string    { return "replay.queued" }
func (ReplayCompleted) ChangeType() string { return "replay.completed" }

var _ = register(ReplayRequested{}, ReplayQueued{}, ReplayCompleted{})

// Replay is the state of one replay: the fold of its stream.
type Replay struct {
	Request   ReplayRequested
	Queued    []DeliveryID // in the order they were asked for
	Completed bool
	Version   int64
}

// Evolve returns the replay after a change.
func (r Replay) Evolve(change Change) Replay {
	r.Version++
	switch c := change.(type) {
	case ReplayRequested:
		r.Request = c
		r.Completed = c.WebhookVersion == 0
	case ReplayQueued:
		r.Queued = append(r.Queued, c.Deliveries...)
	case ReplayCompleted:
		r.Completed = true
	}
	return r
}

// ReplaySpec is what a caller asks to be sent again.
type ReplaySpec struct {
	From, To   time.Time // recorded at or after, before
	EventTypes []string  // nil: all that the webhook asks for
	OnlyFailed bool      // only deliveries that failed for good
}

// CheckReplay checks a replay: both times, in their order, and known types.
func CheckReplay(catalog Catalog, spec ReplaySpec) error {
	var refused []FieldError
	for _, bound := range []struct {
		field string
		at    time.Time
	}{{"from", spec.From}, {"to", spec.To}} {
		if bound.at.IsZero() {
			refused = append(refused, FieldError{bound.field, "is required"})
		}
	}
	if refused == nil && !spec.From.Before(spec.To) {
		refused = append(refused, FieldError{"to", "must be after from"})
	}
	if spec.EventTypes != nil {
		_, unknown := catalog.ParseSubscriptions("event_types", spec.EventTypes)
		refused = append(refused, unknown...)
	}
	return CheckFields(refused)
}

// ReplayWants reports whether a replay sends the delivery again: any that has ended, or
// only a failed one. Pending deliveries are left alone.
func (d Delivery) ReplayWants(onlyFailed bool) bool {
	return d.State == DeliveryFailed || !onlyFailed && d.State != DeliveryPending
}

// Matcher decides, outside of the registry, which events a webhook with these
// subscriptions and this filter would get.
type Matcher struct {
	subscriptions Subscriptions
	filter        *filter.Filter
}

// NewMatcher prepares subscriptions and a filter, which were checked before.
func NewMatcher(events []string, filters json.RawMessage) (m Matcher, err error) {
	m = Matcher{subscriptions: make(Subscriptions, len(events))}
	for i, s := range events {
		m.subscriptions[i] = Subscription(s)
	}
	if m.filter, err = compileFilter(filters); err != nil {
		return Matcher{}, fmt.Errorf("prepare a filter: %w", err)
	}
	return m, nil
}

// Match tells whether an event of the type with the data matches.
func (m Matcher) Match(t EventType, doc *filter.Doc) bool {
	return m.subscriptions.Match(t) && m.filter.Match(doc)
}

// compileFilter compiles a webhook's filters; what is wrong with them is Invalid.
func compileFilter(raw json.RawMessage) (*filter.Filter, error) {
	compiled, problems := filter.Compile(raw)
	var refused []FieldError
	for _, p := range problems {
		refused = append(refused, FieldError(p))
	}
	return compiled, CheckFields(refused)
}
