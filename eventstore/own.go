package eventstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Own tells whether the node is the one that reads for the reader's group, and
// where the reader is; it takes over from a node that is gone. It is for work
// that belongs to a reader but not to a page, as what is done by the clock.
func (l *Log) Own(ctx context.Context, node *Node, reader string) (position Position, owned bool, err error) {
	err = l.pool.QueryRow(ctx, `
		UPDATE medilab.readers AS r SET node = $2
		WHERE r.name = $1 AND (r.node = $2 OR r.node IS NULL OR NOT EXISTS (
			SELECT FROM medilab.nodes AS n WHERE n.id = r.node AND n.lease_until > clock_timestamp()))
			AND EXISTS (SELECT FROM medilab.nodes AS n WHERE n.id = $2 AND n.lease_until > clock_timestamp())
		RETURNING r.position`, reader, node.ID).Scan(&position)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("own the reader %s: %w", reader, err)
	}
	return position, true, nil
}
