package projections

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// eventHead is what of an event can be read without its data.
type eventHead struct {
	id         domain.EventID
	position   eventstore.Position
	eventType  string
	acceptedAt time.Time
	occurredAt time.Time
}

// beginning is the part of an event's data that has its type, and when it occurred.
const beginning = `substr(data, 1, 5000) AS data`

// Queries of the heads of events, by their streams and by their positions.
const (
	headColumns     = `CROSS JOIN LATERAL (SELECT stream, position, recorded_at, type, ` + beginning + ` FROM medilab.events WHERE `
	headsByStream   = `SELECT e.* FROM unnest($1::text[]) AS s (key) ` + headColumns + `stream = s.key AND version = 1 LIMIT 1) AS e`
	headsByPosition = `SELECT e.* FROM unnest($1::bigint[]) AS s (key) ` + headColumns + `position = s.key LIMIT 1) AS e`
)

// headsOf reads the heads that the query finds by the keys. What is no event of the clinic
// is left out.
func headsOf[K any](ctx context.Context, db Querier, query string, keys []K) (map[domain.EventID]eventHead, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	heads := make(map[domain.EventID]eventHead, len(keys))
	rows, _ := db.Query(ctx, query, keys)
	var h eventHead
	var stream, recorded string
	var data []byte
	_, err := pgx.ForEachRow(rows, []any{&stream, &h.position, &h.acceptedAt, &recorded, &data}, func() (err error) {
		if recorded != (domain.EventTriggered{}).ChangeType() {
			return nil
		}
		h.id, err = domain.ParseEventStream(stream)
		h.eventType, _ = domain.EventTypeIn(data)
		h.acceptedAt = h.acceptedAt.UTC()
		h.occurredAt = (domain.EventTriggered{OccurredAt: occurredAt(data)}).Occurred(h.acceptedAt)
		heads[h.id] = h
		return err
	})
	return heads, doing("read events", err)
}

// occurredAt returns when the event occurred, by the beginning of its data; zero: it does not
// say. Only texts stand before it.
func occurredAt(data []byte) (at time.Time) {
	in := json.NewDecoder(bytes.NewReader(data))
	_, _ = in.Token() // the brace; what is none fails below
	for {
		name, _ := in.Token()
		if name == "occurred_at" {
			if in.Decode(&at) != nil {
				return time.Time{}
			}
			return at
		}
		value, _ := in.Token()
		if _, isText := value.(string); !isText {
			return time.Time{}
		}
	}
}
