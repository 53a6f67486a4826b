package eventstore

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
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
	Inline    []Inline
	Observers []Observer
	Logger    *slog.Logger
	Clock     *Clock

	// Announce makes Announce reach other processes from the start; see SetAnnounce.
	Announce bool
}

// Log is the handle of one process on the log. Safe for concurrent use.
type Log struct {
	pool     *pgxpool.Pool
	config   Config
	clock    *Clock
	logger   *slog.Logger
	tail     *tail
	appender *appender

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
	l := &Log{pool: config.Pool, config: config, clock: config.Clock, logger: config.Logger, tail: newTail()}
	l.listeners.all = map[chan struct{}]*listener{}
	l.announcements.start(l.pool, l.logger)
	l.SetAnnounce(config.Announce)
	l.appender = newAppender(l)
	return l
}

// Close waits for the appends under way; later ones get ErrClosed.
func (l *Log) Close() {
	l.appender.close()
	l.announcements.stop()
}

// Clock is the database's clock as this process knows it.
func (l *Log) Clock() *Clock { return l.clock }

// Append records the unit and returns once it is durable. The error is a
// *ConflictError, ErrConfigurationChanged, ErrBusy, ErrUnavailable, ErrClosed, or the
// context's. After ErrUnavailable and the context's error the unit may have been
// recorded all the same; after the others it was not.
func (l *Log) Append(ctx context.Context, unit Unit) (Appended, error) {
	return l.appender.append(ctx, unit)
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
// database holds then is exactly what the observers were told.
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

// Head is the last position of the log.
func (l *Log) Head(ctx context.Context) (Position, error) {
	var head Position
	if err := l.pool.QueryRow(ctx, `SELECT position FROM medilab.log_head`).Scan(&head); err != nil {
		return 0, fmt.Errorf("read the log's head: %w", err)
	}
	return head, nil
}

const eventColumns = `position, stream, version, type, data, metadata::text, recorded_at`

// Load reads a stream from its beginning. A stream that nobody appended to is
// empty: that is no error.
func (l *Log) Load(ctx context.Context, stream string) ([]Event, error) {
	return l.query(ctx, `SELECT `+eventColumns+` FROM medilab.events WHERE stream = $1 ORDER BY version`, stream)
}

// LoadAll reads many streams at once, each in order of its versions.
func (l *Log) LoadAll(ctx context.Context, streams []string) ([]Event, error) {
	return l.query(ctx, `SELECT `+eventColumns+` FROM medilab.events WHERE stream = ANY($1) ORDER BY stream, version`, streams)
}

// LoadFirst reads the first event of each stream, in the order of the streams. A
// stream that nobody appended to is left out.
func (l *Log) LoadFirst(ctx context.Context, streams []string) ([]Event, error) {
	// LATERAL with LIMIT keeps to the unique index whatever the planner knew.
	return l.query(ctx, `SELECT e.* FROM unnest($1::text[]) WITH ORDINALITY AS s (stream, n)
		CROSS JOIN LATERAL (SELECT `+eventColumns+` FROM medilab.events WHERE stream = s.stream AND version = 1 LIMIT 1) AS e
		ORDER BY s.n`, streams)
}

// At reads the event at the position. A position beyond the head has none: the
// second result is false.
func (l *Log) At(ctx context.Context, position Position) (Event, bool, error) {
	events, err := l.query(ctx, `SELECT `+eventColumns+` FROM medilab.events WHERE position = $1`, position)
	if err != nil || len(events) == 0 {
		return Event{}, false, err
	}
	return events[0], true, nil
}

// Read gives up to limit events after the position, in order. No events: that
// was the head.
func (l *Log) Read(ctx context.Context, after Position, limit int) ([]Event, error) {
	if events := l.tail.after(after, limit); events != nil {
		return events, nil
	}
	// A page holds what fits: large payloads make it shorter, never empty.
	return l.query(ctx, `SELECT `+eventColumns+` FROM medilab.events
		WHERE position > $1 AND position <= (
			SELECT max(position) FROM (
				SELECT position, sum(octet_length(data)) OVER (ORDER BY position) - octet_length(data) AS before
				FROM (SELECT position, data FROM medilab.events WHERE position > $1 ORDER BY position LIMIT $2) AS page
			) AS sized WHERE before < $3)
		ORDER BY position`, after, limit, maxPageBytes)
}

// maxPageBytes bounds the memory of a page of events.
const maxPageBytes = 16 << 20

func (l *Log) query(ctx context.Context, sql string, args ...any) ([]Event, error) {
	return l.collect(l.pool.Query(ctx, sql, args...))
}

func (l *Log) collect(rows pgx.Rows, err error) ([]Event, error) {
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	events, err := scanEvents(rows)
	if err != nil {
		return nil, err
	}
	for i := range events {
		l.config.Codec.decode(&events[i])
	}
	return events, nil
}

func scanEvent(row pgx.Row) (e Event, err error) {
	if err := row.Scan(&e.Position, &e.Stream, &e.Version, &e.Type, &e.Data, &e.Metadata, &e.RecordedAt); err != nil {
		return Event{}, fmt.Errorf("read the log: %w", err)
	}
	e.RecordedAt = e.RecordedAt.UTC()
	return e, nil
}

func scanEvents(rows pgx.Rows) ([]Event, error) {
	defer rows.Close()
	var events []Event
	for rows.Next() {
		e, err := scanEvent(rows)
		if err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	return events, nil
}

// Each calls yield for every event after the position that the filter lets
// through, in order, in constant memory, until the head that it found at its start.
func (l *Log) Each(ctx context.Context, after Position, filter Filter, yield func(Event) error) error {
	head, err := l.Head(ctx)
	if err != nil {
		return err
	}
	const page = 500 // rows, streamed: a slow yield keeps a snapshot for a page at most
	for after < head {
		last, n, err := l.eachOfPage(ctx, after, head, page, filter, yield)
		if err != nil || n < page {
			return err
		}
		after = last
	}
	return nil
}

func (l *Log) eachOfPage(ctx context.Context, after, head Position, page int, filter Filter, yield func(Event) error) (last Position, n int, err error) {
	sql, args := filter.query(after, head, page)
	rows, err := l.pool.Query(ctx, sql, args...)
	if err != nil {
		return 0, 0, fmt.Errorf("read the log: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		e, err := scanEvent(rows)
		if err != nil {
			return 0, 0, err
		}
		l.config.Codec.decode(&e)
		if err := yield(e); err != nil {
			return 0, 0, err
		}
		last, n = e.Position, n+1
	}
	if err := rows.Err(); err != nil {
		return 0, 0, fmt.Errorf("read the log: %w", err)
	}
	return last, n, nil
}
