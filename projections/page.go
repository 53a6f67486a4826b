package projections

import (
	"context"
	"encoding/base64"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Page is one page of a list. One whose items are large may be shorter than the
// limit and still have more after it.
type Page[T any] struct {
	Items      []T
	NextCursor string // "": there is no more
}

// A cursor is opaque to callers: the number that the last item of a page had in
// the order of its list. What follows has a lower one.

const cursorPrefix = "c1:"

func cursorAt(last int64) string {
	return base64.RawURLEncoding.EncodeToString([]byte(cursorPrefix + strconv.FormatInt(last, 10)))
}

// parseCursor returns the number that all items must be below.
func parseCursor(cursor string) (int64, error) {
	if cursor == "" {
		return math.MaxInt64, nil
	}
	decoded, err := base64.RawURLEncoding.DecodeString(cursor)
	if err == nil && len(decoded) > len(cursorPrefix) && string(decoded[:len(cursorPrefix)]) == cursorPrefix {
		if n, err := strconv.ParseInt(string(decoded[len(cursorPrefix):]), 10, 64); err == nil && n > 0 {
			return n, nil
		}
	}
	return 0, domain.Invalid("cursor", "must be the next_cursor of an earlier answer")
}

// between returns the positions that times and a cursor stand for: what is listed
// is above low and below high.
func (p *Projections) between(ctx context.Context, from, to time.Time, cursor string) (low, high int64, err error) {
	if high, err = parseCursor(cursor); err != nil {
		return 0, 0, err
	}
	if from.IsZero() && to.IsZero() {
		return 0, high, nil
	}
	err = p.pool.QueryRow(ctx, `
		SELECT CASE WHEN $1::timestamptz IS NULL THEN 0 ELSE medilab.position_before($1) END,
			CASE WHEN $2::timestamptz IS NULL THEN $3::bigint ELSE least($3, medilab.position_before($2) + 1) END`,
		timeOrNil(from), timeOrNil(to), high).Scan(&low, &high)
	if err != nil {
		return 0, 0, fmt.Errorf("find a time in the log: %w", err)
	}
	return low, high, nil
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// pageAt reads the events at the positions that the query returns, at most limit
// of them; the query is to return one more if there is one. show drops what is
// not to be listed.
func pageAt[T any](ctx context.Context, p *Projections, limit int, show func(*eventstore.Event) (T, bool), sql string, args ...any) (page Page[T], err error) {
	rows, err := p.pool.Query(ctx, sql, args...)
	if err != nil {
		return page, err
	}
	positions, err := pgx.CollectRows(rows, pgx.RowTo[eventstore.Position])
	if err != nil {
		return page, err
	}
	events, err := p.log.GetMany(ctx, positions[:min(limit, len(positions))])
	if err != nil {
		return page, err
	}
	for i := range events {
		decode(&events[i])
		if item, ok := show(&events[i]); ok {
			page.Items = append(page.Items, item)
		}
	}
	if n := len(events); n > 0 && n < len(positions) {
		page.NextCursor = cursorAt(int64(events[n-1].Position))
	}
	return page, nil
}
