package projections

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/envelope"
	"github.com/medilab/webhooks/eventstore"
)

// Disclosure is an event that was sent to a webhook: who got what of whom.
type Disclosure struct {
	WebhookID    domain.WebhookID      `json:"webhook_id"`
	WebhookName  string                `json:"webhook_name"` // when it was sent
	Recipient    *domain.DataRecipient `json:"recipient"`    // as it was then; null: nobody said
	URL          string                `json:"url"`
	EventID      domain.EventID        `json:"event_id"`
	EventType    string                `json:"event_type"`
	Kind         SentKind              `json:"kind"`
	Fields       []string              `json:"fields" schema:"null"` // null: all of event_data
	FirstCallAt  time.Time             `json:"first_call_at"`
	LastCallAt   time.Time             `json:"last_call_at"`
	Acknowledged Acknowledgement       `json:"acknowledged"`

	last Position  // of the last call
	cut  []cutCall // of which nobody knows what became
}

// cutCall is an attempt that was cut off.
type cutCall struct {
	stream  string
	attempt int
}

// Disclosures is a page of them.
type Disclosures struct {
	Page[Disclosure]
	// CoveredFrom is since when the list covers what was sent: what was recorded before is
	// archived, and not in it. Null: it covers all.
	CoveredFrom *time.Time `json:"covered_from"`
}

// Acknowledgement says whether a receiver acknowledged what it was sent.
type Acknowledgement string

// The acknowledgements. After a call that was cut off, and no success, it is unknown.
const (
	Acknowledged        Acknowledgement = "true"
	NotAcknowledged     Acknowledgement = "false"
	AcknowledgedUnknown Acknowledgement = "unknown"
)

// MarshalJSON encodes true, false or "unknown".
func (a Acknowledgement) MarshalJSON() ([]byte, error) {
	if a == AcknowledgedUnknown {
		return []byte(`"unknown"`), nil
	}
	return []byte(a), nil
}

// Disclosures lists to whom the events that tell of the subject were sent, the newest event
// first, also events of which no key is left. A page ends with an event, so it may be longer
// than the limit by what one event was sent to.
func (p *Projections) Disclosures(ctx context.Context, owner envelope.Owner, limit int, cursor Cursor) (page Disclosures, err error) {
	page.Items = []Disclosure{}
	if err := p.awaitHead(ctx); err != nil {
		return page, err
	}
	if page.CoveredFrom, err = p.CoveredFrom(ctx); err != nil {
		return page, err
	}
	rows, err := p.pool.Query(ctx, `SELECT position FROM medilab.subject_events
		WHERE owner = $1 AND position < $2 ORDER BY position DESC LIMIT $3`, uuid.UUID(owner), cmp.Or(int64(cursor), math.MaxInt64), limit+1)
	if err != nil {
		return page, fmt.Errorf("list disclosures: %w", err)
	}
	positions, err := pgx.CollectRows(rows, pgx.RowTo[Position])
	if err != nil {
		return page, fmt.Errorf("list disclosures: %w", err)
	}
	for i, position := range positions {
		if len(page.Items) >= limit || i == limit {
			page.NextCursor = Cursor(positions[i-1])
			break
		}
		events, err := p.log.GetMany(ctx, []Position{position})
		for j := range events {
			var items []Disclosure
			if items, err = p.disclosuresOf(ctx, &events[j], time.Time{}); err != nil {
				break
			}
			slices.Reverse(items)
			page.Items = append(page.Items, items...)
		}
		if err != nil {
			return page, fmt.Errorf("list disclosures: %w", err)
		}
	}
	return page, nil
}

// DisclosuresTo lists what of whom was sent to the webhook by calls that were recorded at or
// after from and before to, the newest first. A zero time is no bound. A page goes by the
// calls that end each item, so it may be longer than the limit where batches were sent.
func (p *Projections) DisclosuresTo(ctx context.Context, webhook domain.WebhookID, from, to time.Time, limit int, cursor Cursor) (page Disclosures, err error) {
	page.Items = []Disclosure{}
	if page.CoveredFrom, err = p.CoveredFrom(ctx); err != nil {
		return page, err
	}
	calls, err := p.Calls(ctx, CallFilter{Webhook: webhook, From: from, To: to, Limit: limit, Cursor: cursor})
	if err != nil {
		return page, err
	}
	page.NextCursor = calls.NextCursor
	for _, call := range calls.Items {
		items, err := p.endedBy(ctx, call, to)
		if err != nil {
			return page, fmt.Errorf("list disclosures: %w", err)
		}
		page.Items = append(page.Items, items...)
	}
	return page, nil
}

// endedBy returns the items to the call's webhook of which it is the last call before to.
func (p *Projections) endedBy(ctx context.Context, call Call, to time.Time) (ended []Disclosure, err error) {
	first := []string{call.EventID.Stream()}
	if call.Test {
		first = []string{call.DeliveryID.Stream()}
	} else if call.EventType == string(domain.BatchEventType) {
		if first, err = p.membersOf(ctx, call.DeliveryID); err != nil {
			return nil, err
		}
	}
	events, err := p.log.LoadFirst(ctx, first)
	if err != nil {
		return nil, err
	}
	for i := range events {
		items, err := p.disclosuresOf(ctx, &events[i], to)
		if err != nil {
			return nil, err
		}
		for _, item := range items {
			if item.WebhookID == call.WebhookID && item.last == call.Position {
				ended = append(ended, item)
			}
		}
	}
	return ended, nil
}

// membersOf returns the streams of the events of a batch.
func (p *Projections) membersOf(ctx context.Context, batch domain.DeliveryID) (streams []string, err error) {
	begun, err := p.log.LoadFirst(ctx, []string{batch.Stream()})
	if err != nil || len(begun) == 0 {
		return nil, err
	}
	batched, _ := begun[0].Value.(domain.DeliveryBatched)
	for _, m := range batched.Members {
		streams = append(streams, m.EventID.Stream())
	}
	return streams, nil
}

// disclosuresOf returns to whom an event of the clinic, or a test, was sent by calls before
// to; zero: all.
func (p *Projections) disclosuresOf(ctx context.Context, e *eventstore.Event, to time.Time) ([]Disclosure, error) {
	sent := disclosing{Projections: p, to: to, at: map[disclosed]int{}}
	if _, ok := e.Value.(domain.DeliveryTested); ok {
		err := sent.call(ctx, e, SentByTest, Event{})
		return sent.items, err
	}
	id, err := domain.ParseEventStream(e.Stream)
	if err != nil {
		return nil, err
	}
	event, dispatched, err := p.event(ctx, id)
	if err != nil {
		return nil, err
	}
	all, err := p.replayedTo(ctx, id, dispatched)
	if err != nil {
		return nil, err
	}
	for _, d := range all {
		kind := SentByDispatch
		if d.WebhookVersion == 0 { // only a replay made it
			kind = SentByReplay
		}
		if err := sent.stream(ctx, d.DeliveryID.Stream(), kind, event); err != nil {
			return nil, err
		}
	}
	return sent.items, nil
}

// disclosed is what makes one item of a list.
type disclosed struct {
	webhook domain.WebhookID
	kind    SentKind
	url     string
	what    string // name, fields and recipient
}

// disclosing gathers the calls that an event was sent by.
type disclosing struct {
	*Projections
	to    time.Time
	items []Disclosure
	at    map[disclosed]int // in items
}

// stream adds the calls of a delivery, and of the batch that it went in.
func (s *disclosing) stream(ctx context.Context, stream string, kind SentKind, event Event) error {
	history, err := s.log.Load(ctx, stream)
	if err != nil {
		return err
	}
	var asked Delivery // what asked for the delivery
	for i := range history {
		e := &history[i]
		switch c := e.Value.(type) {
		case domain.DeliveryRetryRequested:
			asked.sentBy = []Sent{{Kind: kind}}
			asked.askedAgain(e, domain.Delivery{})
			kind = asked.sentBy[len(asked.sentBy)-1].Kind
		case domain.DeliveryJoinedBatch:
			err = s.stream(ctx, c.BatchID.Stream(), kind, event)
		default:
			err = s.call(ctx, e, kind, event)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// call adds a call, if the event is one in which something may have been sent. What a batch
// sent is an item of the event.
func (s *disclosing) call(ctx context.Context, e *eventstore.Event, kind SentKind, event Event) error {
	call, ok := callOf(e.Value)
	if !ok || call.Outcome.SentNothing() || !s.to.IsZero() && !e.RecordedAt.Before(s.to) {
		return nil
	}
	if event.Type == "" {
		event.ID, event.Type = call.EventID, call.EventType
	}
	w, err := s.usedBy(ctx, e, call)
	if err != nil {
		return err
	}
	item := Disclosure{WebhookID: call.WebhookID, WebhookName: w.Name, URL: call.URL, EventID: event.ID, EventType: event.Type,
		Kind: kind, Recipient: w.Recipient, Fields: w.Fields, FirstCallAt: e.RecordedAt, Acknowledged: NotAcknowledged}
	what, err := json.Marshal([]any{w.Name, w.Fields, w.Recipient})
	if err != nil {
		return err
	}
	key := disclosed{call.WebhookID, kind, call.URL, string(what)}
	at, known := s.at[key]
	if !known {
		at = len(s.items)
		s.at[key], s.items = at, append(s.items, item)
	}
	s.items[at].add(call, e)
	return nil
}

// usedBy returns the webhook as the call used it; of one that was cut off, as it was then.
func (s *disclosing) usedBy(ctx context.Context, e *eventstore.Event, call domain.Call) (domain.Webhook, error) {
	if call.WebhookVersion > 0 {
		return s.WebhookVersion(ctx, call.WebhookID, call.WebhookVersion)
	}
	return s.WebhookAsOf(ctx, call.WebhookID, e.Position)
}

func (d *Disclosure) add(call domain.Call, e *eventstore.Event) {
	d.LastCallAt, d.last = e.RecordedAt, e.Position
	attempt := cutCall{e.Stream, call.Attempt}
	if _, late := e.Value.(domain.DeliveryOutcomeLate); late {
		d.cut = slices.DeleteFunc(d.cut, func(c cutCall) bool { return c == attempt })
	} else if call.Outcome == domain.OutcomeInterrupted {
		d.cut = append(d.cut, attempt)
	}
	switch {
	case call.Outcome == domain.OutcomeSuccess || d.Acknowledged == Acknowledged:
		d.Acknowledged = Acknowledged
	case len(d.cut) > 0:
		d.Acknowledged = AcknowledgedUnknown
	default:
		d.Acknowledged = NotAcknowledged
	}
}
