package projections

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

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

// Replay gives the progress of a webhook's replay; a *domain.Error of
// KindNotFound when it has none of that id. It reads the log itself.
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

// replayed counts where the deliveries stand: the queue has those that are not
// at their end, and the last word of each stream tells the others.
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

// replayedTo adds to the webhooks that an event was dispatched to those to which
// only a replay sent it. No table knows them, but every webhook's delivery of an
// event has one name.
func (p *Projections) replayedTo(ctx context.Context, id domain.EventID, dispatched []domain.Dispatch) ([]domain.Dispatch, error) {
	known := make(map[domain.DeliveryID]bool, len(dispatched))
	for _, d := range dispatched {
		known[d.DeliveryID] = true
	}
	begun, err := p.begunWith(ctx, id)
	if err != nil {
		return nil, err
	}
	for d := range begun {
		if known[d] {
			delete(begun, d)
		}
	}
	if len(begun) == 0 {
		return dispatched, nil
	}
	rows, err := p.pool.Query(ctx, `SELECT id FROM medilab.webhooks ORDER BY number`)
	if err != nil {
		return nil, fmt.Errorf("look for replays: %w", err)
	}
	webhooks, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
	if err != nil {
		return nil, fmt.Errorf("look for replays: %w", err)
	}
	all := slices.Clip(dispatched)
	for _, webhook := range webhooks {
		if d := domain.DeliveryOf(id, webhook); begun[d] {
			all = append(all, domain.Dispatch{DeliveryID: d, Recipient: domain.Recipient{WebhookID: webhook}})
		}
	}
	return all, nil
}

// begunWith gives every delivery of the event that began with a request, as those
// of a replay do, and of the events whose ids begin as its does: a UUIDv7 and its
// deliveries have their millisecond in common, which is one short run of the
// log's index however many webhooks there are.
func (p *Projections) begunWith(ctx context.Context, id domain.EventID) (map[domain.DeliveryID]bool, error) {
	first, last := domain.DeliveryID(id), domain.DeliveryID(id)
	for i := 6; i < len(id); i++ {
		first[i], last[i] = 0, 0xff
	}
	rows, err := p.pool.Query(ctx, `SELECT stream FROM medilab.events WHERE stream >= $1 AND stream <= $2
		AND version = 1 AND type = $3`, first.Stream(), last.Stream(), domain.DeliveryRetryRequested{}.ChangeType())
	if err != nil {
		return nil, fmt.Errorf("look for replays: %w", err)
	}
	begun := map[domain.DeliveryID]bool{}
	var stream string
	_, err = pgx.ForEachRow(rows, []any{&stream}, func() error {
		_, delivery, err := domain.ParseStream(stream)
		begun[domain.DeliveryID(delivery)] = true
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look for replays: %w", err)
	}
	return begun, nil
}
