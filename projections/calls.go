package projections

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// The call log: for each webhook and kind of call the positions of its calls, for each
// kind those of all webhooks (as webhook 0), and those of each correlation id. All that is
// shown of a call is read from the log.

var callsModel = Model{
	Name: "calls", SchemaVersion: 3, Tables: []string{"calls", "called"},
	New: func(t Tables) Projection {
		return &calls{table: newListTable(t, "calls", true, blockBits), numbers: numbers{}, correlate: t.SQL(`
			INSERT INTO {called} (correlation, position) SELECT * FROM unnest($1::integer[], $2::bigint[])`)}
	},
}

type calls struct {
	table     listTable
	numbers   numbers
	correlate string
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
	var correlations []int32
	var positions []int64
	for i := range events {
		call, ok := callOf(events[i].Value)
		if !ok {
			continue
		}
		kind := callKind(call)
		lists.add(0, kind, events[i].Position)
		if number := p.numbers[uuid.UUID(call.WebhookID)]; number != 0 {
			lists.add(number, kind, events[i].Position)
		}
		if id := correlationOf(&events[i]); id != "" {
			correlations, positions = append(correlations, hash31(id)), append(positions, int64(events[i].Position))
		}
	}
	statements := p.table.statements(lists, events[0].Position)
	if len(positions) > 0 {
		statements = append(statements, eventstore.Statement{SQL: p.correlate, Args: []any{correlations, positions}})
	}
	return statements, nil
}

// callKind is what calls are listed by: the event type's hash, the answer's status and, in
// the lowest bit, whether the call succeeded.
func callKind(c domain.Call) int32 {
	kind := hash31(c.EventType)&^(1<<typeShift-1) | listedStatus(c.Status)<<1
	if c.Outcome == domain.OutcomeSuccess {
		kind |= 1
	}
	return kind
}

// typeShift is where the event type's hash begins in a callKind; statusBits are those of
// a listedStatus.
const (
	typeShift  = 11
	statusBits = 1<<10 - 1
)

// listedStatus is what a status is listed as. Those that nobody has defined share a list
// for each hundred, so that a receiver cannot make many lists.
func listedStatus(status int) int32 {
	const hundred, defined = 100, 60
	if status%hundred >= defined {
		status += hundred - 1 - status%hundred
	}
	return int32(status) & statusBits
}

// correlationOf returns the correlation id that the event's metadata names, or "".
func correlationOf(e *eventstore.Event) string {
	if !bytes.Contains(e.Metadata, []byte(`"correlation_id":`)) {
		return ""
	}
	by, _ := e.ReadMetadata() // what is no JSON names none
	return by.CorrelationID
}

// callOf returns the call that the change records, if it records one.
func callOf(change any) (domain.Call, bool) {
	switch c := change.(type) {
	case domain.DeliveryTested:
		return c.Call, true
	case domain.DeliveryInterrupted:
		return c.Call(), true
	}
	return domain.OutcomeOf(change)
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
	Late           bool              `json:"late"` // its attempt was recorded as interrupted before, or its delivery cancelled
	Gone

	// Record is the log's whole record, for the details; Position where it is.
	Record   domain.Call         `json:"-"`
	Position eventstore.Position `json:"-"`
	// CorrelationID is that of its event, of a call that was read alone.
	CorrelationID string `json:"-"`
	// OwnEvents are the subject's, of a batch that EachOf found.
	OwnEvents []domain.EventID `json:"-"`
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
		Gone: goneOf(record.Content), ResponseStatus: orNil(record.Status), Error: orNil(record.Error),
	}
	if record.Outcome == domain.OutcomeSuccess {
		c.Status = CallSuccess
	}
	if record.Outcome != domain.OutcomeInterrupted {
		c.DurationMS = new(float64(record.Duration) / 1000)
	}
	switch change := e.Value.(type) {
	case domain.DeliveryAttemptFailed:
		c.NextAttemptAt = orNil(change.NextAttemptAt)
	case domain.DeliveryInterrupted:
		c.NextAttemptAt = &e.RecordedAt // the next follows at once
	case domain.DeliveryOutcomeLate:
		c.Late = true
	case domain.DeliveryTested:
		c.Test, c.TestData = true, change.EventData
	}
	return c, true
}

// Call returns one call of the webhook with all that the log holds of it, or a
// *domain.Error of KindNotFound.
func (p *Projections) Call(ctx context.Context, webhook domain.WebhookID, id domain.CallID) (Call, error) {
	events, err := p.log.GetMany(ctx, []eventstore.Position{eventstore.Position(id.Position())})
	if err != nil {
		return Call{}, fmt.Errorf("read a call: %w", err)
	}
	if len(events) > 0 {
		if call, ok := newCall(&events[0]); ok && call.ID == id && call.WebhookID == webhook {
			call.CorrelationID = correlationOf(&events[0])
			return call, nil
		}
	}
	return Call{}, p.notFound(ctx, "call")
}
