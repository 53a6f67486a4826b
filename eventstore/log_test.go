package eventstore_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
)

// The contract of the log, each line by what its users would see.

func openPool(t *testing.T, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := eventstore.OpenPool(t.Context(), url, 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func openLog(t *testing.T, config eventstore.Config) *eventstore.Log {
	t.Helper()
	if config.Pool == nil {
		config.Pool = openPool(t, testdb.New(t))
	}
	log := eventstore.Open(config)
	t.Cleanup(log.Close)
	return log
}

func unit(stream string, expected int64, bodies ...string) eventstore.Unit {
	w := eventstore.Write{Stream: stream, Expected: expected, Metadata: eventstore.Metadata{Actor: "test", CorrelationID: "a \"quoted\" \n id"}}
	for _, body := range bodies {
		w.Events = append(w.Events, eventstore.NewEvent{Type: "test.happened", Data: []byte(body)})
	}
	return eventstore.Unit{Writes: []eventstore.Write{w}}
}

func mustAppend(t *testing.T, log *eventstore.Log, u eventstore.Unit) eventstore.Appended {
	t.Helper()
	appended, err := log.Append(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	return appended
}

func all(t *testing.T, log *eventstore.Log) []eventstore.Event {
	t.Helper()
	var events []eventstore.Event
	err := log.Each(t.Context(), 0, eventstore.Filter{}, func(e eventstore.Event) error {
		events = append(events, e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func TestAppendKeepsEveryByte(t *testing.T) {
	log := openLog(t, eventstore.Config{})
	const body = "{ \"z\" : 1e100000,\t\"a\":\"\\u0000<&>\u00e9\",  \"n\":0.10 }"
	before := mustAppend(t, log, unit("a", 0, body, `{}`))
	events, err := log.Load(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if len(events) != 2 || string(events[0].Data) != body {
		t.Fatalf("loaded %+v", events)
	}
	if events[0].Position != before.First || events[1].Position != before.First+1 || events[1].Version != 2 {
		t.Errorf("positions %d, %d, version %d", events[0].Position, events[1].Position, events[1].Version)
	}
	if !events[0].RecordedAt.Equal(before.RecordedAt) {
		t.Errorf("recorded at %v, the append said %v", events[0].RecordedAt, before.RecordedAt)
	}
	var metadata map[string]string
	if err := json.Unmarshal(events[0].Metadata, &metadata); err != nil {
		t.Fatal(err)
	}
	if metadata["actor"] != "test" || metadata["correlation_id"] != "a \"quoted\" \n id" || len(metadata) != 2 {
		t.Errorf("metadata %v", metadata)
	}
}

func TestMissingStreamIsEmpty(t *testing.T) {
	log := openLog(t, eventstore.Config{})
	if events, err := log.Load(t.Context(), "nobody"); err != nil || len(events) != 0 {
		t.Fatalf("%v, %v", events, err)
	}
	if events, err := log.GetMany(t.Context(), []eventstore.Position{1}); err != nil || len(events) != 0 {
		t.Fatalf("%v, %v", events, err)
	}
}

func TestStaleVersionIsAConflict(t *testing.T) {
	log := openLog(t, eventstore.Config{})
	mustAppend(t, log, unit("a", 0, `{"n":1}`))
	_, err := log.Append(t.Context(), unit("a", 0, `{"n":2}`))
	var conflict *eventstore.ConflictError
	if !errors.As(err, &conflict) || conflict.Stream != "a" || conflict.Expected != 0 {
		t.Fatalf("got %v", err)
	}
	mustAppend(t, log, unit("a", 1, `{"n":3}`))
	assertDense(t, log, 2)
}

// batches counts what is sent in batches: appends.
type batches struct{ sent atomic.Int64 }

func (b *batches) TraceBatchStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceBatchStartData) context.Context {
	b.sent.Add(1)
	return ctx
}
func (b *batches) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}
func (b *batches) TraceBatchEnd(context.Context, *pgx.Conn, pgx.TraceBatchEndData)     {}
func (b *batches) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}
func (b *batches) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// Many that lost their races cost the others of their batch no append each.
func TestManyConflictsAreOneDelay(t *testing.T) {
	config := openPool(t, testdb.New(t)).Config()
	sent := &batches{}
	config.ConnConfig.Tracer = sent
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	log := openLog(t, eventstore.Config{Pool: pool})
	const n = 300
	units := make([]eventstore.Unit, n)
	for i := range units {
		units[i] = unit(fmt.Sprintf("a-%d", i), 0, `{}`)
	}
	if err := errors.Join(log.AppendEach(t.Context(), units)...); err != nil {
		t.Fatal(err)
	}
	units = append(units, unit("b", 0, `{}`))
	sent.sent.Store(0)
	errs := log.AppendEach(t.Context(), units)
	for i, err := range errs[:n] {
		if conflict := (*eventstore.ConflictError)(nil); !errors.As(err, &conflict) || conflict.Stream != fmt.Sprintf("a-%d", i) {
			t.Fatalf("unit %d: %v", i, err)
		}
	}
	if errs[n] != nil {
		t.Error(errs[n])
	}
	if used := sent.sent.Load(); used > n/10 {
		t.Errorf("%d appends for %d conflicts", used, n)
	}
	assertDense(t, log, n+1)
}

func TestUnitOfTwoStreamsIsAllOrNothing(t *testing.T) {
	log := openLog(t, eventstore.Config{})
	mustAppend(t, log, unit("taken", 0, `{}`))
	two := unit("free", 0, `{}`)
	two.Writes = append(two.Writes, unit("taken", 0, `{}`).Writes...)
	if _, err := log.Append(t.Context(), two); !eventstore.IsConflict(err) {
		t.Fatalf("got %v", err)
	}
	if events, err := log.Load(t.Context(), "free"); err != nil || len(events) != 0 {
		t.Fatalf("half a unit was kept: %v, %v", events, err)
	}
}

func assertDense(t *testing.T, log *eventstore.Log, want int) {
	t.Helper()
	events := all(t, log)
	if len(events) != want {
		t.Fatalf("the log holds %d events, want %d", len(events), want)
	}
	versions := map[string]int64{}
	for i, e := range events {
		if e.Position != eventstore.Position(i+1) {
			t.Fatalf("position %d at place %d", e.Position, i+1)
		}
		if versions[e.Stream]++; e.Version != versions[e.Stream] {
			t.Fatalf("%s has version %d after %d", e.Stream, e.Version, versions[e.Stream]-1)
		}
		if i > 0 && e.RecordedAt.Before(events[i-1].RecordedAt) {
			t.Fatalf("position %d was recorded before the one that it follows", e.Position)
		}
	}
}

// Two processes with many writers each race for a few streams: each version is
// won once, and the log has no gap.
func TestRacingWriters(t *testing.T) {
	const writers, rounds, streams = 16, 25, 4
	pool := openPool(t, testdb.New(t))
	logs := []*eventstore.Log{openLog(t, eventstore.Config{Pool: pool}), openLog(t, eventstore.Config{Pool: pool})}
	var group sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for w := range writers {
		group.Go(func() {
			log := logs[w%len(logs)]
			for r := range rounds {
				stream := fmt.Sprint("s", (w+r)%streams)
				events, err := log.Load(t.Context(), stream)
				if err != nil {
					t.Error(err)
					return
				}
				_, err = log.Append(t.Context(), unit(stream, int64(len(events)), `{}`))
				switch {
				case err == nil:
					mu.Lock()
					won++
					mu.Unlock()
				case !eventstore.IsConflict(err):
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if won < rounds {
		t.Errorf("only %d appends were won", won)
	}
	assertDense(t, logs[0], won)
}

// blockHead holds the log's head, so that appends gather into one batch.
func blockHead(t *testing.T, pool *pgxpool.Pool) (release func()) {
	t.Helper()
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT FROM medilab.log_head FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(context.Background()); err != nil {
			t.Error(err)
		}
	}
}

func TestOnlyTheMemberInConflictIsTold(t *testing.T) {
	pool := openPool(t, testdb.New(t))
	log := openLog(t, eventstore.Config{Pool: pool})
	mustAppend(t, log, unit("s3", 0, `{}`))
	units := []eventstore.Unit{unit("first", 0, `{}`)}
	for i := range 8 {
		units = append(units, unit(fmt.Sprint("s", i), 0, `{}`))
	}
	// A unit that the database refuses for another reason, in the same batch.
	bad := unit("bad", 0, `{}`)
	bad.With = []eventstore.Statement{{SQL: `SELECT $1::text::int`, Args: []any{"not a number"}}}
	units = append(units, bad, unit("last", 0, `{}`))

	release := blockHead(t, pool)
	done := make(chan []error, 1)
	go func() { done <- log.AppendEach(t.Context(), units) }()
	release()
	for i, err := range <-done {
		stream := units[i].Writes[0].Stream
		switch {
		case stream == "s3":
			if !eventstore.IsConflict(err) {
				t.Errorf("s3: %v", err)
			}
		case stream == "bad":
			if err == nil || eventstore.IsConflict(err) {
				t.Errorf("bad: %v", err)
			}
		case err != nil:
			t.Errorf("%s: %v", stream, err)
		}
	}
	assertDense(t, log, 1+9)
}

func TestTwoOfOneStreamInABatch(t *testing.T) {
	pool := openPool(t, testdb.New(t))
	log := openLog(t, eventstore.Config{Pool: pool})
	release := blockHead(t, pool)
	done := make(chan []error, 1)
	go func() {
		done <- log.AppendEach(t.Context(), []eventstore.Unit{unit("x", 0, `{}`), unit("a", 0, `{"n":1}`), unit("b", 0, `{}`), unit("a", 0, `{"n":2}`)})
	}()
	release()
	errs := <-done
	if errs[0] != nil || errs[1] != nil || errs[2] != nil || !eventstore.IsConflict(errs[3]) {
		t.Fatalf("got %v", errs)
	}
	assertDense(t, log, 3)
}

func TestStatementsShareTheTransaction(t *testing.T) {
	pool := openPool(t, testdb.New(t))
	log := openLog(t, eventstore.Config{Pool: pool})
	if _, err := pool.Exec(t.Context(), `CREATE TABLE beside (n int)`); err != nil {
		t.Fatal(err)
	}
	with := func(stream string) eventstore.Unit {
		u := unit(stream, 0, `{}`)
		u.With = []eventstore.Statement{{SQL: `INSERT INTO beside VALUES ($1)`, Args: []any{1}}}
		return u
	}
	mustAppend(t, log, with("a"))
	if _, err := log.Append(t.Context(), with("a")); !eventstore.IsConflict(err) {
		t.Fatal(err)
	}
	var n int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM beside`).Scan(&n); err != nil || n != 1 {
		t.Fatalf("%d rows, %v", n, err)
	}
}

// TestAppendsWaitForTheDiskAndKeepTheirPlans, whatever the server's own settings,
// and leave no setting to who has the connection next.
func TestAppendsWaitForTheDiskAndKeepTheirPlans(t *testing.T) {
	pool := openPool(t, testdb.New(t))
	log := openLog(t, eventstore.Config{Pool: pool})
	if _, err := pool.Exec(t.Context(), `CREATE TABLE settings (text text)`); err != nil {
		t.Fatal(err)
	}
	const settings = `SELECT current_setting('synchronous_commit') || ' ' || current_setting('plan_cache_mode')`
	u := unit("a", 0, `{}`)
	u.With = []eventstore.Statement{{SQL: `INSERT INTO settings ` + settings}}
	mustAppend(t, log, u)
	var within string
	if err := pool.QueryRow(t.Context(), `SELECT text FROM settings`).Scan(&within); err != nil || within != "on force_generic_plan" {
		t.Errorf("an append has %s, %v", within, err)
	}
	for _, conn := range pool.AcquireAllIdle(t.Context()) {
		var after string
		if err := conn.QueryRow(t.Context(), settings).Scan(&after); err != nil || after != "on auto" {
			t.Errorf("after it a connection has %s, %v", after, err)
		}
		conn.Release()
	}
}

// A unit that was decided by a configuration is appended only while that is the current
// one; the others of its batch are appended all the same.
func TestAppendDemandsTheConfigurationThatItWasDecidedBy(t *testing.T) {
	pool := openPool(t, testdb.New(t))
	log := openLog(t, eventstore.Config{Pool: pool})
	other := openLog(t, eventstore.Config{Pool: pool})
	decided := func(stream string, by eventstore.Position) eventstore.Unit {
		u := unit(stream, 0, `{}`)
		u.Configuration = &by
		return u
	}
	mustAppend(t, log, decided("a", 0))
	mustAppend(t, other, unit("b", 0, `{}`)) // others may append: the configuration is what counts
	mustAppend(t, log, decided("c", 0))
	w := mustAppend(t, other, unit("webhook-1", 0, `{}`))
	mustAppend(t, other, unit("token-1", 0, `{}`)) // does not decide whom events go to
	if _, err := log.Append(t.Context(), decided("d", 0)); !errors.Is(err, eventstore.ErrConfigurationChanged) {
		t.Errorf("decided by an old configuration: %v", err)
	}
	mustAppend(t, log, decided("d", w.First))

	// Batches: the first unit goes alone, the others wait for it.
	together := func(late string, units ...eventstore.Unit) {
		t.Helper()
		release := blockHead(t, pool)
		done := make(chan []error, 1)
		go func() { done <- log.AppendEach(t.Context(), units) }()
		release()
		for i, err := range <-done {
			stream := units[i].Writes[0].Stream
			if want := strings.Contains(late, stream); want != errors.Is(err, eventstore.ErrConfigurationChanged) || !want && err != nil {
				t.Errorf("%s: %v", stream, err)
			}
		}
	}
	together("e", unit("first", 0, `{}`), decided("e", 0), unit("f", 0, `{}`), decided("g", w.First))
	together("j", unit("second", 0, `{}`), decided("h", w.First), unit("webhook-1", 1, `{}`), unit("i", 0, `{}`), decided("j", w.First))
	c, err := log.ReadConfiguration(t.Context(), 0, log.Generation())
	if err != nil || len(c.Events) != 3 || c.Current != c.Events[2].Position || c.Current != 12 || c.Head != 13 {
		t.Errorf("%+v, %v", c, err)
	}
}

// A unit whose statement fails costs those of its batch a few transactions, not one each.
func TestFailingStatementHalvesItsBatch(t *testing.T) {
	pool := openPool(t, testdb.New(t))
	log := openLog(t, eventstore.Config{Pool: pool})
	const units, failing = 200, 77
	all := make([]eventstore.Unit, units)
	for i := range all {
		all[i] = unit(fmt.Sprintf("s-%d", i), 0, `{}`)
	}
	all[failing].With = []eventstore.Statement{{SQL: `SELECT width_bucket(0, 0, 0, 1)`}}
	for i, err := range log.AppendEach(t.Context(), all) {
		if eventstore.IsConflict(err) != (i == failing) || (err != nil) != (i == failing) {
			t.Errorf("unit %d: %v", i, err)
		}
	}
	var transactions int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM medilab.seals`).Scan(&transactions); err != nil || transactions > 20 {
		t.Errorf("%d transactions: %v", transactions, err)
	}
}

func TestLogIsAppendOnly(t *testing.T) {
	pool := openPool(t, testdb.New(t))
	log := openLog(t, eventstore.Config{Pool: pool})
	mustAppend(t, log, unit("a", 0, `{}`))
	for _, role := range []string{"origin", "replica"} { // as which most triggers do not run
		for _, table := range []string{"medilab.events", "medilab.seals"} {
			for _, sql := range []string{`UPDATE %s SET recorded_at = now()`, `DELETE FROM %s`, `TRUNCATE %s`, `DELETE FROM %s WHERE false`} {
				sql = fmt.Sprintf(sql, table)
				err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
					if _, err := tx.Exec(t.Context(), `SET LOCAL session_replication_role = `+role); err != nil {
						t.Fatal(err)
					}
					_, err := tx.Exec(t.Context(), sql)
					return err
				})
				var refused *pgconn.PgError
				if !errors.As(err, &refused) || refused.Code != "42501" || !strings.Contains(refused.Message, "append-only") {
					t.Errorf("%s as %s: %v", sql, role, err)
				}
			}
		}
	}
}

// What lets archived entries go serves nobody but the tables' owner.
func TestLogIsAppendOnlyForOthers(t *testing.T) {
	pool := openPool(t, testdb.New(t))
	mustAppend(t, openLog(t, eventstore.Config{Pool: pool}), unit("a", 0, `{}`))
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context()) //nolint:errcheck // with the role, which is for this test
	_, err = tx.Conn().PgConn().Exec(t.Context(), `CREATE ROLE medilab_deleting_test;
		GRANT USAGE ON SCHEMA medilab TO medilab_deleting_test; GRANT SELECT, DELETE ON medilab.events, medilab.seals TO medilab_deleting_test;
		SELECT set_config('medilab.archiving', pg_current_xact_id()::text, true);
		SAVEPOINT owner; DELETE FROM medilab.events; DELETE FROM medilab.seals; ROLLBACK TO owner;
		SET LOCAL ROLE medilab_deleting_test`).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"events", "seals"} {
		err := pgx.BeginFunc(t.Context(), tx, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), `DELETE FROM medilab.`+table)
			return err
		})
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || !strings.Contains(refused.Message, "append-only") {
			t.Errorf("%s: %v", table, err)
		}
	}
}

func TestClosedLogRefuses(t *testing.T) {
	log := openLog(t, eventstore.Config{})
	log.Close()
	if _, err := log.Append(t.Context(), unit("a", 0, `{}`)); !errors.Is(err, eventstore.ErrClosed) {
		t.Fatalf("got %v", err)
	}
}

// A database that goes away gives ErrUnavailable, and the log goes on when it is back.
func TestConnectionsCut(t *testing.T) {
	pool := openPool(t, testdb.New(t))
	log := openLog(t, eventstore.Config{Pool: pool})
	mustAppend(t, log, unit("a", 0, `{}`))
	release := blockHead(t, pool)
	failed := make(chan error, 1)
	go func() {
		_, err := log.Append(t.Context(), unit("b", 0, `{}`))
		failed <- err
	}()
	cutWaiting(t, pool)
	if err := <-failed; !errors.Is(err, eventstore.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	release()
	mustAppend(t, log, unit("c", 0, `{}`))
	assertDense(t, log, 2)
}

// Any failure to connect is an outage, and the batch is not tried in parts.
func TestDatabaseThatIsGone(t *testing.T) {
	config := openPool(t, testdb.New(t)).Config()
	var connects atomic.Int64
	config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
		connects.Add(1)
		c.Database = "medilab_gone"
		return nil
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	log := openLog(t, eventstore.Config{Pool: pool})
	const appends = 64
	failed := make(chan error, appends)
	for i := range appends {
		go func() {
			_, err := log.Append(t.Context(), unit(fmt.Sprint("a", i), 0, `{}`))
			failed <- err
		}()
	}
	for range appends {
		if err := <-failed; !errors.Is(err, eventstore.ErrUnavailable) {
			t.Fatalf("got %v", err)
		}
	}
	if n := connects.Load(); n > appends {
		t.Errorf("%d connections are tried for %d appends", n, appends)
	}
	if _, err := log.Head(t.Context()); !eventstore.IsOutage(err) {
		t.Errorf("reading the head: %v", err)
	}
}

// cutWaiting ends the connection that waits for the head's lock.
func cutWaiting(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	for t.Context().Err() == nil {
		var cut int
		err := pool.QueryRow(t.Context(), `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&cut)
		if err != nil {
			t.Fatal(err)
		}
		if cut > 0 {
			return
		}
	}
}

func TestClockIsNeverBehindTheDatabase(t *testing.T) {
	pool := openPool(t, testdb.New(t))
	clock := eventstore.NewClock()
	for range 20 {
		sent := time.Now()
		var at time.Time
		if err := pool.QueryRow(t.Context(), `SELECT clock_timestamp()`).Scan(&at); err != nil {
			t.Fatal(err)
		}
		clock.Observe(at, sent)
		if err := pool.QueryRow(t.Context(), `SELECT clock_timestamp()`).Scan(&at); err != nil {
			t.Fatal(err)
		}
		if now := clock.Now(); now.Before(at) {
			t.Fatalf("the clock says %v, the database said %v before", now, at)
		}
	}
}

func TestClockGoesByTheDatabaseHoweverWrongTheMachine(t *testing.T) {
	clock := eventstore.NewClock()
	database := time.Now().Add(-time.Hour)
	clock.Observe(database, time.Now())
	if off := clock.Now().Sub(database); off < 0 || off > time.Minute {
		t.Errorf("the clock is %v off", off)
	}
}
