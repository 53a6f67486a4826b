package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/eventstore/failpoint"
)

// readerName is the one consumer group of all read models: a page is applied to
// all of them together, so they agree with each other.
const readerName = "projections"

// linger is how long a page grows while nobody waits for it: it changes nearly as many rows whether it
// holds a hundred events or a thousand.
const linger = 200 * time.Millisecond

// pageSize bounds the events of one page.
const pageSize = 4000

// Projections answers queries from the read models, and keeps them when it is
// added to a router. Safe for concurrent use.
type Projections struct {
	pool   *pgxpool.Pool
	log    *eventstore.Log
	closed *eventstore.Log // the same, for what needs no content
	kept   *eventstore.Log // what the read models are kept from
	logger *slog.Logger
	pace   pace
	linger time.Duration
	reader atomic.Pointer[eventstore.Subscription] // nil: this process keeps no read models
	keeper *Projections                            // of whose read models these are a copy, or itself
	atHead eventstore.Refresher
	atData eventstore.Refresher // the head, readings apart

	registry atomic.Pointer[registryAt] // see registryAt
	numbers  sync.Map                   // see numbersOf
}

// New returns the read models of the log's database.
func New(pool *pgxpool.Pool, log *eventstore.Log, logger *slog.Logger) *Projections {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	p := &Projections{pool: pool, log: log.Lenient(), closed: log.Closed(), kept: log, logger: logger, pace: usualPace, linger: linger}
	p.keeper = p
	const timeout = 10 * time.Second
	p.atHead = eventstore.Refresher{Run: func(ctx context.Context) error { return p.reachHead(ctx, "") }, Timeout: timeout}
	p.atData = eventstore.Refresher{Run: func(ctx context.Context) error { return p.reachHead(ctx, domain.DataRead{}.ChangeType()) }, Timeout: timeout}
	return p
}

// AddTo makes the node keep the read models while the router runs: each page
// changes all of them in one transaction with its checkpoint.
func (p *Projections) AddTo(ctx context.Context, router *message.Router, node *eventstore.Node) error {
	if err := p.noteSchemaVersions(ctx); err != nil {
		return err
	}
	subscription, err := p.kept.Subscribe(ctx, node, eventstore.Reader{Name: readerName, PageSize: pageSize, Linger: p.linger})
	if err != nil {
		return err
	}
	p.reader.Store(subscription)
	live := newApplier(models, Tables{}, Tables{})
	live.versions = versionsOf(models)
	router.AddConsumerHandler(readerName, readerName, subscription, subscription.Handler(func(ctx context.Context, page eventstore.Page) error {
		err := live.apply(ctx, page.Tx, page.Events)
		failpoint.Pass(failpoint.InPage)
		return err
	}))
	return nil
}

// Position returns the position up to which the read models hold the log.
func (p *Projections) Position(ctx context.Context) (eventstore.Position, error) {
	position, err := positionIn(ctx, p.pool)
	return position, doing("read the projections' position", err)
}

func positionIn(ctx context.Context, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}) (position eventstore.Position, err error) {
	err = db.QueryRow(ctx, `SELECT position FROM medilab.readers WHERE name = $1`, readerName).Scan(&position)
	if errors.Is(err, pgx.ErrNoRows) {
		err = nil
	}
	return position, err
}

// WaitFor returns once the read models hold what the log has up to the
// position, or with the context's error.
func (p *Projections) WaitFor(ctx context.Context, position eventstore.Position) error {
	const first, most = 2 * time.Millisecond, 50 * time.Millisecond
	for pause := first; ; pause = min(2*pause, most) {
		var passed <-chan struct{}
		reader := p.keeper.reader.Load()
		if reader != nil {
			passed = reader.Passed()
		}
		reached, err := p.Position(ctx)
		if err != nil {
			return err
		}
		if reached >= position {
			return nil
		}
		if reader != nil {
			reader.Hurry()
		}
		if pause == 2*first && (reader == nil || !reader.Reads()) { // another process keeps them
			p.keeper.kept.Announce(eventstore.AnnouncedReading)
		}
		select {
		case <-passed:
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("wait for the projections at %d, now at %d: %w", position, reached, ctx.Err())
		}
	}
}

// Announced takes in what other processes announced: somebody there may wait for the next page.
func (p *Projections) Announced(keys []string) {
	reading := slices.Contains(keys, eventstore.AnnouncedReading) || slices.Contains(keys, eventstore.AnnouncedAll)
	if reader := p.reader.Load(); reader != nil && reading {
		reader.Hurry()
	}
}

// awaitHead lets the read models apply what the log holds by now, so that a
// caller finds in the next answer what the last one told. That takes one page's
// time; read models that are further behind answer from what they have. All who ask
// meanwhile wait together.
func (p *Projections) awaitHead(ctx context.Context) error { return p.atHead.Refresh(ctx) }

// awaitData is awaitHead for what readings do not change: who lists events again does not wait
// for the record of having listed them.
func (p *Projections) awaitData(ctx context.Context) error { return p.atData.Refresh(ctx) }

// reachHead waits unless the log goes on by nothing but events of the type without consequence.
func (p *Projections) reachHead(ctx context.Context, without string) error {
	const patience = 500 * time.Millisecond
	lag, err := p.Lag(ctx)
	if err != nil || lag.LagEvents == 0 || lag.LagSeconds > patience.Seconds() || p.log.HasOnly(without, lag.Position, lag.Head) {
		return err
	}
	return p.waitBriefly(ctx, lag.Head, patience)
}

// waitBriefly is WaitFor, but no longer than the time: nobody may keep the read models now.
func (p *Projections) waitBriefly(ctx context.Context, position eventstore.Position, patience time.Duration) error {
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := p.WaitFor(wait, position); err != nil && (ctx.Err() != nil || wait.Err() == nil) {
		return err
	}
	return nil
}

// inTx does the work in a transaction. Unlike pgx.BeginFunc it can roll back after
// ctx has ended, which keeps the connection usable.
func inTx(ctx context.Context, conn *pgxpool.Conn, work func(transaction) error) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // after a commit there is nothing to undo
	if err := work(tx); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// snapshot reads in a transaction that sees one moment.
func (p *Projections) snapshot(ctx context.Context, read func(pgx.Tx) error) error {
	tx, err := p.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // read only: nothing to undo
	return read(tx)
}
