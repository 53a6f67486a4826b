package projections

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/eventstore"
)

// Parked is an entry of the log that no read model could take. A rebuild of all
// tries it again.
type Parked struct {
	Position eventstore.Position `json:"position"`
	Reason   string              `json:"reason"`
	At       time.Time           `json:"at"` // when it was recorded
}

// ParkedPage is one page of parked entries, newest first.
type ParkedPage struct {
	Items      []Parked
	NextCursor string // "": there is no more
}

// Parked lists what no read model could take, the newest first.
func (p *Projections) Parked(ctx context.Context, limit int, cursor string) (ParkedPage, error) {
	before, err := parseCursor(cursor)
	if err != nil {
		return ParkedPage{}, err
	}
	rows, err := p.pool.Query(ctx, `
		SELECT position, reason, at FROM medilab.parked WHERE position < $1 ORDER BY position DESC LIMIT $2`, before, limit+1)
	if err != nil {
		return ParkedPage{}, fmt.Errorf("list parked entries: %w", err)
	}
	var page ParkedPage
	if page.Items, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Parked]); err != nil {
		return ParkedPage{}, fmt.Errorf("list parked entries: %w", err)
	}
	if len(page.Items) > limit {
		page.Items = page.Items[:limit]
		page.NextCursor = cursorAt(int64(page.Items[limit-1].Position))
	}
	return page, nil
}
