package projections

import (
	"context"
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

// The subjects: for each the positions of the events, and of the tests, that tell of it.

var subjectsModel = Model{
	Name: "subjects", SchemaVersion: 1, Tables: []string{"subject_events"},
	New: func(t Tables) Projection {
		return &subjects{insert: t.SQL(`INSERT INTO {subject_events} (owner, position) SELECT * FROM unnest($1::uuid[], $2::bigint[])`)}
	},
}

type subjects struct{ insert string }

func (p *subjects) Project(_ context.Context, _ Querier, events []eventstore.Event) (statements []eventstore.Statement, _ error) {
	var own, former subjectRows
	for i := range events {
		for _, owner := range domain.SubjectsOf(events[i].Value) {
			own.add(owner, int64(events[i].Position))
		}
		replaced, _ := events[i].Value.(domain.PayloadsEncrypted)
		for _, of := range replaced.Subjects {
			for _, position := range of.Positions {
				former.add(of.Owner, position)
			}
		}
	}
	if len(own.owners) > 0 { // these are new, and to look for them would double what they cost
		statements = append(statements, eventstore.Statement{SQL: p.insert, Args: []any{own.owners, own.positions}})
	}
	if len(former.owners) > 0 { // a rebuild has found them where they are
		statements = append(statements, eventstore.Statement{SQL: p.insert + ` ON CONFLICT DO NOTHING`, Args: []any{former.owners, former.positions}})
	}
	return statements, nil
}

type subjectRows struct {
	owners    [][16]byte
	positions []int64
}

func (r *subjectRows) add(owner [16]byte, position int64) {
	r.owners, r.positions = append(r.owners, owner), append(r.positions, position)
}

const subjectEventsSQL = `SELECT position FROM medilab.subject_events
	WHERE owner = $1 AND position > $2 AND position <= $3 ORDER BY position LIMIT $4`

// SubjectEvents returns up to limit positions, after one up to another, of events and tests
// that tell of the subject, as far as the read models hold the log: see AwaitSubjects.
func (p *Projections) SubjectEvents(ctx context.Context, owner envelope.Owner, after, to Position, limit int) ([]Position, error) {
	rows, _ := p.pool.Query(ctx, subjectEventsSQL, uuid.UUID(owner), after, to, limit)
	positions, err := pgx.CollectRows(rows, pgx.RowTo[Position])
	return positions, doing("list the events of a subject", err)
}

// NewestOf returns the newest events about the subject, so many at most, the newest first; tests
// are none.
func (p *Projections) NewestOf(ctx context.Context, owner envelope.Owner, limit int) ([]Event, error) {
	page, err := pageAt(ctx, p, p.log, limit, newEvent, `SELECT position FROM medilab.subject_events WHERE owner = $1 AND position < $2
		ORDER BY position DESC LIMIT $3`, uuid.UUID(owner), int64(math.MaxInt64), limit+1)
	return page.Items, doing("list the newest events of a subject", err)
}

// AwaitSubjects waits for the read models to hold the log up to the position, but not for
// those that are not kept now.
func (p *Projections) AwaitSubjects(ctx context.Context, to Position) error {
	return p.waitBriefly(ctx, to, 5*time.Second)
}

// EachOf calls yield for each event about the subject, with its calls, the oldest first; for
// a test, the event is nil.
func (p *Projections) EachOf(ctx context.Context, owner envelope.Owner, yield func(event *Event, calls []Call) error) error {
	const page = 100
	head, err := p.log.Head(ctx)
	if err != nil {
		return err
	}
	if err := p.AwaitSubjects(ctx, head); err != nil {
		return err
	}
	for after := Position(0); ; {
		positions, err := p.SubjectEvents(ctx, owner, after, head, page)
		if err != nil {
			return err
		}
		if err := p.getEach(ctx, positions, func(events []eventstore.Event) error {
			for i := range events {
				if err := p.withCalls(ctx, &events[i], yield); err != nil {
					return err
				}
			}
			return nil
		}); err != nil || len(positions) < page {
			return err
		}
		after = positions[page-1]
	}
}

func (p *Projections) withCalls(ctx context.Context, e *eventstore.Event, yield func(*Event, []Call) error) error {
	if call, ok := newCall(e); ok {
		return yield(nil, []Call{call})
	}
	event, ok := newEvent(e)
	if !ok {
		return fmt.Errorf("read an event of a subject: position %d: %w", e.Position, e.Err)
	}
	var calls []Call
	for filter := (CallFilter{Event: event.ID, Limit: 1000}); ; {
		page, err := p.Calls(ctx, filter)
		if err != nil {
			return err
		}
		if calls = append(calls, page.Items...); page.NextCursor == 0 {
			break
		}
		filter.Cursor = page.NextCursor
	}
	slices.Reverse(calls)
	return yield(&event, calls)
}
