package projections

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// CallFilter says which calls to list.
type CallFilter struct {
	Webhook       domain.WebhookID  // zero is any
	Status        CallStatus        // "" is any
	EventType     string            // "" is any
	Answer        StatusRange       // zero is any
	Event         domain.EventID    // zero is any; of a batch, any of its events that it did not leave out
	Delivery      domain.DeliveryID // zero is any; also one that went in a batch, by the calls that did not leave it out
	CorrelationID string            // "" is any
	From, To      time.Time         // of CreatedAt: at or after, before; zero is any
	Limit         int
	Cursor        Cursor
}

// StatusRange is a range of answers' statuses; the zero value is any.
type StatusRange domain.Statuses

// has reports whether the status, or no status, is in the range.
func (r StatusRange) has(status *int) bool {
	return r == StatusRange{} || status != nil && *status >= r.From && *status <= r.To
}

// listed returns the range of listedStatus.
func (r StatusRange) listed() (from, to int32) {
	if r == (StatusRange{}) {
		return 0, statusBits
	}
	return listedStatus(r.From), listedStatus(r.To)
}

// callsSQL goes from kind to kind of the webhook's calls, or of all, takes the newest of
// each and merges them: as fast at the end of a long log as of a short one.
var callsSQL = `
WITH RECURSIVE owner AS (
	SELECT CASE WHEN $3::uuid IS NULL THEN 0 ELSE (` + strings.Replace(webhookNumber, "$1", "$3", 1) + `) END AS number
), kinds AS (
	SELECT (SELECT min(kind) FROM medilab.calls WHERE webhook = (SELECT number FROM owner) AND kind >= $5) AS kind
	UNION ALL
	SELECT (SELECT min(c.kind) FROM medilab.calls AS c WHERE c.webhook = (SELECT number FROM owner) AND c.kind > kinds.kind)
	FROM kinds WHERE kinds.kind < $6
)
SELECT newest.position FROM kinds CROSS JOIN LATERAL (` +
	newestPositions("calls", "t.webhook = (SELECT number FROM owner) AND t.kind = kinds.kind", "$9::bigint") + `
) AS newest
WHERE kinds.kind BETWEEN $5::integer AND $6::integer AND ($4::integer IS NULL OR kinds.kind & 1 = $4)
	AND kinds.kind >> 1 & 1023 BETWEEN $7::integer AND $8::integer
ORDER BY newest.position DESC LIMIT $9`

// calledSQL lists the calls that have a correlation id.
const calledSQL = `
SELECT position FROM medilab.called
WHERE correlation = $3 AND position > $1 AND position < $2
ORDER BY position DESC LIMIT $4`

// attemptedSQL lists the calls of some streams. It reads all of these by their key, as there
// is no order of positions to walk in: they have as many events as there were attempts.
const attemptedSQL = `
WITH streams AS MATERIALIZED (SELECT position, type FROM medilab.events WHERE stream = ANY($3::text[]))
SELECT position FROM streams
WHERE position > $1 AND position < $2 AND type IN
	('delivery.succeeded', 'delivery.attempt_failed', 'delivery.outcome_late', 'delivery.tested', 'delivery.interrupted')
ORDER BY position DESC LIMIT $4`

// Calls lists calls, the newest first.
func (p *Projections) Calls(ctx context.Context, f CallFilter) (Page[Call], error) {
	if err := p.awaitData(ctx); err != nil {
		return Page[Call]{}, err
	}
	low, high, err := p.between(ctx, f.From, f.To, f.Cursor)
	if err != nil {
		return Page[Call]{}, err
	}
	sql, args := f.query(low, high)
	var member domain.EventID
	if f.Event != (domain.EventID{}) || f.Delivery != (domain.DeliveryID{}) {
		var streams []string
		if streams, member, err = p.callStreams(ctx, f); err != nil {
			return Page[Call]{}, err
		}
		sql, args = attemptedSQL, []any{low, high, streams, f.Limit + 1}
	}
	page, err := pageAt(ctx, p, p.log, f.Limit, func(e *eventstore.Event) (Call, bool) {
		call, ok := newCall(e)
		return call, ok && f.lists(call, e) && call.Record.Sent(member)
	}, sql, args...)
	return page, doing("list calls", err)
}

// query returns the query of the calls between the positions.
func (f CallFilter) query(low, high int64) (string, []any) {
	if f.CorrelationID != "" {
		return calledSQL, []any{low, high, hash31(f.CorrelationID), f.Limit + 1}
	}
	var success *int32
	if f.Status != "" {
		success = new(int32)
		if f.Status == CallSuccess {
			*success = 1
		}
	}
	from, to := int32(0), int32(math.MaxInt32)
	if f.EventType != "" {
		from = callKind(domain.Call{EventType: f.EventType})
		to = from | (1<<typeShift - 1)
	}
	lowest, highest := f.Answer.listed()
	return callsSQL, []any{low, high, orNil(f.Webhook), success, from, to, lowest, highest, f.Limit + 1}
}

// lists reports whether the call is one that is asked for. What the query does not tell
// apart is told apart here.
func (f CallFilter) lists(c Call, e *eventstore.Event) bool {
	return (f.Webhook == (domain.WebhookID{}) || c.WebhookID == f.Webhook) && (f.Status == "" || c.Status == f.Status) &&
		(f.EventType == "" || c.EventType == f.EventType) && f.Answer.has(c.ResponseStatus) && c.Record.Sent(f.Event) &&
		(f.CorrelationID == "" || correlationOf(e) == f.CorrelationID)
}

// callStreams returns the streams with the calls of an event, or of a delivery, or of both:
// their own, and those of the batches that they went in. Of a delivery that went in one, it
// returns the event too.
func (p *Projections) callStreams(ctx context.Context, f CallFilter) (streams []string, member domain.EventID, err error) {
	if f.Event != (domain.EventID{}) {
		ofEvent, err := p.streamsOf(ctx, f.Event)
		if err != nil || f.Delivery == (domain.DeliveryID{}) {
			return ofEvent, member, err
		}
		streams = ofEvent
	}
	own := []string{f.Delivery.Stream()}
	begun, err := p.log.LoadFirst(ctx, own)
	if err != nil {
		return nil, member, err
	}
	for _, joined := range each[domain.DeliveryJoinedBatch](begun) {
		own, member = append(own, joined.BatchID.Stream()), joined.EventID
	}
	if streams == nil {
		return own, member, nil
	}
	return slices.DeleteFunc(own, func(s string) bool { return !slices.Contains(streams, s) }), member, nil
}
