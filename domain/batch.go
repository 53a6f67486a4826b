package domain

import (
	"crypto/sha256"
	"fmt"
	"time"
)

// A batch is several events on their way to one webhook together: one delivery
// with an id, a stream, attempts and an end of its own.
//
// Its rules (contract sections 2 and 3):
//   - its members are the oldest that wait for the webhook, in the log's order;
//   - it is no larger than any of its members was promised when it was dispatched,
//     and its body has at most 10 MB, unless one event alone has more;
//   - it is made as soon as nothing more fits in, or when one of its members has
//     waited as long as it may;
//   - from then on it stays as it is: what becomes of it becomes of all its members, but
//     for those whose data is erased, which are cancelled and no longer sent;
//   - a member that a replay sends again goes by itself, under its own id.
//
// A delivery becomes a member by an event in its own stream, at the version at
// which it was waiting: so it joins one batch, or is cancelled, or is asked for at
// once by itself, and never two of these, also under concurrency.

// BatchEventType stands for the type of what a batch delivers: in its calls and
// in X-Webhook-Event. No event of the clinic has it, for their types have a dot.
const BatchEventType EventType = "batch"

// DeliveryBatched starts the stream of a batch.
type DeliveryBatched struct {
	WebhookID WebhookID     `json:"webhook_id"`
	Size      int           `json:"size"`    // bytes of all its event_data
	Members   []BatchMember `json:"members"` // in the order of the body
	Line      Line          `json:"line,omitempty"`
}

// BatchMember is one delivery that went in a batch.
type BatchMember struct {
	EventID    EventID    `json:"event_id"`
	DeliveryID DeliveryID `json:"delivery_id"`
	Sequence   int64      `json:"sequence,omitempty"` // of a webhook that wants its deliveries numbered
}

// DeliveryJoinedBatch makes a delivery a member: what becomes of it is told in the
// stream of its batch, unless it leaves that or is asked for by itself later.
type DeliveryJoinedBatch struct {
	EventID   EventID    `json:"event_id"`
	WebhookID WebhookID  `json:"webhook_id"`
	BatchID   DeliveryID `json:"batch_id"`
}

func (DeliveryBatched) ChangeType() string     { return "delivery.batched" }
func (DeliveryJoinedBatch) ChangeType() string { return "delivery.joined_batch" }

func (c DeliveryBatched) AppendJSON(dst []byte) []byte { return c.form(&form{out: dst}).out }
func (c DeliveryBatched) read(f *form) Change          { c.form(f); return c }

func (c *DeliveryBatched) form(f *form) *form {
	id(f, `{"webhook_id":`, &c.WebhookID)
	number(f, `,"size":`, &c.Size)
	if list(f, `,"members":[`, &c.Members, true) {
		for i := 0; more(f, &c.Members, i); i++ {
			id(f, `{"event_id":`, &c.Members[i].EventID)
			id(f, `,"delivery_id":`, &c.Members[i].DeliveryID)
			numberOrNone(f, `,"sequence":`, &c.Members[i].Sequence)
			f.letters("}")
		}
	}
	numberOrNone(f, `,"line":`, &c.Line)
	return f.letters("}")
}

func (c DeliveryJoinedBatch) AppendJSON(dst []byte) []byte { return c.form(&form{out: dst}).out }
func (c DeliveryJoinedBatch) read(f *form) Change          { c.form(f); return c }

func (c *DeliveryJoinedBatch) form(f *form) *form {
	id(f, `{"event_id":`, &c.EventID)
	id(f, `,"webhook_id":`, &c.WebhookID)
	id(f, `,"batch_id":`, &c.BatchID)
	return f.letters("}")
}

var _ = register(DeliveryBatched{}, DeliveryJoinedBatch{})

// BatchOf derives a batch's id from the delivery that is its first member: a
// delivery joins one batch at most. It has the layout of DeliveryOf.
func BatchOf(first DeliveryID) DeliveryID {
	return DeliveryID(derived(first[:6], sha256.Sum256(append([]byte(BatchEventType), first[:]...))))
}

// DecideLeave ends a member of a batch that goes on without it.
func DecideLeave(member Delivery, reason CancelReason) DeliveryCancelled {
	return DeliveryCancelled{EventID: member.EventID, WebhookID: member.WebhookID, Reason: reason, Was: DeliveryJoined}
}

// In returns d, a member of batch, in the state of the batch: cancelled, if it left that or
// was left out. A batch whose events were sent by themselves since had failed; a member that did not
// leave it was not sent, as its data was gone: erased, unless the event says that it has expired.
func (d Delivery) In(batch Delivery) Delivery {
	if d.State == DeliveryWithdrawn {
		batch.State, batch.CancelReason, batch.GaveUp, batch.NextAttemptAt = d.State, d.CancelReason, "", time.Time{}
	}
	switch {
	case batch.CancelReason != CancelReplayed:
	case d.State == DeliveryJoined:
		batch.CancelReason = CancelSubjectErased
	default:
		batch.State, batch.CancelReason = DeliveryFailed, ""
	}
	for _, left := range batch.LeftOut {
		if left.EventID == d.EventID && left.Reason == CancelReplayed { // it left after this had failed
			batch.State = DeliveryFailed
		} else if left.EventID == d.EventID {
			batch.State, batch.CancelReason, batch.GaveUp, batch.NextAttemptAt = DeliveryWithdrawn, left.Reason, "", time.Time{}
			batch.LastOutcome, batch.LastStatus, batch.LastError = "", 0, ""
		}
	}
	batch.LeftOut = nil
	batch.EventID, batch.BatchID, batch.Members, batch.Size, batch.Version = d.EventID, d.BatchID, nil, 0, d.Version
	return batch
}

// CheckCancelMember refuses to take one of several out of their batch, which a
// receiver may have seen already.
func CheckCancelMember(member, batch Delivery) error {
	if others := len(batch.Members) - 1; others > 0 {
		return Conflict(fmt.Sprintf("this delivery goes together with %d %s in the batch %s: cancel that delivery to end them all", others, Plural(others, "other", "others"), member.BatchID))
	}
	return nil
}

// Waiting is a delivery that waits for others to go with.
type Waiting struct {
	BatchMember
	Size int // bytes of event_data
	// The rule under which it was dispatched, whatever the webhook wants by now:
	MaxEvents int
	DueAt     time.Time // when it must go
	Line      Line
}

// MaxBatchMembers is the most that a webhook can ask for.
const MaxBatchMembers = 1000

// BatchMemberBytes is more than a member takes in the body besides its event_data, and, of
// a CloudEvent, its source and correlation id.
const BatchMemberBytes = 512

// BatchFull reports whether a batch of so many members and bytes has no room for another.
func BatchFull(members, size, maxEvents int) bool {
	return members >= maxEvents || size+members*BatchMemberBytes >= MaxEventBytes
}

// DecideBatch returns how many of the waiting deliveries, oldest first, form a batch now;
// 0: they go on waiting.
func DecideBatch(waiting []Waiting, now time.Time) int {
	size, most, due := 0, MaxBatchMembers, false
	for n, w := range waiting {
		full := n+1 > min(most, w.MaxEvents) || size+w.Size+(n+1)*BatchMemberBytes > MaxEventBytes
		if n > 0 && full {
			return n
		}
		size, most = size+w.Size, min(most, w.MaxEvents)
		due = due || !now.Before(w.DueAt)
	}
	if due || BatchFull(len(waiting), size, most) {
		return len(waiting)
	}
	return 0
}

// FormBatch returns the events that make a batch of the deliveries.
func FormBatch(webhook WebhookID, together []Waiting) (DeliveryID, DeliveryBatched, []DeliveryJoinedBatch) {
	id := BatchOf(together[0].DeliveryID)
	batched := DeliveryBatched{WebhookID: webhook, Members: make([]BatchMember, len(together))}
	joined := make([]DeliveryJoinedBatch, len(together))
	for i, w := range together {
		batched.Size += w.Size
		batched.Members[i] = w.BatchMember
		batched.Line = max(batched.Line, w.Line)
		joined[i] = DeliveryJoinedBatch{EventID: w.EventID, WebhookID: webhook, BatchID: id}
	}
	return id, batched, joined
}
