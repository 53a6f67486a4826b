package eventstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// Reader describes a reading of the whole log that its handler applies exactly
// once: one consumer group, on whichever node owns it.
type Reader struct {
	Name string
	// PageSize is how many consecutive events make one message; 1000 if zero.
	PageSize int
	// Linger is how long a page may wait to grow. Zero: not at all. Nothing waits behind
	// a page that was full.
	Linger time.Duration
	// Interested reports whether a batch appended in this process is worth waking
	// up for at once; nil: all are. The rest is found by the next poll.
	Interested func(batch []Event) bool
}

const (
	pollInterval = 500 * time.Millisecond
	leastLinger  = 2 * time.Millisecond // when somebody waits for the page
	ackDeadline  = time.Minute
	retryPause   = 250 * time.Millisecond
)

// Page is a run of consecutive events, without a gap after the page before.
type Page struct {
	Events []Event
	// Tx is the transaction in which the reader's position moves: what a handler
	// writes there is applied exactly once.
	Tx *pgx.Conn
}

// Last is the position up to which the page reads the log.
func (p Page) Last() Position { return p.Events[len(p.Events)-1].Position }

// Subscription is a Watermill subscriber over the log whose messages are pages,
// one at a time. Use Handler for what its messages mean.
type Subscription struct {
	log    *Log
	reader Reader
	inner  *wsql.Subscriber
	tx     *transactions

	wake  <-chan struct{} // see Log.Appends
	stop  func()          // of wake
	hurry chan struct{}
	open  context.Context // until it is closed
	end   func()          // of open
	life  sync.Mutex      // held while it begins to read, or ends
	full  atomic.Bool     // whether the last page was

	mu     sync.Mutex
	passed chan struct{} // closed when a page has been committed
	last   time.Time     // when one was
}

// Subscribe makes the reader's subscription for this node, until it is closed or ctx ends.
// The node reads when it owns the reader: it takes over when the owner's lease has ended.
func (l *Log) Subscribe(ctx context.Context, node *Node, reader Reader) (*Subscription, error) {
	if reader.PageSize == 0 {
		reader.PageSize = maxBatchEvents
	}
	if _, err := l.pool.Exec(ctx, `INSERT INTO medilab.readers (name) VALUES ($1) ON CONFLICT DO NOTHING`, reader.Name); err != nil {
		return nil, fmt.Errorf("subscribe %s: %w", reader.Name, err)
	}
	s := &Subscription{log: l, reader: reader, hurry: make(chan struct{}, 1), passed: make(chan struct{})}
	s.open, s.end = context.WithCancel(context.WithoutCancel(ctx))
	s.tx = &transactions{DB: stdlib.OpenDBFromPool(l.pool)}
	adapter := pages{reader: reader, node: node.ID}
	deadline := ackDeadline
	var err error
	s.inner, err = wsql.NewSubscriber(s.tx, wsql.SubscriberConfig{
		ConsumerGroup:  reader.Name,
		AckDeadline:    &deadline,
		ResendInterval: retryPause,
		BackoffManager: s,
		SchemaAdapter:  adapter,
		OffsetsAdapter: adapter,
	}, watermill.NopLogger{})
	if err != nil {
		return nil, fmt.Errorf("subscribe %s: %w", reader.Name, err)
	}
	s.wake, s.stop = l.Appends(reader.Interested)
	// A router that never ran closes no subscriptions.
	context.AfterFunc(ctx, func() { s.Close() }) //nolint:errcheck // nobody waits for it
	return s, nil
}

// Subscribe implements Watermill's Subscriber.
func (s *Subscription) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	s.life.Lock()
	defer s.life.Unlock()
	return s.inner.Subscribe(ctx, topic)
}

// Close implements Watermill's Subscriber: no page follows.
func (s *Subscription) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	if s.open.Err() != nil {
		return nil
	}
	s.end()
	s.stop()
	return errors.Join(s.inner.Close(), s.tx.close())
}

// Hurry lets the next page begin although it may grow, as somebody waits for it.
func (s *Subscription) Hurry() { Signal(s.hurry) }

// Passed returns what is closed when this node has committed another page.
func (s *Subscription) Passed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.passed
}

func (s *Subscription) pass() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.passed)
	s.passed, s.last = make(chan struct{}), time.Now()
}

// Reads reports whether this node has committed a page lately: it reads, and no other.
func (s *Subscription) Reads() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.last) < LeaseTime
}

// HandleError implements Watermill's BackoffManager, which is asked how long to
// sleep after every query. As a sleep can't be woken, the wait is here.
func (s *Subscription) HandleError(_ watermill.LoggerAdapter, noMessage bool, err error) time.Duration {
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			s.log.logger.Warn("reading the log failed", "reader", s.reader.Name, "error", err)
		}
		Wait(s.open, retryPause, nil)
		return 0
	}
	if !noMessage {
		s.pass()
		if !s.full.Load() { // what gathers meanwhile makes the next one
			s.linger()
		}
		return 0
	}
	select {
	case <-s.wake:
		s.linger()
	case <-s.hurry:
	case <-time.After(s.log.Pace(pollInterval)):
	case <-s.open.Done():
	}
	return 0
}

func (s *Subscription) linger() {
	least := min(s.reader.Linger, leastLinger)
	if rest := s.reader.Linger - least; Wait(s.open, least, nil) && rest > 0 {
		Wait(s.open, rest, s.hurry)
	}
}

// Handler turns what to do with a page into a Watermill handler for this
// subscription. When apply fails, what it wrote is undone and the page comes again.
func (s *Subscription) Handler(apply func(ctx context.Context, page Page) error) message.NoPublishHandlerFunc {
	return func(msg *message.Message) error {
		ctx := msg.Context()
		after, err := strconv.ParseInt(string(msg.Payload), 10, 64)
		if err != nil {
			return fmt.Errorf("page of %s: %w", s.reader.Name, err)
		}
		err = s.tx.use(func(conn *pgx.Conn) error {
			// A message that comes again comes in the same transaction.
			if _, err := conn.PgConn().Exec(ctx, beginPageSQL).ReadAll(); err != nil {
				return fmt.Errorf("begin a page of %s: %w", s.reader.Name, err)
			}
			if err := s.applyUpTo(ctx, conn, Position(after), msg.UUID, apply); err != nil {
				if _, undo := conn.Exec(ctx, `ROLLBACK TO SAVEPOINT page`); undo != nil {
					return errors.Join(err, undo)
				}
				return err
			}
			return nil
		})
		if err != nil && ctx.Err() == nil {
			s.log.logger.Warn("page not applied, it comes again", "reader", s.reader.Name, "after", after, "error", err)
		}
		if err != nil && s.tx.broken() {
			// A message that is refused comes again in its transaction, for as long as
			// the ack deadline, and this one has none any more. Taken, it fails with
			// its transaction at once, and the page comes again in a new one.
			return nil
		}
		return err
	}
}

// beginPageSQL lets the page's commit return before it is on the disk: the reader's
// position moves in the same transaction, so after a crash both are there or neither,
// and the page comes again. Appends need not wait behind one more fsync.
//
// A page's statements go by keys, and are planned once: as the connection keeps its plans
// for as long as the reader reads, one made while a table was small must not scan it.
const beginPageSQL = `SET LOCAL synchronous_commit = off; SET LOCAL plan_cache_mode = force_generic_plan;
	SET LOCAL enable_seqscan = off; SAVEPOINT page`

// applyUpTo applies what the message stands for: one page, or several when
// large payloads do not fit one.
func (s *Subscription) applyUpTo(ctx context.Context, conn *pgx.Conn, after Position, last string, apply func(context.Context, Page) error) error {
	to, err := strconv.ParseInt(last, 10, 64)
	if err != nil {
		return fmt.Errorf("page of %s: %w", s.reader.Name, err)
	}
	s.full.Store(Position(to)-after >= Position(s.reader.PageSize))
	for after < Position(to) {
		events, err := s.log.readClosed(ctx, after, int(Position(to)-after))
		if err != nil {
			return err
		}
		if len(events) == 0 || events[0].Position != after+1 {
			if events, err = s.log.pastArchive(ctx, after, Position(to), events); err != nil {
				return fmt.Errorf("page of %s after %d: %w", s.reader.Name, after, err)
			}
			if len(events) == 0 {
				return nil
			}
		}
		page := Page{Events: events, Tx: conn}
		if err := apply(ctx, page); err != nil {
			return err
		}
		after = page.Last()
	}
	return nil
}

// transactions returns Watermill its transactions on one connection of ours, so
// that a handler reaches the same transaction through pgx.
type transactions struct {
	*sql.DB

	mu   sync.Mutex
	conn *sql.Conn
}

// BeginTx implements watermill-sql's Beginner.
func (t *transactions) BeginTx(ctx context.Context, options *sql.TxOptions) (*sql.Tx, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn != nil {
		if tx, err := t.conn.BeginTx(ctx, options); err == nil {
			return tx, nil
		}
		t.conn.Close() //nolint:errcheck // it is broken already
		t.conn = nil
	}
	conn, err := t.DB.Conn(ctx)
	if err != nil {
		return nil, err
	}
	tx, err := conn.BeginTx(ctx, options)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	t.conn = conn
	return tx, nil
}

// use runs f on the connection of the open transaction.
func (t *transactions) use(f func(*pgx.Conn) error) error {
	t.mu.Lock()
	conn := t.conn
	t.mu.Unlock()
	if conn == nil {
		return errors.New("no transaction is open")
	}
	return conn.Raw(func(driver any) error {
		return f(driver.(*stdlib.Conn).Conn())
	})
}

// broken reports whether the connection of the open transaction is gone, and the
// transaction with it.
func (t *transactions) broken() bool {
	gone := true
	err := t.use(func(conn *pgx.Conn) error {
		gone = conn.IsClosed()
		return nil
	})
	return gone || err != nil
}

func (t *transactions) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conn != nil {
		t.conn.Close() //nolint:errcheck // the pool takes or drops it
		t.conn = nil
	}
	return t.DB.Close()
}

// pages adapts watermill-sql to our table: a message is a page of it. Its
// payload is the position it follows and its id the last position that it holds.
type pages struct {
	reader Reader
	node   int64
}

// SelectQuery takes over the reader if nobody lives who has it, and finds the
// next page. The lock on the reader's row is held until the page is applied; a
// node that freezes in between loses it by idle_in_transaction_session_timeout.
func (p pages) SelectQuery(string, string, wsql.OffsetsAdapter) wsql.Query {
	return wsql.Query{
		Query: `
		WITH mine AS (
			UPDATE medilab.readers AS r SET node = $2
			WHERE ` + ownerSQL + ` AND r.position < (SELECT position FROM medilab.log_head)
			RETURNING r.position
		)
		SELECT mine.position, least(mine.position + $3, (SELECT position FROM medilab.log_head)) FROM mine`,
		Args: []any{p.reader.Name, p.node, p.reader.PageSize},
	}
}

func (p pages) UnmarshalMessage(row wsql.Scanner) (wsql.Row, error) {
	var after, last int64
	if err := row.Scan(&after, &last); err != nil {
		return wsql.Row{}, err
	}
	msg := message.NewMessage(strconv.FormatInt(last, 10), strconv.AppendInt(nil, after, 10))
	return wsql.Row{Offset: last, Msg: msg}, nil
}

// AckMessageQuery moves the reader, in the transaction of the page.
func (p pages) AckMessageQuery(_ string, row wsql.Row, _ string) wsql.Query {
	return wsql.Query{
		Query: `UPDATE medilab.readers SET position = $3 WHERE name = $1 AND node = $2`,
		Args:  []any{p.reader.Name, p.node, row.Offset},
	}
}

// SubscribeIsolationLevel is READ COMMITTED: positions need no snapshot.
func (pages) SubscribeIsolationLevel() sql.IsolationLevel { return sql.LevelReadCommitted }

func (pages) ConsumedMessageQuery(string, wsql.Row, string, []byte) wsql.Query { return wsql.Query{} }
func (pages) NextOffsetQuery(string, string) wsql.Query                        { return wsql.Query{} }
func (pages) BeforeSubscribingQueries(string, string) []wsql.Query             { return nil }

// Migrations make the tables, and the appender is the only publisher.

func (pages) SchemaInitializingQueries(string) []wsql.Query { return nil }
func (pages) InsertQuery(string, message.Messages) (wsql.Query, error) {
	return wsql.Query{}, errors.New("the log is appended to by Append alone")
}
