package projections

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// applier applies pages of the log to some read models.
type applier struct {
	tables        Tables
	projections   []Projection
	deadLetterSQL string

	// versions, of the applier that keeps the read models, are those of the models.
	versions eventstore.Statement
}

// noteVersionsSQL makes those read models outdated that a page was applied to in another way, or
// not at all, than their version says: nodes of another version kept them before.
const noteVersionsSQL = `UPDATE medilab.read_models SET shape = 0
	WHERE shape > 0 AND (name, shape) NOT IN (SELECT * FROM unnest($1::text[], $2::int[]))`

// newApplier fills the tables of the models. deadLetters says which table takes
// the events that no model can.
func newApplier(models []Model, tables, deadLetters Tables) *applier {
	a := &applier{tables: tables, deadLetterSQL: deadLetters.SQL(`
		INSERT INTO {parked} (position, reason, at)
		SELECT * FROM unnest($1::bigint[], $2::text[], $3::timestamptz[])
		ON CONFLICT (position) DO NOTHING`)}
	for _, m := range models {
		a.projections = append(a.projections, m.New(tables))
	}
	return a
}

// versionsOf returns the names of the models and their versions, as arguments.
func versionsOf(models []Model) []any {
	return []any{mapped(models, func(m Model) string { return m.Name }), mapped(models, func(m Model) int32 { return int32(m.SchemaVersion) })}
}

// transaction is what a page is applied in: a *pgx.Conn with a transaction
// open, or a pgx.Tx.
type transaction interface {
	Querier
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// apply makes the page's changes to all read models. An event that cannot be
// applied is dead-lettered with its reason, so as not to block the others.
func (a *applier) apply(ctx context.Context, tx transaction, events []eventstore.Event) error {
	decoded, failed := splitDecoded(events)
	if err := a.deadLetter(ctx, tx, failed); err != nil {
		return err
	}
	return a.bisect(ctx, tx, decoded)
}

// bisect applies the events at once or, when an event is at fault, each half by
// itself, down to that event.
func (a *applier) bisect(ctx context.Context, tx transaction, events []eventstore.Event) error {
	if len(events) == 0 {
		return nil
	}
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
		events[0].Err = a.reason(err)
		return a.deadLetter(ctx, tx, events)
	}
	half := len(events) / 2
	if err := a.bisect(ctx, tx, events[:half]); err != nil {
		return err
	}
	return a.bisect(ctx, tx, events[half:])
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
	if a.versions.SQL != "" {
		batch.Queue(a.versions.SQL, a.versions.Args...)
	}
	batch.Queue(`RELEASE SAVEPOINT projections`)
	return doing("apply a page", tx.SendBatch(ctx, &batch).Close())
}

// isPoison reports whether the database refused the statements for what the events
// hold, so that trying again cannot help.
func isPoison(err error) bool {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	return ok && slices.Contains([]string{"22", "23", "54"}, refused.Code[:2]) // data, constraint, program limit
}

// reason returns the error in words that do not depend on which tables were being
// filled.
func (a *applier) reason(err error) error {
	refused, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	if a.tables.suffix == "" {
		return errors.New(refused.Message)
	}
	return errors.New(strings.ReplaceAll(refused.Message, a.tables.suffix, ""))
}

// deadLetter keeps the positions of the events, and why each cannot be applied.
func (a *applier) deadLetter(ctx context.Context, tx transaction, events []eventstore.Event) error {
	if len(events) == 0 {
		return nil
	}
	positions, reasons, times := make([]int64, len(events)), make([]string, len(events)), make([]time.Time, len(events))
	for i, e := range events {
		positions[i], reasons[i], times[i] = int64(e.Position), domain.Storable(e.Err.Error()), e.RecordedAt
	}
	if _, err := tx.Exec(ctx, a.deadLetterSQL, positions, reasons, times); err != nil {
		return fmt.Errorf("dead-letter %d events: %w", len(events), err)
	}
	return nil
}

// splitDecoded splits events by whether they decoded.
func splitDecoded(events []eventstore.Event) (decoded, failed []eventstore.Event) {
	for i := range events {
		e := &events[i]
		if _, ok := e.Value.(domain.Change); !ok || e.Err != nil { // then Err is the reason in domain's words
			e.Value, e.Err = domain.Decode(e.Type, e.Data)
		}
		if e.Err != nil {
			failed = append(failed, *e)
		}
	}
	if len(failed) > 0 {
		events = slices.DeleteFunc(slices.Clone(events), func(e eventstore.Event) bool { return e.Err != nil })
	}
	return events, failed
}

// each iterates over those of the events whose change is a C. It allocates some memory, so pages
// are applied without it.
func each[C domain.Change](events []eventstore.Event) iter.Seq2[*eventstore.Event, C] {
	return func(yield func(*eventstore.Event, C) bool) {
		for i := range events {
			if c, ok := events[i].Value.(C); ok && !yield(&events[i], c) {
				return
			}
		}
	}
}
