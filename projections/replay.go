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
	EventTypes  []string         `json:"event_types" schema:"null"` // null: all that the webhook asks for
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
	streams := make([]string, len(replay.Queued))
	for i, delivery := range replay.Queued {
		streams[i] = delivery.Stream()
	}
	if err := p.replayed(ctx, &r, streams); err != nil {
		return Replay{}, err
	}
	if replay.Completed && r.Pending == 0 {
		r.State = ReplayDone
	}
	return r, nil
}

// replayed counts the deliveries by state, which the last event of each stream tells.
func (p *Projections) replayed(ctx context.Context, r *Replay, streams []string) error {
	err := p.pool.QueryRow(ctx, `
		SELECT count(*) FILTER (WHERE last.type = 'delivery.succeeded'),
			count(*) FILTER (WHERE last.type = 'delivery.attempt_failed' AND position(convert_to('"gave_up":"', 'UTF8') IN last.data) > 0),
			count(*) FILTER (WHERE last.type = 'delivery.cancelled')
		FROM unnest($1::text[]) AS d (stream) CROSS JOIN LATERAL (
			SELECT e.type, CASE WHEN e.type = 'delivery.attempt_failed' THEN e.data END AS data FROM medilab.events AS e
			WHERE e.stream = d.stream AND e.type <> 'delivery.outcome_late' ORDER BY e.version DESC LIMIT 1) AS last`,
		streams).Scan(&r.Delivered, &r.Failed, &r.Cancelled)
	if err != nil {
		return fmt.Errorf("read a replay: %w", err)
	}
	r.Pending = len(streams) - r.Delivered - r.Failed - r.Cancelled
	return nil
}
