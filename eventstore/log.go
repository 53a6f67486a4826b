package eventstore

import (
	"context"
	"crypto/rand"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/eventstore/cpulimit"
)

// Inline keeps tables that must never lag behind the log: its statements take
// effect in the transaction that appends the events. Then the log announces the keys.
type Inline interface {
	Statements(events []Event) (statements []Statement, announce []string, err error)
}

// Observer sees every batch that this process appended, after its commit, in
// order. It must not block.
type Observer func(batch []Event)

// Config is what a Log needs. Pool is required.
type Config struct {
	Pool      *pgxpool.Pool
	Codec     Codec
	Envelope  Envelope
	Inline    []Inline
	Observers []Observer
	Logger    *slog.Logger
	Clock     *Clock

	// Guard is that of the pool; nil: one that guards nothing.
	Guard *Guard
	// Lost is called when the log has lost its tail, before anything is answered by what
	// it has. It must not block nor use the log.
	Lost func(Loss)

	// Announce makes Announce reach other processes from the start; see SetAnnounce.
	Announce bool
}

// Log is the handle of one process on the log. Safe for concurrent use.
type Log struct {
	// Limiter is where what this process computes of the log takes turns.
	Limiter *cpulimit.Limiter

	pool      *pgxpool.Pool
	config    Config
	clock     *Clock
	logger    *slog.Logger
	tail      *tail // what this process appended last
	lastRead  *lastRead
	appender  *appender
	knowledge *knowledge
	lenient   bool
	head      atomic.Int64 // the newest that was asked for, see atHead
	atHead    Refresher
	active    atomic.Pointer[time.Time] // when something was last appended here, or other nodes lived

	announcements announcements
	listeners     struct {
		sync.Mutex
		all map[chan struct{}]*listener
	}
}

// Open starts the appender. Close stops it.
func Open(config Config) *Log {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	if config.Clock == nil {
		config.Clock = NewClock()
	}
	if config.Guard == nil {
		config.Guard = NewGuard(config.Logger)
	}
	l := &Log{Limiter: cpulimit.New(), pool: config.Pool, config: config, clock: config.Clock, logger: config.Logger,
		tail: newTail(), lastRead: newLastRead(), knowledge: &config.Guard.knowledge}
	l.knowledge.tell(func(loss Loss) {
		l.tail.reset(l.Generation())
		l.lastRead.reset(l.Generation())
		if config.Lost != nil {
			config.Lost(loss)
		}
	})
	l.listeners.all = map[chan struct{}]*listener{}
	l.announcements.process, l.announcements.keys = rand.Text(), map[string]struct{}{}
	l.noteActivity()
	l.SetAnnounce(config.Announce)
	l.appender = newAppender(l)
	return l
}

// On returns the log as a copy of its database has it, for reading alone.
func (l *Log) On(pool *pgxpool.Pool) *Log {
	on := &Log{Limiter: l.Limiter, pool: pool, config: l.config, clock: l.clock, logger: l.logger, tail: newTail(), lastRead: newLastRead(), knowledge: l.knowledge}
	on.atHead = Refresher{Run: on.readHead, Timeout: headTimeout}
	return on
}

// Closed returns the log for readings that need no content: they take no keys.
func (l *Log) Closed() *Log {
	closed := l.On(l.pool)
	closed.tail, closed.lastRead, closed.config.Envelope = l.tail, l.lastRead, nil
	return closed
}

// Lenient returns the log for readings that show what cannot be opened, as a key is missing, without
// its content.
func (l *Log) Lenient() *Log {
	lenient := l.On(l.pool)
	lenient.tail, lenient.lastRead, lenient.lenient = l.tail, l.lastRead, true
	return lenient
}

// Close waits for the appends under way; later ones get ErrClosed.
func (l *Log) Close() {
	l.appender.close()
	l.sendAnnouncements()
}

// Clock is the database's clock as this process knows it.
func (l *Log) Clock() *Clock { return l.clock }

// Append records the unit and returns once it is durable. The error is a
// *ConflictError, ErrConfigurationChanged, ErrBusy, ErrUnavailable, ErrClosed, or the
// context's. After ErrUnavailable and the context's error the unit may have been
// recorded all the same; after the others it was not.
func (l *Log) Append(ctx context.Context, unit Unit) (Appended, error) {
	p, err := l.appender.submit(unit)
	if err != nil {
		return Appended{}, err
	}
	return p.wait(ctx)
}

// AppendEach appends the units, each whole or not at all, independently of one
// another, in as few transactions as they fit. The errors are those of Append, in
// the order of the units; nil where a unit was recorded.
func (l *Log) AppendEach(ctx context.Context, units []Unit) []error {
	errs := make([]error, len(units))
	pending := make([]*pending, len(units))
	for i, unit := range units {
		pending[i], errs[i] = l.appender.submit(unit)
	}
	for i, p := range pending {
		if errs[i] == nil {
			_, errs[i] = p.wait(ctx)
		}
	}
	return errs
}

// Between runs f while no append of this process is under way: what the
// database holds then is exactly what the observers saw.
func (l *Log) Between(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case l.appender.pause <- func() { defer close(done); f() }:
		<-done
		return nil
	case <-l.appender.gone:
		return ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
