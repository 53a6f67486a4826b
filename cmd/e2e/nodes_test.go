package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/migrations/testdb"
)

// nodes starts servers on one Postgres that is nobody's own, with the same keys and settings.
func nodes(t *testing.T, n int, settings ...string) (all []*product, database string) {
	t.Helper()
	database = testdb.New(t)
	keys := filepath.Join(t.TempDir(), "keys.json")
	shared := append([]string{"MEDILAB_KEYS=" + keys, "MEDILAB_ALLOW_TARGETS=loopback"}, settings...)
	for range n {
		p := prepare(t)
		p.database, p.extra = database, shared
		p.start()
		all = append(all, p)
	}
	return all, database
}

// reads asks the database one thing.
func reads[T any](t *testing.T, database, sql string, args ...any) (answer T) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context()) //nolint:errcheck // it was only read from
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// Two nodes on one Postgres, and the one that decides on alerts is killed: what follows from
// time is raised once and resolved once, whoever decides, and whoever subscribed hears of
// each once, and never of itself.
func TestAlertsOfTwoNodes(t *testing.T) {
	t.Parallel()
	in := harness.Receive(t, nil)
	told := harness.Receive(t, func(w http.ResponseWriter, _ harness.Call) { w.WriteHeader(http.StatusInternalServerError) })
	both, database := nodes(t, 2, "MEDILAB_ALERT_INACTIVE=3s", "MEDILAB_ALERT_SCAN_INTERVAL=50ms", "MEDILAB_ALERT_CONSECUTIVE_FAILURES=1")
	a, b := both[0], both[1]
	subscriber := a.register(told.URL, `{"events":["webhook.alert_raised","webhook.alert_resolved"],"max_retries":0}`)
	idle := a.register(in.URL, `{"events":["visit.created"]}`)
	off := b.register(in.URL, `{"events":["visit.updated"]}`)
	b.api(200, "POST", "/webhooks/"+off.ID+"/deactivate", "", nil)

	// Both run; one of them raises.
	first := map[string]alert{}
	for _, id := range []string{idle.ID, off.ID} {
		first[id] = b.awaitAlert(id, "inactive", "open")
		if seen := a.awaitAlert(id, "inactive", "open"); seen.ID != first[id].ID {
			t.Errorf("one node shows alert %s, the other %s", seen.ID, first[id].ID)
		}
	}
	decides := func() *product {
		t.Helper()
		for _, p := range both {
			if !p.Running() {
				continue
			}
			pid := fmt.Sprint(p.Pid())
			if reads[bool](t, database, `SELECT EXISTS (SELECT FROM medilab.readers AS r JOIN medilab.nodes AS n ON n.id = r.node
				WHERE r.name = 'alerts' AND n.name LIKE '%/' || $1 || '/%')`, pid) {
				return p
			}
		}
		return nil
	}
	dies := decides()
	if dies == nil {
		t.Fatal("nobody decides on alerts")
	}
	other := a
	if dies == a {
		other = b
	}
	dies.Kill()
	// What follows from time after the takeover is decided by the other, and what was raised
	// before is not raised again.
	late := other.register(in.URL, `{"events":["visit.completed"]}`)
	first[late.ID] = other.awaitAlert(late.ID, "inactive", "open")
	if now := decides(); now != other {
		t.Error("alerts are not decided by the node that is left")
	}
	dies.start()
	for id, was := range first {
		if all := dies.alerts(id, "inactive"); len(all) != 1 || all[0].ID != was.ID || all[0].State != "open" {
			t.Errorf("after the takeover and the restart the alerts are %+v, first %+v", all, was)
		}
	}

	// They resolve by themselves, again once.
	dies.api(204, "DELETE", "/webhooks/"+late.ID, "", nil)
	dies.api(204, "DELETE", "/webhooks/"+off.ID, "", nil)
	dies.trigger(`{"event_type":"visit.created","event_data":{}}`)
	for id, was := range first {
		other.Until("the alert is resolved", func() bool {
			for _, got := range other.alerts(id, "inactive") {
				if got.ID == was.ID {
					return got.State == "resolved"
				}
			}
			return false
		})
	}

	// Of the webhook that is called no more there is an alert again, another one; then it
	// is deleted too, so that all is quiet.
	other.Until("the webhook is idle again", func() bool { return len(other.alerts(idle.ID, "inactive")) == 2 })
	other.api(204, "DELETE", "/webhooks/"+idle.ID, "", nil)
	again := other.awaitAlert(idle.ID, "inactive", "resolved")

	want := map[string]bool{"open " + again.ID: true, "resolved " + again.ID: true}
	for _, was := range first {
		want["open "+was.ID], want["resolved "+was.ID] = true, true
	}
	for _, r := range told.Await(len(want)) {
		var n notice
		if err := json.Unmarshal(r.Body, &n); err != nil {
			t.Fatal(err)
		}
		key := n.EventData.State + " " + n.EventData.AlertID
		if !want[key] {
			t.Errorf("told twice, or of nothing: %s", r.Body)
		}
		if want[key] = false; n.EventData.WebhookID == subscriber.ID || n.EventData.Kind != "inactive" {
			t.Errorf("told of what is none: %s", r.Body)
		}
	}
	other.awaitCalls(subscriber.ID, len(want)) // which all failed: more than is allowed in a row
	if n := reads[int](t, database, `SELECT count(*) FROM medilab.events WHERE type IN ('alert.raised', 'alert.resolved')`); n != len(want) {
		t.Errorf("the log has %d events of alerts, want %d", n, len(want))
	}
	for _, kind := range []string{"inactive", "consecutive_failures", "low_success_rate", "timeout"} {
		if own := other.alerts(subscriber.ID, kind); len(own) != 0 {
			t.Errorf("the subscriber has alerts: %+v", own)
		}
	}
	other.command(0, "", "audit", "verify")
}

// replayProgress is what the tests look at of a replay.
type replayProgress struct {
	State                                       string
	Matched, Queued, Pending, Delivered, Failed int
}

// cutOff begins a replay of n events that nobody asked for at the time, kills the server in
// the middle of it, and gives the webhook and the replay.
func cutOff(t *testing.T, p *product, in *harness.Receiver, n int) (w webhook, replay string) {
	t.Helper()
	for i := range n / 1000 {
		p.triggerAll("visit.created", numbered(1000*i, 1000)...)
	}
	w = p.register(in.URL, `{"events":["visit.created"],"retry_delay":1,"max_retries":10}`)
	var begun struct {
		ReplayID string `json:"replay_id"`
	}
	p.api(202, "POST", "/webhooks/"+w.ID+"/replay", `{"from":"2020-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z"}`, &begun)
	var progress replayProgress
	p.Until("the replay has begun", func() bool {
		p.api(200, "GET", "/webhooks/"+w.ID+"/replays/"+begun.ReplayID, "", &progress)
		return progress.Queued > 0
	})
	p.Kill()
	if progress.State != "running" || progress.Queued == n {
		t.Fatalf("the replay was over before the server was killed: %+v", progress)
	}
	t.Logf("killed after %d of %d were queued", progress.Queued, n)
	return w, begun.ReplayID
}

// endsWell waits for the replay's end and checks that every event was sent once, but for
// attempts that the kill cut off.
func endsWell(t *testing.T, p *product, in *harness.Receiver, w webhook, replay string, n int) {
	t.Helper()
	var progress replayProgress
	p.Until("the replay is done", func() bool {
		p.api(200, "GET", "/webhooks/"+w.ID+"/replays/"+replay, "", &progress)
		return progress.State == "completed"
	})
	if progress.Matched != n || progress.Queued != n || progress.Delivered != n || progress.Pending+progress.Failed != 0 {
		t.Errorf("the replay ended as %+v", progress)
	}
	seen, events := map[string]bool{}, map[string]bool{}
	for _, r := range in.All() {
		attempt := r.Delivery() + "/" + r.Attempt()
		if seen[attempt] {
			t.Errorf("the receiver saw %s twice", attempt)
		}
		seen[attempt], events[r.Header.Get("X-Webhook-Event-Id")] = true, true
	}
	if len(events) != n {
		t.Errorf("%d events arrived, want %d", len(events), n)
	}
	asked := strings.Count(p.command(0, "", "audit", "log", "--type", "delivery.retry_requested", "--format", "ndjson"), "\n")
	completed := strings.Count(p.command(0, "", "audit", "log", "--stream", "replay-"+replay, "--type", "replay.completed", "--format", "ndjson"), "\n")
	if asked != n || completed != 1 {
		t.Errorf("%d deliveries were asked for, want %d; completed %d times", asked, n, completed)
	}
	p.command(0, "", "audit", "verify")
}

// A replay goes on by itself when the server that began it is killed and started again.
func TestReplayGoesOnAfterAKill(t *testing.T) {
	t.Parallel()
	in := harness.Receive(t, nil)
	p := start(t)
	const n = 10_000
	w, replay := cutOff(t, p, in, n)
	// What changes afterwards changes nothing of what was asked for.
	p.start()
	p.api(200, "PATCH", "/webhooks/"+w.ID, `{"events":["patient.created"]}`, nil)
	endsWell(t, p, in, w, replay, n)
}

// Another node goes on with the replay of one that died.
func TestReplayGoesOnElsewhere(t *testing.T) {
	t.Parallel()
	in := harness.Receive(t, nil)
	both, _ := nodes(t, 2)
	const n = 10_000
	w, replay := cutOff(t, both[0], in, n)
	endsWell(t, both[1], in, w, replay, n)
}
