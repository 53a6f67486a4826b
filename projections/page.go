package projections

import (
	"context"
	"encoding/base64"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/eventstore"
)

// WithRoom returns a context for queries that read so many bytes of the log; see eventstore.WithRoom.
func WithRoom(ctx context.Context, most int, grow func(ctx context.Context, held int) error) context.Context {
	return eventstore.WithRoom(ctx, most, grow)
}

// Page is one page of a list. One whose items are large may be shorter than the
// limit and still have more after it.
type Page[T any] struct {
	Items      []T    `json:"items"`
	NextCursor Cursor `json:"next_cursor"`
}

// Cursor is the number of the last item of a page in the order of its list, so that items
// added meanwhile neither repeat nor hide others. 0: there is no more, or the list from
// its start. Callers see it as opaque text, 0 as null.
type Cursor int64

const cursorPrefix = "c1:"

// MarshalJSON encodes the opaque text, or null.
func (c Cursor) MarshalJSON() ([]byte, error) {
	if c == 0 {
		return []byte("null"), nil
	}
	return []byte(`"` + base64.RawURLEncoding.EncodeToString(fmt.Append(nil, cursorPrefix, int64(c))) + `"`), nil
}

// ParseCursor reads the opaque text and reports whether it is one of a page.
func ParseCursor(text string) (Cursor, bool) {
	decoded, err := base64.RawURLEncoding.DecodeString(text)
	number, ok := strings.CutPrefix(string(decoded), cursorPrefix)
	if err != nil || !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(number, 10, 64)
	return Cursor(n), err == nil && n > 0
}

// Below returns the number that the items of a descending list must be below.
func (c Cursor) Below() int64 {
	if c == 0 {
		return math.MaxInt64
	}
	return int64(c)
}

// between returns the positions that times and a cursor stand for: what is listed
// is above low and below high.
func (p *Projections) between(ctx context.Context, from, to time.Time, cursor Cursor) (low, high int64, err error) {
	high = cursor.Below()
	if from.IsZero() && to.IsZero() {
		return 0, high, nil
	}
	err = p.pool.QueryRow(ctx, `
		SELECT CASE WHEN $1::timestamptz IS NULL THEN 0 ELSE medilab.position_before($1) END,
			CASE WHEN $2::timestamptz IS NULL THEN $3::bigint ELSE least($3, medilab.position_before($2) + 1) END`,
		orNil(from), orNil(to), high).Scan(&low, &high)
	return low, high, doing("find a time in the log", err)
}

// pageAt reads from the log the events at the positions that the query returns, at most limit of them.
// The query takes the position that these are below as $2, and returns one more if there is
// one. show drops what is not to be listed; what comes next is read in its place, until
// that becomes too much for one page.
func pageAt[T any](ctx context.Context, p *Projections, log *eventstore.Log, limit int, show func(*eventstore.Event) (T, bool), sql string, args ...any) (page Page[T], err error) {
	const readings = 20
	page.Items = []T{}
	for range readings {
		rows, _ := p.pool.Query(ctx, sql, args...)
		positions, err := pgx.CollectRows(rows, pgx.RowTo[eventstore.Position])
		if err != nil {
			return page, err
		}
		wanted := positions[:min(limit-len(page.Items), len(positions))]
		events, err := log.GetListed(ctx, wanted)
		if err != nil {
			return page, err
		}
		dropped := false
		for i := range events {
			item, ok := show(&events[i])
			if dropped = dropped || !ok; ok {
				page.Items = append(page.Items, item)
			}
		}
		if len(events) == 0 || len(events) == len(positions) {
			page.NextCursor = 0
			return page, nil
		}
		page.NextCursor = Cursor(events[len(events)-1].Position)
		if !dropped || len(events) < len(wanted) {
			return page, nil // it is full, or holds as much as a page may
		}
		args[1] = int64(page.NextCursor)
	}
	return page, nil
}
