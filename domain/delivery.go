package domain

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"time"
)

// A delivery is one event on its way to one webhook, over all its attempts; or
// several together (see DeliveryBatched).
//
// Its rules (the guide's "Обработка ошибок и повторы", contract section 3):
//   - attempt 1 at once, attempt n after retry_delay * 2^(n-2) from the end of
//     the one before; max_retries retries, then it has failed;
//   - 200 to 299 is success, all else fails; 410 ends the delivery;
//   - an attempt that a crash cut off is interrupted: it used its number, but no
//     retry, and the next follows at once;
//   - nothing follows a success but a retry that somebody asked for.

// Outcome is how a call ended, in one word, as the sender classifies it.
type Outcome string

// OutcomeSuccess is the only good one: a status from 200 to 299.
const OutcomeSuccess Outcome = "success"

// OutcomeTimeout is the one that statistics and alerts count by itself.
const OutcomeTimeout Outcome = "timeout"

// OutcomeInterrupted is that of an attempt that a crash cut off.
const OutcomeInterrupted Outcome = "interrupted"

// HeaderField is one header line, in the order it came. It is stored as
// ["name","value"]; until 2026-11-25 it was an object of the two.
type HeaderField struct{ Name, Value string }

// UnmarshalJSON reads both forms.
func (h *HeaderField) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '[' {
		var pair []string
		if err := json.Unmarshal(data, &pair); err != nil {
			return err
		}
		if len(pair) != 2 {
			return fmt.Errorf("a header line has %d parts", len(pair))
		}
		h.Name, h.Value = pair[0], pair[1]
		return nil
	}
	var object struct{ Name, Value string }
	err := json.Unmarshal(data, &object)
	h.Name, h.Value = object.Name, object.Value
	return err
}

// Call is the record of one attempt. The body that was sent is not in it: it is
// a pure function of the event, the webhook and these fields.
type Call struct {
	EventID        EventID        `json:"event_id"`   // of a batch: its first member's
	EventType      string         `json:"event_type"` // of a batch: BatchEventType
	WebhookID      WebhookID      `json:"webhook_id"`
	WebhookVersion int64          `json:"webhook_version"` // whose url, headers and secret were used
	PayloadVersion PayloadVersion `json:"payload_version"`
	Attempt        int            `json:"attempt"`
	URL            string         `json:"url"`
	StartedAt      time.Time      `json:"started_at"`  // the body's timestamp
	Duration       int64          `json:"duration_us"` // microseconds
	Outcome        Outcome        `json:"outcome"`
	Error          string         `json:"error,omitempty"`  // in words, for an integrator
	Status         int            `json:"status,omitempty"` // 0: no answer
	Header         []HeaderField  `json:"response_headers,omitempty"`
	Body           []byte         `json:"response_body,omitempty"` // base64 in the log: receivers answer anything
	Truncated      bool           `json:"response_truncated,omitempty"`
	Sequence       int64          `json:"sequence,omitempty"` // the number that was sent; 0: none
	Ordered        bool           `json:"ordered,omitempty"`  // the delivery is in a line
	// BodyHash is the SHA-256 of the body that was sent; records of older versions have none.
	BodyHash []byte   `json:"body_sha256,omitempty"`
	ReplayID ReplayID `json:"replay_id,omitzero"` // that asked for it; zero: none
	// LeftOut are the members of a batch that were not sent, as their data was destroyed before.
	LeftOut []LeftOut `json:"left_out,omitempty"`
	// System says of a batch that it sent nothing but the service's own events.
	System bool `json:"system,omitempty"`

	Content // response_headers and response_body are, when they are sealed
}

// LeftOut is an event that is no part of its batch any more, and why.
type LeftOut struct {
	EventID EventID      `json:"event_id"`
	Reason  CancelReason `json:"reason"`
}

// Sent reports whether the event was part of what the call sent.
func (c Call) Sent(event EventID) bool {
	return !slices.ContainsFunc(c.LeftOut, func(left LeftOut) bool { return left.EventID == event })
}

// IsSystem reports whether the call sent nothing but the service's own events.
func (c Call) IsSystem() bool { return c.System || EventType(c.EventType).IsSystem() }

// DeliverySucceeded ends a delivery well.
type DeliverySucceeded struct {
	Call
}

// DeliveryAttemptFailed is an attempt that failed. Either NextAttemptAt says
// when the next follows, or GaveUp why none does.
type DeliveryAttemptFailed struct {
	Call
	NextAttemptAt time.Time `json:"next_attempt_at,omitzero"`
	GaveUp        GaveUp    `json:"gave_up,omitempty"`
	Blocks        bool      `json:"blocks,omitempty"` // having given up, it holds up those behind it
}

// GaveUp says why a delivery failed for good.
type GaveUp string

// The reasons to give up.
const (
	GaveUpRetriesExhausted GaveUp = "retries_exhausted"
	GaveUpGone             GaveUp = "gone" // the receiver answered 410
)

// DeliveryInterrupted records an attempt that a crash cut off: what the
// receiver saw of it is not known.
type DeliveryInterrupted struct {
	EventID   EventID   `json:"event_id"`
	EventType string    `json:"event_type"`
	WebhookID WebhookID `json:"webhook_id"`
	Attempt   int       `json:"attempt"`
	URL       string    `json:"url"`
	Reason    string    `json:"reason"`
	Ordered   bool      `json:"ordered,omitempty"`
}

// DeliveryCancelled ends a delivery without another attempt.
type DeliveryCancelled struct {
	EventID   EventID      `json:"event_id"`
	WebhookID WebhookID    `json:"webhook_id"`
	Reason    CancelReason `json:"reason"`
	// Was is DeliveryFailed if the delivery had given up, DeliveryJoined if it was in a batch
	// that goes on without it; else it was pending.
	Was      DeliveryState `json:"was,omitempty"`
	ReplayID ReplayID      `json:"replay_id,omitzero"` // that had asked for it; zero: none
	Waiting  bool          `json:"waiting,omitempty"`  // for its next attempt, which no node had taken: none is under way
}

// CancelReason says who wanted a delivery to end.
type CancelReason string

// The reasons to cancel.
const (
	CancelWebhookDeleted CancelReason = "webhook_deleted"
	CancelRequested      CancelReason = "requested"
	CancelReplay         CancelReason = "replay_cancelled"
	CancelSubjectErased  CancelReason = "subject_erased"
	CancelExpired        CancelReason = "payloads_expired"
	CancelReplayed       CancelReason = "replayed" // of a batch that failed: each of its events that is not erased was sent by itself since
)

// DeliveryRetryRequested asks for an attempt now, even after the end. The
// delivery's count of retries starts over.
type DeliveryRetryRequested struct {
	EventID   EventID   `json:"event_id"`
	WebhookID WebhookID `json:"webhook_id"`
	Attempt   int       `json:"attempt"`            // the number that the next attempt gets
	Size      int       `json:"size"`               // bytes of event_data
	ReplayID  ReplayID  `json:"replay_id,omitzero"` // that asks for it; zero: none
	Line      Line      `json:"line,omitempty"`     // unless the delivery is in the queue
	// BatchID is the batch that it went in, and leaves; zero: none.
	BatchID DeliveryID `json:"batch_id,omitzero"`
}

// DeliveryRetryCancelled takes back what a cancelled replay had asked for: the delivery has
// failed, as before.
type DeliveryRetryCancelled struct {
	EventID   EventID   `json:"event_id"`
	WebhookID WebhookID `json:"webhook_id"`
	ReplayID  ReplayID  `json:"replay_id"`
	Blocks    bool      `json:"blocks,omitempty"`  // as before, it holds up those behind it
	Waiting   bool      `json:"waiting,omitempty"` // as DeliveryCancelled has it
}

// DeliveryOutcomeLate is the outcome of a call whose node had lost its lease, or whose delivery
// was cancelled: the delivery goes on, or has ended, without it.
type DeliveryOutcomeLate struct {
	Call
	// Counts says that the attempt does not stand as interrupted, which would count for it.
	Counts bool `json:"counts,omitempty"`
}

// DeliveryTested is a test call that somebody asked for: a delivery of its own,
// whose event is only here.
type DeliveryTested struct {
	Call
	EventData json.RawMessage `json:"event_data"`
	// SealedData is event_data encrypted, until it is opened.
	SealedData []byte `json:"sealed_data,omitempty"`
}

func (DeliverySucceeded) ChangeType() string      { return "delivery.succeeded" }
func (DeliveryAttemptFailed) ChangeType() string  { return "delivery.attempt_failed" }
func (DeliveryInterrupted) ChangeType() string    { return "delivery.interrupted" }
func (DeliveryCancelled) ChangeType() string      { return "delivery.cancelled" }
func (DeliveryRetryRequested) ChangeType() string { return "delivery.retry_requested" }
func (DeliveryRetryCancelled) ChangeType() string { return "delivery.retry_cancelled" }
func (DeliveryOutcomeLate) ChangeType() string    { return "delivery.outcome_late" }
func (DeliveryTested) ChangeType() string         { return "delivery.tested" }

// Call is the call that was cut off.
func (c DeliveryInterrupted) Call() Call {
	return Call{EventID: c.EventID, EventType: c.EventType, WebhookID: c.WebhookID, Attempt: c.Attempt, URL: c.URL, Outcome: OutcomeInterrupted, Error: c.Reason, Ordered: c.Ordered}
}

// Late is the outcome of a call of a delivery that was cancelled meanwhile.
func (c DeliveryInterrupted) Late(at time.Time) DeliveryOutcomeLate {
	call := c.Call()
	call.StartedAt = at
	return DeliveryOutcomeLate{Call: call, Counts: true}
}

// OutcomeOf returns the call of an attempt that was answered, or failed, if the change records one.
func OutcomeOf(change any) (Call, bool) {
	switch c := change.(type) {
	case DeliverySucceeded:
		return c.Call, true
	case DeliveryAttemptFailed:
		return c.Call, true
	case DeliveryOutcomeLate:
		return c.Call, true
	}
	return Call{}, false
}

// CountedCall returns the call that the change records, if it counts: an attempt that was interrupted does,
// and so what came of it late does not count again.
func CountedCall(change any) (Call, bool) {
	switch c := change.(type) {
	case DeliveryInterrupted:
		return c.Call(), true
	case DeliveryOutcomeLate:
		return c.Call, c.Counts
	}
	return OutcomeOf(change)
}

func (c DeliverySucceeded) AppendJSON(dst []byte) []byte { return c.form(&form{out: dst}).out }
func (c DeliverySucceeded) read(f *form) Change          { c.form(f); return c }

func (c *DeliverySucceeded) form(f *form) *form {
	c.Call.form(f)
	return f.letters("}")
}

func (c DeliveryAttemptFailed) AppendJSON(dst []byte) []byte { return c.form(&form{out: dst}).out }
func (c DeliveryAttemptFailed) read(f *form) Change          { c.form(f); return c }

func (c *DeliveryAttemptFailed) form(f *form) *form {
	c.Call.form(f)
	f.timeOrNone(`,"next_attempt_at":`, &c.NextAttemptAt)
	textOrNone(f, `,"gave_up":`, &c.GaveUp)
	c.Blocks = f.optional(`,"blocks":true`, c.Blocks)
	return f.letters("}")
}

func (c DeliveryOutcomeLate) AppendJSON(dst []byte) []byte { return c.form(&form{out: dst}).out }
func (c DeliveryOutcomeLate) read(f *form) Change          { c.form(f); return c }

func (c *DeliveryOutcomeLate) form(f *form) *form {
	c.Call.form(f)
	c.Counts = f.optional(`,"counts":true`, c.Counts)
	return f.letters("}")
}

func (c DeliveryTested) AppendJSON(dst []byte) []byte { return c.form(&form{out: dst}).out }
func (c DeliveryTested) read(f *form) Change          { c.form(f); return c }

func (c *DeliveryTested) form(f *form) *form {
	if !f.reading && len(c.Keys) > 0 {
		c.SealedData = c.Keys.Seal(c.EventData)
	}
	c.Call.form(f)
	if f.optional(`,"sealed_data":`, len(c.SealedData) > 0) {
		f.bytes("", &c.SealedData)
		return f.letters("}")
	}
	return f.data(`,"event_data":`, &c.EventData)
}

func (c *Call) form(f *form) {
	if !f.reading {
		c.seal()
	}
	id(f, `{"event_id":`, &c.EventID)
	text(f, `,"event_type":`, &c.EventType)
	id(f, `,"webhook_id":`, &c.WebhookID)
	number(f, `,"webhook_version":`, &c.WebhookVersion)
	text(f, `,"payload_version":`, &c.PayloadVersion)
	number(f, `,"attempt":`, &c.Attempt)
	text(f, `,"url":`, &c.URL)
	f.time(`,"started_at":`, &c.StartedAt)
	number(f, `,"duration_us":`, &c.Duration)
	text(f, `,"outcome":`, &c.Outcome)
	textOrNone(f, `,"error":`, &c.Error)
	numberOrNone(f, `,"status":`, &c.Status)
	f.bytes(`,"sealed":`, &c.Sealed)
	c.sayErased(f)
	c.answer(f)
	c.Truncated = f.optional(`,"response_truncated":true`, c.Truncated)
	numberOrNone(f, `,"sequence":`, &c.Sequence)
	c.Ordered = f.optional(`,"ordered":true`, c.Ordered)
	f.bytes(`,"body_sha256":`, &c.BodyHash)
	idOrNone(f, `,"replay_id":`, &c.ReplayID)
	if list(f, `,"left_out":[`, &c.LeftOut, len(c.LeftOut) > 0) {
		for i := 0; more(f, &c.LeftOut, i); i++ {
			id(f, `{"event_id":`, &c.LeftOut[i].EventID)
			text(f, `,"reason":`, &c.LeftOut[i].Reason)
			f.letters("}")
		}
	}
	c.System = f.optional(`,"system":true`, c.System)
}

// answer is what of a call is content.
func (c *Call) answer(f *form) {
	if list(f, `,"response_headers":[`, &c.Header, len(c.Header) > 0) {
		for i := 0; more(f, &c.Header, i); i++ {
			text(f, "[", &c.Header[i].Name)
			text(f, ",", &c.Header[i].Value)
			f.letters("]")
		}
	}
	f.bytes(`,"response_body":`, &c.Body)
}

var _ = register(DeliverySucceeded{}, DeliveryAttemptFailed{}, DeliveryInterrupted{}, DeliveryCancelled{}, DeliveryRetryRequested{}, DeliveryRetryCancelled{}, DeliveryOutcomeLate{}, DeliveryTested{})

// DeliveryState is where a delivery stands.
type DeliveryState string

// The states of a delivery. Only pending is not an end.
const (
	DeliveryPending   DeliveryState = "pending"
	DeliveryDelivered DeliveryState = "delivered"
	DeliveryFailed    DeliveryState = "failed"
	DeliveryWithdrawn DeliveryState = "cancelled"
)

// DeliveryJoined is the state of a delivery that went in a batch: whatever the
// batch's is. It is never shown.
const DeliveryJoined DeliveryState = "joined_batch"

// Delivery is the state of one delivery: the fold of its stream. The zero value
// is a delivery that was dispatched and not yet tried.
type Delivery struct {
	EventID       EventID // of a batch: its first member's
	WebhookID     WebhookID
	Members       []BatchMember // of a batch, else nil
	Size          int           // of a batch: bytes of all its event_data
	BatchID       DeliveryID    // that it went in, and was not asked for by itself since: see In
	LeftOut       []LeftOut     // of a batch: the members that its last attempt left out; nil while another follows a request or a crash
	State         DeliveryState
	Attempts      int  // numbers used, interrupted ones included
	Withdrawn     int  // the number of the attempt that was cancelled when it was due, so it may be under way; 0: none was
	Waiting       bool // for its next attempt, which no node has taken: the queue says so, not the stream
	Retries       int  // of max_retries, used since the first attempt or the last request
	NextAttemptAt time.Time
	GaveUp        GaveUp
	Blocks        bool // having failed, it holds up those behind it
	CancelReason  CancelReason
	LastOutcome   Outcome // "": no attempt has ended
	LastStatus    int
	LastError     string
	ReplayID      ReplayID // that asked for it last; zero: nobody, or somebody else
	Version       int64
}

// Evolve returns the delivery after a change that the log recorded at the time.
func (d Delivery) Evolve(change Change, at time.Time) Delivery {
	if d.State == "" {
		d.State = DeliveryPending
	}
	d.Version++
	switch c := change.(type) {
	case DeliveryBatched:
		d.WebhookID, d.Members, d.Size, d.NextAttemptAt = c.WebhookID, c.Members, c.Size, at
		if len(c.Members) > 0 {
			d.EventID = c.Members[0].EventID
		}
	case DeliveryJoinedBatch:
		d.EventID, d.WebhookID, d.BatchID = c.EventID, c.WebhookID, c.BatchID
		d.State = DeliveryJoined
	case DeliverySucceeded:
		d = d.after(c.Call)
		d.State, d.NextAttemptAt, d.GaveUp, d.Blocks = DeliveryDelivered, time.Time{}, "", false
	case DeliveryAttemptFailed:
		d = d.after(c.Call)
		d.NextAttemptAt, d.GaveUp, d.Blocks = c.NextAttemptAt, c.GaveUp, c.Blocks
		if c.GaveUp != "" {
			d.State = DeliveryFailed
		} else {
			d.Retries++
		}
	case DeliveryInterrupted:
		d.EventID, d.WebhookID = c.EventID, c.WebhookID
		d.Attempts, d.NextAttemptAt, d.LeftOut = c.Attempt, at, nil
	case DeliveryOutcomeLate:
		d.EventID, d.WebhookID = c.EventID, c.WebhookID
		d.Attempts = max(d.Attempts, c.Attempt) // the receiver has seen the number
	case DeliveryCancelled:
		if c.Was == "" && !c.Waiting {
			d.Withdrawn = d.dueBy(at)
		}
		d.EventID, d.WebhookID = c.EventID, c.WebhookID
		d.State, d.CancelReason, d.GaveUp, d.NextAttemptAt, d.Blocks = DeliveryWithdrawn, c.Reason, "", time.Time{}, false
	case DeliveryRetryRequested:
		d.EventID, d.WebhookID = c.EventID, c.WebhookID
		d.State, d.Retries, d.NextAttemptAt, d.GaveUp, d.CancelReason = DeliveryPending, 0, at, "", ""
		d.Attempts = max(d.Attempts, c.Attempt-1)
		d.BatchID, d.ReplayID, d.LeftOut, d.Blocks = DeliveryID{}, c.ReplayID, nil, false
	case DeliveryRetryCancelled:
		if !c.Waiting {
			d.Withdrawn = d.dueBy(at)
		}
		d.EventID, d.WebhookID = c.EventID, c.WebhookID
		d.State, d.CancelReason, d.NextAttemptAt, d.Blocks = DeliveryFailed, CancelReplay, time.Time{}, c.Blocks
	case DeliveryTested:
		d = d.after(c.Call)
		d.State = DeliveryFailed
		if c.Outcome == OutcomeSuccess {
			d.State = DeliveryDelivered
		}
	}
	return d
}

// dueBy returns the number of the attempt that is due by the time; 0: none is.
func (d Delivery) dueBy(at time.Time) int {
	if at.Before(d.NextAttemptAt) {
		return 0
	}
	return d.Attempts + 1
}

// NextAttempt returns the number of the attempt that is asked for now.
func (d Delivery) NextAttempt() int { return max(d.Attempts, d.Withdrawn) + 1 }

func (d Delivery) after(c Call) Delivery {
	d.EventID, d.WebhookID, d.LeftOut = c.EventID, c.WebhookID, c.LeftOut
	d.Attempts, d.LastOutcome, d.LastStatus, d.LastError = c.Attempt, c.Outcome, c.Status, c.Error
	return d
}

// statusGone is the receiver's word that it will never take this webhook again.
const statusGone = 410

// DecideOutcome returns the event that a call leads to. end is the
// database's time at which the call ended; retryAfter what the receiver asked
// for on 429 or 503, which can only lengthen the wait.
func DecideOutcome(id DeliveryID, retries int, w Webhook, call Call, end time.Time, retryAfter time.Duration) Change {
	if call.Outcome == OutcomeSuccess {
		return DeliverySucceeded{Call: call}
	}
	failed := DeliveryAttemptFailed{Call: call}
	switch {
	case call.Status == statusGone:
		failed.GaveUp = GaveUpGone
	case retries >= w.MaxRetries:
		failed.GaveUp = GaveUpRetriesExhausted
	default:
		// The retry that follows is number retries+1, so it is attempt retries+2
		// of those that count.
		delay := NextAttemptDelay(time.Duration(w.RetryDelay)*time.Second, retries+2, jitterOf(id, call.Attempt))
		const stored = time.Microsecond // is what the log keeps; rounded up, as it is never earlier
		failed.NextAttemptAt = end.Add(LengthenDelay(delay, retryAfter) + stored - 1).Truncate(stored).UTC()
	}
	failed.Blocks = failed.GaveUp != "" && call.Ordered && w.OrderOnFailure == OrderBlock
	return failed
}

// DecideInterruption records the attempt that a dead node had under way.
func DecideInterruption(event EventID, eventType string, w Webhook, attempt int, reason string) DeliveryInterrupted {
	return DeliveryInterrupted{EventID: event, EventType: eventType, WebhookID: w.ID, Attempt: attempt, URL: w.URL, Reason: reason}
}

// DecideCancel ends a delivery that is pending or has given up.
func DecideCancel(d Delivery, event EventID, webhook WebhookID, reason CancelReason) (Change, error) {
	cancelled := DeliveryCancelled{EventID: event, WebhookID: webhook, Reason: reason, ReplayID: d.ReplayID, Waiting: d.Waiting}
	switch d.State {
	case "", DeliveryPending:
	case DeliveryFailed:
		cancelled.Was = DeliveryFailed
	default:
		return nil, Conflict("the delivery is " + string(d.State) + " already: there is nothing to cancel")
	}
	return cancelled, nil
}

// DecideRetry asks for an attempt now. A cancelled delivery stays cancelled, and a deleted
// webhook takes none. What waits for a replay goes on to be the replay's.
func DecideRetry(d Delivery, w Webhook, event EventID, size int) (DeliveryRetryRequested, error) {
	if d.State == DeliveryWithdrawn {
		return DeliveryRetryRequested{}, Conflict("the delivery is cancelled: it is never attempted again; a replay can send its event")
	}
	if !w.Exists() {
		return DeliveryRetryRequested{}, Conflict("the webhook of this delivery is deleted: there is nobody to deliver to")
	}
	asked := DeliveryRetryRequested{EventID: event, WebhookID: w.ID, Attempt: d.NextAttempt(), Size: size}
	if d.State == DeliveryPending {
		asked.ReplayID = d.ReplayID
	}
	return asked, nil
}

func jitterOf(id DeliveryID, attempt int) uint64 {
	h := fnv.New64a()
	h.Write(strconv.AppendInt(id[:], int64(attempt), 10)) // a hash never fails
	return h.Sum64()
}
