package outbox

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

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
