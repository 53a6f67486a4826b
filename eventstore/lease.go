package eventstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ownerSQL is the condition on a row of medilab.readers that the node $2 lives and has
// the lease $1, or may take it because nobody does who lives. A consumer, which has a
// position, is also taken from a node of an older schema: while versions run side by
// side, the newest fills what consumers fill.
var ownerSQL = ownerSQLAt(`clock_timestamp()`)

// ownerSQLAt is ownerSQL where a node lives whose lease does not end before then.
func ownerSQLAt(end string) string {
	return `r.name = $1 AND (r.node = $2 OR r.node IS NULL OR NOT EXISTS (
		SELECT FROM medilab.nodes AS n WHERE n.id = r.node AND n.lease_until > ` + end + `
			AND (n.schema_version >= ` + strconv.Itoa(SchemaVersion) + ` OR r.position IS NULL)))
	AND EXISTS (SELECT FROM medilab.nodes AS n WHERE n.id = $2 AND n.lease_until > clock_timestamp())`
}

// AcquireLease reports whether the node has the lease of that name, which it takes
// over from a node that is gone. A consumer of the log has the lease of its name; for
// such a one the position is the consumer's, and nodes of an older schema give way.
//
// A node counts as gone after silence. Less than LeaseTime is for work that two nodes
// may do at once without harm.
func (l *Log) AcquireLease(ctx context.Context, node *Node, name string, silence time.Duration) (position Position, acquired bool, err error) {
	err = l.pool.QueryRow(ctx, `UPDATE medilab.readers AS r SET node = $2 WHERE `+ownerSQLAt(`clock_timestamp() + $3`)+`
		RETURNING coalesce(r.position, 0)`, name, node.ID, LeaseTime-silence).Scan(&position)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("acquire the lease %s: %w", name, err)
	}
	return position, true, nil
}

// DeclareLease makes a lease of that name that can be acquired, if there is none.
func (l *Log) DeclareLease(ctx context.Context, name string) error {
	_, err := l.pool.Exec(ctx, `INSERT INTO medilab.readers (name, position) VALUES ($1, NULL) ON CONFLICT DO NOTHING`, name)
	return Doing("declare the lease "+name, err)
}

// ReleaseLease releases the lease, so that another node need not wait for its end.
func (l *Log) ReleaseLease(ctx context.Context, node *Node, name string) error {
	_, err := l.pool.Exec(ctx, `UPDATE medilab.readers SET node = NULL WHERE name = $1 AND node = $2`, name, node.ID)
	return Doing("release the lease "+name, err)
}

// Exclusively does the work on a connection that holds the advisory lock. If another process
// holds it, the error is busy.
func Exclusively(ctx context.Context, pool *pgxpool.Pool, lock int64, doing string, busy error, work func(*pgxpool.Conn) error) (err error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	defer conn.Release()
	var free bool
	if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, lock).Scan(&free); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if !free {
		return busy
	}
	defer func() {
		_, unlock := conn.Exec(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1)`, lock)
		err = errors.Join(err, unlock)
	}()
	return work(conn)
}
