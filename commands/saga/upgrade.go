package saga

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Versions before migration 14 decided some events after they were appended, by
// event.dispatched. What they had not decided when they stopped is in medilab.undecided.

// decideOldEvents decides what an older version left undecided, until nothing is left
// that can be read. Every node with the role does it: an event is decided once, by its
// stream's version.
func (s *session) decideOldEvents(ctx context.Context) {
	const pause = 15 * time.Second
	for ctx.Err() == nil {
		err := s.decideUndecided(ctx)
		if err == nil {
			return
		}
		s.logger.Warn("events that an older version left undecided are not decided yet, trying again", "error", err)
		eventstore.Wait(ctx, pause, nil)
	}
}

func (s *session) decideUndecided(ctx context.Context) error {
	rows, _ := s.pool.Query(ctx, `SELECT position FROM medilab.undecided ORDER BY position`)
	positions, err := pgx.CollectRows(rows, pgx.RowTo[eventstore.Position])
	if err != nil || len(positions) == 0 {
		return eventstore.Doing("list undecided events", err)
	}
	configuration, err := s.log.Configuration(ctx, 0, positions[len(positions)-1])
	if err != nil {
		return err
	}
	registry := domain.NewRegistry()
	for _, position := range positions {
		draft := registry.Draft()
		for ; len(configuration) > 0 && configuration[0].Position < position; configuration = configuration[1:] {
			e := &configuration[0]
			if change, ok := e.Value.(domain.Change); ok {
				if kind, id, err := domain.ParseStream(e.Stream); err == nil && kind == "webhook" {
					draft.Apply(domain.WebhookID(id), change, e.RecordedAt)
				}
			}
		}
		registry = draft.Registry()
		if err := s.decideOld(ctx, registry, position); err != nil {
			return err
		}
	}
	return nil
}

// decideOld decides one event by the webhooks as they were at its position.
func (s *session) decideOld(ctx context.Context, registry *domain.Registry, position eventstore.Position) error {
	events, err := s.log.GetMany(ctx, []eventstore.Position{position})
	if err != nil || len(events) == 0 {
		return err
	}
	e := events[0]
	triggered, ok := e.Value.(domain.EventTriggered)
	if !ok {
		s.logger.Error("an event that an older version left undecided cannot be read", "position", position, "error", e.Err)
		return nil
	}
	unit := eventstore.Unit{Generation: s.generation, With: []eventstore.Statement{{SQL: `DELETE FROM medilab.undecided WHERE position = $1`, Args: []any{position}}}}
	if triggered.Recipients == nil {
		triggered.Recipients = registry.Recipients(domain.EventType(triggered.EventType), triggered.EventData)
		dispatched, _ := domain.DispatchOf(domain.EventID(streamID(e.Stream)), triggered)
		// A replay may have asked for the event before: that delivery is on its way, or made.
		begins := func(d domain.Dispatch) string { return d.DeliveryID.Stream() }
		if dispatched.Deliveries, err = notBegun(ctx, s.log, dispatched.Deliveries, begins); err != nil {
			return err
		}
		if len(dispatched.Deliveries) > 0 {
			unit.Writes = []eventstore.Write{commands.Write(e.Stream, e.Version, eventstore.Metadata{Actor: commands.ActorDispatcher}, dispatched)}
			if _, err := s.log.Append(ctx, unit); !eventstore.IsConflict(err) {
				return err
			}
		}
	}
	_, err = s.pool.Exec(ctx, unit.With[0].SQL, unit.With[0].Args...)
	return err
}
