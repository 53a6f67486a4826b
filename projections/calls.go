package projections

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// The call log: for each webhook and kind of call the positions of its calls. All
// that is shown of a call is read from the log.

var callsModel = Model{
	Name: "calls", SchemaVersion: 2, Tables: []string{"calls"},
	New: func(t Tables) Projection {
		return &calls{table: newListTable(t, "calls", true), numbers: numbers{}}
	},
}

type calls struct {
	table   listTable
	numbers numbers
}

func (p *calls) Project(ctx context.Context, db Querier, events []eventstore.Event) ([]eventstore.Statement, error) {
	webhooks := map[uuid.UUID]bool{}
	for i := range events {
		if call, ok := callOf(events[i].Value); ok {
			webhooks[uuid.UUID(call.WebhookID)] = true
		}
	}
	if err := p.numbers.load(ctx, db, webhooks); err != nil {
		return nil, fmt.Errorf("read webhooks' numbers: %w", err)
	}
	lists := positionLists{}
	for i := range events {
		if call, ok := callOf(events[i].Value); ok {
			kind := callKind(call.EventType, call.Outcome == domain.OutcomeSuccess)
			lists.add(p.numbers[uuid.UUID(call.WebhookID)], kind, events[i].Position)
		}
	}
	return p.table.statements(lists, events[0].Position), nil
}

// callKind is what calls of a webhook are listed by: the event type's hash and, in
// its lowest bit, whether they succeeded.
func callKind(eventType string, success bool) int32 {
	kind := hash31(eventType) &^ 1
	if success {
		kind |= 1
	}
	return kind
}

// callOf returns the call that the change records, if it records one.
func callOf(change any) (domain.Call, bool) {
	switch c := change.(type) {
	case domain.DeliverySucceeded:
		return c.Call, true
	case domain.DeliveryAttemptFailed:
		return c.Call, true
	case domain.DeliveryOutcomeLate:
		return c.Call, true
	case domain.DeliveryTested:
		return c.Call, true
	case domain.DeliveryInterrupted:
		return domain.Call{
			EventID: c.EventID, EventType: c.EventType, WebhookID: c.WebhookID, Attempt: c.Attempt,
			URL: c.URL, Outcome: domain.OutcomeInterrupted, Error: c.Reason,
		}, true
	}
	return domain.Call{}, false
}

// CallStatus is whether a call succeeded or failed.
type CallStatus string

// The two statuses of a call.
const (
	CallSuccess CallStatus = "success"
	CallFailed  CallStatus = "failed"
)

// Call is one attempt as a list shows it (contract section 2).
type Call struct {
	ID             domain.CallID     `json:"call_id"`
	DeliveryID     domain.DeliveryID `json:"delivery_id"`
	EventID        domain.EventID    `json:"event_id"`
	EventType      string            `json:"event_type"`
	WebhookID      domain.WebhookID  `json:"webhook_id"`
	Attempt        int               `json:"attempt"`
	URL            string            `json:"url"`
	Status         CallStatus        `json:"status"`
	Outcome        domain.Outcome    `json:"outcome"`
	ResponseStatus *int              `json:"response_status"` // null: no answer
	DurationMS     *float64          `json:"duration_ms"`     // null: interrupted
	Error          *string           `json:"error"`           // null: none
	CreatedAt      time.Time         `json:"created_at"`      // when its end was recorded
	NextAttemptAt  *time.Time        `json:"next_attempt_at"` // null: none follows by itself
	Test           bool              `json:"test"`
	Late           bool              `json:"late"` // its node had lost it: the attempt counts as interrupted

	// Record is the log's whole record, for the details; Position where it is.
	Record   domain.Call         `json:"-"`
	Position eventstore.Position `json:"-"`
	// TestData is the event_data of a test call, whose event is only there.
	TestData []byte `json:"-"`
}

// newCall returns the call that an event records, as a list shows it.
func newCall(e *eventstore.Event) (Call, bool) {
	record, ok := callOf(e.Value)
	if !ok {
		return Call{}, false
	}
	_, delivery, err := domain.ParseStream(e.Stream)
	if err != nil {
		return Call{}, false
	}
	c := Call{
		ID:         domain.CallAt(domain.DeliveryID(delivery), int64(e.Position)),
		DeliveryID: domain.DeliveryID(delivery), EventID: record.EventID, EventType: record.EventType,
		WebhookID: record.WebhookID, Attempt: record.Attempt, URL: record.URL, Outcome: record.Outcome,
		Status: CallFailed, CreatedAt: e.RecordedAt, Record: record, Position: e.Position,
	}
	if record.Outcome == domain.OutcomeSuccess {
		c.Status = CallSuccess
	}
	if record.Status != 0 {
		c.ResponseStatus = &record.Status
	}
	if record.Error != "" {
		c.Error = &record.Error
	}
	if record.Outcome != domain.OutcomeInterrupted {
		ms := float64(record.Duration) / 1000
		c.DurationMS = &ms
	}
	switch change := e.Value.(type) {
	case domain.DeliveryAttemptFailed:
		if !change.NextAttemptAt.IsZero() {
			c.NextAttemptAt = &change.NextAttemptAt
		}
	case domain.DeliveryInterrupted:
		c.NextAttemptAt = &e.RecordedAt // the next follows at once
	case domain.DeliveryOutcomeLate:
		c.Late = true
	case domain.DeliveryTested:
		c.Test, c.TestData = true, change.EventData
	}
	return c, true
}

// CallFilter says which calls to list.
type CallFilter struct {
	Webhook   domain.WebhookID
	Status    CallStatus // "" is any
	EventType string     // "" is any
	From, To  time.Time  // of CreatedAt: at or after, before; zero is any
	Limit     int
	Cursor    Cursor
}

// callsSQL goes from kind to kind of the webhook's calls, takes the newest of
// each and merges them: as fast at the end of a long log as of a short one.
var callsSQL = `
WITH RECURSIVE owner AS (` + webhookNumber + `), kinds AS (
	SELECT (SELECT min(kind) FROM medilab.calls WHERE webhook = (SELECT number FROM owner)) AS kind
	UNION ALL
	SELECT (SELECT min(c.kind) FROM medilab.calls AS c WHERE c.webhook = (SELECT number FROM owner) AND c.kind > kinds.kind)
	FROM kinds WHERE kinds.kind IS NOT NULL
)
SELECT newest.position FROM kinds CROSS JOIN LATERAL (` +
	newestPositions("calls", "t.webhook = (SELECT number FROM owner) AND t.kind = kinds.kind", "$2::bigint", "$3::bigint", "$6::bigint") + `
) AS newest
WHERE kinds.kind IS NOT NULL AND ($4::integer IS NULL OR kinds.kind & 1 = $4) AND ($5::integer IS NULL OR kinds.kind | 1 = $5)
ORDER BY newest.position DESC LIMIT $6`

// Calls lists the calls of a webhook, the newest first.
func (p *Projections) Calls(ctx context.Context, f CallFilter) (Page[Call], error) {
	if err := p.awaitHead(ctx); err != nil {
		return Page[Call]{}, err
	}
	low, high, err := p.between(ctx, f.From, f.To, f.Cursor)
	if err != nil {
		return Page[Call]{}, err
	}
	var status, kind *int32
	if f.Status != "" {
		status = new(int32)
		if f.Status == CallSuccess {
			*status = 1
		}
	}
	if f.EventType != "" {
		of := callKind(f.EventType, true)
		kind = &of
	}
	page, err := pageAt(ctx, p, f.Limit, func(e *eventstore.Event) (Call, bool) {
		call, ok := newCall(e)
		return call, ok && (f.EventType == "" || call.EventType == f.EventType)
	}, callsSQL, uuid.UUID(f.Webhook), low, high, status, kind, f.Limit+1)
	if err != nil {
		return page, fmt.Errorf("list calls: %w", err)
	}
	return page, nil
}

// Call returns one call of the webhook with all that the log holds of it, or a
// *domain.Error of KindNotFound.
func (p *Projections) Call(ctx context.Context, webhook domain.WebhookID, id domain.CallID) (Call, error) {
	events, err := p.log.GetMany(ctx, []eventstore.Position{eventstore.Position(id.Position())})
	if err != nil {
		return Call{}, fmt.Errorf("read a call: %w", err)
	}
	if len(events) > 0 {
		decode(&events[0])
		if call, ok := newCall(&events[0]); ok && call.ID == id && call.WebhookID == webhook {
			return call, nil
		}
	}
	return Call{}, domain.NotFound("call")
}
