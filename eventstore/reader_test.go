package eventstore_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wsql "github.com/ThreeDotsLabs/watermill-sql/v3/pkg/sql"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
)

// reading is one node that copies the log into the table copied.
type reading struct {
	node *eventstore.Node
	stop func()
}

func read(t *testing.T, pool *pgxpool.Pool, log *eventstore.Log, apply func(context.Context, eventstore.Page) error) reading {
	t.Helper()
	return readAs(t, pool, log, eventstore.Reader{Name: "copy", PageSize: 10}, apply)
}

func readAs(t *testing.T, pool *pgxpool.Pool, log *eventstore.Log, reader eventstore.Reader, apply func(context.Context, eventstore.Page) error) reading {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	node, err := eventstore.Join(t.Context(), pool, log.Clock(), "test", logger, nil)
	if err != nil {
		t.Fatal(err)
	}
	sub, err := log.Subscribe(t.Context(), node, reader)
	if err != nil {
		t.Fatal(err)
	}
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		t.Fatal(err)
	}
	router.AddConsumerHandler("copy", "log", sub, sub.Handler(apply))
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := router.Run(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	<-router.Running()
	stop := func() {
		if err := router.Close(); err != nil {
			t.Error(err)
		}
		<-done
	}
	t.Cleanup(stop)
	return reading{node: node, stop: stop}
}

func copyPage(ctx context.Context, page eventstore.Page) error {
	for _, e := range page.Events {
		if _, err := page.Tx.Exec(ctx, `INSERT INTO copied (position) VALUES ($1)`, e.Position); err != nil {
			return err
		}
	}
	return nil
}

func copyTable(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	if _, err := pool.Exec(t.Context(), `CREATE TABLE copied (n bigserial, position bigint)`); err != nil {
		t.Fatal(err)
	}
}

// awaitCopy waits until the copy holds n rows and checks that they are the log's
// positions, once each, in order.
func awaitCopy(t *testing.T, pool *pgxpool.Pool, n int) {
	t.Helper()
	harness.Until(t, fmt.Sprintf("%d rows are copied", n), func() bool {
		var count, distinct int
		var ordered bool
		err := pool.QueryRow(t.Context(), `SELECT count(*), count(DISTINCT position), coalesce(bool_and(ordered), true)
			FROM (SELECT position, position = row_number() OVER (ORDER BY n) AS ordered FROM copied) AS c`).Scan(&count, &distinct, &ordered)
		if err != nil {
			t.Fatal(err)
		}
		if count != distinct || !ordered || count > n {
			t.Fatalf("copied %d rows, %d distinct, in order: %v", count, distinct, ordered)
		}
		return count == n
	})
}

// Only a page that ends with the log may wait to grow: who is behind reads on.
func TestReaderThatIsBehindDoesNotLinger(t *testing.T) {
	pool := openPool(t, testdb.New(t))
	log := openLog(t, eventstore.Config{Pool: pool})
	copyTable(t, pool)
	fill(t, log, "a", 45)
	readAs(t, pool, log, eventstore.Reader{Name: "copy", PageSize: 10, Linger: time.Hour}, copyPage)
	awaitCopy(t, pool, 45)
}

// A subscription that no router runs ends with its context.
func TestSubscriptionEndsWithItsContext(t *testing.T) {
	pool := openPool(t, testdb.New(t))
	log := openLog(t, eventstore.Config{Pool: pool})
	node, err := eventstore.Join(t.Context(), pool, log.Clock(), "test", slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	sub, err := log.Subscribe(ctx, node, eventstore.Reader{Name: "copy"})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	harness.Until(t, "the subscription is closed", func() bool {
		_, err := sub.Subscribe(ctx, "log")
		return errors.Is(err, wsql.ErrSubscriberClosed)
	})
}

func fill(t *testing.T, log *eventstore.Log, name string, n int) {
	t.Helper()
	units := make([]eventstore.Unit, n)
	for i := range units {
		units[i] = unit(fmt.Sprint(name, i), 0, `{}`)
	}
	for _, err := range log.AppendEach(t.Context(), units) {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestReaderAppliesEachEventOnce(t *testing.T) {
	pool := openPool(t, testdb.New(t))
	copyTable(t, pool)
	log := openLog(t, eventstore.Config{Pool: pool})
	fill(t, log, "before", 25)
	read(t, pool, log, copyPage)
	fill(t, log, "after", 25)
	awaitCopy(t, pool, 50)
}

// closed is an envelope that opens nothing.
type closed struct{}

func (closed) Open(_ context.Context, events []eventstore.Event) error {
	for i := range events {
		events[i].Value, events[i].Err = nil, errors.New("the key is missing")
	}
	return nil
}

// What a reader is handed is as the log has it: content that cannot be opened, which no reader
// needs, takes nothing away from it.
func TestReadersNeedNoKeys(t *testing.T) {
	pool := openPool(t, testdb.New(t))
	codec := func(string, []byte) (any, error) { return "decoded", nil }
	fill(t, openLog(t, eventstore.Config{Pool: pool}), "a", 5)
	log := openLog(t, eventstore.Config{Pool: pool, Codec: codec, Envelope: closed{}}) // it has none in memory
	if events, err := log.Load(t.Context(), "a0"); err != nil || len(events) != 1 || events[0].Err == nil {
		t.Fatalf("others read %+v, %v", events, err)
	}
	handed := make(chan eventstore.Event, 5)
	read(t, pool, log, func(_ context.Context, page eventstore.Page) error {
		for _, e := range page.Events {
			handed <- e
		}
		return nil
	})
	for range 5 {
		if e := <-handed; e.Err != nil || e.Value != "decoded" {
			t.Errorf("handed %v, %v", e.Value, e.Err)
		}
	}
}

// A handler that fails after it wrote is undone and comes again.
func TestReaderUndoesAFailedPage(t *testing.T) {
	pool := openPool(t, testdb.New(t))
	copyTable(t, pool)
	log := openLog(t, eventstore.Config{Pool: pool})
	fill(t, log, "s", 25)
	var tries atomic.Int32
	read(t, pool, log, func(ctx context.Context, page eventstore.Page) error {
		if err := copyPage(ctx, page); err != nil {
			return err
		}
		switch tries.Add(1) {
		case 1:
			return errors.New("failed after writing")
		case 2:
			_, err := page.Tx.Exec(ctx, `SELECT 1/0`)
			return err
		}
		return nil
	})
	awaitCopy(t, pool, 25)
}

// A crash between the pages: the next node goes on where the last one committed.
func TestReaderGoesOnAfterACrash(t *testing.T) {
	pool := openPool(t, testdb.New(t))
	copyTable(t, pool)
	log := openLog(t, eventstore.Config{Pool: pool})
	fill(t, log, "s", 35)
	reached := make(chan struct{})
	var pages atomic.Int32
	first := read(t, pool, log, func(ctx context.Context, page eventstore.Page) error {
		if pages.Add(1) == 3 {
			close(reached)
			<-ctx.Done() // as if the process had stopped here
			return ctx.Err()
		}
		return copyPage(ctx, page)
	})
	<-reached
	first.stop()
	if err := first.node.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	read(t, pool, log, copyPage)
	awaitCopy(t, pool, 35)
}

// One node reads, the other stands by and takes over when the first is gone.
func TestOnlyTheOwnerReads(t *testing.T) {
	pool := openPool(t, testdb.New(t))
	copyTable(t, pool)
	log := openLog(t, eventstore.Config{Pool: pool})
	first := read(t, pool, log, copyPage)
	fill(t, log, "a", 5)
	awaitCopy(t, pool, 5)
	var second atomic.Int32
	read(t, pool, log, func(ctx context.Context, page eventstore.Page) error {
		second.Add(1)
		return copyPage(ctx, page)
	})
	fill(t, log, "b", 20)
	awaitCopy(t, pool, 25)
	if n := second.Load(); n != 0 {
		t.Errorf("the stand-by applied %d pages beside the owner", n)
	}
	first.stop()
	if err := first.node.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	fill(t, log, "c", 20)
	awaitCopy(t, pool, 45)
	if second.Load() == 0 {
		t.Error("the stand-by did not take over")
	}
}

// A transaction that somebody holds open, having taken a transaction id, delays
// no reader: positions need no horizon.
func TestReaderBesideASlowForeignTransaction(t *testing.T) {
	pool := openPool(t, testdb.New(t))
	copyTable(t, pool)
	log := openLog(t, eventstore.Config{Pool: pool})
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background()) //nolint:errcheck // it is there to be in the way
	if _, err := tx.Exec(t.Context(), `CREATE TABLE in_the_way (n int)`); err != nil {
		t.Fatal(err)
	}
	read(t, pool, log, copyPage)
	fill(t, log, "s", 25)
	awaitCopy(t, pool, 25)
}

// TestPagesDoNotWaitForTheDisk: what is made of them can be made again. That
// appends do is TestAppendsWaitForTheDiskAndKeepTheirPlans. Pages keep plans that go by
// keys, too.
func TestPagesDoNotWaitForTheDisk(t *testing.T) {
	pool := openPool(t, testdb.New(t))
	log := openLog(t, eventstore.Config{Pool: pool})
	copyTable(t, pool)
	modes := make(chan string, 1)
	failed := errors.New("the first time")
	read(t, pool, log, func(ctx context.Context, page eventstore.Page) error {
		var mode string
		if err := page.Tx.QueryRow(ctx, `SELECT concat_ws(' ', current_setting('synchronous_commit'),
			current_setting('plan_cache_mode'), current_setting('enable_seqscan'))`).Scan(&mode); err != nil {
			return err
		}
		modes <- mode
		if failed != nil { // the same transaction goes on
			err := failed
			failed = nil
			return err
		}
		return copyPage(ctx, page)
	})
	fill(t, log, "first", 1)
	for range 2 {
		if mode := <-modes; mode != "off force_generic_plan off" {
			t.Errorf("a page is committed with %s", mode)
		}
	}
	awaitCopy(t, pool, 1)
}
