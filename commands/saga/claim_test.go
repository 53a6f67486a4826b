package saga

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
)

// However many lanes have large payloads waiting, a claim takes no more of them than may wait in
// memory, and something of each.
func TestAClaimOfManyLanesFitsMemory(t *testing.T) {
	t.Parallel()
	pool, err := eventstore.OpenPool(t.Context(), testdb.New(t), 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	const size, rows = 2 << 20, 8
	webhooks := make([][16]byte, maxWaitingBytes/maxBytesAClaim*4)
	rooms, since := make([]int32, len(webhooks)), make([]time.Time, len(webhooks))
	for i := range webhooks {
		webhooks[i], rooms[i], since[i] = uuid.New(), rows, beginning
	}
	if _, err := pool.Exec(t.Context(), `INSERT INTO medilab.queue (delivery_id, webhook_id, event_id, size, attempt, retries, version, due_at)
		SELECT gen_random_uuid(), w, gen_random_uuid(), $2, 1, 0, 0, now() FROM unnest($1::uuid[]) AS w, generate_series(1, $3)`, webhooks, size, rows); err != nil {
		t.Fatal(err)
	}
	claimed, _, _, err := claim(t.Context(), pool, 1, webhooks, rooms, since)
	if err != nil {
		t.Fatal(err)
	}
	bytes, lanes := 0, map[domain.WebhookID]bool{}
	for _, d := range claimed {
		bytes += d.size
		lanes[d.webhook] = true
	}
	if bytes > maxWaitingBytes || len(lanes) != len(webhooks) {
		t.Errorf("%d bytes of %d lanes were claimed, want %d of %d at most", bytes, len(lanes), maxWaitingBytes, len(webhooks))
	}
}

// Webhooks that are inactive, however many have deliveries waiting, hold up no claim of another.
func TestClaimsGoOnPastInactiveWebhooks(t *testing.T) {
	pool, err := eventstore.OpenPool(t.Context(), testdb.New(t), 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	directory := commands.NewDirectory(slog.New(slog.DiscardHandler))
	log := eventstore.Open(eventstore.Config{Pool: pool, Observers: []eventstore.Observer{directory.Observe}})
	t.Cleanup(log.Close)
	if err := directory.Open(t.Context(), log); err != nil {
		t.Fatal(err)
	}
	l := newLanes(1)
	for range maxLanesAClaim + 1 {
		id := domain.WebhookID(uuid.New())
		if _, err := directory.Append(t.Context(), eventstore.Unit{Writes: []eventstore.Write{commands.Write(id.Stream(), 0, eventstore.Metadata{}, domain.WebhookRegistered{ID: id})}}); err != nil {
			t.Fatal(err)
		}
		l.found([]domain.WebhookID{id})
	}
	c := &claimer{s: &session{log: log, pool: pool, directory: directory, lanes: l}, marks: lowWaterMarks{}}
	for _, want := range []bool{true, false} {
		if again, err := c.round(t.Context()); err != nil || again != want {
			t.Fatalf("whether lanes are left: %v, want %v (%v)", again, want, err)
		}
	}
	if webhooks, _ := l.wanted(1); len(webhooks) > 0 {
		t.Errorf("%d lanes were passed over", len(webhooks))
	}
}
