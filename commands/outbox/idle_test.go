package outbox

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/eventstore"
)

// A transaction whose numbers lie on both sides of one that was read is read in order.
func TestTransactionIsReadInOrder(t *testing.T) {
	r := newRig(t)
	relay := r.relay(r.join())
	t.Cleanup(func() { r.check(relay.reader.close(context.Background())) })
	_, owner, err := r.log.AcquireLease(t.Context(), relay.node, leaseName, silence)
	if r.check(err); !owner {
		t.Fatal("the relay is another's")
	}
	read := func() (data []string) {
		t.Helper()
		found, _, err := relay.reader.read(t.Context(), relay.node.ID)
		r.check(err)
		for _, e := range found {
			data = append(data, string(e.data))
		}
		return data
	}
	for range 30 {
		tx := r.begin()
		r.emit(tx, `{"n":1}`)
		r.emit(r.pool, `{"other":1}`)
		read()
		quick := relay.reader.lookAt.Before(time.Now())
		r.emit(tx, `{"n":2}`)
		r.check(tx.Commit(t.Context()))
		got := read()
		if want := []string{`{"n":1}`, `{"n":2}`}; quick && !slices.Equal(got, want) {
			t.Fatalf("read is %v", got)
		}
		if quick {
			return
		}
		relay.reader.lookAt = time.Time{}
		read()
	}
	t.Error("gaps are left out after each read")
}

// An idle outbox is not read, and whatever is emitted ends that: also what takes its number
// while the reader settles, and shows up later.
func TestIdleOutboxIsNotRead(t *testing.T) {
	r := newRig(t)
	node, err := eventstore.Join(t.Context(), r.pool, r.log.Clock(), t.Name(), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, owned, err := r.log.AcquireLease(t.Context(), node, leaseName, silence); err != nil || !owned {
		t.Fatal(owned, err)
	}
	reading := reader{pool: r.pool}
	t.Cleanup(func() {
		if err := reading.close(t.Context()); err != nil {
			t.Error(err)
		}
	})
	read := func() int {
		t.Helper()
		reading.lookAt = time.Time{} // into the gaps each time
		found, owner, err := reading.read(t.Context(), node.ID)
		if err != nil || !owner {
			t.Fatal(owner, err)
		}
		return len(found)
	}
	settle := func() {
		t.Helper()
		for !reading.isIdle(t.Context()) { // other tests' transactions may be open
			if n := read(); n != 0 {
				t.Fatalf("found %d rows", n)
			}
		}
	}
	begin := func() pgx.Tx {
		t.Helper()
		tx, err := r.pool.Begin(t.Context())
		r.check(err)
		return tx
	}
	run := func(tx pgx.Tx, statement string) {
		t.Helper()
		_, err := tx.Exec(t.Context(), statement)
		r.check(err)
	}
	commit := func(tx pgx.Tx) {
		t.Helper()
		r.check(tx.Commit(t.Context()))
	}
	const emit = `SELECT medilab.emit('patient.created', '{}')`
	settle()
	tx := begin()
	run(tx, emit)
	for range 20 {
		if reading.isIdle(t.Context()) {
			t.Fatal("idle while an emitter's transaction is open")
		}
		if n := read(); n != 0 {
			t.Fatalf("found %d rows before the commit", n)
		}
	}
	commit(tx)
	if reading.isIdle(t.Context()) || read() != 1 {
		t.Fatal("the row is not found")
	}
	settle()
	if _, err := r.pool.Exec(t.Context(), emit); err != nil {
		t.Fatal(err)
	}
	if reading.isIdle(t.Context()) || read() != 1 {
		t.Error("the row is not found")
	}

	// The newest transaction of all has a number that is lower than one which shows up.
	older, newest := begin(), begin()
	run(older, `SELECT pg_current_xact_id()`)
	run(newest, emit)
	run(older, emit)
	commit(older)
	if n := read(); n != 1 {
		t.Fatalf("found %d rows", n)
	}
	for range 3 {
		if n := read(); n != 0 {
			t.Fatalf("found %d rows before the commit", n)
		}
	}
	commit(newest)
	if n := read(); n != 1 {
		t.Errorf("found %d rows after the commit", n)
	}
}
