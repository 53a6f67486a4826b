package e2e

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/migrations/testdb"
)

// Servers run while their Postgres is replaced by an older copy of itself, as by a backup that
// was restored or an asynchronous standby that took over. Of what is lost nothing is left in
// them, and all that is accepted afterwards has its way. One server hears of nothing meanwhile.
func TestLogThatWentBack(t *testing.T) {
	for _, n := range []int{1, 2} {
		t.Run(fmt.Sprint("nodes ", n), func(t *testing.T) {
			t.Parallel()
			all, database := nodes(t, n)
			logWentBack(t, all, database)
		})
	}
}

func logWentBack(t *testing.T, all []*product, database string) {
	a, idle := all[0], all[len(all)-1]
	in, lostIn := harness.Receive(t, nil), harness.Receive(t, nil)
	kept := a.register(in.URL, `{"events":["patient.*"]}`)
	oldToken, oldID := a.newToken("old")
	a.emit(3)
	a.trigger(`{"event_type":"patient.created","event_data":{"n":"kept"}}`)
	in.Await(4)
	a.Until("the outbox is empty", func() bool { return reads[int](t, database, `SELECT count(*) FROM medilab.outbox`) == 0 })
	restore := testdb.Snapshot(t, database)
	ready(all)
	head := reads[int](t, database, `SELECT position FROM medilab.log_head`)

	// What will be lost: a webhook, another URL and secret, a revocation, a token, emits.
	lost := a.register(lostIn.URL, `{"events":["patient.*"]}`)
	a.api(200, "PATCH", "/webhooks/"+kept.ID, `{"url":"`+lostIn.URL+`","secret":"lost"}`, nil)
	newToken, _ := a.newToken("new")
	a.command(0, "", "token", "revoke", oldID)
	a.emit(5)
	lostEvent := a.trigger(`{"event_type":"patient.created","event_data":{"n":"lost"}}`)
	lostIn.Await(12)
	a.Until("what will be lost is recorded", func() bool {
		return reads[int](t, database, `SELECT count(*) FROM medilab.pending`) == 0
	})
	anchors := filepath.Join(t.TempDir(), "anchors")
	a.command(0, "", "audit", "anchor", "--file", anchors)
	end := reads[int](t, database, `SELECT position FROM medilab.log_head`)
	restore()
	ready(all)

	for _, p := range all {
		p.Until("the lost webhook is not found", func() bool { return p.status(p.token, "GET", "/webhooks/"+lost.ID) == 404 })
		p.Until("the lost token is refused", func() bool { return p.status(newToken, "GET", "/webhooks/") == 401 })
		if status := p.status(oldToken, "GET", "/webhooks/"); status != 200 {
			t.Errorf("%s answers %d to the token whose revocation is lost", p.Label, status)
		}
		if status := p.status(p.token, "GET", "/webhooks/events/"+lostEvent); status != 404 {
			t.Errorf("%s answers %d to the lost event", p.Label, status)
		}
	}
	called := len(lostIn.All())
	again := idle.register(in.URL, `{"events":["visit.created"]}`)
	a.Until("the other node has the new webhook", func() bool { return a.status(a.token, "GET", "/webhooks/"+again.ID) == 200 })
	fresh, _ := idle.newToken("fresh")
	if status := idle.status(fresh, "GET", "/webhooks/"); status != 200 {
		t.Errorf("a new token is answered with %d", status)
	}
	before := len(in.All())
	var events []string
	for _, p := range all {
		for range 5 {
			events = append(events, p.trigger(`{"event_type":"patient.created","event_data":{"n":"new"}}`))
		}
	}
	a.emit(5)
	in.Await(before + len(events) + 5)
	a.Until("what is called is recorded", func() bool {
		return reads[int](t, database, `SELECT count(*) FROM medilab.pending`) == 0
	})
	for _, event := range events {
		if ds := idle.deliveries(event); len(ds) != 1 || ds[0].WebhookID != kept.ID || ds[0].State != "delivered" {
			t.Errorf("event %s has the deliveries %+v", event, ds)
		}
	}
	if n := len(lostIn.All()); n != called {
		t.Errorf("%d calls went to where the log sends nothing", n-called)
	}

	told := idle.awaitAlert("", "log_lost", "open")
	if told.Details.From != head+1 || told.Details.To != end {
		t.Errorf("the alert says %+v, and %d to %d are lost", told, head+1, end)
	}
	most := 0 // who comes later may find new entries in the place of lost ones
	for _, p := range all {
		if alerts := p.alerts("", "log_lost"); len(alerts) != 1 {
			t.Errorf("there are the alerts %+v", alerts)
		}
		p.Until("it says what it lost", func() bool { return strings.Contains(p.Said.String(), "lost the end of the log") })
		if n := strings.Count(p.Said.String(), "lost the end of the log"); n != 1 {
			t.Errorf("%s says %d times that the log lost its end", p.Label, n)
		}
		_, metrics := p.request("GET", "/metrics", "")
		if line := "medilab_alerts_open{kind=\"log_lost\"} 1\n"; !strings.Contains(string(metrics), line) {
			t.Errorf("%s does not have the metric %q", p.Label, line)
		}
		lost := 0
		if _, after, ok := strings.Cut(string(metrics), "\nmedilab_log_lost_positions_total "); ok {
			if _, err := fmt.Sscan(after, &lost); err != nil {
				t.Error(err)
			}
		}
		if most = max(most, lost); lost < 1 {
			t.Errorf("%s counts %d lost positions", p.Label, lost)
		}
		if status := p.Status("/readyz"); status != 200 {
			t.Errorf("%s is not ready: %d", p.Label, status)
		}
	}
	if most != end-head {
		t.Errorf("%d lost positions are counted, want %d", most, end-head)
	}
	a.Until("nothing is under way", func() bool { return reads[int](t, database, `SELECT count(*) FROM medilab.pending`) == 0 })
	a.command(0, "", "audit", "verify")
	a.command(1, "", "audit", "verify", "--anchor", anchors)
}

// ready waits until all serve.
func ready(all []*product) {
	for _, p := range all {
		p.Until(p.Label+" is ready", func() bool { return p.Status("/readyz") == 200 })
	}
}

func (p *product) status(token, method, path string) int {
	p.Helper()
	answer, err := p.Request(p.Context(), token, method, "/api/v1"+path, nil)
	if err != nil {
		p.Fatal(err)
	}
	return answer.Status
}

// newToken makes a token on the command line.
func (p *product) newToken(name string) (token, id string) {
	p.Helper()
	var made struct{ ID, Token string }
	out := p.command(0, "", "token", "create", "--name", name, "--scopes", "webhooks:read", "--json")
	if err := json.Unmarshal([]byte(out), &made); err != nil {
		p.Fatal(err)
	}
	return made.Token, made.ID
}

// emit emits events by SQL.
func (p *product) emit(n int) {
	p.Helper()
	conn := p.connect()
	if _, err := conn.Exec(p.Context(), `SELECT medilab.emit('patient.created', '{"n":"emitted"}') FROM generate_series(1, $1)`, n); err != nil {
		p.Fatal(err)
	}
	if err := conn.Close(p.Context()); err != nil {
		p.Fatal(err)
	}
}
