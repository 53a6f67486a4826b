package eventstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// A node owns what it claimed while its lease is good. The lease is a row that
// the node renews; the database's clock decides. A node that could not renew in
// time stops by its own monotonic clock before any other may take over.

const (
	// LeaseTime is how long a silent node keeps what it owns.
	LeaseTime  = 10 * time.Second
	leaseRenew = 2 * time.Second
	// leaseMargin is how much earlier than the database a node counts itself out.
	leaseMargin = 2 * time.Second
)

// ErrLeaseLost says that the node was silent for too long and owns nothing more.
var ErrLeaseLost = errors.New("the node's lease is lost")

// Node is this process among those that share the database.
type Node struct {
	ID   int64
	Name string

	pool   *pgxpool.Pool
	clock  *Clock
	logger *slog.Logger

	validUntil atomic.Int64 // nanoseconds after start, by the monotonic clock
	start      time.Time
	others     atomic.Int64
	onOthers   func(others int)

	lost     chan struct{}
	loseOnce sync.Once
}

// Join enters the node. Run must renew its lease from then on. onOthers is told
// the number of other live nodes whenever it was counted; it may be nil.
func Join(ctx context.Context, pool *pgxpool.Pool, clock *Clock, name string, logger *slog.Logger, onOthers func(int)) (*Node, error) {
	n := &Node{Name: name, pool: pool, clock: clock, logger: logger, start: time.Now(), onOthers: onOthers, lost: make(chan struct{})}
	sent := time.Now()
	err := pool.QueryRow(ctx, `
		INSERT INTO medilab.nodes (name, lease_until) VALUES ($1, clock_timestamp() + $2)
		RETURNING id`, name, LeaseTime).Scan(&n.ID)
	if err != nil {
		return nil, fmt.Errorf("join the nodes: %w", err)
	}
	n.extend(sent)
	return n, n.renew(ctx)
}

// Run renews the lease until ctx ends or the lease is lost, which it returns.
func (n *Node) Run(ctx context.Context) error {
	ticker := time.NewTicker(leaseRenew)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		attempt, cancel := context.WithTimeout(ctx, leaseRenew)
		err := n.renew(attempt)
		cancel()
		switch {
		case errors.Is(err, ErrLeaseLost):
			n.loseOnce.Do(func() { close(n.lost) })
			return err
		case err != nil && ctx.Err() == nil:
			n.logger.Warn("lease not renewed", "node", n.ID, "error", err)
			if !n.Valid() {
				n.loseOnce.Do(func() { close(n.lost) })
				return ErrLeaseLost
			}
		}
	}
}

// Lost is closed when the node owns nothing more.
func (n *Node) Lost() <-chan struct{} { return n.lost }

// Valid tells whether the node may still act on what it owns.
func (n *Node) Valid() bool {
	return int64(time.Since(n.start)) < n.validUntil.Load()
}

// Alone tells whether no other node lives.
func (n *Node) Alone() bool { return n.others.Load() == 0 }

// Leave gives up the lease, so that others need not wait for its end.
func (n *Node) Leave(ctx context.Context) error {
	n.validUntil.Store(0)
	if _, err := n.pool.Exec(ctx, `UPDATE medilab.readers SET node = NULL WHERE node = $1`, n.ID); err != nil {
		return fmt.Errorf("leave the nodes: %w", err)
	}
	if _, err := n.pool.Exec(ctx, `UPDATE medilab.nodes SET lease_until = '-infinity' WHERE id = $1`, n.ID); err != nil {
		return fmt.Errorf("leave the nodes: %w", err)
	}
	return nil
}

func (n *Node) renew(ctx context.Context) error {
	sent := time.Now()
	var now time.Time
	var others int64
	err := n.pool.QueryRow(ctx, `
		UPDATE medilab.nodes SET lease_until = clock_timestamp() + $2
		WHERE id = $1 AND lease_until > clock_timestamp()
		RETURNING clock_timestamp(), (SELECT count(*) FROM medilab.nodes WHERE id <> $1 AND lease_until > clock_timestamp())`,
		n.ID, LeaseTime).Scan(&now, &others)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrLeaseLost
	}
	if err != nil {
		return fmt.Errorf("renew the lease: %w", err)
	}
	n.extend(sent)
	n.clock.Observe(now, sent)
	n.others.Store(others)
	if n.onOthers != nil {
		n.onOthers(int(others))
	}
	return nil
}

func (n *Node) extend(sent time.Time) {
	n.validUntil.Store(int64(sent.Sub(n.start) + LeaseTime - leaseMargin))
}
