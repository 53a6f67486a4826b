package saga

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// An event that cannot be read when the dispatcher comes to it (a newer version
// wrote it, or its data was damaged) is set aside with the reason, and the others
// go on. When it can be read, it is dispatched to those who were subscribed at
// its place in the log.

const (
	undispatchedPoll = 15 * time.Second
	undispatchedPage = 100
)

// setAside keeps the events in the transaction of their page.
func (d *dispatcher) setAside(ctx context.Context, tx *pgx.Conn, unread []*eventstore.Event) error {
	for _, e := range unread {
		reason := "it is of a type that is not known"
		if e.Err != nil {
			reason = strings.ReplaceAll(strings.ToValidUTF8(e.Err.Error(), "\uFFFD"), "\x00", "\uFFFD")
		}
		_, err := tx.Exec(ctx, `INSERT INTO medilab.undispatched (position, reason) VALUES ($1, $2) ON CONFLICT DO NOTHING`, e.Position, reason)
		if err != nil {
			return fmt.Errorf("set an event aside: %w", err)
		}
		d.logger.Error("an event cannot be read and is set aside; it is dispatched when it can be", "position", e.Position, "reason", reason)
	}
	return nil
}

// retryUndispatched looks again at what was set aside, until ctx ends. Every node
// with the role does it: an event is dispatched once, by its stream's version.
func (s *session) retryUndispatched(ctx context.Context) {
	for ctx.Err() == nil {
		if err := s.dispatchUnread(ctx); err != nil && ctx.Err() == nil {
			s.logger.Warn("events that were set aside not tried again, later", "error", err)
		}
		s.sleep(ctx, undispatchedPoll)
	}
}

func (s *session) dispatchUnread(ctx context.Context) error {
	rows, err := s.pool.Query(ctx, `SELECT position FROM medilab.undispatched ORDER BY position LIMIT $1`, undispatchedPage)
	if err != nil {
		return fmt.Errorf("list what was set aside: %w", err)
	}
	positions, err := pgx.CollectRows(rows, pgx.RowTo[eventstore.Position])
	if err != nil {
		return fmt.Errorf("list what was set aside: %w", err)
	}
	d := &dispatcher{log: s.log, logger: s.logger}
	for _, position := range positions {
		e, ok, err := s.log.At(ctx, position)
		if err != nil {
			return err
		}
		if _, readable := e.Value.(domain.Change); !ok || !readable {
			continue
		}
		if err := d.dispatchLate(ctx, &e); err != nil {
			return err
		}
		if _, err := s.pool.Exec(ctx, `DELETE FROM medilab.undispatched WHERE position = $1`, position); err != nil {
			return fmt.Errorf("dispatch what was set aside: %w", err)
		}
		s.logger.Info("an event that was set aside can be read again", "position", position, "type", e.Type)
	}
	return nil
}

// dispatchLate dispatches an event as it would have been at its place.
func (d *dispatcher) dispatchLate(ctx context.Context, e *eventstore.Event) error {
	triggered, ok := e.Value.(domain.EventTriggered)
	if !ok || triggered.Recipients != nil {
		return nil // what it says, others read from the log
	}
	if err := d.foldUpTo(ctx, e.Position-1); err != nil {
		return err
	}
	unit, wanted, err := d.dispatch(e, triggered)
	if err != nil || !wanted {
		return err
	}
	if _, err := d.log.Append(ctx, unit); err != nil && !eventstore.IsConflict(err) {
		return fmt.Errorf("dispatch what was set aside: %w", err)
	}
	return nil
}
