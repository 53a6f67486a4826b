package projections

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// The time of an event is when it occurred. Nearly all occur when they are accepted, in the
// order of the log. Of the others a row a block of the log says between which times they are.

// occurredIn returns when events occurred that say it, and the blocks that they are in.
func occurredIn(events []eventstore.Event) (blocks []int64, times []time.Time) {
	for i := range events {
		if c, ok := events[i].Value.(domain.EventTriggered); ok && !c.OccurredAt.IsZero() {
			blocks, times = append(blocks, int64(events[i].Position)>>blockBits), append(times, c.OccurredAt)
		}
	}
	return blocks, times
}

// span is the positions above low and below high.
type span struct{ low, high int64 }

// spansOf returns where the events are that occurred between the times, the newest first: at
// the positions of these times, and in later blocks that have some. Not all that is there
// occurred then.
func (p *Projections) spansOf(ctx context.Context, from, to time.Time, below int64) ([]span, error) {
	const drift = 10 * time.Second // by which an event may occur after it was accepted
	if !from.IsZero() {
		from = from.Add(-drift)
	}
	low, high, err := p.between(ctx, from, to, 0)
	if err != nil || to.IsZero() {
		return []span{{low, min(high, below)}}, err
	}
	rows, _ := p.pool.Query(ctx, `SELECT block FROM medilab.occurred
		WHERE block >= ($1::bigint >> 8) AND block <= ($2::bigint >> 8) AND earliest < $3 AND latest >= $4 ORDER BY block DESC`, high, below, to, from)
	blocks, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return nil, fmt.Errorf("find when events occurred: %w", err)
	}
	var spans []span
	for _, block := range blocks {
		begin, end := block<<blockBits, (block+1)<<blockBits
		if n := len(spans); n > 0 && spans[n-1].low == end-1 {
			spans[n-1].low = begin - 1
		} else {
			spans = append(spans, span{begin - 1, end})
		}
	}
	spans = append(spans, span{low, high})
	for i := range spans {
		if spans[i].high = min(spans[i].high, below); i < len(spans)-1 {
			spans[i].low = max(spans[i].low, high-1)
		}
	}
	return slices.DeleteFunc(spans, func(s span) bool { return s.high <= s.low+1 }), nil
}

// isWithin reports whether the time is at from or after, and before to; zero is any.
func isWithin(at, from, to time.Time) bool {
	return !at.Before(from) && (to.IsZero() || at.Before(to))
}
