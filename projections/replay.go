package projections

import (
	"context"
	"fmt"
	"time"

	"github.com/medilab/webhooks/domain"
)

// Replay is how far a replay has come: its deliveries as they stand now.
type Replay struct {
	ID          domain.ReplayID  `json:"replay_id"`
	WebhookID   domain.WebhookID `json:"webhook_id"`
	From        time.Time        `json:"from"`
	To          time.Time        `json:"to"`
	EventTypes  []string         `json:"event_types"` // null: all that the webhook asks for
	OnlyFailed  bool             `json:"only_failed"`
	RequestedAt time.Time        `json:"requested_at"`
	State       ReplayState      `json:"state"`
	Matched     int              `json:"matched"`
	Queued      int              `json:"queued"` // so far; what was on its way already by its turn is left out
	Pending     int              `json:"pending"`
	Delivered   int              `json:"delivered"`
	Failed      int              `json:"failed"`
	Cancelled   int              `json:"cancelled"`
}

// ReplayState says whether anything of a replay is still to come.
type ReplayState string

// The states of a replay.
const (
	ReplayRunning ReplayState = "running"
	ReplayDone    ReplayState = "done"
)

// Replay returns the progress of a webhook's replay, or a *domain.Error of
// KindNotFound. It reads the log itself.
func (p *Projections) Replay(ctx context.Context, webhook domain.WebhookID, id domain.ReplayID) (Replay, error) {
	events, err := p.log.Load(ctx, id.Stream())
	if err != nil {
		return Replay{}, fmt.Errorf("read a replay: %w", err)
	}
	var replay domain.Replay
	for i := range events {
		decode(&events[i])
		change, ok := events[i].Value.(domain.Change)
		if !ok {
			return Replay{}, fmt.Errorf("read a replay: %w", events[i].Err)
		}
		replay = replay.Evolve(change)
	}
	asked := replay.Request
	if len(events) == 0 || asked.WebhookID != webhook {
		return Replay{}, domain.NotFound("replay")
	}
	r := Replay{ID: asked.ID, WebhookID: asked.WebhookID, From: asked.From, To: asked.To, EventTypes: asked.EventTypes, OnlyFailed: asked.OnlyFailed,
		Matched: asked.Matched, Queued: len(replay.Queued), RequestedAt: events[0].RecordedAt, State: ReplayRunning}
	ids, streams := make([][16]byte, len(replay.Queued)), make([]string, len(replay.Queued))
	for i, delivery := range replay.Queued {
		ids[i], streams[i] = delivery, delivery.Stream()
	}
	if err := p.replayed(ctx, &r, ids, streams); err != nil {
		return Replay{}, err
	}
	if replay.Completed && r.Pending == 0 {
		r.State = ReplayDone
	}
	return r, nil
}

// replayed counts the deliveries by state: the queue has those that have not ended,
// and the last event of its stream is how each of the others did.
func (p *Projections) replayed(ctx context.Context, r *Replay, ids [][16]byte, streams []string) error {
	err := p.pool.QueryRow(ctx, `
		SELECT count(*) FILTER (WHERE q.delivery_id IS NOT NULL),
			count(*) FILTER (WHERE q.delivery_id IS NULL AND last.type = 'delivery.succeeded'),
			count(*) FILTER (WHERE q.delivery_id IS NULL AND last.type = 'delivery.attempt_failed'),
			count(*) FILTER (WHERE q.delivery_id IS NULL AND last.type = 'delivery.cancelled')
		FROM unnest($1::uuid[], $2::text[]) AS d (id, stream)
		LEFT JOIN medilab.queue AS q ON q.delivery_id = d.id
		LEFT JOIN LATERAL (SELECT e.type FROM medilab.events AS e
			WHERE q.delivery_id IS NULL AND e.stream = d.stream AND e.type <> 'delivery.outcome_late' ORDER BY e.version DESC LIMIT 1) AS last ON true`,
		ids, streams).Scan(&r.Pending, &r.Delivered, &r.Failed, &r.Cancelled)
	if err != nil {
		return fmt.Errorf("read a replay: %w", err)
	}
	return nil
}
