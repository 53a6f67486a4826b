package projections

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
)

// patience bounds every wait; none is expected to come near it.
const patience = time.Minute

// bench is a log with its read models.
type bench struct {
	occurred func() time.Time // of events; nil: when they are accepted
	t        testing.TB
	ctx      context.Context
	url      string
	pool     *pgxpool.Pool
	log      *eventstore.Log
	*Projections
	versions map[string]int64
	head     eventstore.Position
	at       time.Time // when the last unit was recorded
}

// codec decodes what was appended; an event that is correlated by ofErased has no content.
func codec(eventType string, data []byte) (any, error) {
	value, err := domain.Decode(eventType, data)
	if t, ok := value.(domain.EventTriggered); ok && t.CorrelationID == ofErased {
		t.EventData, t.Erased = nil, true
		return t, err
	}
	return value, err
}

const ofErased = "of a subject that is erased"

func newBench(t testing.TB) *bench {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*patience)
	t.Cleanup(cancel)
	url := testdb.New(t)
	pool, err := eventstore.OpenPool(ctx, url, 8)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	log := eventstore.Open(eventstore.Config{Pool: pool, Codec: codec})
	t.Cleanup(log.Close)
	models := New(pool, log, slog.New(slog.DiscardHandler))
	models.pace = pace{page: 64, near: 10} // so that small logs go all the way of large ones
	return &bench{t: t, ctx: ctx, url: url, pool: pool, log: log, Projections: models, versions: map[string]int64{}}
}

// serve keeps the read models until the test ends or stop is called.
func (b *bench) serve() (stop func()) {
	b.t.Helper()
	node, err := eventstore.Join(b.ctx, b.pool, b.log.Clock(), b.t.Name(), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: patience}, watermill.NopLogger{})
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.AddTo(b.ctx, router, node); err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.ctx)
	done := make(chan error, 2)
	go func() { done <- router.Run(b.ctx) }()
	go func() { done <- node.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		if err := router.Close(); err != nil { // a cancelled context would leave the subscription open
			b.t.Error(err)
		}
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				b.t.Error(err)
			}
		}
		if err := node.Leave(b.ctx); err != nil {
			b.t.Error(err)
		}
	}
	b.t.Cleanup(stop)
	return stop
}

// fill brings the read models to the log's head, when nobody serves.
func (b *bench) fill() {
	b.t.Helper()
	if _, err := b.pool.Exec(b.ctx, `INSERT INTO medilab.readers (name, position) VALUES ($1, $2)`, readerName, b.head); err != nil {
		b.t.Fatal(err)
	}
	if err := b.Rebuild(b.ctx, nil, nil); err != nil {
		b.t.Fatal(err)
	}
}

// append adds changes to one stream.
func (b *bench) append(stream string, changes ...domain.Change) eventstore.Position {
	b.t.Helper()
	events := make([]eventstore.NewEvent, len(changes))
	for i, c := range changes {
		events[i] = eventstore.NewEvent{Type: c.ChangeType(), Data: domain.AppendJSON(nil, c), Value: c}
	}
	return b.appendEvents(stream, events...)
}

func (b *bench) appendEvents(stream string, events ...eventstore.NewEvent) eventstore.Position {
	b.t.Helper()
	appended, err := b.log.Append(b.ctx, eventstore.Unit{Writes: []eventstore.Write{{Stream: stream, Expected: b.versions[stream], Events: events}}})
	if err != nil {
		b.t.Fatal(err)
	}
	b.versions[stream] += int64(len(events))
	b.head, b.at = appended.First+eventstore.Position(len(events))-1, appended.RecordedAt
	return appended.First
}

// replay asks for a delivery as the replay by does.
func (b *bench) replay(by, stream string, asked domain.DeliveryRetryRequested) {
	b.t.Helper()
	_, err := b.log.Append(b.ctx, eventstore.Unit{Writes: []eventstore.Write{{Stream: stream, Expected: b.versions[stream], Metadata: eventstore.Metadata{CausationID: by},
		Events: []eventstore.NewEvent{{Type: asked.ChangeType(), Data: domain.AppendJSON(nil, asked)}}}}})
	if err != nil {
		b.t.Fatal(err)
	}
	b.versions[stream]++
}

// migrate applies one migration to tables that were made as they were before it.
func (b *bench) migrate(file string) {
	b.t.Helper()
	sql, err := os.ReadFile("../migrations/sql/" + file)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.pool.Exec(b.ctx, string(sql)); err != nil {
		b.t.Fatal(err)
	}
}

// settle waits until the read models hold the whole log.
func (b *bench) settle() {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := b.WaitFor(ctx, b.head); err != nil {
		b.t.Fatal(err)
	}
}

func webhookID(n int) (id domain.WebhookID) {
	copy(id[:], uuid.NewSHA1(uuid.NameSpaceOID, fmt.Appendf(nil, "webhook %d", n)).NodeID())
	id[14], id[15] = byte(n>>8), byte(n)
	return id
}

// wantsBatches says that every third webhook's events go together.
func wantsBatches(id domain.WebhookID) bool { return id[15]%3 == 0 }

// register appends a webhook that subscribes to the events.
func (b *bench) register(n int, events ...string) domain.WebhookID {
	b.t.Helper()
	if len(events) == 0 {
		events = []string{"*"}
	}
	id := webhookID(n)
	b.append(id.Stream(), domain.WebhookRegistered{
		ID: id, Number: int64(n), Name: fmt.Sprintf("Webhook %d", n), URL: fmt.Sprintf("https://h%d.example/in", n),
		Events: events, Headers: []domain.SealedHeader{}, MaxRetries: 3, RetryDelay: 60, Timeout: 30,
		PayloadVersion: domain.PayloadV1, Active: true,
	})
	return id
}

// trigger appends an event and its dispatch to the webhooks.
func (b *bench) trigger(eventType, correlation string, webhooks ...domain.WebhookID) domain.EventID {
	b.t.Helper()
	raw, err := uuid.NewV7()
	if err != nil {
		b.t.Fatal(err)
	}
	id := domain.EventID(raw)
	triggered := domain.EventTriggered{EventType: eventType, CorrelationID: correlation, Source: "test", EventData: json.RawMessage(`{"n":1}`)}
	if b.occurred != nil {
		triggered.OccurredAt = b.occurred()
	}
	changes := []domain.Change{triggered}
	dispatched := domain.EventDispatched{EventID: id, EventType: eventType, Size: 7}
	for _, w := range webhooks {
		d := domain.Dispatch{DeliveryID: domain.DeliveryOf(id, w), Recipient: domain.Recipient{WebhookID: w, WebhookVersion: 1}}
		if wantsBatches(w) {
			d.BatchWait, d.BatchMax = 300, 100
		}
		dispatched.Deliveries = append(dispatched.Deliveries, d)
	}
	if len(webhooks) > 0 {
		changes = append(changes, dispatched)
	}
	b.append(id.Stream(), changes...)
	return id
}

// attempt is a call's record.
func attempt(event domain.EventID, eventType string, webhook domain.WebhookID, number, status int, outcome domain.Outcome) domain.Call {
	c := domain.Call{
		EventID: event, EventType: eventType, WebhookID: webhook, WebhookVersion: 1, PayloadVersion: domain.PayloadV1,
		Attempt: number, URL: "https://h.example/in", StartedAt: time.Now().UTC().Truncate(time.Microsecond),
		Duration: int64(1000 * number), Outcome: outcome, Status: status,
	}
	if outcome != domain.OutcomeSuccess {
		c.Error = "it said " + string(outcome)
	}
	return c
}

// A page may wait to grow, but not while somebody waits for it.
func TestWaitingHurriesThePage(t *testing.T) {
	b := newBench(t)
	b.linger = time.Hour
	b.serve()
	for n := range 3 { // before any page, and after one
		b.register(n + 1)
		b.settle()
	}
}

// Who waits on another node hurries the page of the one that keeps the read models.
func TestWaitingElsewhereHurriesThePage(t *testing.T) {
	b := newBench(t)
	b.linger = time.Hour
	b.serve()
	ctx, cancel := context.WithCancel(b.ctx)
	var listening sync.WaitGroup
	listening.Go(func() { b.log.Listen(ctx, b.Announced) })
	t.Cleanup(listening.Wait)
	t.Cleanup(cancel)
	other := eventstore.Open(eventstore.Config{Pool: b.pool, Codec: codec, Announce: true})
	t.Cleanup(other.Close)
	for n := range 3 {
		b.register(n + 1)
		if err := New(b.pool, other, nil).WaitFor(b.ctx, b.head); err != nil {
			t.Fatal(err)
		}
	}
}

// Who asks the standby hurries the page of the primary.
func TestStandbyHurriesThePage(t *testing.T) {
	b := newBench(t)
	b.linger = time.Hour
	b.serve()
	standby := NewStandby(b.Projections, b.pool)
	for n := range 3 {
		b.register(n + 1)
		if err := standby.copy.WaitFor(b.ctx, b.head); err != nil {
			t.Fatal(err)
		}
	}
}

// Who lists what readings do not change does not wait for the read models to apply these. Here nobody
// keeps them, so who waits does so in vain.
func TestReadingsAreNotWaitedFor(t *testing.T) {
	reading := domain.DataRead{Actor: "admin", What: "listEvents", IDs: []string{}}
	for name, c := range map[string]struct {
		await   func(*Projections, context.Context) error
		changes []domain.Change
		want    bool
	}{
		"by a list of events":          {(*Projections).awaitData, []domain.Change{reading, reading}, false},
		"what came before them is":     {(*Projections).awaitData, []domain.Change{domain.WebhookDeleted{}, reading}, true},
		"what came after them is":      {(*Projections).awaitData, []domain.Change{reading, domain.WebhookDeleted{}}, true},
		"and the list of readings has": {(*Projections).awaitHead, []domain.Change{reading}, true},
	} {
		t.Run(name, func(t *testing.T) {
			const tries = 5 // a busy machine may take long
			for range tries {
				b := newBench(t)
				for i, change := range c.changes {
					b.append(fmt.Sprint("stream-", i), change)
				}
				start := time.Now()
				if err := c.await(b.Projections, b.ctx); err != nil {
					t.Fatal(err)
				}
				if waited := time.Since(start) >= 500*time.Millisecond; waited == c.want {
					return
				}
			}
			t.Errorf("it waits: %v", !c.want)
		})
	}
}

// A list stands while nothing but readings follows, and no longer than that.
func TestListsStand(t *testing.T) {
	b := newBench(t)
	defer b.serve()()
	webhook := b.register(1, "patient.created")
	b.trigger("patient.created", "", webhook)
	b.settle()
	reading := domain.DataRead{Actor: "admin", What: "listEvents", IDs: []string{}}
	ctx, basis := WithBasis(b.ctx)
	list := func() {
		t.Helper()
		if _, err := b.Events(ctx, EventFilter{Limit: 10}); err != nil {
			t.Fatal(err)
		}
	}
	if basis.Stands(b.ctx) {
		t.Error("what was not made stands")
	}
	list()
	for i := range 3 {
		if !basis.Stands(b.ctx) {
			t.Errorf("after %d readings it does not stand", i)
		}
		b.append(fmt.Sprint("access-", i), reading)
	}
	b.trigger("patient.created", "", webhook)
	b.append("access-later", reading)
	if basis.Stands(b.ctx) {
		t.Error("it stands after another event")
	}
	b.settle()
	list()
	if !basis.Stands(b.ctx) {
		t.Error("listed again it does not stand")
	}
}
