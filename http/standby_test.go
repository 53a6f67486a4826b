package http_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/eventstore"
	api "github.com/medilab/webhooks/http"
	"github.com/medilab/webhooks/http/identity"
	"github.com/medilab/webhooks/migrations/testdb"
	"github.com/medilab/webhooks/projections"
)

// onStandby is a service with a standby, whose queries go there once watch runs.
type onStandby struct {
	*service
	pair    *testdb.Pair
	standby *projections.Standby
	copies  *pgxpool.Pool
}

func newOnStandby(t *testing.T) *onStandby {
	o := &onStandby{pair: testdb.NewPair(t)}
	var err error
	if o.copies, err = eventstore.OpenStandbyPool(t.Context(), o.pair.Standby, 10); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.copies.Close)
	o.service = newServiceOn(t, o.pair.Primary, func(c *api.Config) {
		o.standby = projections.NewStandby(c.Queries, o.copies)
		c.Standby = o.standby
	})
	o.work()
	return o
}

// watch watches the standby until stop is called.
func (o *onStandby) watch() (stop func()) {
	ctx, cancel := context.WithCancel(o.t.Context())
	var group sync.WaitGroup
	group.Go(func() { o.standby.Watch(ctx) })
	return func() { cancel(); group.Wait() }
}

// fromPrimary asks, and fails unless the primary answered.
func (o *onStandby) fromPrimary(ask func()) {
	o.t.Helper()
	_, before := o.standby.Reads()
	ask()
	if _, after := o.standby.Reads(); after == before {
		o.t.Errorf("the standby answered (%s)", o.standby.State())
	}
}

// fromStandby asks until the standby answers, which on a busy machine may be too slow at first.
func (o *onStandby) fromStandby(ask func()) {
	o.t.Helper()
	for deadline := time.Now().Add(patience); ; o.recovers() {
		_, before := o.standby.Reads()
		ask()
		if _, after := o.standby.Reads(); after == before {
			return
		}
		if time.Now().After(deadline) {
			o.t.Fatalf("the primary answers, not the standby (%s)", o.standby.State())
		}
	}
}

func (o *onStandby) setReplay(function string) {
	o.t.Helper()
	if _, err := o.copies.Exec(o.t.Context(), `SELECT `+function+`()`); err != nil {
		o.t.Fatal(err)
	}
}

// recovers waits until queries go to the standby again.
func (o *onStandby) recovers() {
	o.t.Helper()
	stop := o.watch()
	defer stop()
	harness.Until(o.t, "the standby is asked again", func() bool {
		o.ask("GET", "/api/v1/webhooks/events", "").want(200)
		return o.standby.State() == projections.StandbyOK
	})
}

// Queries go to a standby, and each answer holds what the caller was told before, whatever
// the standby does: it lags, stands still, freezes, or goes its own way.
func TestReadsOnStandby(t *testing.T) {
	t.Parallel()
	o := newOnStandby(t)
	id := o.register("").text("id")
	event := func(n int) string {
		return o.ask("POST", trigger, fmt.Sprintf(`{"event_type":"patient.created","event_data":{"n":%d}}`, n)).want(202).text("event_id")
	}
	first := event(0)
	has := func(event string) func() {
		return func() {
			t.Helper()
			o.ask("GET", "/api/v1/webhooks/events/"+event, "").want(200)
		}
	}
	o.fromStandby(has(first))
	for n := range 20 {
		o.fromStandby(has(event(n)))
	}

	call := o.ask("POST", "/api/v1/webhooks/"+id+"/test", `{"event_type":"patient.created"}`).want(200).text("call_id")
	for _, path := range []string{
		"/events", "/events/" + first, "/events/" + first + "/deliveries", "/events/" + first + "/explain", "/calls", "/" + id + "/calls",
		"/" + id + "/calls/" + call, "/" + id + "/stats", "/system/stats?bucket=hour", "/" + id + "/disclosures",
	} {
		o.fromStandby(func() { o.ask("GET", "/api/v1/webhooks"+path, "").want(200) })
	}
	o.fromStandby(func() { o.ask("GET", "/api/v1/audit/events", "").want(200) })
	o.fromStandby(func() { o.ask("GET", "/api/v1/audit/access", "").want(200) })
	o.fromStandby(func() {
		if got := o.ask("POST", "/api/v1/webhooks/"+id+"/backtest", `{"max_retries":1}`).want(200).get("considered"); got != "21" {
			t.Errorf("the backtest considered %s events", got)
		}
	})

	o.setReplay("pg_wal_replay_pause")
	paused := event(100)
	o.fromPrimary(has(paused))
	o.fromPrimary(has(paused)) // and it is not waited for
	if got := o.ask("GET", "/readyz", "").want(200).text("standby"); got != "behind" {
		t.Errorf("readyz says that the standby is %s", got)
	}
	o.setReplay("pg_wal_replay_resume")
	o.recovers()
	o.fromStandby(has(paused))

	o.pair.FreezeStandby()
	frozen := event(200)
	o.fromPrimary(has(frozen))
	if got := o.ask("GET", "/readyz", "").want(200).text("standby"); got != "down" {
		t.Errorf("readyz says that the standby is %s", got)
	}
	o.pair.ThawStandby()
	o.recovers()
	o.fromStandby(has(frozen))

	// Though nobody asks, it is found out.
	o.pair.FreezeStandby()
	stop := o.watch()
	harness.Until(t, "readyz says that the standby is down", func() bool { return o.ask("GET", "/readyz", "").want(200).text("standby") == "down" })
	stop()
	o.pair.ThawStandby()
	o.recovers()

	// One that takes over while the primary goes on has another log from then on.
	o.pair.CatchUp()
	o.pair.Promote()
	keysets.Store(o.pair.Standby, keysetOf(t, o.pair.Primary))
	other := newServiceOn(t, o.pair.Standby)
	lost := other.ask("POST", trigger, `{"event_type":"patient.created","event_data":{}}`).want(202).text("event_id")
	o.fromPrimary(func() { o.ask("GET", "/api/v1/webhooks/events/"+lost, "").want(404) })
}

// A process that only reads refuses what changes anything.
func TestReadOnly(t *testing.T) {
	signIn, err := identity.NewSignIn(identity.SignInConfig{Config: identity.Config{Issuer: "https://id.clinic.example"}})
	if err != nil {
		t.Fatal(err)
	}
	s := newServiceOn(t, testdb.New(t), func(c *api.Config) { c.ReadOnly, c.SignIn = true, signIn })
	if got := s.ask("GET", sessionURL, "").want(200); got.get("provider") != "false" {
		t.Errorf("a sign-in would go on record: %s", got.body)
	}
	s.ask("GET", "/api/v1/webhooks/events", "").want(200)
	s.ask("POST", "/api/v1/webhooks/backtest", `{"events":["*"]}`).want(200)
	s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{}}`).want(403)
	s.ask("POST", "/api/v1/webhooks/", `{}`).want(403)
	s.ask("DELETE", "/api/v1/webhooks/1", "").want(403)
}
