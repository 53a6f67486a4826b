package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/eventstore/cpulimit"
	"github.com/medilab/webhooks/migrations/testdb"
)

const patience = time.Minute

// rig is a database with a log.
type rig struct {
	testing.TB
	pool *pgxpool.Pool
	log  *eventstore.Log

	directory *commands.Directory
}

func newRig(t testing.TB) *rig {
	t.Helper()
	pool, err := eventstore.OpenPool(t.Context(), testdb.New(t), 10)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	r := process(t, pool)
	r.check(SyncEventTypes(t.Context(), pool, domain.BuiltinCatalog()))
	return r
}

// process is one on the database of the pool.
func process(t testing.TB, pool *pgxpool.Pool) *rig {
	t.Helper()
	r := &rig{TB: t, pool: pool, directory: commands.NewDirectory(slog.New(slog.DiscardHandler))}
	r.log = eventstore.Open(eventstore.Config{
		Pool: pool, Observers: []eventstore.Observer{r.directory.Observe},
		Codec: func(name string, data []byte) (any, error) { return domain.Decode(name, data) },
	})
	t.Cleanup(r.log.Close)
	r.check(r.directory.Open(t.Context(), r.log))
	return r
}

func (r *rig) check(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) join() *eventstore.Node {
	r.Helper()
	node, err := eventstore.Join(r.Context(), r.pool, r.log.Clock(), "test", slog.New(slog.DiscardHandler), nil)
	r.check(err)
	ctx, cancel := context.WithCancel(r.Context())
	ended := make(chan error, 1)
	go func() { ended <- node.Run(ctx) }() // it renews the lease
	r.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			r.Errorf("the node ended with %v", err)
		}
	})
	return node
}

func (r *rig) relay(node *eventstore.Node) *Relay {
	return NewRelay(r.log, r.directory, r.pool, node, domain.BuiltinCatalog(), slog.New(slog.DiscardHandler))
}

// run runs the relay until stop is called, which the end of the test does too.
func (r *rig) run(relay *Relay) (stop func()) {
	ctx, cancel := context.WithCancel(r.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		relay.Run(ctx)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-ended
	})
	r.Cleanup(stop)
	return stop
}

type execer interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// emit emits an event whose data is given.
func (r *rig) emit(on execer, data string) domain.EventID {
	r.Helper()
	var id uuid.UUID
	r.check(on.QueryRow(r.Context(), `SELECT medilab.emit('patient.created', $1::text::json, 'c-1')`, data).Scan(&id))
	return domain.EventID(id)
}

// await waits until the log holds n events and returns their data in order.
func (r *rig) await(n int) []domain.EventTriggered {
	r.Helper()
	wake, stop := r.log.Appends(nil)
	defer stop()
	deadline := time.After(patience)
	for {
		head, err := r.log.Head(r.Context())
		r.check(err)
		if int(head) >= n {
			break
		}
		select {
		case <-wake:
		case <-deadline:
			r.Fatalf("the log holds %d events; want %d", head, n)
		}
	}
	var found []domain.EventTriggered
	r.check(r.log.Each(r.Context(), 0, eventstore.Filter{}, func(e eventstore.Event) error {
		triggered, ok := e.Value.(domain.EventTriggered)
		if !ok || e.Version != 1 {
			return fmt.Errorf("position %d holds %s, version %d, %v", e.Position, e.Type, e.Version, e.Err)
		}
		found = append(found, triggered)
		return nil
	}))
	return found
}

func (r *rig) data(n int) []string {
	r.Helper()
	var data []string
	for _, e := range r.await(n) {
		data = append(data, string(e.EventData))
	}
	return data
}

func (r *rig) count(table string) (n int) {
	r.Helper()
	r.check(r.pool.QueryRow(r.Context(), `SELECT count(*) FROM medilab.`+table).Scan(&n))
	return n
}

// awaitEmpty waits until the outbox is. Rows leave it without a sign when they are parked.
func (r *rig) awaitEmpty() {
	r.Helper()
	harness.Until(r, "the outbox is empty", func() bool { return r.count("outbox") == 0 })
}

// awaitRelayed waits until the relay has counted n events: it counts after the log has them.
func (r *rig) awaitRelayed(relay *Relay, n int64) {
	r.Helper()
	harness.Until(r, fmt.Sprintf("the relay has moved %d events", n), func() bool { return relay.Relayed() >= n })
}

// begin opens a transaction of the clinic's: on a connection that may be idle in it for long.
func (r *rig) begin() pgx.Tx {
	r.Helper()
	config := r.pool.Config().ConnConfig
	delete(config.RuntimeParams, "idle_in_transaction_session_timeout")
	conn, err := pgx.ConnectConfig(r.Context(), config)
	r.check(err)
	r.Cleanup(func() { conn.Close(context.Background()) }) //nolint:errcheck // its database goes too
	tx, err := conn.Begin(r.Context())
	r.check(err)
	return tx
}

// A node that stood still for nearly as long as its lease relays when it goes on.
func TestRelayOutlivesAStall(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	node, err := eventstore.Join(t.Context(), r.pool, r.log.Clock(), "test", slog.New(slog.DiscardHandler), nil)
	r.check(err)
	_, err = r.pool.Exec(t.Context(), `UPDATE medilab.nodes SET lease_until = 'infinity'`)
	r.check(err)
	r.run(r.relay(node))
	for node.Valid() { // nobody renews what the process knows of the lease
		eventstore.Wait(t.Context(), 50*time.Millisecond, nil)
	}
	r.emit(r.pool, `{"n":1}`)
	r.await(1)
}

func TestRelayKeepsEveryByte(t *testing.T) {
	r := newRig(t)
	r.run(r.relay(r.join()))
	const awkward = `{ "z":1.00,"a":"\u0000<>&ü\"\\",  "n":1e+5, "long":12345678901234567890.10, "s":"é", "":{"b":[ ]} }`
	tx := r.begin()
	id := r.emit(tx, " \n"+awkward+"\t")
	var emittedAt time.Time
	r.check(tx.QueryRow(t.Context(), `SELECT emitted_at FROM medilab.outbox WHERE event_id = $1`, uuid.UUID(id)).Scan(&emittedAt))
	r.check(tx.Commit(t.Context()))
	if got := r.data(1); got[0] != awkward {
		t.Errorf("the log has %s", got[0])
	}
	events, err := r.log.Load(t.Context(), id.Stream())
	r.check(err)
	var metadata struct{ Actor, CorrelationID string }
	r.check(json.Unmarshal([]byte(strings.ReplaceAll(string(events[0].Metadata), "correlation_id", "CorrelationID")), &metadata))
	if metadata.CorrelationID != "c-1" || !strings.HasPrefix(metadata.Actor, "database role ") {
		t.Errorf("the metadata is %s", events[0].Metadata)
	}
	e := events[0].Value.(domain.EventTriggered)
	if e.EventType != "patient.created" || e.Source != "sql" || e.CorrelationID != "c-1" {
		t.Errorf("the event is %+v", e)
	}
	// However late it reaches the log, it occurred when it was emitted.
	if at := e.Occurred(events[0].RecordedAt); !at.Equal(emittedAt) || !at.Before(events[0].RecordedAt) {
		t.Errorf("it occurred at %s, and was emitted at %s", at, emittedAt)
	}
}

// An event is in the log if and only if its transaction commits, and whenever it does; others
// do not wait for it.
func TestRelayIsOfTheTransaction(t *testing.T) {
	r := newRig(t)
	r.run(r.relay(r.join()))
	// One that was open before all else and writes, and one that only looks on.
	old, reading := r.begin(), r.begin()
	r.emit(old, `{"n":"old"}`)
	_, err := reading.Exec(t.Context(), `SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM medilab.events`)
	r.check(err)

	r.emit(r.pool, `{"n":1}`)
	r.await(1)
	undone := r.begin()
	r.emit(undone, `{"n":"undone"}`)
	later := r.begin()
	r.emit(later, `{"n":2}`)
	r.emit(later, `{"n":3}`)
	r.emit(r.pool, `{"n":4}`)
	r.await(2)
	r.check(undone.Rollback(t.Context()))
	r.check(later.Commit(t.Context()))
	r.await(4)
	r.emit(old, `{"n":"old 2"}`)
	r.check(old.Commit(t.Context()))

	// A row that was skipped may be found after one that follows it: no order is promised.
	want := []string{`{"n":1}`, `{"n":4}`, `{"n":2}`, `{"n":3}`, `{"n":"old 2"}`, `{"n":"old"}`}
	got := r.data(6)
	slices.Sort(got[4:])
	if !slices.Equal(got, want) {
		t.Errorf("the log has %v; want %v", got, want)
	}
	if n := r.count("outbox"); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

// Events that take long to match delay no others, emitted before them as they may be.
func TestRelayMovesCheapEventsFirst(t *testing.T) {
	r := newRig(t)
	r.register(domain.WebhookRegistered{Number: 1, Events: []string{"patient.updated"}, Filters: json.RawMessage(`{"note":{"$regex":"(a|aa)*b"}}`)})
	release := r.takeLimiter()
	const costly, cheap = 10, 5
	_, err := r.pool.Exec(t.Context(), `SELECT medilab.emit('patient.updated', '{"note":"aaa"}') FROM generate_series(1, 10)
		UNION ALL SELECT medilab.emit('patient.created', '{}') FROM generate_series(1, 5)`)
	r.check(err)
	relay := r.relay(r.join())
	r.run(relay)
	r.awaitRelayed(relay, cheap)
	if n := r.count("outbox"); n != costly {
		t.Errorf("%d events are left, want %d", n, costly)
	}
	release()
	r.awaitRelayed(relay, costly+cheap)
	r.awaitEmpty()
}

// register registers an active webhook.
func (r *rig) register(w domain.WebhookRegistered) domain.WebhookID {
	r.Helper()
	w.ID, w.Name, w.URL, w.Active = domain.WebhookID(uuid.New()), "n", "http://127.0.0.1:1/", true
	r.change(w.ID, 0, w)
	return w.ID
}

func (r *rig) change(id domain.WebhookID, version int64, change domain.Change) {
	r.Helper()
	_, err := r.directory.Append(r.Context(), eventstore.Unit{Writes: []eventstore.Write{{Stream: id.Stream(), Expected: version,
		Events: []eventstore.NewEvent{{Type: change.ChangeType(), Data: domain.AppendJSON(nil, change), Value: change}}}}})
	r.check(err)
}

// takeLimiter holds up whatever takes long until release is called.
func (r *rig) takeLimiter() (release func()) {
	r.Helper()
	taken := make([]cpulimit.Task, max(1, runtime.GOMAXPROCS(0)/2))
	for i := range taken {
		taken[i] = r.log.Limiter.Task()
		r.check(taken[i].Spend(r.Context(), cpulimit.Expensive))
	}
	return func() {
		for i := range taken {
			taken[i].End()
		}
	}
}

// triggered returns the types and the beginnings of the data of the log's events in its order.
func (r *rig) triggered() (all []string) {
	r.Helper()
	r.check(r.log.Each(r.Context(), 0, eventstore.Filter{}, func(e eventstore.Event) error {
		if t, ok := e.Value.(domain.EventTriggered); ok {
			all = append(all, fmt.Sprint(t.EventType, " ", string(t.EventData[:min(len(t.EventData), 6)])))
		}
		return nil
	}))
	return all
}

// What a webhook wants in order does not overtake a costly event that it may get; the types of two
// such webhooks follow each other by one that both get.
func TestRelayKeepsTheOrderThatAWebhookWants(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, filters, first string
		ordered              domain.WebhookRegistered
	}{
		{"regex, ordered", `{"a":{"$regex":"^(HGB|RBC)$"}}`, `{"n":1}`, domain.WebhookRegistered{OrderBy: domain.OrderAll}},
		{"regex, numbered", `{"a":{"$regex":"^(HGB|RBC)$"}}`, `{"n":1}`, domain.WebhookRegistered{Sequence: true}},
		{"large", `{"a":1}`, `{"n":1,"text":"` + strings.Repeat("я", 9000) + `"}`, domain.WebhookRegistered{OrderBy: "id"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.register(domain.WebhookRegistered{Number: 1, Events: []string{"visit.updated"}, Filters: json.RawMessage(c.filters)})
			c.ordered.Number, c.ordered.Events = 2, []string{"visit.*"}
			r.register(c.ordered)
			c.ordered.Number, c.ordered.Events = 3, []string{"visit.completed", "payment.created"}
			r.register(c.ordered)
			r.register(domain.WebhookRegistered{Number: 4, Events: []string{"*"}})
			_, err := r.pool.Exec(t.Context(), `SELECT medilab.emit(type, data::json) FROM (VALUES ('visit.updated', $1), ('payment.created', '{"n":2}'),
				('visit.completed', '{"n":3}'), ('patient.created', '{"n":4}'), ('payment.created', '{"n":5}')) AS v (type, data)`, c.first)
			r.check(err)
			relay := r.relay(r.join())
			r.run(relay)
			r.awaitRelayed(relay, 5)
			want := []string{`payment.created {"n":2`, `patient.created {"n":4`, `visit.updated {"n":1`, `visit.completed {"n":3`, `payment.created {"n":5`}
			if got := r.triggered(); !slices.Equal(got, want) {
				t.Errorf("the log has %q", got)
			}
		})
	}
}

// What waits already keeps its place when a webhook comes to want the order.
func TestRelayKeepsAnOrderThatIsWantedLater(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.register(domain.WebhookRegistered{Number: 1, Events: []string{"visit.updated"}, Filters: json.RawMessage(`{"a":{"$regex":"^(HGB|RBC)$"}}`)})
	copied := r.register(domain.WebhookRegistered{Number: 2, Events: []string{"visit.*"}})
	relay := r.relay(r.join())
	before := emission{eventType: "visit.updated", data: []byte(`{}`)}
	after := emission{eventType: "visit.completed", data: []byte(`{}`)}
	if next := relay.setAside([]emission{before, after}); len(next) != 1 || len(relay.costly) != 1 {
		t.Errorf("%d go first, %d wait", len(next), len(relay.costly))
	}
	wanted := true
	r.change(copied, 1, domain.WebhookChanged{Sequence: &wanted})
	if next := relay.setAside([]emission{after}); len(next) != 0 || len(relay.costly) != 2 {
		t.Errorf("%d go first, %d wait", len(next), len(relay.costly))
	}
	relay.costly = nil
	if next := relay.setAside([]emission{after}); len(next) != 1 {
		t.Error("it waits for nothing")
	}
}

// Costly events that are held bound how much is read, by their size too.
func TestRelayHoldsNoMoreThanItsBounds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	relay := r.relay(r.join())
	t.Cleanup(func() { r.check(relay.reader.close(context.Background())) })
	var err error
	if _, relay.owner, err = r.log.AcquireLease(t.Context(), relay.node, leaseName, silence); err != nil || !relay.owner {
		t.Fatal(relay.owner, err)
	}
	relay.generation = r.log.Generation()
	r.emit(r.pool, `{"n":1}`)
	large := emission{eventType: "patient.updated", data: make([]byte, maxCostlyBytes/4)}
	relay.costly = []emission{large, large, large, large, large}
	for step := range 3 { // each step moves one of those; what cannot be accepted has no row
		if _, err := relay.step(t.Context()); err != nil {
			t.Fatal(err)
		}
		if read := r.count("outbox") == 0; read != (step == 2) {
			t.Errorf("step %d: the outbox was read: %t", step, read)
		}
		relay.few = 1
	}
}

// An event is not at fault when the renewal of a new generation fails.
func TestRelayParksNothingWhileARenewalFails(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	restore := testdb.Snapshot(t, r.pool.Config().ConnString())
	r.pool.Reset()
	var failed error
	r.check(r.directory.RenewBy(t.Context(), func(context.Context) error { return failed }))
	before := r.log.Generation()
	_, err := r.log.Append(t.Context(), eventstore.Unit{Writes: []eventstore.Write{{Stream: "test-1", Events: []eventstore.NewEvent{{Type: "test.lost", Data: []byte("{}")}}}}})
	r.check(err)
	restore()
	failed = errors.New("the file cannot be read")
	harness.Until(t, "the loss is noticed", func() bool { return r.directory.CatchUp(t.Context()) == nil && r.log.Generation() != before })

	relay := r.relay(r.join())
	t.Cleanup(func() { r.check(relay.reader.close(context.Background())) })
	_, owner, err := r.log.AcquireLease(t.Context(), relay.node, leaseName, silence)
	if r.check(err); !owner {
		t.Fatal("the relay is another's")
	}
	relay.generation = r.log.Generation()
	r.emit(r.pool, `{"n":1}`)
	batch, _, err := relay.reader.read(t.Context(), relay.node.ID)
	r.check(err)
	if err := relay.moveAll(t.Context(), batch); !errors.Is(err, failed) {
		t.Errorf("moving it: %v", err)
	}
	if r.count("outbox") != 1 || r.count("parked_events") != 0 {
		t.Errorf("%d rows wait, %d are parked", r.count("outbox"), r.count("parked_events"))
	}
}

// When an event happened is its emitter's word.
func TestRelayKeepsWhenItOccurred(t *testing.T) {
	r := newRig(t)
	r.run(r.relay(r.join()))
	occurred := time.Date(2024, 1, 15, 10, 30, 0, 123456000, time.UTC)
	_, err := r.pool.Exec(t.Context(), `SELECT medilab.emit('patient.created', '{}', occurred_at => $1)`, occurred)
	r.check(err)
	if got := r.await(1)[0]; !got.OccurredAt.Equal(occurred) {
		t.Errorf("the log has %s", got.OccurredAt)
	}
	state, err := ReadState(t.Context(), r.pool)
	if err != nil || state.Oldest > time.Hour {
		t.Errorf("the state is %+v, %v", state, err)
	}
}

// An emitted event is part of its transaction's trace; a malformed one is ignored.
func TestRelayKeepsTheTrace(t *testing.T) {
	r := newRig(t)
	r.run(r.relay(r.join()))
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for i, set := range []string{trace, trace + trace, "none", ""} {
		tx := r.begin()
		_, err := tx.Exec(t.Context(), `SELECT set_config('medilab.traceparent', $1, true)`, set)
		r.check(err)
		r.emit(tx, `{}`)
		r.check(tx.Commit(t.Context()))
		r.emit(r.pool, `{}`) // of no trace: the setting was the transaction's
		want := ""
		if set == trace {
			want = trace
		}
		if got := r.await(2 * (i + 1))[2*i:]; got[0].Traceparent != want || got[1].Traceparent != "" {
			t.Errorf("set %q: %q and %q", set, got[0].Traceparent, got[1].Traceparent)
		}
	}
	for i, set := range []string{"clinic=a,hospital=b", "no member", "a=" + strings.Repeat("b", 4095)} {
		tx := r.begin()
		_, err := tx.Exec(t.Context(), `SELECT set_config('medilab.traceparent', $1, true), set_config('medilab.tracestate', $2, true)`, trace, set)
		r.check(err)
		r.emit(tx, `{}`)
		r.check(tx.Commit(t.Context()))
		want := domain.Trace{Traceparent: trace}
		if i == 0 {
			want.Tracestate = set
		}
		if got := r.await(8 + i + 1)[8+i].Trace; got != want {
			t.Errorf("set %q: %+v", set, got)
		}
	}
}

// BenchmarkRelay moves a backlog, with an old transaction open that keeps deleted rows from
// being vacuumed.
func BenchmarkRelay(b *testing.B) {
	r := newRig(b)
	old := r.begin()
	r.emit(old, `{"n":"old"}`)
	_, err := r.pool.Exec(b.Context(), `SELECT medilab.emit('patient.created', '{"patient_id": 123, "name": "Иван Иванов", "phone": "+7900123456"}')
		FROM generate_series(1, $1)`, b.N)
	r.check(err)
	relay := r.relay(r.join())
	b.ResetTimer()
	r.run(relay)
	for moved := false; !moved; {
		head, err := r.log.Head(b.Context())
		r.check(err)
		if moved = int(head) >= b.N; !moved {
			time.Sleep(5 * time.Millisecond)
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
