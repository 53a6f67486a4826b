package projections

import (
	"context"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Parts of hours, and series, of statistics. What hours do not tell is counted from the log.

// mostAtEdge is how many events of the log are counted for one hour that a range
// touches: some tens of milliseconds.
const mostAtEdge = 10_000

// edges are the counters of the hours that a range holds only in part, by webhook: of what
// is in the range, and of what is before its end. An hour with more than mostAtEdge events
// has none, and counts as a whole.
type edges struct {
	inRange, toEnd map[int32]map[domain.WebhookID]*counters
}

// partOf returns what the part of an hour has of the webhook's counters of the whole hour.
func partOf(part map[domain.WebhookID]*counters, webhook domain.WebhookID, whole *counters) *counters {
	switch c := part[webhook]; {
	case part == nil:
		return whole
	case c == nil: // nothing happened to it
		return &counters{}
	default:
		return c
	}
}

// edges counts the hours at the ends of the range that are only partly in it.
func (p *Projections) edges(ctx context.Context, f StatsFilter) (e edges, err error) {
	e = edges{map[int32]map[domain.WebhookID]*counters{}, map[int32]map[domain.WebhookID]*counters{}}
	count := func(into map[int32]map[domain.WebhookID]*counters, from, to time.Time) {
		if err == nil {
			into[hourOf(from)], err = p.countBetween(ctx, from, to)
		}
	}
	begin, end := f.From.Truncate(time.Hour), f.To.Truncate(time.Hour)
	oneHour := !f.From.IsZero() && begin.Equal(end)
	if !f.To.IsZero() && !f.To.Equal(end) {
		count(e.toEnd, end, f.To)
		e.inRange[hourOf(end)] = e.toEnd[hourOf(end)]
	}
	switch {
	case f.From.IsZero() || f.From.Equal(begin):
	case oneHour:
		count(e.inRange, f.From, f.To)
	default:
		count(e.inRange, f.From, begin.Add(time.Hour))
	}
	return e, doing("count a part of an hour", err)
}

// countBetween counts what the log holds between the times, or returns nil if that
// is too much, or archived in part.
func (p *Projections) countBetween(ctx context.Context, from, to time.Time) (map[domain.WebhookID]*counters, error) {
	sums := map[domain.WebhookID]*counters{wholeSystem: {}}
	counted, err := p.countEach(ctx, from, to, mostAtEdge, func(events []eventstore.Event, before map[eventstore.Position]domain.DeliveryState) {
		countPage(events, before).sumsOf(sums)
	})
	if err != nil || !counted {
		return nil, err
	}
	return sums, nil
}

// countEach calls count for pages of what the log holds between the times, with what
// retriedStates returns of them; it reports false if that is more events than most, or
// archived in part.
func (p *Projections) countEach(ctx context.Context, from, to time.Time, most int, count func([]eventstore.Event, map[eventstore.Position]domain.DeliveryState)) (bool, error) {
	low, high, err := p.between(ctx, from, to, 0)
	if err != nil {
		return false, err
	}
	position, err := p.Position(ctx)
	if err != nil {
		return false, err
	}
	first, last := eventstore.Position(low), min(eventstore.Position(high-1), position)
	archived, _, err := p.coveredFrom(ctx)
	if err != nil || first < archived || last-first > eventstore.Position(most) {
		return false, err
	}
	return true, p.log.Scan(ctx, first, last, mostAtEdge, func(events []eventstore.Event) error {
		decoded, _ := splitDecoded(events)
		before, err := retriedStates(ctx, p.pool, decoded)
		if err == nil {
			count(decoded, before)
		}
		return err
	})
}

// sumsOf are the page's counters by webhook, and those of the whole system.
func (p *pageCounters) sumsOf(sums map[domain.WebhookID]*counters) {
	for _, key := range p.keys {
		if sums[key.webhook] == nil {
			sums[key.webhook] = &counters{}
		}
		sums[key.webhook].add(p.byKey[key])
		if key.webhook != wholeSystem {
			sums[wholeSystem].add(p.byKey[key])
		}
	}
}

// mostByMinute is how many events of the log are counted for a series by the minute.
const mostByMinute = 5 * mostAtEdge

// minutes counts the webhook's range by the minute, or returns nil if that is too much.
func (p *Projections) minutes(ctx context.Context, webhook domain.WebhookID, f StatsFilter) (*series, error) {
	s := &series{width: BucketMinute}
	counted, err := p.countEach(ctx, f.From, f.To, mostByMinute, func(events []eventstore.Event, before map[eventstore.Position]domain.DeliveryState) {
		minute := func(i int) time.Time { return events[i].RecordedAt.UTC().Truncate(time.Minute) }
		for begin := 0; begin < len(events); {
			end := begin + 1
			for end < len(events) && minute(end).Equal(minute(begin)) {
				end++
			}
			sums := map[domain.WebhookID]*counters{wholeSystem: {}}
			countPage(events[begin:end], before).sumsOf(sums)
			if sum := sums[webhook]; sum != nil && sum.calls > 0 {
				s.addAt(minute(begin), sum)
			}
			begin = end
		}
	})
	if err != nil || !counted {
		return nil, err
	}
	return s, nil
}

// series adds up hours, which come in order, to parts of the bucket's width.
type series struct {
	width Bucket
	at    []time.Time
	sums  []*counters
}

func (s *series) add(hour int32, c *counters) {
	if s.width == "" {
		return
	}
	at := time.Unix(int64(hour)*3600, 0).UTC()
	if s.width == BucketDay {
		at = at.Truncate(24 * time.Hour)
	}
	s.addAt(at, c)
}

// addAt adds to the part that begins at the time.
func (s *series) addAt(at time.Time, c *counters) {
	if n := len(s.at); n == 0 || !s.at[n-1].Equal(at) {
		s.at, s.sums = append(s.at, at), append(s.sums, &counters{})
	}
	s.sums[len(s.sums)-1].add(c)
}

func (s *series) parts() []StatsPart {
	parts := make([]StatsPart, len(s.at))
	for i, sum := range s.sums {
		parts[i] = StatsPart{At: s.at[i], CallCounts: sum.callCounts(), P50MS: sum.percentile(0.50), P95MS: sum.percentile(0.95), P99MS: sum.percentile(0.99),
			Delivered: max(0, sum.delivered), Exhausted: max(0, sum.exhausted)}
	}
	return parts
}
