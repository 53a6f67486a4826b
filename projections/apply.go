package projections

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// applier applies pages to some read models.
type applier struct {
	tables      Tables
	projections []Projection
	parkSQL     string
}

// newApplier fills the tables of the models. parked says which table takes
// what no model can.
func newApplier(models []Model, tables, parked Tables) *applier {
	a := &applier{tables: tables, parkSQL: parked.SQL(`
		INSERT INTO {parked} (position, reason, at)
		SELECT * FROM unnest($1::bigint[], $2::text[], $3::timestamptz[])
		ON CONFLICT (position) DO NOTHING`)}
	for _, m := range models {
		a.projections = append(a.projections, m.New(tables))
	}
	return a
}

// transaction is what a page is applied in: a *pgx.Conn with a transaction
// open, or a pgx.Tx.
type transaction interface {
	Querier
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// apply makes the page's changes to all read models. An event that none can
// take is parked with its reason, and the others of its page go on without it.
func (a *applier) apply(ctx context.Context, tx transaction, events []eventstore.Event) error {
	good, poison := sift(events)
	if len(poison) > 0 {
		if err := a.park(ctx, tx, poison); err != nil {
			return err
		}
	}
	if len(good) == 0 {
		return nil
	}
	return a.divide(ctx, tx, good)
}

// divide applies the events at once and, when some of them are refused for what
// they are, each half by itself, down to the one that is at fault.
func (a *applier) divide(ctx context.Context, tx transaction, events []eventstore.Event) error {
	if _, err := tx.Exec(ctx, `SAVEPOINT projections`); err != nil {
		return fmt.Errorf("apply a page: %w", err)
	}
	err := a.attempt(ctx, tx, events)
	if err == nil || !isPoison(err) {
		return err
	}
	if _, undo := tx.Exec(ctx, `ROLLBACK TO SAVEPOINT projections`); undo != nil {
		return errors.Join(err, undo)
	}
	if len(events) == 1 {
		events[0].Err = a.refusal(err)
		return a.park(ctx, tx, events)
	}
	half := len(events) / 2
	if err := a.divide(ctx, tx, events[:half]); err != nil {
		return err
	}
	return a.divide(ctx, tx, events[half:])
}

// refusal is the reason of an error in words that do not depend on which tables
// were being filled.
func (a *applier) refusal(err error) error {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		reason := refused.Message
		if a.tables.suffix != "" {
			reason = strings.ReplaceAll(reason, a.tables.suffix, "")
		}
		return errors.New(reason)
	}
	return err
}

// attempt sends the statements of all read models in one round trip.
func (a *applier) attempt(ctx context.Context, tx transaction, events []eventstore.Event) error {
	var batch pgx.Batch
	for _, p := range a.projections {
		statements, err := p.Project(ctx, tx, events)
		if err != nil {
			return err
		}
		for _, s := range statements {
			batch.Queue(s.SQL, s.Args...)
		}
	}
	batch.Queue(`RELEASE SAVEPOINT projections`)
	if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("apply a page: %w", err)
	}
	return nil
}

// sift parts the events that decode from those that do not.
func sift(events []eventstore.Event) (good, poison []eventstore.Event) {
	all := true
	for i := range events {
		decode(&events[i])
		all = all && events[i].Err == nil
	}
	if all {
		return events, nil
	}
	for _, e := range events {
		if e.Err == nil {
			good = append(good, e)
		} else {
			poison = append(poison, e)
		}
	}
	return good, poison
}

// decode makes sure that the event's Value is a change, or its Err says why not,
// in the same words whoever decoded it first.
func decode(e *eventstore.Event) {
	if _, ok := e.Value.(domain.Change); !ok || e.Err != nil {
		e.Value, e.Err = domain.Decode(e.Type, e.Data)
	}
}

func (a *applier) park(ctx context.Context, tx transaction, events []eventstore.Event) error {
	positions, reasons, times := make([]int64, len(events)), make([]string, len(events)), make([]time.Time, len(events))
	for i, e := range events {
		positions[i], reasons[i], times[i] = int64(e.Position), text(e.Err.Error()), e.RecordedAt
	}
	if _, err := tx.Exec(ctx, a.parkSQL, positions, reasons, times); err != nil {
		return fmt.Errorf("park %d events: %w", len(events), err)
	}
	return nil
}

// isPoison tells what is the events' own fault from what may pass.
func isPoison(err error) bool {
	var poison *PoisonError
	if errors.As(err, &poison) {
		return true
	}
	var refused *pgconn.PgError
	if !errors.As(err, &refused) {
		return false
	}
	switch refused.Code[:2] {
	case "22", "23", "54": // data, constraint, program limit
		return true
	}
	return false
}
