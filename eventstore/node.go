package eventstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
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
	leaseRenew = time.Second
	// leaseMargin is how much earlier than the database a node counts itself out.
	leaseMargin = 2 * time.Second
)

// ErrLeaseLost says that the node was silent for too long and owns nothing more.
var ErrLeaseLost = errors.New("the node's lease is lost")

// otherSchema is the SQLSTATE by which the database refuses a program that does not know
// its schema; see SchemaVersion.
const otherSchema = "55000"

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
	work       atomic.Int64
	lack       atomic.Value // string
	onPeers    func(Peers)

	lacks        atomic.Pointer[[]Lack]
	lacksChanged chan struct{} // a token

	lost     chan struct{}
	loseOnce sync.Once
}

// Peers are the other live nodes, as the last renewal of the lease found them.
type Peers struct {
	Others  int   // all of them
	Workers int   // those that count work
	Work    int64 // the sum of what these have counted since they joined
}

// Lack is what a live node lacks for its work, in a word of its own.
type Lack struct{ Node, Lacks string }

// notWorking is the work of a node that counts none.
const notWorking = -1

// Join enters the node. Run must renew its lease from then on. onPeers is called with
// the other nodes whenever they were counted; it may be nil.
func Join(ctx context.Context, pool *pgxpool.Pool, clock *Clock, name string, logger *slog.Logger, onPeers func(Peers)) (*Node, error) {
	n := &Node{Name: name, pool: pool, clock: clock, logger: logger, start: time.Now(), onPeers: onPeers, lost: make(chan struct{}), lacksChanged: make(chan struct{}, 1)}
	n.work.Store(notWorking)
	n.lack.Store("")
	n.lacks.Store(&[]Lack{})
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
	for {
		pause := leaseRenew
		if n.Alone() { // nobody compares work with it
			pause *= 2
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.lost:
			return ErrLeaseLost
		case <-time.After(pause):
		}
		attempt, cancel := context.WithTimeout(ctx, leaseRenew)
		err := n.renew(attempt)
		cancel()
		switch {
		case errors.Is(err, ErrLeaseLost):
			n.Forfeit()
			return err
		case err != nil && ctx.Err() == nil:
			n.logger.Warn("lease not renewed", "node", n.ID, "error", err)
			if !n.Valid() {
				n.Forfeit()
				return ErrLeaseLost
			}
		}
	}
}

// Lost is closed when the node owns nothing more.
func (n *Node) Lost() <-chan struct{} { return n.lost }

// Forfeit ends the lease for this process.
func (n *Node) Forfeit() {
	n.loseOnce.Do(func() { close(n.lost) })
}

// Valid reports whether the node may still act on what it owns.
func (n *Node) Valid() bool {
	select {
	case <-n.lost:
		return false
	default:
		return int64(time.Since(n.start)) < n.validUntil.Load()
	}
}

// SetWork sets how much work the node has done, for its peers to compare.
func (n *Node) SetWork(done int64) { n.work.Store(done) }

// SetLack sets what the node lacks, "" for nothing. It is published with the lease.
func (n *Node) SetLack(lack string) { n.lack.Store(lack) }

// Lacks returns what this and the other live nodes lack, as of the last renewal.
func (n *Node) Lacks() []Lack { return *n.lacks.Load() }

// LacksChanged receives after Lacks has changed.
func (n *Node) LacksChanged() <-chan struct{} { return n.lacksChanged }

// setLacks takes in what the nodes lack.
func (n *Node) setLacks(lacks []Lack) {
	if own, _ := n.lack.Load().(string); own != "" {
		lacks = append(lacks, Lack{Node: n.Name, Lacks: own})
	}
	if slices.Equal(lacks, n.Lacks()) {
		return
	}
	n.lacks.Store(&lacks)
	Signal(n.lacksChanged)
}

// Alone reports whether no other node lives.
func (n *Node) Alone() bool { return n.others.Load() == 0 }

// Leave ends the lease, so that others need not wait for its end.
func (n *Node) Leave(ctx context.Context) error {
	n.validUntil.Store(0)
	_, err := n.pool.Exec(ctx, `UPDATE medilab.readers SET node = NULL WHERE node = $1`, n.ID)
	if err == nil {
		_, err = n.pool.Exec(ctx, `UPDATE medilab.nodes SET lease_until = '-infinity' WHERE id = $1`, n.ID)
	}
	return Doing("leave the nodes", err)
}

// NodeStatus is a live node as the others see it.
type NodeStatus struct {
	ID       int64     `json:"id"`
	Name     string    `json:"name"`
	JoinedAt time.Time `json:"joined_at"`
	Work     *int64    `json:"deliveries"` // begun since it joined; null: it makes no calls
	Lacks    *string   `json:"lacks"`      // what it lacks for its calls
	Reads    []string  `json:"reads"`      // the readers of the log that run there
}

// Nodes returns the live nodes, the oldest first.
func Nodes(ctx context.Context, pool *pgxpool.Pool) ([]NodeStatus, error) {
	rows, _ := pool.Query(ctx, `
		SELECT id, name, joined_at, work, lacks, ARRAY(SELECT r.name FROM medilab.readers r WHERE r.node = n.id ORDER BY r.name)
		FROM medilab.nodes n WHERE lease_until > clock_timestamp() ORDER BY id`)
	nodes, err := pgx.CollectRows(rows, pgx.RowToStructByPos[NodeStatus])
	return nodes, Doing("list the nodes", err)
}

// EndLeases ends the leases of the nodes with that name, whose process is known to be gone.
func EndLeases(ctx context.Context, pool *pgxpool.Pool, name string) error {
	_, err := pool.Exec(ctx, `UPDATE medilab.nodes SET lease_until = '-infinity' WHERE name = $1 AND lease_until > '-infinity'`, name)
	return Doing("end the leases of a process that is gone", err)
}

// ReleaseReaders releases the leases of readers, unless the node's id is another's by now,
// as it is given again when the log has lost its tail.
func (n *Node) ReleaseReaders(ctx context.Context) error {
	_, err := n.pool.Exec(ctx, `UPDATE medilab.readers SET node = NULL
		WHERE node = $1 AND EXISTS (SELECT FROM medilab.nodes WHERE id = $1 AND name = $2)`, n.ID, n.Name)
	return Doing("release the readers", err)
}

func (n *Node) renew(ctx context.Context) error {
	sent := time.Now()
	var now time.Time
	var peers Peers
	var lacks []Lack
	err := n.pool.QueryRow(ctx, `
		WITH renewed AS (
			UPDATE medilab.nodes SET lease_until = clock_timestamp() + $2, work = nullif($3, `+strconv.Itoa(notWorking)+`), lacks = nullif($4, '')
			WHERE id = $1 AND lease_until > clock_timestamp() RETURNING clock_timestamp() AS now)
		SELECT renewed.now, others.* FROM renewed, LATERAL (
			SELECT count(*), count(work), coalesce(sum(work), 0)::bigint,
				json_agg(json_build_object('Node', name, 'Lacks', lacks) ORDER BY id) FILTER (WHERE lacks IS NOT NULL) FROM medilab.nodes
			WHERE id <> $1 AND lease_until > clock_timestamp()) AS others`,
		n.ID, LeaseTime, n.work.Load(), n.lack.Load()).Scan(&now, &peers.Others, &peers.Workers, &peers.Work, &lacks)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrLeaseLost
	}
	if HasCode(err, otherSchema) {
		return fmt.Errorf("%w: %w", ErrLeaseLost, err)
	}
	if err != nil {
		return fmt.Errorf("renew the lease: %w", err)
	}
	n.extend(sent)
	n.clock.Observe(now, sent)
	n.others.Store(int64(peers.Others))
	n.setLacks(lacks)
	if n.onPeers != nil {
		n.onPeers(peers)
	}
	return nil
}

func (n *Node) extend(sent time.Time) {
	n.validUntil.Store(int64(sent.Sub(n.start) + LeaseTime - leaseMargin))
}
