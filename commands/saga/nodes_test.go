package saga_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
)

// change appends what decide says of the webhook, by the node.
func (n *node) change(id domain.WebhookID, decide func(domain.Webhook) ([]domain.Change, error)) {
	_, err := n.directory.Execute(n.t.Context(), func(ctx context.Context) (unit eventstore.Unit, err error) {
		w, known := n.directory.Webhook(id)
		if !known {
			if err := n.directory.CatchUp(ctx); err != nil {
				return unit, err
			}
			w, _ = n.directory.Webhook(id)
		}
		changes, err := decide(w)
		if err != nil || len(changes) == 0 {
			return unit, nil // deleted meanwhile, or as it is
		}
		var events []eventstore.NewEvent
		for _, c := range changes {
			events = append(events, eventstore.NewEvent{Type: c.ChangeType(), Data: domain.AppendJSON(nil, c), Value: c})
		}
		unit.Writes = []eventstore.Write{{Stream: id.Stream(), Expected: w.Version, Events: events}}
		return unit, nil
	})
	if err != nil {
		n.t.Error(err)
	}
}

// Whatever changes between events, on whichever nodes: whom an event went to is what the
// fold of the log before it says, and what the receivers saw.
func TestRecipientsAreTheFoldOfTheLog(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	url := testdb.New(t)
	r := newReceiver()
	nodes := []*node{start(t, url, r), start(t, url, r), start(t, url, r)}
	types := []string{"patient.created", "patient.updated", "visit.created"}
	var mu sync.Mutex
	var registered []domain.WebhookID
	var group sync.WaitGroup
	for worker := range 9 {
		random := rand.New(rand.NewPCG(seed, uint64(worker)))
		group.Go(func() {
			for step := range 60 {
				n := nodes[random.IntN(len(nodes))]
				mu.Lock()
				var some domain.WebhookID
				if len(registered) > 0 {
					some = registered[random.IntN(len(registered))]
				}
				mu.Unlock()
				switch action := random.IntN(10); {
				case action == 0 || step == 0:
					id := n.register(int64(worker*1000+step+1), func(c *domain.WebhookRegistered) {
						c.Events = []string{[]string{"*", "patient.*", types[0], types[2]}[random.IntN(4)]}
						if random.IntN(2) == 0 {
							c.Filters = fmt.Appendf(nil, `{"ward":%d}`, random.IntN(3))
						}
					})
					mu.Lock()
					registered = append(registered, id)
					mu.Unlock()
				case action == 1:
					n.change(some, domain.DecideDeactivate)
				case action == 2 || action == 3:
					n.change(some, domain.DecideActivate)
				case action == 4 && random.IntN(4) == 0:
					n.change(some, domain.DecideDelete)
				default:
					id := domain.EventID(uuid.Must(uuid.NewV7()))
					n.append(id.Stream(), 0, domain.EventTriggered{EventType: types[random.IntN(3)], EventData: fmt.Appendf(nil, `{"ward":%d}`, random.IntN(3))})
				}
			}
		})
	}
	group.Wait()
	for _, id := range registered { // what waits goes on
		nodes[0].change(id, domain.DecideActivate)
	}
	nodes[0].awaitEmptyQueue()

	fold := domain.NewRegistry()
	sent := map[domain.DeliveryID]domain.WebhookID{}
	events := 0
	err := nodes[0].log.Each(t.Context(), 0, eventstore.Filter{}, func(e eventstore.Event) error {
		kind, id, err := domain.ParseStream(e.Stream)
		if err != nil {
			return err
		}
		switch c := e.Value.(type) {
		case domain.EventTriggered:
			events++
			if want := fold.Recipients(domain.EventType(c.EventType), c.EventData); c.Recipients == nil || !slices.Equal(c.Recipients, want) {
				t.Errorf("position %d: it went to %v, and the fold says %v", e.Position, c.Recipients, want)
			}
			for _, to := range c.Recipients {
				sent[domain.DeliveryOf(domain.EventID(id), to.WebhookID)] = to.WebhookID
			}
		case domain.Change:
			if kind == "webhook" {
				fold = fold.With(domain.WebhookID(id), c, e.RecordedAt)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if events < 100 || len(sent) < 100 {
		t.Fatalf("%d events and %d deliveries prove nothing", events, len(sent))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, webhook := range sent {
		w, _ := fold.Webhook(webhook)
		switch calls := r.calls[id.String()]; {
		case len(calls) == 1 && calls[0] == "1":
		case len(calls) == 0 && w.Deleted:
		default:
			t.Errorf("%s of a webhook that is deleted: %v, was called %v", id, w.Deleted, calls)
		}
	}
	for id := range r.calls {
		if _, ok := sent[domain.DeliveryID(uuid.MustParse(id))]; !ok {
			t.Errorf("%s was called, and nothing was to be sent", id)
		}
	}
}

// A webhook that a node has not heard of is not a deleted one: each is used on other
// nodes right after it was registered, and nothing is cancelled.
func TestWebhooksAreUsedRightAfterTheyAreRegistered(t *testing.T) {
	t.Parallel()
	url := testdb.New(t)
	r := newReceiver()
	nodes := []*node{start(t, url, r), start(t, url, r), start(t, url, r)}
	const webhooks, workers = 800, 8
	deliveries := make([]domain.DeliveryID, webhooks)
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			for i := worker; i < webhooks; i += workers {
				eventType := fmt.Sprintf("patient.created_%d", i)
				w := nodes[i%3].register(int64(i+1), func(c *domain.WebhookRegistered) { c.Events = []string{eventType} })
				event := domain.EventID(uuid.Must(uuid.NewV7()))
				nodes[(i+1+i/3%2)%3].append(event.Stream(), 0, domain.EventTriggered{EventType: eventType, EventData: []byte(`{}`)})
				deliveries[i] = domain.DeliveryOf(event, w)
			}
		})
	}
	group.Wait()
	nodes[0].awaitEmptyQueue()
	for i, id := range deliveries {
		if d := nodes[0].awaitState(id, domain.DeliveryDelivered); d.Attempts != 1 {
			t.Errorf("webhook %d: %+v", i, d)
		}
	}
}

// A replay does not end with nothing sent on a node that has not heard of its webhook.
func TestReplayOfAWebhookThatTheNodeHasNotHeardOf(t *testing.T) {
	url := testdb.New(t)
	n, stale := appending(t, url), appending(t, url)
	n.trigger() // before the webhook
	w := n.register(1, nil)
	id := domain.ReplayID(uuid.Must(uuid.NewV7()))
	n.append(id.Stream(), 0, domain.ReplayRequested{ID: id, WebhookID: w, From: time.Now().Add(-time.Hour), To: time.Now().Add(time.Hour), Matched: 1, WebhookVersion: 1})
	replays := commands.Replays{Log: stale.log, Directory: stale.directory, Queue: saga.Queue{Pool: stale.pool}, Pool: stale.pool}
	if err := replays.Run(t.Context(), id, nil, nil); err != nil {
		t.Fatal(err)
	}
	events, err := n.log.Load(t.Context(), id.Stream())
	if err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, e := range events {
		types = append(types, e.Type)
	}
	if want := []string{"replay.requested", "replay.queued", "replay.completed"}; !slices.Equal(types, want) {
		t.Errorf("its stream holds %v, want %v", types, want)
	}
}

// When the database has lost the end of the log, a change of the configuration with it, a
// node goes on by the configuration that is there.
func TestConfigurationOfAShorterLog(t *testing.T) {
	n := appending(t, testdb.New(t))
	w := n.register(1, nil)
	n.append(w.Stream(), 1, domain.WebhookDeactivated{})
	_, err := n.pool.Exec(t.Context(), `
		ALTER TABLE medilab.events DISABLE TRIGGER ALL; ALTER TABLE medilab.seals DISABLE TRIGGER ALL;
		DELETE FROM medilab.events WHERE position > 1; DELETE FROM medilab.seals WHERE last_position > 1;
		UPDATE medilab.log_head SET position = 1, configuration = 1`, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatal(err)
	}
	n.trigger()
	events, err := n.log.Read(t.Context(), 1, 10)
	if err != nil || len(events) != 1 {
		t.Fatal(events, err)
	}
	if c := events[0].Value.(domain.EventTriggered); len(c.Recipients) != 1 || c.Recipients[0].WebhookVersion != 1 {
		t.Errorf("it went to %v, and the log has the webhook active, at version 1", c.Recipients)
	}
}
