package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/eventstore/failpoint"
)

// readerName is the one consumer group of all read models: they are applied a
// page at a time together, so they agree with each other.
const readerName = "projections"

// linger lets a page grow: a call shows within a few hundredths of a second,
// and a page costs the same whether it holds one event or a hundred.
const linger = 20 * time.Millisecond

// pageSize is how far one page reads when there is much to read.
const pageSize = 2000

// Projections answers queries from the read models, and keeps them when it is
// added to a router. Safe for concurrent use.
type Projections struct {
	pool   *pgxpool.Pool
	log    *eventstore.Log
	logger *slog.Logger
	pace   pace
}

// New gives the read models of the log's database.
func New(pool *pgxpool.Pool, log *eventstore.Log, logger *slog.Logger) *Projections {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Projections{pool: pool, log: log, logger: logger, pace: usualPace}
}

// AddTo makes the node keep the read models while the router runs: one handler,
// whose every page changes all of them in one transaction with its checkpoint.
func (p *Projections) AddTo(ctx context.Context, router *message.Router, node *eventstore.Node) error {
	if err := p.noteShapes(ctx); err != nil {
		return err
	}
	subscription, err := p.log.Subscribe(ctx, node, eventstore.Reader{Name: readerName, PageSize: pageSize, Linger: linger})
	if err != nil {
		return err
	}
	live := newApplier(models, Tables{}, Tables{})
	router.AddConsumerHandler(readerName, readerName, subscription, subscription.Handler(func(ctx context.Context, page eventstore.Page) error {
		err := live.apply(ctx, page.Tx, page.Events)
		failpoint.Pass(failpoint.InPage)
		return err
	}))
	return nil
}

// Position is up to where the read models have the log.
func (p *Projections) Position(ctx context.Context) (eventstore.Position, error) {
	var position eventstore.Position
	err := p.pool.QueryRow(ctx, `SELECT position FROM medilab.readers WHERE name = $1`, readerName).Scan(&position)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("read the projections' position: %w", err)
	}
	return position, nil
}

// WaitFor returns once the read models hold what the log has up to the
// position, or with the context's error.
func (p *Projections) WaitFor(ctx context.Context, position eventstore.Position) error {
	const first, most = 2 * time.Millisecond, 50 * time.Millisecond
	for pause := first; ; pause = min(2*pause, most) {
		reached, err := p.Position(ctx)
		if err != nil {
			return err
		}
		if reached >= position {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the projections at %d, now at %d: %w", position, reached, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}

// shortly is how long a query waits for what the log holds already.
const shortly = 500 * time.Millisecond

// settle lets the read models take in what the log holds by now, so that a
// caller who was just answered finds that in the next answer. It costs a page's
// time at most; when the read models are further behind than shortly, the query
// is answered from what they have.
func (p *Projections) settle(ctx context.Context) error {
	lag, err := p.Lag(ctx)
	if err != nil || lag.LagEvents == 0 || lag.LagSeconds > shortly.Seconds() {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, shortly)
	defer cancel()
	if err := p.WaitFor(wait, lag.Head); err != nil && (ctx.Err() != nil || wait.Err() == nil) {
		return err
	}
	return nil
}

// between turns times and a cursor into positions: what is listed is above low
// and below high.
func (p *Projections) between(ctx context.Context, from, to time.Time, cursor string) (low, high int64, err error) {
	if high, err = parseCursor(cursor); err != nil {
		return 0, 0, err
	}
	if from.IsZero() && to.IsZero() {
		return 0, high, nil
	}
	var start, end *int64
	err = p.pool.QueryRow(ctx, `
		SELECT CASE WHEN $1::timestamptz IS NOT NULL THEN medilab.position_before($1) END,
			CASE WHEN $2::timestamptz IS NOT NULL THEN medilab.position_before($2) END`,
		timeOrNil(from), timeOrNil(to)).Scan(&start, &end)
	if err != nil {
		return 0, 0, fmt.Errorf("find a time in the log: %w", err)
	}
	if start != nil {
		low = *start
	}
	if end != nil {
		high = min(high, *end+1)
	}
	return low, high, nil
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func (p *Projections) positions(ctx context.Context, sql string, args ...any) ([]eventstore.Position, error) {
	rows, err := p.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[eventstore.Position])
}

// pick reads up to limit of the events at the positions, and gives the cursor
// at which a list goes on when there are more.
func (p *Projections) pick(ctx context.Context, positions []eventstore.Position, limit int) (events []eventstore.Event, next string, err error) {
	wanted := positions[:min(limit, len(positions))]
	if events, err = p.log.GetMany(ctx, wanted); err != nil {
		return nil, "", err
	}
	for i := range events {
		decode(&events[i])
	}
	if n := len(events); n > 0 && n < len(positions) {
		next = cursorAt(int64(events[n-1].Position))
	}
	return events, next, nil
}
