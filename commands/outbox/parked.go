package outbox

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ParkedEvent is an emitted event that cannot be accepted, and why.
type ParkedEvent struct {
	ID            int64           `json:"id"`
	EventID       uuid.UUID       `json:"event_id"`
	EventType     string          `json:"event_type"`
	EventData     json.RawMessage `json:"event_data"`
	CorrelationID *string         `json:"correlation_id"`
	Source        *string         `json:"source"`
	EmittedBy     string          `json:"emitted_by"` // database role
	EmittedAt     time.Time       `json:"emitted_at"`
	ParkedAt      time.Time       `json:"parked_at"`
	Reason        string          `json:"reason"`
}

// parkedPageBytes bounds the data of a page of parked events; one comes whatever its size.
const parkedPageBytes = 16 << 20

// Parked lists parked events with ids below before (0: from the newest), newest first. There may
// be more of them than it gives.
func Parked(ctx context.Context, pool *pgxpool.Pool, before int64, limit int) (found []ParkedEvent, more bool, err error) {
	rows, err := pool.Query(ctx, `
		WITH page AS (SELECT * FROM medilab.parked_events WHERE $1 = 0 OR id < $1 ORDER BY id DESC LIMIT $2),
		sized AS (SELECT id, sum(octet_length(event_data::text)) OVER (ORDER BY id DESC) - octet_length(event_data::text) AS above FROM page)
		SELECT id, event_id, event_type, event_data::text, correlation_id, source, emitted_by, emitted_at, parked_at, reason,
			EXISTS (SELECT FROM medilab.parked_events AS p WHERE p.id < page.id)
		FROM page JOIN sized USING (id) WHERE above < $3 ORDER BY id DESC`, before, limit, parkedPageBytes)
	if err != nil {
		return nil, false, fmt.Errorf("list parked events: %w", err)
	}
	found, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (p ParkedEvent, err error) {
		err = row.Scan(&p.ID, &p.EventID, &p.EventType, (*[]byte)(&p.EventData), &p.CorrelationID, &p.Source,
			&p.EmittedBy, &p.EmittedAt, &p.ParkedAt, &p.Reason, &more) // the last row's word stands
		p.EmittedAt, p.ParkedAt = p.EmittedAt.UTC(), p.ParkedAt.UTC()
		return p, err
	})
	if err != nil {
		return nil, false, fmt.Errorf("list parked events: %w", err)
	}
	return found, more, nil
}

// State is what there is to watch about the outbox.
type State struct {
	Waiting int64         // committed and not yet in the log; counted up to WaitingMax
	Oldest  time.Duration // since the oldest of them was emitted; zero when none waits
	Parked  int64
}

// WaitingMax is where State stops counting, so that watching stays cheap.
const WaitingMax = 100_000

// ReadState reads it.
func ReadState(ctx context.Context, pool *pgxpool.Pool) (State, error) {
	var s State
	var oldest float64
	err := pool.QueryRow(ctx, `
		SELECT (SELECT count(*) FROM (SELECT FROM medilab.outbox LIMIT $1) AS waiting),
			coalesce((SELECT extract(epoch FROM clock_timestamp() - emitted_at) FROM medilab.outbox ORDER BY seq LIMIT 1), 0)::float8,
			(SELECT count(*) FROM medilab.parked_events)`, WaitingMax).Scan(&s.Waiting, &oldest, &s.Parked)
	if err != nil {
		return State{}, fmt.Errorf("read the state of the outbox: %w", err)
	}
	s.Oldest = time.Duration(oldest * float64(time.Second))
	return s, nil
}
