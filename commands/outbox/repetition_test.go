package outbox

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

func TestEmittingTwiceIsOnce(t *testing.T) {
	r := newRig(t)
	id := uuid.MustParse("0198f0a0-0000-7000-8000-000000000001")
	again := func(source string) {
		_, err := r.pool.Exec(t.Context(), `SELECT medilab.emit('patient.created', '{"n":1}', event_id => $1, source => $2)`, id, source)
		r.check(err)
	}
	again("a")
	again("b") // in the same batch
	r.run(r.relay(r.join()))
	r.await(1)
	again("a") // and when it is in the log
	r.emit(r.pool, `{"n":2}`)
	if got := r.data(2); !slices.Equal(got, []string{`{"n":1}`, `{"n":2}`}) {
		t.Errorf("the log has %v", got)
	}
	r.awaitEmpty()
	if n := r.count("parked_events"); n > 0 {
		t.Errorf("%d are parked", n)
	}
}

// An event id is each role's own, in one batch and in several.
func TestRolesShareNoIDs(t *testing.T) {
	r := newRig(t)
	id := uuid.New()
	emit := func(role, data string) {
		tx := r.begin()
		_, err := tx.Exec(t.Context(), `SELECT medilab.emit('patient.created', $1::text::json, NULL, $2)`, data, id)
		r.check(err)
		_, err = tx.Exec(t.Context(), `UPDATE medilab.outbox SET emitted_by = $1 WHERE event_data::text = $2`, role, data)
		r.check(err)
		r.check(tx.Commit(t.Context()))
	}
	emit("lab", `{"of":"lab"}`)
	emit("lab", `{"of":"lab"}`)
	emit("billing", `{"of":"billing"}`)
	r.emit(r.pool, `{"of":"next"}`) // which stays behind
	relay := r.relay(r.join())
	r.run(relay)
	r.await(3)
	emit("billing", `{"of":"billing"}`) // is the same again
	emit("billing", `{"of":"nobody"}`)  // is parked
	emit("ward", `{"of":"ward"}`)
	r.awaitEmpty()
	events := r.await(4)
	for i, of := range []string{"lab", "billing", "next", "ward"} {
		want := domain.EventID{}
		if of == "billing" || of == "ward" {
			want = domain.EventID(id)
		}
		if string(events[i].EventData) != `{"of":"`+of+`"}` || events[i].ClientEventID != want {
			t.Errorf("event %d is %+v", i, events[i])
		}
	}
	if len(events) != 4 || r.count("parked_events") != 1 {
		t.Errorf("%d events, %d parked", len(events), r.count("parked_events"))
	}
}

// What was accepted is a repetition also when it would be refused by now, under an id of the role's
// own too.
func TestEmittingAgainWhatIsRefusedByNow(t *testing.T) {
	r := newRig(t)
	id := uuid.New()
	relay := r.relay(r.join())
	emit := func(role, data string) {
		tx := r.begin()
		_, err := tx.Exec(t.Context(), `SELECT medilab.emit('patient.created', $1::text::json, event_id => $2)`, data, id)
		r.check(err)
		_, err = tx.Exec(t.Context(), `UPDATE medilab.outbox SET emitted_by = $1`, role)
		r.check(err)
		r.check(tx.Commit(t.Context()))
		r.awaitEmpty()
	}
	stop := r.run(relay)
	emit("lab", `{"n":1}`)
	emit("billing", `{"n":1}`)
	stop()
	catalog, err := domain.ParseCatalog([]byte(`[{"type":"patient.created","enforce":true,"schema":{"required":["id"]}}]`))
	r.check(err)
	relay.catalog = catalog
	r.run(relay)
	emit("lab", `{"n":1}`)
	emit("billing", `{"n":1}`)
	if n := r.count("parked_events"); n > 0 {
		t.Errorf("%d repetitions are parked", n)
	}
	emit("billing", `{"n":2}`)
	emit("ward", `{"n":1}`)
	if n := r.count("parked_events"); n != 2 {
		t.Errorf("%d are parked, want those that are new", n)
	}
	r.await(2)
}

// Two relays that both take themselves for the owner, in two processes' logs, and a third that
// is cut off again and again: each event is recorded once.
func TestRacingRelays(t *testing.T) {
	r := newRig(t)
	node := r.join()
	const emitters, each = 8, 250
	for range 2 {
		other := process(t, r.pool)
		other.run(other.relay(node))
	}
	restarts := make(chan struct{})
	go func() {
		defer close(restarts)
		for i := range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*5*time.Millisecond)
			r.relay(node).Run(ctx)
			cancel()
		}
	}()
	var wait sync.WaitGroup
	for e := range emitters {
		wait.Go(func() {
			for n := range each {
				if _, err := r.pool.Exec(t.Context(), `SELECT medilab.emit('patient.created', $1::text::json)`, fmt.Sprintf(`{"e":%d,"n":%d}`, e, n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	<-restarts
	r.awaitEmpty()
	data := r.data(emitters * each)
	slices.Sort(data)
	if len(data) != emitters*each || len(slices.Compact(data)) != emitters*each {
		t.Errorf("the log has %d events of %d", len(data), emitters*each)
	}
	if n := r.count("parked_events"); n > 0 {
		t.Errorf("%d are parked", n)
	}
}

func TestRelayHasOneOwner(t *testing.T) {
	r := newRig(t)
	first := r.relay(r.join())
	stop := r.run(first)
	r.emit(r.pool, `{}`)
	r.await(1)
	second := r.relay(r.join())
	stopSecond := r.run(second)
	r.emit(r.pool, `{}`)
	r.awaitRelayed(first, 2)
	stop()
	r.emit(r.pool, `{}`)
	r.awaitRelayed(second, 1)
	stopSecond()
	r.await(3)
	if first.Relayed() != 2 || second.Relayed() != 1 {
		t.Errorf("the first relayed %d, the second %d", first.Relayed(), second.Relayed())
	}
}

// Emitted events do not wait for the whole lease of a node that says nothing any more.
func TestRelayLeavesASilentNode(t *testing.T) {
	r := newRig(t)
	_, err := r.pool.Exec(t.Context(), `
		WITH gone AS (INSERT INTO medilab.nodes (name, lease_until) VALUES ('gone', clock_timestamp() + $1) RETURNING id)
		UPDATE medilab.readers SET node = gone.id FROM gone WHERE name = $2`, eventstore.LeaseTime-silence, leaseName)
	r.check(err)
	node := r.join()
	if _, acquired, err := r.log.AcquireLease(t.Context(), node, leaseName, eventstore.LeaseTime); err != nil || acquired {
		t.Errorf("a lease that holds is taken over: %v", err)
	}
	if _, acquired, err := r.log.AcquireLease(t.Context(), node, leaseName, silence); err != nil || !acquired {
		t.Errorf("the lease of a silent node is not taken over: %v", err)
	}
}

// What is left of an erased event is its size: data of another one are not dropped for it.
func TestAnErasedEventIsNotAnyOther(t *testing.T) {
	was := domain.EventTriggered{EventType: "patient.created", Content: domain.Content{Erased: true}, SealedSize: len(`{"n":1}`)}
	recorded := eventstore.Event{Value: was}
	for data, want := range map[string]bool{`{"n":1}`: true, `{"n":777}`: false} {
		if got := (accepted{triggered: domain.EventTriggered{EventType: "patient.created", EventData: []byte(data)}}).isSame(recorded); got != want {
			t.Errorf("%s is the erased event: %v", data, got)
		}
	}
}
