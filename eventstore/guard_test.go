package eventstore

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/medilab/webhooks/migrations/testdb"
)

// A server that takes over is found at once, though another host is frozen, and that one is
// left out where others answer.
func TestFrozenHostHoldsUpNobody(t *testing.T) {
	t.Parallel()
	pair := testdb.NewPair(t)
	guard := NewGuard(slog.New(slog.DiscardHandler))
	pool, err := guard.OpenPool(t.Context(), pair.URL+"&connect_timeout=36000", 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	was := guard.found
	pair.CatchUp()
	pair.Freeze()
	guard.leave(pool)
	const patience = 2 * time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	found := make(chan struct{})
	go func() {
		defer close(found)
		guard.find(ctx)
	}()
	pair.Promote()
	<-found
	if ctx.Err() != nil || !guard.knows() || guard.found == was {
		t.Errorf("%v after the other took over, %q is found, and was %q", ctx.Err(), guard.found, was)
	}
	if hosts := guard.order(); len(hosts) != 1 || address(hosts[0][0]) != guard.found {
		t.Errorf("connections go to %d hosts", len(hosts))
	}
}
