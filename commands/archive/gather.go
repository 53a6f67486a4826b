package archive

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// gathering finds what of the log up to the cut may go: events of the clinic with their
// deliveries and batches, which go together or not at all. What hangs together is in
// medilab.archiving, as streams by event; a batch has several. It stays if any of it goes on
// after the cut, waits in the queue, or is what an open alert is about.
type gathering struct {
	archiver *Archiver
	cut      eventstore.Position
	settled  eventstore.Position // up to where the log was looked at for what is needed again
}

// link is a stream that belongs to an event.
type link struct {
	stream string
	event  uuid.UUID
}

func (g *gathering) begin(ctx context.Context) (err error) {
	if g.settled, err = g.archiver.Log.Head(ctx); err != nil {
		return err
	}
	return g.exec(ctx, forgetSQL)
}

// forgetSQL empties the table without the lock of TRUNCATE: appends, which read it, would wait
// for a check of the log that is going on.
const forgetSQL = `DELETE FROM medilab.archiving`

func (g *gathering) exec(ctx context.Context, sql string, args ...any) error {
	_, err := g.archiver.Pool.Exec(ctx, sql, args...)
	return eventstore.Doing("gather what may go", err)
}

// linksOf returns the events that the entry's stream belongs to, and whether that is known.
// A stream of another kind has none: it stays.
func linksOf(e *eventstore.Event) (links []link, known bool) {
	kind, id, err := domain.ParseStream(e.Stream)
	if err != nil || kind != "event" && kind != "delivery" {
		return nil, true
	}
	change, ok := e.Value.(domain.Change)
	if !ok {
		return []link{{e.Stream, id}}, false
	}
	switch c := change.(type) {
	case domain.EventTriggered, domain.EventDispatched:
		return []link{{e.Stream, id}}, true
	case domain.DeliveryBatched:
		for _, m := range c.Members {
			links = append(links, link{e.Stream, uuid.UUID(m.EventID)})
		}
		return links, true
	case domain.DeliveryJoinedBatch:
		event := uuid.UUID(c.EventID)
		return []link{{e.Stream, event}, {c.BatchID.Stream(), event}}, true
	}
	event := uuid.UUID(domain.Delivery{}.Evolve(change, e.RecordedAt).EventID)
	if event == uuid.Nil {
		return []link{{e.Stream, id}}, false
	}
	return []link{{e.Stream, event}}, true
}

// addSQL adds streams of events. What goes on after the cut is live: the stream, or any
// delivery that shares the event's millisecond, see domain.DeliveryOf. The sums keep the
// planner to the index of streams.
const addSQL = `
INSERT INTO medilab.archiving (stream, event, cut, live)
SELECT l.stream, l.event, $4, l.live
	OR EXISTS (SELECT FROM medilab.events AS e WHERE e.stream = l.stream AND e.position + 0 > $4)
	OR EXISTS (SELECT FROM medilab.events AS e WHERE e.stream > 'delivery-' || left(l.event::text, 13) || '-'
		AND e.stream < 'delivery-' || left(l.event::text, 13) || '.' AND e.position + 0 > $4)
FROM unnest($1::text[], $2::uuid[], $3::bool[]) AS l (stream, event, live)
ON CONFLICT (stream, event) DO UPDATE SET live = archiving.live OR excluded.live`

// add takes in a page of the log up to the cut.
func (g *gathering) add(ctx context.Context, page []eventstore.Event) error {
	live := map[link]bool{}
	for i := range page {
		links, known := linksOf(&page[i])
		for _, l := range links {
			live[l] = live[l] || !known
		}
	}
	var streams []string
	var events [][16]byte
	var stay []bool
	for l, is := range live {
		streams, events, stay = append(streams, l.stream), append(events, l.event), append(stay, is)
	}
	return g.exec(ctx, addSQL, streams, events, stay, g.cut)
}

// neededSQL marks the events of deliveries that wait in the queue, and of claims, and what open alerts are
// about. All events of a claim are needed, as the streams say which of its deliveries have ended; claims of
// which all have are deleted first. Here and in spreadSQL, each condition is a statement, which joins: with
// an OR, Postgres compares row by row when there are more than it holds in memory.
var neededSQL = []string{`
DELETE FROM medilab.claims AS c WHERE NOT EXISTS (SELECT FROM medilab.claimed AS d WHERE d.node = c.node AND d.first = c.first)`, `
UPDATE medilab.archiving SET live = true WHERE NOT live
	AND event IN (SELECT event_id FROM medilab.queue UNION ALL SELECT unnest(events) FROM medilab.claims UNION ALL SELECT event_id FROM medilab.batch_members)`, `
UPDATE medilab.archiving SET live = true WHERE NOT live
	AND stream IN (SELECT 'delivery-' || coalesce(d.batch, d.delivery) FROM medilab.given_up AS d
		JOIN medilab.alerts AS a ON a.webhook = d.webhook AND a.kind = 'given_up' AND a.resolved_at IS NULL AND d.position >= a.since)`}

// spreadSQL marks what hangs together with what is marked.
var spreadSQL = []string{
	`UPDATE medilab.archiving SET live = true WHERE NOT live AND event IN (SELECT event FROM medilab.archiving WHERE live)`,
	`UPDATE medilab.archiving SET live = true WHERE NOT live AND stream IN (SELECT stream FROM medilab.archiving WHERE live)`,
}

// update executes the statements, and returns how many rows they changed.
func (g *gathering) update(ctx context.Context, statements ...string) (rows int64, err error) {
	for _, sql := range statements {
		tag, err := g.archiver.Pool.Exec(ctx, sql)
		if err != nil {
			return rows, fmt.Errorf("gather what may go: %w", err)
		}
		rows += tag.RowsAffected()
	}
	return rows, nil
}

// settle leaves in the table only what may go by what the log holds now, and returns how many
// rows it took out.
func (g *gathering) settle(ctx context.Context) (out int64, err error) {
	head, err := g.archiver.Log.Head(ctx)
	if err != nil {
		return 0, err
	}
	if _, err := g.update(ctx, neededSQL...); err != nil {
		return 0, err
	}
	const page = 1000
	err = g.archiver.Log.Scan(ctx, max(g.settled, g.cut), head, page, func(events []eventstore.Event) error {
		var streams []string
		var ids [][16]byte
		for i := range events {
			links, _ := linksOf(&events[i])
			for _, l := range links {
				streams, ids = append(streams, l.stream), append(ids, l.event)
			}
		}
		return g.exec(ctx, `UPDATE medilab.archiving SET live = true WHERE NOT live AND (stream = ANY($1) OR event = ANY($2))`, streams, ids)
	})
	if err != nil {
		return 0, err
	}
	g.settled = head
	for marked := int64(1); marked > 0; {
		if marked, err = g.update(ctx, spreadSQL...); err != nil {
			return 0, err
		}
	}
	if out, err = g.update(ctx, `DELETE FROM medilab.archiving WHERE live`); err != nil {
		return 0, err
	}
	return out, g.exec(ctx, `INSERT INTO medilab.archiving (stream, event, cut) VALUES ($1, '00000000-0000-0000-0000-000000000000', $2)
		ON CONFLICT DO NOTHING`, eventstore.ListsUndone, g.cut)
}
