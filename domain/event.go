package domain

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/google/uuid"
)

// An event is something that happened in the clinic and that outside systems
// may want to hear of. Its stream holds what it was, and to whom it went.

// EventTriggered is what the clinic emitted. It was accepted at the log's time, recorded_at.
type EventTriggered struct {
	EventType     string `json:"event_type"`
	Source        string `json:"source,omitempty"`
	CorrelationID string `json:"correlation_id,omitempty"`
	// OccurredAt is when it was emitted, if that was not when it was accepted: see Occurred.
	OccurredAt time.Time `json:"occurred_at,omitzero"`
	// ClientEventID is the id that the caller sent, if another caller has an event of that id.
	ClientEventID EventID `json:"client_event_id,omitzero"`
	Trace
	// Imported is an event of the past that was only recorded: it goes to nobody, unless a
	// replay sends it.
	Imported bool `json:"imported,omitempty"`
	// Recipients are all webhooks that the event goes to, none included, when that was
	// decided as it was appended. Nil: an EventDispatched says it, if there are any.
	Recipients []Recipient     `json:"recipients,omitzero"`
	EventData  json.RawMessage `json:"event_data"` // the exact bytes as accepted

	Content
	SealedSize int `json:"size,omitempty"` // bytes of the event_data that is sealed
}

// EventTypeIn returns the event type, which stands first, in the beginning of the data of an
// EventTriggered.
func EventTypeIn(data []byte) (eventType string, ok bool) {
	in := json.NewDecoder(bytes.NewReader(data))
	for _, want := range []json.Token{json.Delim('{'), "event_type"} {
		if got, err := in.Token(); err != nil || got != want {
			return "", false
		}
	}
	value, err := in.Token()
	eventType, ok = value.(string)
	return eventType, ok && err == nil
}

// Occurred returns when the event occurred; acceptedAt is the log's time of it.
func (c EventTriggered) Occurred(acceptedAt time.Time) time.Time {
	if c.OccurredAt.IsZero() {
		return acceptedAt
	}
	return c.OccurredAt
}

// EventDispatched lists every webhook that the event goes to, when that was
// decided after it was appended. An event that nobody matched has none: that is
// decided by the fold of the log before it, at any time again.
type EventDispatched struct {
	EventID    EventID    `json:"event_id"`
	EventType  string     `json:"event_type"`
	Size       int        `json:"size"` // bytes of event_data
	Deliveries []Dispatch `json:"deliveries"`
}

// Dispatch is one delivery of an event. Its id follows from the event's and the
// webhook's: see DeliveryOf.
type Dispatch struct {
	DeliveryID DeliveryID `json:"delivery_id"`
	Recipient
}

// Recipient is a webhook that an event goes to, as it was then.
type Recipient struct {
	WebhookID      WebhookID `json:"webhook_id"`
	WebhookVersion int64     `json:"webhook_version"`
	// A webhook that wants batches: seconds this one may wait for company, and
	// how many go together. 0: it goes alone.
	BatchWait int `json:"batch_wait,omitempty"`
	BatchMax  int `json:"batch_max,omitempty"`
	// Line is that of an ordered delivery.
	Line Line `json:"line,omitempty"`
	// NumberedSince is the SequenceSince of a webhook that wants its deliveries numbered: this
	// one's number is how many of them the log has so far.
	NumberedSince int64 `json:"numbered_since,omitempty"`
}

// DispatchOf gives to whom the event goes by what its stream holds, be it the
// event itself or the decision that came later; false: that one does not say.
func DispatchOf(id EventID, change any) (EventDispatched, bool) {
	switch c := change.(type) {
	case EventDispatched:
		return c, true
	case EventTriggered:
		if c.Recipients == nil {
			return EventDispatched{}, false
		}
		d := EventDispatched{EventID: id, EventType: c.EventType, Size: c.Size(), Deliveries: make([]Dispatch, len(c.Recipients))}
		for i, r := range c.Recipients {
			d.Deliveries[i] = Dispatch{DeliveryID: DeliveryOf(id, r.WebhookID), Recipient: r}
		}
		return d, true
	}
	return EventDispatched{}, false
}

// IdempotencyKeyUsed reserves a caller's key, in a stream named by the key, for
// the events that came with it, or for what else was asked. Earlier versions name the version
// that a rotation made, or the replay.
type IdempotencyKeyUsed struct {
	EventIDs       []EventID `json:"event_ids"`
	WebhookVersion int64     `json:"webhook_version,omitempty"`
	ReplayID       ReplayID  `json:"replay_id,omitzero"`
	BodyHash       string    `json:"body_hash"` // hex SHA-256 of what was asked, but never of a secret
}

func (EventTriggered) ChangeType() string     { return "event.triggered" }
func (EventDispatched) ChangeType() string    { return "event.dispatched" }
func (IdempotencyKeyUsed) ChangeType() string { return "idempotency_key.used" }

// AppendJSON keeps event_data byte for byte, which encoding/json would not.
func (c EventTriggered) AppendJSON(dst []byte) []byte { return c.form(&form{out: dst}).out }
func (c EventTriggered) read(f *form) Change          { c.form(f); return c }

func (c *EventTriggered) form(f *form) *form {
	if !f.reading {
		c.seal()
	}
	text(f, `{"event_type":`, &c.EventType)
	textOrNone(f, `,"source":`, &c.Source)
	textOrNone(f, `,"correlation_id":`, &c.CorrelationID)
	f.timeOrNone(`,"occurred_at":`, &c.OccurredAt)
	idOrNone(f, `,"client_event_id":`, &c.ClientEventID)
	textOrNone(f, `,"traceparent":`, &c.Traceparent)
	textOrNone(f, `,"tracestate":`, &c.Tracestate)
	c.Imported = f.optional(`,"imported":true`, c.Imported)
	if list(f, `,"recipients":[`, &c.Recipients, c.Recipients != nil) {
		for i := 0; more(f, &c.Recipients, i); i++ {
			f.letters("{")
			c.Recipients[i].form(f)
		}
	}
	if f.optional(`,"size":`, len(c.Sealed) > 0) {
		number(f, "", &c.SealedSize)
		f.bytes(`,"sealed":`, &c.Sealed)
		return f.letters("}")
	}
	c.sayErased(f)
	return f.data(`,"event_data":`, &c.EventData)
}

func (r *Recipient) form(f *form) {
	id(f, `"webhook_id":`, &r.WebhookID)
	number(f, `,"webhook_version":`, &r.WebhookVersion)
	if f.optional(`,"batch_wait":`, r.BatchWait > 0) {
		number(f, "", &r.BatchWait)
		number(f, `,"batch_max":`, &r.BatchMax)
	}
	numberOrNone(f, `,"line":`, &r.Line)
	numberOrNone(f, `,"numbered_since":`, &r.NumberedSince)
	f.letters("}")
}

var _ = register(EventTriggered{}, EventDispatched{}, IdempotencyKeyUsed{})

// idempotencyKeys is the namespace of the streams that reserve callers' keys.
var idempotencyKeys = uuid.MustParse("3b3a1a52-6d1e-5b0e-9c43-0c8e6b7d6a11")

// KeyStream names the stream that reserves the caller's idempotency key. The key itself,
// which is the caller's own word, is not in it.
func KeyStream(caller, key string) string {
	return "key-" + uuid.NewSHA1(idempotencyKeys, []byte(caller+"\x00"+key)).String()
}

// FormerKeyStream names the stream that reserved the key in versions in which all callers
// shared their keys.
func FormerKeyStream(key string) string {
	return FormerKeyStreams + uuid.NewSHA1(idempotencyKeys, []byte(key)).String()
}

// FormerKeyStreams begins the name of each such stream.
const FormerKeyStreams = "idempotency-"
