package projections

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// The deliveries that did not go as nearly all do, by a first attempt that succeeded. So a
// delivery that nothing happened to costs nothing here: it is found by its event, or in the
// queue.

var deliveriesModel = Model{
	Name: "deliveries", SchemaVersion: 47, Tables: []string{"undelivered", "reached"},
	New: func(t Tables) Projection {
		return &undelivered{
			numbers: numbers{},
			reach:   t.SQL(`INSERT INTO {reached} (webhook, block) SELECT * FROM unnest($1::integer[], $2::bigint[])`),
			save: t.SQL(`
				INSERT INTO {undelivered} AS u (ordinal, webhook, kind) SELECT * FROM unnest($1::bigint[], $2::integer[], $3::integer[])
				ON CONFLICT (ordinal) DO UPDATE SET kind = CASE EXCLUDED.kind & 1023
					WHEN 1023 THEN (EXCLUDED.kind & ~1023) | (u.kind & 1023) ELSE EXCLUDED.kind END`),
		}
	},
}

type undelivered struct {
	numbers     numbers
	reach, save string
}

// ordinal is the place of a delivery in a list: that of its event in the log, and of its
// webhook by number.
type ordinal int64

// numberBits are those of the number: 4 million webhooks. Positions have 41.
const numberBits = 22

func ordinalAt(event eventstore.Position, number int32) ordinal {
	return ordinal(int64(event)<<numberBits | int64(number)&(1<<numberBits-1))
}

func (o ordinal) position() eventstore.Position { return eventstore.Position(o >> numberBits) }

// What undelivered rows are listed by: the state, the event type's hash, and the status of
// the last answer, which an event without one leaves as it was.
const (
	stateShift   = 29
	sameStatus   = statusBits
	undeliveries = 4 // states
)

// undeliveredStates are the states of rows, by their number.
var undeliveredStates = [undeliveries]domain.DeliveryState{domain.DeliveryFailed, domain.DeliveryPending, domain.DeliveryWithdrawn, domain.DeliveryDelivered}

func undeliveredKind(state domain.DeliveryState, eventType string, status int32) int32 {
	number := slices.Index(undeliveredStates[:], state)
	return int32(number)<<stateShift | typeOf(eventType) | status
}

// typeOf returns the event type's part of an undeliveredKind.
func typeOf(eventType string) int32 {
	return hash31(eventType) & (1<<stateShift - 1) &^ statusBits
}

// stand is where an event of a delivery's stream leaves it.
type stand struct {
	stream  string // the delivery's, or that of the batch it is in
	event   domain.EventID
	webhook domain.WebhookID
	batch   bool // it is that of all members of the batch
	at      eventstore.Position
	state   domain.DeliveryState
	status  int32
	left    []domain.LeftOut // of a batch: the members that the call left out
}

// standOf returns what the event makes of its delivery, if that is to be noted.
func standOf(e *eventstore.Event) (s stand, noted bool) {
	change, _ := e.Value.(domain.Change)
	switch change.(type) {
	case domain.DeliverySucceeded, domain.DeliveryAttemptFailed, domain.DeliveryInterrupted, domain.DeliveryRetryRequested,
		domain.DeliveryCancelled, domain.DeliveryRetryCancelled:
	default:
		return s, false
	}
	d := domain.Delivery{}.Evolve(change, e.RecordedAt)
	s = stand{stream: e.Stream, at: e.Position, event: d.EventID, webhook: d.WebhookID, state: d.State, status: sameStatus}
	if call, ok := domain.OutcomeOf(change); ok {
		s.status, s.left = listedStatus(call.Status), call.LeftOut
	}
	succeeded := s.state == domain.DeliveryDelivered
	if succeeded && e.Version == 1 {
		return s, false // as nearly all
	}
	s.batch = domain.DeliveryOf(s.event, s.webhook).Stream() != e.Stream
	firstOfBatch := s.batch && e.Version == 2 // follows its making
	return s, !succeeded || !firstOfBatch || len(s.left) > 0
}

func (p *undelivered) Project(ctx context.Context, db Querier, events []eventstore.Event) ([]eventstore.Statement, error) {
	reached, err := p.reached(ctx, db, events)
	if err != nil {
		return nil, err
	}
	stood, err := p.stood(ctx, db, events)
	return append(reached, stood...), err
}

func (p *undelivered) stood(ctx context.Context, db Querier, events []eventstore.Event) ([]eventstore.Statement, error) {
	var stands []stand
	for i := range events {
		if s, noted := standOf(&events[i]); noted {
			stands = append(stands, s)
		}
	}
	if len(stands) == 0 {
		return nil, nil
	}
	stands, err := ofMembers(ctx, db, stands)
	if err != nil {
		return nil, fmt.Errorf("read the members of batches: %w", err)
	}
	webhooks, streams := map[uuid.UUID]bool{}, map[string]bool{}
	for _, s := range stands {
		webhooks[uuid.UUID(s.webhook)], streams[s.event.Stream()] = true, true
	}
	if err := p.numbers.load(ctx, db, webhooks); err != nil {
		return nil, fmt.Errorf("read webhooks' numbers: %w", err)
	}
	heads, err := headsOf(ctx, db, headsByStream, slices.Collect(maps.Keys(streams)))
	if err != nil {
		return nil, err
	}
	return p.statements(stands, heads), nil
}

// statements make the rows what the last of the stands of each says.
func (p *undelivered) statements(stands []stand, events map[domain.EventID]eventHead) []eventstore.Statement {
	kinds := map[ordinal]int32{}
	numberOf := map[ordinal]int32{}
	for _, s := range stands {
		event, known := events[s.event]
		number := p.numbers[uuid.UUID(s.webhook)]
		if !known || number == 0 {
			continue
		}
		o := ordinalAt(event.position, number)
		if before, ok := kinds[o]; ok && s.status == sameStatus {
			s.status = before & statusBits
		}
		kinds[o], numberOf[o] = undeliveredKind(s.state, event.eventType, s.status), number
	}
	if len(kinds) == 0 {
		return nil
	}
	ordinals := slices.Sorted(maps.Keys(kinds))
	numbers, values := make([]int32, len(ordinals)), make([]int32, len(ordinals))
	for i, o := range ordinals {
		numbers[i], values[i] = numberOf[o], kinds[o]
	}
	return []eventstore.Statement{{SQL: p.save, Args: []any{ordinals, numbers, values}}}
}

// stillJoined returns those of the streams whose deliveries were in their batches at the position.
func stillJoined(ctx context.Context, db Querier, streams []string, at eventstore.Position) ([]string, error) {
	rows, _ := db.Query(ctx, `
		SELECT m.stream FROM unnest($1::text[]) AS m (stream) CROSS JOIN LATERAL (
			SELECT type FROM medilab.events WHERE stream = m.stream AND position <= $2 ORDER BY stream DESC, version DESC LIMIT 1
		) AS last WHERE last.type = 'delivery.joined_batch'`, streams, at)
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// ofMembers replaces what batches come to by what that makes of their members: those that
// had not been asked for by themselves since.
func ofMembers(ctx context.Context, db Querier, stands []stand) (all []stand, err error) {
	for _, s := range stands {
		if !s.batch {
			all = append(all, s)
			continue
		}
		made, err := firstOf[domain.DeliveryBatched](ctx, db, []string{s.stream}) // what does not decode is dead-lettered
		if err != nil {
			return nil, err
		}
		members, streams := map[string]domain.EventID{}, []string{}
		for _, m := range made[s.stream].Members {
			members[m.DeliveryID.Stream()] = m.EventID
			streams = append(streams, m.DeliveryID.Stream())
		}
		joined, err := stillJoined(ctx, db, streams, s.at)
		if err != nil {
			return nil, err
		}
		for _, stream := range joined {
			member := s
			member.stream, member.event, member.batch = stream, members[stream], false
			if !(domain.Call{LeftOut: s.left}).Sent(member.event) {
				member.state, member.status = domain.DeliveryWithdrawn, listedStatus(0)
			}
			all = append(all, member)
		}
	}
	return all, nil
}
