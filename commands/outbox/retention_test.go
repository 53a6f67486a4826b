package outbox

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// What was parked for longer than content is kept goes, once and on record, on whichever node.
func TestParkedEventsExpire(t *testing.T) {
	r := newRig(t)
	_, err := r.pool.Exec(t.Context(), `INSERT INTO medilab.parked_events (event_id, event_type, event_data, emitted_by, emitted_at, parked_at, reason)
		SELECT gen_random_uuid(), 'patient.created', '{"name":"Иванов"}', 'clinic', now(), now() - make_interval(mins => n * 20), 'it is number ' || n FROM generate_series(0, 5) AS n`)
	r.check(err)
	var nodes sync.WaitGroup
	for range 3 {
		other := process(t, r.pool)
		c := &commands.Commands{Log: other.log, Directory: other.directory, Catalog: domain.BuiltinCatalog(), Pool: r.pool}
		nodes.Go(func() {
			if err := DiscardExpired(t.Context(), c, 50*time.Minute); err != nil {
				t.Error(err)
			}
		})
	}
	nodes.Wait()
	var left []string
	parked, _, err := Parked(t.Context(), r.pool, 0, 10)
	r.check(err)
	for _, p := range parked {
		left = append(left, p.Reason)
	}
	if want := []string{"it is number 2", "it is number 1", "it is number 0"}; !slices.Equal(left, want) {
		t.Errorf("left are %q, want %q", left, want)
	}
	discarded := 0
	r.check(r.log.Each(t.Context(), 0, eventstore.Filter{}, func(e eventstore.Event) error {
		acted, ok := e.Value.(domain.AdminActed)
		if !ok || acted.Action != domain.AdminParkedDiscarded || !strings.Contains(string(e.Metadata), `"`+commands.ActorRetention+`"`) || strings.Contains(acted.Detail, "Иванов") {
			t.Errorf("the log has %+v", e)
		}
		discarded++
		return nil
	}))
	if discarded != 3 {
		t.Errorf("%d discards are on record, want 3", discarded)
	}
}

// One that cannot be discarded holds up no other, and what is younger is not looked through.
func TestExpiryGoesOnAfterAnError(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, err := r.pool.Exec(t.Context(), `INSERT INTO medilab.parked_events (event_id, event_type, event_data, emitted_by, emitted_at, parked_at, reason)
		SELECT gen_random_uuid(), 'patient.created', '{}', 'clinic', now(), CASE WHEN n BETWEEN 1001 AND 2000 THEN now() ELSE now() - interval '1 day' END, 'it is number ' || n
			FROM generate_series(0, 2001) AS n ORDER BY n;
		CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''it is kept''; END';
		CREATE TRIGGER keep BEFORE DELETE ON medilab.parked_events FOR EACH ROW WHEN (OLD.reason = 'it is number 0') EXECUTE FUNCTION keep()`)
	r.check(err)
	c := &commands.Commands{Log: r.log, Directory: r.directory, Catalog: domain.BuiltinCatalog(), Pool: r.pool}
	if err := DiscardExpired(t.Context(), c, time.Hour); err == nil || !strings.Contains(err.Error(), "it is kept") {
		t.Errorf("discarding: %v", err)
	}
	rows, _ := r.pool.Query(t.Context(), `SELECT reason FROM medilab.parked_events WHERE parked_at < now() - interval '1 hour' ORDER BY id`)
	left, err := pgx.CollectRows(rows, pgx.RowTo[string])
	r.check(err)
	if want := []string{"it is number 0", "it is number 2001"}; !slices.Equal(left, want) { // the last is behind a page of younger ones
		t.Errorf("left are %q, want %q", left, want)
	}
}
