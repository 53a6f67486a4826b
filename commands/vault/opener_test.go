package vault_test

import (
	"context"
	"testing"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/migrations/testdb"
)

// What memory holds open is looked at with what the log says of keys by now, as what the database
// holds is: another process may have erased it.
func TestOpenEventsFollowErasures(t *testing.T) {
	p := newProcess(t, testdb.New(t), ephemeral(t))
	p.trigger(t, `{"patient_id": "17"}`)
	events, err := p.Log.Read(t.Context(), 0, 1)
	if triggered, ok := events[0].Value.(domain.EventTriggered); err != nil || !ok || len(triggered.EventData) == 0 || len(triggered.Unlocks()) == 0 {
		t.Fatalf("got %+v, %v", events, err)
	}
	owner, err := p.keys.Owner(t.Context(), "17")
	if err != nil {
		t.Fatal(err)
	}
	p.keys.Follow = func(context.Context, time.Duration) error {
		p.keys.Erased(owner, 2)
		return nil
	}
	if events, err = p.Log.Read(t.Context(), 0, 1); err != nil {
		t.Fatal(err)
	}
	if triggered := events[0].Value.(domain.EventTriggered); !triggered.Erased || len(triggered.EventData) > 0 {
		t.Errorf("shown after its erasure: %+v", triggered)
	}
}
