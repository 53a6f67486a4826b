package commands

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/envelope"
	"github.com/medilab/webhooks/eventstore"
)

// Erased says what an erasure reached.
type Erased struct {
	Events    int                 `json:"events"` // that told of the subject, tests included
	Cancelled int                 `json:"deliveries_cancelled"`
	Position  eventstore.Position `json:"position"` // of subject.erased
	// UnencryptedUntil is the last position that a version wrote which did not encrypt: what
	// the log holds up to there is not erased. Zero: there is none.
	UnencryptedUntil eventstore.Position `json:"unencrypted_until,omitempty"`
	// ArchivedTo is the last archived position: Events leaves out what is only in archives,
	// which cannot be read any more either. Zero: nothing is archived.
	ArchivedTo eventstore.Position `json:"archived_to,omitempty"`
}

// SubjectIndex finds the events, and tests, that tell of a subject.
type SubjectIndex interface {
	SubjectEvents(ctx context.Context, owner envelope.Owner, after, to eventstore.Position, limit int) ([]eventstore.Position, error)
}

// EraseSubject destroys the keys of the subject in the append that says so: what told of it
// cannot be read from then on, also not the part that tells of others. Then it cancels its
// deliveries, of which those that it does not reach are cancelled when their turn comes.
func (c *Commands) EraseSubject(ctx context.Context, caller Caller, subject, reason string) (Erased, error) {
	if reason = strings.TrimSpace(reason); reason == "" {
		return Erased{}, domain.CheckFields([]domain.FieldError{{Field: "reason", Message: "is required"}})
	}
	if err := domain.CheckReason("reason", reason); err != nil {
		return Erased{}, err
	}
	owner, err := c.Directory.Keys.Owner(ctx, subject)
	if err != nil {
		return Erased{}, Failed("erase a subject", err)
	}
	return c.erase(ctx, caller, owner, domain.SubjectErased{Reason: reason})
}

// Erasure is one that the log has, for those who restore an older log.
type Erasure struct {
	Subject  uuid.UUID `json:"subject"`
	ErasedAt time.Time `json:"erased_at"`
}

// Erasures returns those that the log has, the oldest first.
func (c *Commands) Erasures(ctx context.Context) (all []Erasure, err error) {
	rows, err := c.Pool.Query(ctx, `SELECT position FROM medilab.events WHERE stream LIKE 'subject-%' AND type = $1 ORDER BY position`, domain.SubjectErased{}.ChangeType())
	if err != nil {
		return nil, fmt.Errorf("list erasures: %w", err)
	}
	positions, err := pgx.CollectRows(rows, pgx.RowTo[eventstore.Position])
	for some := range slices.Chunk(positions, 1000) {
		events, failed := c.Log.GetMany(ctx, some)
		if failed != nil {
			return nil, failed
		}
		for _, e := range events {
			_, id, failed := domain.ParseStream(e.Stream)
			if erased, ok := e.Value.(domain.SubjectErased); ok && failed == nil {
				at := e.RecordedAt
				if !erased.ErasedAt.IsZero() {
					at = erased.ErasedAt
				}
				all = append(all, Erasure{id, at})
			}
		}
	}
	return all, err
}

// EraseAgain makes those of the erasures again that the log does not have, as it was restored
// from an older backup. It returns how many.
func (c *Commands) EraseAgain(ctx context.Context, caller Caller, erasures []Erasure) (again int, err error) {
	for _, e := range erasures {
		former, err := c.Log.Load(ctx, domain.SubjectStream(envelope.Owner(e.Subject)))
		if err != nil {
			return again, err
		}
		if slices.ContainsFunc(former, func(f eventstore.Event) bool {
			erased, ok := f.Value.(domain.SubjectErased)
			return ok && (f.RecordedAt.Equal(e.ErasedAt) || erased.ErasedAt.Equal(e.ErasedAt))
		}) {
			continue
		}
		const reason = "erased before, and restored from a backup"
		if _, err := c.erase(ctx, caller, envelope.Owner(e.Subject), domain.SubjectErased{Reason: reason, ErasedAt: e.ErasedAt}); err != nil {
			return again, err
		}
		again++
	}
	return again, nil
}

func (c *Commands) erase(ctx context.Context, caller Caller, owner envelope.Owner, change domain.SubjectErased) (Erased, error) {
	stream := domain.SubjectStream(owner)
	var before eventstore.Position // of the last erasure
	appended, err := c.Directory.Execute(ctx, func(ctx context.Context) (eventstore.Unit, error) {
		former, err := c.Log.Load(ctx, stream)
		if err != nil {
			return eventstore.Unit{}, err
		}
		if n := len(former); n > 0 {
			before = former[n-1].Position
		}
		unit := caller.unit(stream, int64(len(former)), change)
		unit.With = append(unit.With, eventstore.Statement{SQL: `DELETE FROM medilab.data_keys WHERE owner = $1`, Args: []any{uuid.UUID(owner)}})
		waiting, err := c.waitingFor(ctx, owner)
		unit.With = append(unit.With, waiting...)
		return unit, err
	})
	if err != nil {
		return Erased{}, Failed("erase a subject", err)
	}
	erased := Erased{Position: appended.First}
	if c.OnErasure != nil && change.ErasedAt.IsZero() {
		c.OnErasure(Erasure{uuid.UUID(owner), appended.RecordedAt})
	}
	err = c.Pool.QueryRow(ctx, `SELECT coalesce(max(position), 0) FROM medilab.unencrypted`).Scan(&erased.UnencryptedUntil)
	if err != nil {
		return Erased{}, Failed("erase a subject", err)
	}
	if erased.ArchivedTo, err = c.Log.ArchivedTo(ctx); err != nil {
		return Erased{}, Failed("erase a subject", err)
	}
	const page = 500
	for after := before; ; {
		positions, err := c.Subjects.SubjectEvents(ctx, owner, after, erased.Position, page)
		if err != nil {
			return Erased{}, Failed("find the deliveries of a subject that is erased", err)
		}
		cancelled, err := c.cancelErased(ctx, caller, positions)
		if err != nil {
			return Erased{}, Failed("cancel the deliveries of a subject that is erased", err)
		}
		erased.Events, erased.Cancelled = erased.Events+len(positions), erased.Cancelled+cancelled
		if len(positions) < page {
			return erased, nil
		}
		after = positions[page-1]
	}
}

// waitingFor returns the statements that drop the parked and emitted events that tell of the
// subject and are not in the log.
func (c *Commands) waitingFor(ctx context.Context, owner envelope.Owner) (statements []eventstore.Statement, err error) {
	for _, table := range []struct{ name, key string }{{"outbox", "seq"}, {"parked_events", "id"}} {
		rows, err := c.Pool.Query(ctx, fmt.Sprintf(`SELECT %s, event_type, event_data::text FROM medilab.%s`, table.key, table.name))
		if err != nil {
			return nil, fmt.Errorf("look for events that wait: %w", err)
		}
		var ids []int64
		var id int64
		var eventType domain.EventType
		var data []byte
		_, err = pgx.ForEachRow(rows, []any{&id, &eventType, &data}, func() error {
			owners, err := c.Directory.Keys.Owners(ctx, eventType, data)
			if slices.Contains(owners, owner) {
				ids = append(ids, id)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("look for events that wait: %w", err)
		}
		if ids != nil {
			statements = append(statements, eventstore.Statement{SQL: fmt.Sprintf(`DELETE FROM medilab.%s WHERE %s = ANY($1)`, table.name, table.key), Args: []any{ids}})
		}
	}
	return statements, nil
}

// cancelErased cancels the deliveries of the events that wait, and returns how many. Those
// that went in a batch go on with what is left of it.
func (c *Commands) cancelErased(ctx context.Context, caller Caller, positions []eventstore.Position) (cancelled int, err error) {
	for len(positions) > 0 {
		events, err := c.Log.GetMany(ctx, positions)
		if err != nil || len(events) == 0 {
			return cancelled, err
		}
		positions = positions[len(events):]
		var ids []domain.EventID
		for _, e := range events {
			if kind, id, err := domain.ParseStream(e.Stream); err == nil && kind == "event" {
				ids = append(ids, domain.EventID(id))
			}
		}
		waiting, err := c.Queue.WaitingOf(ctx, ids)
		if err != nil {
			return cancelled, err
		}
		for _, id := range waiting {
			_, err := c.changeDelivery(ctx, caller, id, func(d domain.Delivery, member *domain.Delivery) (domain.Change, error) {
				if member != nil {
					return nil, domain.Conflict("it went in a batch")
				}
				return domain.DecideCancel(d, d.EventID, d.WebhookID, domain.CancelSubjectErased)
			})
			switch {
			case err == nil:
				cancelled++
			case !errors.Is(err, domain.KindConflict) && !errors.Is(err, domain.KindNotFound): // else it has ended
				return cancelled, err
			}
		}
	}
	return cancelled, nil
}
