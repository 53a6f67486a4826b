package projections

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Replays, a row each with how far it has come. The outcomes of deliveries name the replay
// that asked for them.

var replaysModel = Model{
	Name: "replays", SchemaVersion: 50, Tables: []string{"replays"}, Totals: true,
	New: func(t Tables) Projection {
		return &replays{
			load: t.SQL(`SELECT ` + replayColumns + ` FROM {replays} WHERE id = ANY($1)`),
			save: t.SQL(`
				INSERT INTO {replays} (` + replayColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
				ON CONFLICT (id) DO UPDATE SET state = EXCLUDED.state, matched = EXCLUDED.matched, queued = EXCLUDED.queued,
					delivered = EXCLUDED.delivered, failed = EXCLUDED.failed, cancelled = EXCLUDED.cancelled, finished_at = EXCLUDED.finished_at`),
		}
	},
}

const replayColumns = `id, position, webhook, request, requested_by, created_at, state, matched, queued, delivered, failed, cancelled, finished_at`

type replays struct{ load, save string }

// replayRow is a row of the table replays.
type replayRow struct {
	ID          domain.ReplayID
	Position    eventstore.Position
	Webhook     *domain.WebhookID
	Request     []byte
	RequestedBy string
	CreatedAt   time.Time
	State       domain.ReplayState
	Matched     *int64
	Queued      int64
	Delivered   int64
	Failed      int64
	Cancelled   int64
	FinishedAt  *time.Time
}

// replayOf returns the replay that the event is of, or the zero id.
func replayOf(e *eventstore.Event) domain.ReplayID {
	switch c := e.Value.(type) {
	case domain.DeliverySucceeded:
		return c.ReplayID
	case domain.DeliveryAttemptFailed:
		return c.ReplayID
	case domain.DeliveryCancelled:
		return c.ReplayID
	case domain.DeliveryRetryCancelled:
		return c.ReplayID
	}
	if kind, id, err := domain.ParseStream(e.Stream); err == nil && kind == "replay" {
		return domain.ReplayID(id)
	}
	return domain.ReplayID{}
}

func (p *replays) Project(ctx context.Context, db Querier, events []eventstore.Event) ([]eventstore.Statement, error) {
	var ids [][16]byte
	rows := map[domain.ReplayID]*replayRow{}
	for i := range events {
		if id := replayOf(&events[i]); id != (domain.ReplayID{}) && rows[id] == nil {
			rows[id] = &replayRow{}
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	stored, _ := db.Query(ctx, p.load, ids)
	loaded, err := pgx.CollectRows(stored, pgx.RowToAddrOfStructByPos[replayRow])
	if err != nil {
		return nil, fmt.Errorf("load replays: %w", err)
	}
	for _, row := range loaded {
		rows[row.ID] = row
	}
	for i := range events {
		if id := replayOf(&events[i]); id != (domain.ReplayID{}) {
			rows[id].apply(&events[i])
		}
	}
	var statements []eventstore.Statement // one each: there are few
	for _, id := range ids {
		if r := rows[id]; r.Position > 0 { // else the log holds no request that decodes
			statements = append(statements, eventstore.Statement{SQL: p.save, Args: []any{
				r.ID, r.Position, r.Webhook, r.Request, r.RequestedBy, r.CreatedAt, string(r.State), r.Matched, r.Queued, r.Delivered, r.Failed, r.Cancelled, r.FinishedAt,
			}})
		}
	}
	return statements, nil
}

// apply takes in the next event of the replay.
func (r *replayRow) apply(e *eventstore.Event) {
	switch c := e.Value.(type) {
	case domain.ReplayRequested:
		*r = replayRow{ID: c.ID, Position: e.Position, Request: e.Data, RequestedBy: domain.Storable(actorOf(e)), CreatedAt: e.RecordedAt, State: domain.ReplayStateCounting,
			Webhook: orNil(c.WebhookID)}
		if c.Kind == "" {
			r.State, r.Matched = domain.ReplayStateRunning, new(int64(c.Matched))
		}
	case domain.ReplayCounted:
		if r.Matched = new(int64(c.Matched)); r.State == domain.ReplayStateCounting {
			r.State = domain.ReplayStateRunning
		}
	case domain.ReplayQueued:
		if r.Queued += int64(max(c.Count, len(c.Deliveries))); r.State == domain.ReplayStateCounting {
			r.State = domain.ReplayStateRunning // it counts meanwhile
		}
	case domain.ReplayPaused:
		r.State = domain.ReplayStatePaused
	case domain.ReplayResumed:
		r.State = domain.ReplayStateRunning
		if r.Matched == nil && r.Queued == 0 {
			r.State = domain.ReplayStateCounting
		}
	case domain.ReplayCancelled:
		r.State = domain.ReplayStateCancelled
	case domain.ReplayCompleted:
		r.FinishedAt = &e.RecordedAt
		if r.State != domain.ReplayStateCancelled {
			r.State = domain.ReplayStateCompleted
		}
	case domain.DeliverySucceeded:
		r.Delivered++
	case domain.DeliveryAttemptFailed:
		if c.GaveUp != "" {
			r.Failed++
		}
	case domain.DeliveryCancelled:
		if c.Was != domain.DeliveryFailed { // else it has ended already
			r.Cancelled++
		}
	case domain.DeliveryRetryCancelled:
		r.Cancelled++
	}
}

// Replay is how far a replay has come.
type Replay struct {
	ID             domain.ReplayID    `json:"replay_id"`
	Kind           domain.ReplayKind  `json:"kind"`
	State          domain.ReplayState `json:"state"`
	Matched        *int64             `json:"matched"` // null: it is being counted
	Queued         int64              `json:"queued"`  // so far; what was on its way already by its turn, or erased, is left out
	Delivered      int64              `json:"delivered"`
	Failed         int64              `json:"failed"`
	Cancelled      int64              `json:"cancelled"` // once it is cancelled or completed, what it left out included
	Rate           *float64           `json:"rate"`      // deliveries a second; null: as the receiver takes them
	RequestedBy    string             `json:"requested_by"`
	CreatedAt      time.Time          `json:"created_at"`
	FinishedAt     *time.Time         `json:"finished_at"` // when the last of its deliveries had ended
	WebhookID      *domain.WebhookID  `json:"webhook_id"`  // null: all webhooks
	From           *time.Time         `json:"from"`
	To             *time.Time         `json:"to"`
	EventTypes     []string           `json:"event_types" schema:"null"` // null: all
	OnlyFailed     bool               `json:"only_failed"`
	ResponseStatus *string            `json:"response_status"` // null: any
}

// show returns the replay as a caller sees it.
func (p *Projections) show(ctx context.Context, row replayRow) (Replay, error) {
	change, err := domain.Decode(domain.ReplayRequested{}.ChangeType(), row.Request)
	if err != nil {
		return Replay{}, fmt.Errorf("read a replay: %w", err)
	}
	asked := change.(domain.ReplayRequested)
	r := Replay{
		ID: row.ID, Kind: asked.Kind, State: row.State, Matched: row.Matched, Queued: row.Queued, Delivered: row.Delivered, Failed: row.Failed,
		Cancelled: row.Cancelled, RequestedBy: row.RequestedBy, CreatedAt: row.CreatedAt.UTC(), FinishedAt: inUTC(row.FinishedAt),
		WebhookID: row.Webhook, From: orNil(asked.From), To: orNil(asked.To), EventTypes: asked.EventTypes, OnlyFailed: asked.OnlyFailed,
		Rate: orNil(asked.Rate), ResponseStatus: orNil(asked.ResponseStatus),
	}
	if (r.State == domain.ReplayStateCancelled || r.FinishedAt != nil) && r.Matched != nil {
		r.Cancelled += max(0, *r.Matched-r.Queued)
	}
	if asked.Kind == "" {
		r.Kind = domain.KindReplay
		err = p.countFormer(ctx, &r)
	}
	return r, err
}

func inUTC(at *time.Time) *time.Time {
	if at == nil {
		return nil
	}
	return new(at.UTC())
}

// countFormer counts, by state, the deliveries of a replay that an earlier release began:
// the last event of each stream tells.
func (p *Projections) countFormer(ctx context.Context, r *Replay) error {
	events, err := p.log.Load(ctx, r.ID.Stream())
	if err != nil {
		return fmt.Errorf("read a replay: %w", err)
	}
	var streams []string
	for _, queued := range each[domain.ReplayQueued](events) {
		for _, id := range queued.Deliveries {
			streams = append(streams, id.Stream())
		}
	}
	err = p.pool.QueryRow(ctx, `
		SELECT count(*) FILTER (WHERE last.type = 'delivery.succeeded'),
			count(*) FILTER (WHERE last.type = 'delivery.attempt_failed' AND position(convert_to('"gave_up":"', 'UTF8') IN last.data) > 0),
			count(*) FILTER (WHERE last.type = 'delivery.cancelled')
		FROM unnest($1::text[]) AS d (stream) CROSS JOIN LATERAL (
			SELECT e.type, CASE WHEN e.type = 'delivery.attempt_failed' THEN e.data END AS data FROM medilab.events AS e
			WHERE e.stream = d.stream AND e.type <> 'delivery.outcome_late' ORDER BY e.version DESC LIMIT 1) AS last`,
		streams).Scan(&r.Delivered, &r.Failed, &r.Cancelled)
	return doing("read a replay", err)
}

// Replay returns a replay of the webhook, or of any if that is zero, or a *domain.Error of
// KindNotFound.
func (p *Projections) Replay(ctx context.Context, webhook domain.WebhookID, id domain.ReplayID) (Replay, error) {
	page, err := p.replays(ctx, `WHERE id = $1`, id)
	if err == nil && len(page) == 0 { // the read models may be behind
		page, err = p.requested(ctx, id)
	}
	if err != nil {
		return Replay{}, err
	}
	if len(page) == 0 || webhook != (domain.WebhookID{}) && (page[0].Webhook == nil || *page[0].Webhook != webhook) {
		return Replay{}, domain.NotFound("replay")
	}
	return p.show(ctx, page[0])
}

// requested returns the replay as its stream has it, if it was requested. What became of its deliveries
// the read models have yet to count, so it has not ended.
func (p *Projections) requested(ctx context.Context, id domain.ReplayID) ([]replayRow, error) {
	events, err := p.log.LoadFrom(ctx, id.Stream(), domain.ReplayQueued{}.ChangeType())
	if err != nil || len(events) == 0 {
		return nil, err
	}
	var row replayRow
	for i := range events {
		if _, ended := events[i].Value.(domain.ReplayCompleted); !ended {
			row.apply(&events[i])
		}
	}
	if row.Queued = 0; row.State == domain.ReplayStateCancelled {
		row.Matched = nil // of which all would be cancelled
	}
	if row.Position == 0 {
		return nil, events[0].Err
	}
	return []replayRow{row}, nil
}

// Replays lists the replays of the webhook, or all if that is zero, the newest first.
func (p *Projections) Replays(ctx context.Context, webhook domain.WebhookID, limit int, cursor Cursor) (page Page[Replay], err error) {
	where, args := `WHERE position < $1 ORDER BY position DESC LIMIT $2`, []any{cursor.Below(), limit + 1}
	if webhook != (domain.WebhookID{}) {
		where, args = `WHERE webhook = $3 AND position < $1 ORDER BY position DESC LIMIT $2`, append(args, webhook)
	}
	rows, err := p.replays(ctx, where, args...)
	if err != nil {
		return page, err
	}
	if len(rows) > limit {
		rows = rows[:limit]
		page.NextCursor = Cursor(rows[limit-1].Position)
	}
	page.Items = make([]Replay, len(rows))
	for i, row := range rows {
		if page.Items[i], err = p.show(ctx, row); err != nil {
			return page, err
		}
	}
	return page, nil
}

func (p *Projections) replays(ctx context.Context, where string, args ...any) ([]replayRow, error) {
	if err := p.awaitData(ctx); err != nil {
		return nil, err
	}
	rows, _ := p.pool.Query(ctx, `SELECT `+replayColumns+` FROM medilab.replays `+where, args...)
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[replayRow])
	return list, doing("list replays", err)
}
