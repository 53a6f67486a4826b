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
	dataAt atomic.Int64         // the head for which it did not have to wait; 0: it did

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
	p.atHead = eventstore.Refresher{Timeout: timeout, Run: func(ctx context.Context) error {
		_, err := p.reachHead(ctx, "")
		return err
	}}
	p.atData = eventstore.Refresher{Timeout: timeout, Run: func(ctx context.Context) error {
		at, err := p.reachHead(ctx, domain.DataRead{}.ChangeType())
		p.dataAt.Store(int64(at))
		return err
	}}
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
	live.versions = eventstore.Statement{SQL: noteVersionsSQL, Args: versionsOf(models)}
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
func (p *Projections) awaitData(ctx context.Context) error {
	generation := p.log.Generation()
	err := p.atData.Refresh(ctx)
	if basis, ok := ctx.Value(basisKey{}).(*Basis); ok && p.keeper == p { // a copy may be older
		*basis = Basis{p, eventstore.Position(p.dataAt.Load()), generation}
	}
	return err
}

// Basis is what an answer was made from: all data that the log held.
type Basis struct {
	of         *Projections
	at         eventstore.Position
	generation int64
}

type basisKey struct{}

// WithBasis returns a context in which lists note what they are made from, if that is known.
func WithBasis(ctx context.Context) (context.Context, *Basis) {
	basis := new(Basis)
	return context.WithValue(ctx, basisKey{}, basis), basis
}

// Stands reports whether an answer made from it would be the same now: the log has gone on by nothing
// but readings. False may mean that it is not known.
func (b *Basis) Stands(ctx context.Context) bool {
	if b.at == 0 || b.of.atData.Refresh(ctx) != nil {
		return false
	}
	now := eventstore.Position(b.of.dataAt.Load())
	if now < b.at || b.of.log.Generation() != b.generation || !b.of.log.HasOnly(domain.DataRead{}.ChangeType(), b.at, now) {
		return false
	}
	b.at = now
	return true
}

// reachHead waits for the read models to reach the head, and returns 0. It does not wait if the log
// goes on by nothing but events of the type without consequence: then it returns the head.
func (p *Projections) reachHead(ctx context.Context, without string) (eventstore.Position, error) {
	const patience = 500 * time.Millisecond
	lag, err := p.Lag(ctx)
	switch {
	case err != nil:
		return 0, err
	case lag.LagEvents == 0 || p.log.HasOnly(without, lag.Position, lag.Head):
		return lag.Head, nil
	case lag.LagSeconds > patience.Seconds():
		return 0, nil
	}
	return 0, p.waitBriefly(ctx, lag.Head, patience)
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
