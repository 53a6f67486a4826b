package projections

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// DeliveryFilter says which deliveries to list.
type DeliveryFilter struct {
	State     domain.DeliveryState // "" is any
	Webhook   domain.WebhookID     // zero is any
	EventType string               // "" is any
	Answer    StatusRange          // of the last attempt; zero is any
	Attempts  int                  // at least so many; 0 is any
	From, To  time.Time            // when the event occurred: at or after, before; zero is any
	Limit     int
	Cursor    Cursor
}

// lists reports whether the delivery is one that is asked for.
func (f DeliveryFilter) lists(d *Delivery) bool {
	return (f.State == "" || d.State == f.State) && (f.Webhook == (domain.WebhookID{}) || d.WebhookID == f.Webhook) &&
		(f.EventType == "" || d.EventType == f.EventType) && f.Answer.has(d.ResponseStatus) && d.Attempts >= f.Attempts && isWithin(d.occurredAt, f.From, f.To)
}

// Backlog is the queue's part of the list of deliveries.
type Backlog interface {
	// Backlog returns the newest deliveries that wait for their first attempt, of events
	// before the position, which was recorded before due. The zero webhook is any.
	Backlog(ctx context.Context, webhook domain.WebhookID, below eventstore.Position, due time.Time, limit int) ([]domain.Delivery, error)
}

// listedDelivery is a delivery at its place in the list.
type listedDelivery struct {
	ordinal ordinal
	Delivery
}

// ListDeliveries lists deliveries across events, the newest event first. Those that are not
// delivered have an index. Others are nearly all that there are, and are found by going
// through the events; a page ends early when few of them are asked for.
func (p *Projections) ListDeliveries(ctx context.Context, f DeliveryFilter, queue Backlog) (Page[Delivery], error) {
	const readings, reading = 20, 100
	page := Page[Delivery]{Items: []Delivery{}}
	if err := p.awaitData(ctx); err != nil {
		return page, err
	}
	below := ordinal(f.Cursor.Below())
	end := int64(math.MaxInt64)
	if f.Cursor != 0 {
		end = int64(below.position()) + 1
	}
	spans, err := p.spansOf(ctx, f.From, f.To, end)
	if err != nil || len(spans) == 0 {
		return page, err
	}
	for n := 0; n < readings+f.Limit/reading; n++ {
		list, rest, err := p.nextDeliveries(ctx, f, spans, below, min(f.Limit-len(page.Items), reading), queue)
		if err != nil {
			return page, fmt.Errorf("list deliveries: %w", err)
		}
		items := mapped(list, func(d listedDelivery) Delivery { return d.Delivery })
		if err := p.stateOf(ctx, items); err != nil {
			return page, fmt.Errorf("list deliveries: %w", err)
		}
		for i := range items {
			if f.lists(&items[i]) {
				page.Items = append(page.Items, items[i])
			}
		}
		if page.NextCursor, below = Cursor(rest), rest; rest == 0 || len(page.Items) == f.Limit {
			break
		}
	}
	return page, nil
}

// nextDeliveries returns the next of what the filter asks for of events in the spans, in the order
// of the list, and where to go on below; 0 at the end.
func (p *Projections) nextDeliveries(ctx context.Context, f DeliveryFilter, spans []span, below ordinal, limit int, queue Backlog) (list []listedDelivery, rest ordinal, err error) {
	for i, s := range spans {
		begin := ordinalAt(eventstore.Position(s.low+1), 0)
		if below <= begin {
			continue
		}
		if s.high < math.MaxInt64 {
			below = min(below, ordinalAt(eventstore.Position(s.high), 0))
		}
		list, rest, err = p.deliveriesAbove(ctx, f, s.low, below, limit, queue)
		if i < len(spans)-1 {
			rest = max(rest, begin) // it may be below the span
		}
		break
	}
	return list, rest, err
}

// deliveriesAbove is nextDeliveries for events above the position. What took more than one attempt has
// a row in undelivered, whatever came of it.
func (p *Projections) deliveriesAbove(ctx context.Context, f DeliveryFilter, above int64, below ordinal, limit int, queue Backlog) ([]listedDelivery, ordinal, error) {
	const ok, redirect = 200, 300
	succeeded := f.Answer.has(nil) || f.Answer.From < redirect && f.Answer.To >= ok
	switch {
	case (f.State == domain.DeliveryDelivered || f.State == "") && succeeded && f.Attempts <= 1:
		return p.ofEvents(ctx, f, above, below, limit)
	case f.State == domain.DeliveryPending && f.Answer.has(nil) && f.Attempts == 0:
		return p.pending(ctx, f, above, below, limit, queue)
	}
	list, err := p.undelivered(ctx, f, above, below, limit+1)
	list, rest := cut(list, limit)
	return list, rest, err
}

// cut returns the first of a list that may hold one more, and where to go on.
func cut(list []listedDelivery, limit int) ([]listedDelivery, ordinal) {
	if len(list) <= limit {
		return list, 0
	}
	return list[:limit], list[limit-1].ordinal
}

// undeliveredSQL goes from kind to kind, takes the newest rows of each and merges them; see
// callsSQL. A kind is a range of pairs: with kind = the planner may go through all ordinals.
const undeliveredSQL = `
WITH RECURSIVE kinds AS (
	SELECT (SELECT min(u.kind) FROM medilab.undelivered AS u WHERE {of} u.kind >= $3) AS kind
	UNION ALL
	SELECT (SELECT min(u.kind) FROM medilab.undelivered AS u WHERE {of} u.kind > kinds.kind) FROM kinds WHERE kinds.kind < $4
)
SELECT newest.ordinal, newest.webhook FROM kinds CROSS JOIN LATERAL (
	SELECT u.ordinal, u.webhook FROM medilab.undelivered AS u
	WHERE ({by} u.kind, u.ordinal) > ({is} kinds.kind, $1) AND ({by} u.kind, u.ordinal) < ({is} kinds.kind, $2)
	ORDER BY {down} u.kind DESC, u.ordinal DESC LIMIT $8
) AS newest
WHERE kinds.kind BETWEEN $3 AND $4 AND kinds.kind & 1023 BETWEEN $5 AND $6
	AND ($7::integer IS NULL OR kinds.kind & 536869888 = $7)
ORDER BY newest.ordinal DESC LIMIT $8`

// kindsOf returns the range of the kinds of a state; "" is any.
func kindsOf(state domain.DeliveryState) (first, last int32) {
	n := slices.Index(undeliveredStates[:], state)
	if n < 0 {
		return 0, math.MaxInt32
	}
	first = int32(n) << stateShift
	return first, first | (1<<stateShift - 1)
}

// undeliveredQuery returns the query of the rows of undelivered between the ordinals.
func (f DeliveryFilter) undeliveredQuery(above, below ordinal, limit int) (string, []any) {
	from, to := kindsOf(f.State)
	lowest, highest := f.Answer.listed()
	var kind *int32
	if f.EventType != "" {
		kind = new(typeOf(f.EventType))
	}
	args := []any{above, below, from, to, lowest, highest, kind, limit}
	of := strings.NewReplacer("{of}", "", "{by}", "", "{is}", "", "{down}", "")
	if f.Webhook != (domain.WebhookID{}) {
		number := `(` + strings.Replace(webhookNumber, "$1", "$9", 1) + `)`
		of = strings.NewReplacer("{of}", "u.webhook = "+number+" AND", "{by}", "u.webhook,", "{is}", number+",", "{down}", "u.webhook DESC,")
		args = append(args, uuid.UUID(f.Webhook))
	}
	return of.Replace(undeliveredSQL), args
}

// oldestRetriedSQL takes the oldest row of each kind of those that wait for another attempt.
// Of rows of webhooks that do not count it looks past so many.
const oldestRetriedSQL = `
WITH RECURSIVE kinds AS (
	SELECT (SELECT min(u.kind) FROM medilab.undelivered AS u WHERE u.kind >= $1) AS kind
	UNION ALL
	SELECT (SELECT min(u.kind) FROM medilab.undelivered AS u WHERE u.kind > kinds.kind) FROM kinds WHERE kinds.kind < $2
)
SELECT recorded_at FROM medilab.events WHERE position = (
	SELECT min(oldest.ordinal) >> 22 FROM kinds CROSS JOIN LATERAL (
		SELECT first.ordinal FROM (
			SELECT u.kind, u.ordinal, u.webhook FROM medilab.undelivered AS u
			WHERE (u.kind, u.ordinal) > (kinds.kind, 0) AND (u.kind, u.ordinal) < (kinds.kind, 9223372036854775807)
			ORDER BY u.kind, u.ordinal LIMIT 1000
		) AS first WHERE first.webhook <> ALL($3::integer[]) ORDER BY first.kind, first.ordinal LIMIT 1
	) AS oldest WHERE kinds.kind <= $2)`

// OldestRetried returns when the oldest event was accepted that waits for another attempt to
// deliver it, to any webhook but those of the numbers; the zero time if there is none.
func (p *Projections) OldestRetried(ctx context.Context, but []int64) (at time.Time, err error) {
	first, last := kindsOf(domain.DeliveryPending)
	err = p.pool.QueryRow(ctx, oldestRetriedSQL, first, last, but).Scan(&at)
	if errors.Is(err, pgx.ErrNoRows) {
		err = nil
	}
	return at, doing("look for the oldest delivery that waits", err)
}

// undelivered reads the rows, and the heads of their events.
func (p *Projections) undelivered(ctx context.Context, f DeliveryFilter, above int64, below ordinal, limit int) ([]listedDelivery, error) {
	sql, args := f.undeliveredQuery(ordinalAt(eventstore.Position(above)+1, 0)-1, below, limit)
	rows, _ := p.pool.Query(ctx, sql, args...)
	type row struct {
		Ordinal ordinal
		Number  int64
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	if err != nil || len(found) == 0 {
		return nil, err
	}
	positions, numbers := map[eventstore.Position]bool{}, map[int64]bool{}
	for _, r := range found {
		positions[r.Ordinal.position()], numbers[r.Number] = true, true
	}
	heads, err := headsOf(ctx, p.pool, headsByPosition, slices.Collect(maps.Keys(positions)))
	if err != nil {
		return nil, err
	}
	at := make(map[eventstore.Position]eventHead, len(heads))
	for _, h := range heads {
		at[h.position] = h
	}
	rows, _ = p.pool.Query(ctx, `SELECT number, id FROM medilab.webhooks WHERE number = ANY($1)`, slices.Collect(maps.Keys(numbers)))
	byNumber, err := eventstore.CollectMap[int64, domain.WebhookID](rows)
	if err != nil {
		return nil, err
	}
	return mapped(found, func(r row) listedDelivery {
		return listed(at[r.Ordinal.position()], domain.Recipient{WebhookID: byNumber[r.Number]}, int32(r.Number))
	}), nil
}

func listed(event eventHead, to domain.Recipient, number int32) listedDelivery {
	return listedDelivery{ordinalAt(event.position, number), newDelivery(event, dispatchTo(event.id, to))}
}

// numbersOf returns the numbers of the webhooks, as far as the read models have them. A number never changes,
// so it is read once.
func (p *Projections) numbersOf(ctx context.Context, webhooks map[domain.WebhookID]bool) (map[domain.WebhookID]int32, error) {
	numbers := make(map[domain.WebhookID]int32, len(webhooks))
	var unknown []domain.WebhookID
	for id := range webhooks {
		if number, known := p.numbers.Load(id); known {
			numbers[id] = number.(int32)
		} else {
			unknown = append(unknown, id)
		}
	}
	if unknown == nil {
		return numbers, nil
	}
	rows, _ := p.pool.Query(ctx, `SELECT id, number::integer FROM medilab.webhooks WHERE id = ANY($1)`, unknown)
	read, err := eventstore.CollectMap[domain.WebhookID, int32](rows)
	for id, number := range read {
		if numbers[id] = number; number != 0 {
			p.numbers.Store(id, number)
		}
	}
	return numbers, err
}
