package outbox

import (
	"sync"
	"testing"

	"github.com/medilab/webhooks/domain"
)

func TestSyncEventTypes(t *testing.T) {
	r := newRig(t)
	if n := r.count("event_types"); n != 25 {
		t.Errorf("%d types", n)
	}
	catalog, err := domain.ParseCatalog([]byte(`[{"type": "lab.result_ready", "en": "A result is ready"}]`))
	r.check(err)
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			if err := SyncEventTypes(t.Context(), r.pool, catalog); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if _, err := r.pool.Exec(t.Context(), `SELECT medilab.emit('lab.result_ready', '{}')`); err != nil {
		t.Error(err)
	}
	r.check(SyncEventTypes(t.Context(), r.pool, domain.BuiltinCatalog()))
	if n := r.count("event_types"); n != 25 {
		t.Errorf("%d types after the added one left", n)
	}
}
