package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// alert is what the tests look at of an alert.
type alert struct {
	ID        string `json:"alert_id"`
	WebhookID string `json:"webhook_id"`
	Kind      string `json:"kind"`
	State     string `json:"state"`
	Message   string `json:"message"`
	Details   struct {
		Observed, Limit float64
		From, To        int // of log_lost
	} `json:"details"`
	RaisedAt   time.Time  `json:"raised_at"`
	ResolvedAt *time.Time `json:"resolved_at"`
}

// alerts lists those of a webhook and kind, oldest first.
func (p *product) alerts(webhook, kind string) []alert {
	p.Helper()
	var list struct{ Items []alert }
	p.api(200, "GET", "/webhooks/alerts?limit=1000", "", &list)
	var found []alert
	for i := len(list.Items) - 1; i >= 0; i-- {
		if a := list.Items[i]; a.WebhookID == webhook && a.Kind == kind {
			found = append(found, a)
		}
	}
	return found
}

func (p *product) awaitAlert(webhook, kind, state string) alert {
	p.Helper()
	var last alert
	p.Until("the alert "+kind+" is "+state, func() bool {
		all := p.alerts(webhook, kind)
		if len(all) == 0 {
			return false
		}
		last = all[len(all)-1]
		return last.State == state
	})
	return last
}

// notice is what a subscriber of alerts gets.
type notice struct {
	EventType string `json:"event_type"`
	EventData struct {
		AlertID   string `json:"alert_id"`
		Kind      string `json:"kind"`
		State     string `json:"state"`
		WebhookID string `json:"webhook_id"`
	} `json:"event_data"`
}

// Failing calls raise their alerts once, at their thresholds; a good call resolves them; a
// subscriber hears of both, and what happens to it raises nothing about itself.
func TestAlertsOfCalls(t *testing.T) {
	t.Parallel()
	var status atomic.Int64
	status.Store(http.StatusInternalServerError)
	hang := make(chan struct{})
	in := harness.Receive(t, func(w http.ResponseWriter, r harness.Call) {
		if status.Load() == 0 {
			<-hang
		}
		w.WriteHeader(int(max(200, status.Load())))
	})
	told := harness.Receive(t, func(w http.ResponseWriter, _ harness.Call) { w.WriteHeader(http.StatusTeapot) }) // fails always
	p := start(t, "MEDILAB_ALERT_CONSECUTIVE_FAILURES=3", "MEDILAB_ALERT_SUCCESS_RATE=60", "MEDILAB_ALERT_SUCCESS_RATE_CALLS=5", "MEDILAB_ALERT_SCAN_INTERVAL=100ms")
	w := p.register(in.URL, `{"max_retries":0}`)
	subscriber := p.register(told.URL, `{"events":["webhook.alert_raised","webhook.alert_resolved"],"max_retries":0}`)
	calls := 0
	fires := func(n int) {
		t.Helper()
		p.triggerAll("visit.created", numbered(calls, n)...)
		calls += n
		p.awaitCalls(w.ID, calls)
	}

	fires(3) // the threshold itself is none yet
	// The fourth in a row is the one too many; the fifth call makes the rate worth a word.
	fires(1)
	row := p.awaitAlert(w.ID, "consecutive_failures", "open")
	if row.Details.Observed != 4 || row.Details.Limit != 3 {
		t.Errorf("the alert is %+v", row)
	}
	if got := p.alerts(w.ID, "low_success_rate"); len(got) != 0 {
		t.Errorf("four calls are too few for %+v", got)
	}
	fires(1)
	low := p.awaitAlert(w.ID, "low_success_rate", "open")
	if low.Message == "" || low.ResolvedAt != nil {
		t.Errorf("the alert is %+v", low)
	}
	fires(2)
	status.Store(http.StatusOK)
	fires(1)
	p.awaitAlert(w.ID, "consecutive_failures", "resolved")

	p.api(200, "PATCH", "/webhooks/"+w.ID, `{"timeout":1}`, nil)
	status.Store(0)
	fires(1)
	p.awaitAlert(w.ID, "timeout", "open")
	close(hang)
	p.api(200, "PATCH", "/webhooks/"+w.ID, `{"timeout":30}`, nil) // a busy machine may answer late
	status.Store(http.StatusOK)
	fires(16) // 17 of 25 is more than 60 %
	p.awaitAlert(w.ID, "timeout", "resolved")
	p.awaitAlert(w.ID, "low_success_rate", "resolved")

	kinds := []string{"consecutive_failures", "low_success_rate", "timeout"}
	wanted := map[string]bool{}
	for _, kind := range kinds {
		all := p.alerts(w.ID, kind)
		if len(all) != 1 || all[0].ResolvedAt == nil || all[0].ResolvedAt.Before(all[0].RaisedAt) {
			t.Errorf("%s was raised as %+v, want once", kind, all)
			continue
		}
		wanted["open "+all[0].ID], wanted["resolved "+all[0].ID] = true, true
	}
	givenUp := p.awaitAlert(w.ID, "given_up", "open") // stays so until its deliveries arrive
	wanted["open "+givenUp.ID] = true
	for _, r := range told.Await(7) {
		var n notice
		if err := json.Unmarshal(r.Body, &n); err != nil {
			t.Fatal(err)
		}
		if n.EventType != "webhook.alert_raised" && n.EventData.State == "open" || n.EventType != "webhook.alert_resolved" && n.EventData.State == "resolved" {
			t.Errorf("told as %s", r.Body)
		}
		if n.EventData.WebhookID != w.ID || r.Header.Get("X-Webhook-Event") != n.EventType {
			t.Errorf("told %v %s", r.Header, r.Body)
		}
		key := n.EventData.State + " " + n.EventData.AlertID
		if !wanted[key] {
			t.Errorf("told twice, or of nothing: %s", r.Body)
		}
		delete(wanted, key)
	}
	if len(wanted) > 0 {
		t.Errorf("not told of %v", wanted)
	}
	// Seven calls to the subscriber failed, which is beyond both thresholds.
	p.awaitCalls(subscriber.ID, 7)
	fires(1) // whatever the subscriber's calls could raise would be there by now
	_, open := p.request("GET", "/api/v1/webhooks/alerts", "")
	if strings.Contains(string(open), subscriber.ID) {
		t.Errorf("alerts raised alerts: %s", open)
	}
	log := p.command(0, "", "audit", "log", "--type", "alert.*", "--format", "ndjson")
	if got := strings.Count(log, "\n"); got != 7 {
		t.Errorf("the log has %d events of alerts, want 7:\n%s", got, log)
	}
	p.command(0, "", "audit", "verify")
}

// What follows from time: a webhook that nobody calls, and one that is deactivated. A
// restart neither raises it again nor forgets it, and it resolves by itself.
func TestAlertsOfInactivity(t *testing.T) {
	t.Parallel()
	in := harness.Receive(t, nil)
	p := start(t, "MEDILAB_ALERT_INACTIVE=2s", "MEDILAB_ALERT_SCAN_INTERVAL=100ms")
	idle := p.register(in.URL, `{"events":["visit.created"]}`)
	off := p.register(in.URL, `{"events":["visit.updated"]}`)
	p.api(200, "POST", "/webhooks/"+off.ID+"/deactivate", "", nil)
	first := p.awaitAlert(idle.ID, "inactive", "open")
	other := p.awaitAlert(off.ID, "inactive", "open")
	if !strings.Contains(first.Message, "no call") || !strings.Contains(other.Message, "deactivated") {
		t.Errorf("the alerts say %q and %q", first.Message, other.Message)
	}
	_, metrics := p.request("GET", "/metrics", "")
	if !strings.Contains(string(metrics), "inactive") {
		t.Error("the metrics do not tell of the alert")
	}

	p.Kill()
	p.start()
	// A webhook that is made now gets its alert by the new process's scans; those before
	// it have been looked at then too.
	late := p.register(in.URL, `{"events":["visit.completed"]}`)
	p.awaitAlert(late.ID, "inactive", "open")
	for id, before := range map[string]alert{idle.ID: first, off.ID: other} {
		if all := p.alerts(id, "inactive"); len(all) != 1 || all[0].ID != before.ID || all[0].State != "open" {
			t.Errorf("after the restart the alerts are %+v, before %+v", all, before)
		}
	}

	// A call resolves the one; the other needs its webhook to be active and called.
	p.trigger(`{"event_type":"visit.created","event_data":{}}`)
	p.Until("the first alert is resolved", func() bool {
		all := p.alerts(idle.ID, "inactive")
		return all[0].State == "resolved"
	})
	p.api(200, "POST", "/webhooks/"+off.ID+"/activate", "", nil)
	p.Until("the other alert is resolved", func() bool { return p.alerts(off.ID, "inactive")[0].State == "resolved" })
	p.api(204, "DELETE", "/webhooks/"+late.ID, "", nil)
	p.awaitAlert(late.ID, "inactive", "resolved")
	// It comes again when it is so again, as another alert.
	p.Until("the first webhook is idle again", func() bool {
		all := p.alerts(idle.ID, "inactive")
		return len(all) == 2 && all[1].ID != first.ID
	})
	var page struct {
		Items []alert
		Next  *string `json:"next_cursor"`
	}
	for _, state := range []string{"open", "resolved"} {
		p.api(200, "GET", "/webhooks/alerts?limit=1&state="+state, "", &page)
		if len(page.Items) != 1 || page.Items[0].State != state {
			t.Errorf("of state %s is listed %+v", state, page)
		}
	}
	p.refused(422, "GET", "/webhooks/alerts?state=old", "", "state", "open")
}

// Thresholds that make no sense stop the start and are named.
func TestAlertSettings(t *testing.T) {
	t.Parallel()
	for setting, words := range map[string]string{
		"MEDILAB_ALERT_INACTIVE=0s": "INACTIVE", "MEDILAB_ALERT_INACTIVE=often": "no duration", "MEDILAB_ALERT_SUCCESS_RATE=101": "between 0 and 100",
		"MEDILAB_ALERT_SUCCESS_RATE_WINDOW=2h": "between 1m and 1h", "MEDILAB_ALERT_SUCCESS_RATE_CALLS=0": "1 or more",
		"MEDILAB_ALERT_CONSECUTIVE_FAILURES=-1": "0 or more", "MEDILAB_ALERT_SCAN_INTERVAL=1ms": "10ms or more",
	} {
		p := prepare(t)
		p.extra = []string{setting}
		said := p.fails(2, "serve")
		name, _, _ := strings.Cut(setting, "=")
		if !strings.Contains(said, words) || !strings.Contains(said, name) {
			t.Errorf("%s: %s", setting, said)
		}
	}
	if help := prepare(t).command(0, "", "help", "serve"); strings.Count(help, "MEDILAB_ALERT_") != 7 {
		t.Errorf("the help does not tell of the thresholds: %s", fmt.Sprint(help))
	}
}
