package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// A receiver can check what it gets with a library of its language.
func TestStandardWebhooks(t *testing.T) {
	t.Parallel()
	for name, secret := range map[string]string{"whsec": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "text": "любой текст"} {
		t.Run(name, func(t *testing.T) {
			library, err := standardwebhooks.NewWebhookRaw([]byte(secret))
			if name == "whsec" {
				library, err = standardwebhooks.NewWebhook(secret)
			}
			if err != nil {
				t.Fatal(err)
			}
			in := harness.Receive(t, nil)
			p := start(t)
			p.api(201, "POST", "/webhooks/", fmt.Sprintf(`{"name":"a","url":%q,"events":["patient.*"],"secret":%q}`, in.URL, secret), nil)
			p.trigger(`{"event_type":"patient.created","event_data":{"name":"Иван \u0000 <Иванов>"}}`)
			got := in.Await(1)[0]
			if err := library.Verify(got.Body, got.Header); err != nil {
				t.Errorf("%v: %v", err, got.Header)
			}
			if library.Verify(append(got.Body, ' '), got.Header) == nil {
				t.Error("a changed body is verified too")
			}
			if got.Header.Get("Webhook-Id") != got.Delivery() {
				t.Errorf("webhook-id is %q, the delivery %q", got.Header.Get("Webhook-Id"), got.Delivery())
			}
		})
	}
}

// SIGTERM, and the SIGHUP of a terminal that is closed, let the calls under way finish, and record
// them.
func TestTermFinishesWhatIsInFlight(t *testing.T) {
	for _, end := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(end.String(), func(t *testing.T) { finishesWhatIsInFlight(t, end) })
	}
}

func finishesWhatIsInFlight(t *testing.T, end syscall.Signal) {
	t.Parallel()
	release := make(chan struct{})
	in := harness.Receive(t, func(http.ResponseWriter, harness.Call) { <-release })
	p := startEmbedded(t)
	var made webhook
	p.api(201, "POST", "/webhooks/", fmt.Sprintf(`{"name":"a","url":%q,"events":["*"]}`, in.URL), &made)
	const n = 5
	for range n {
		p.trigger(`{"event_type":"patient.created","event_data":{}}`)
	}
	in.Await(n)
	p.Signal(end)
	// It takes no new work from now on, while the calls go on.
	p.Until("the server is not ready any more", func() bool {
		resp, err := http.Get("http://" + p.Addr + "/readyz")
		if err != nil {
			return true
		}
		resp.Body.Close() //nolint:errcheck // nothing is read
		return resp.StatusCode != http.StatusOK
	})
	close(release)
	if code := p.Wait(); code != 0 {
		t.Fatalf("the server ended with %d", code)
	}

	p.start()
	p.Until("the calls are in the call log", func() bool { return len(p.calls(made.ID)) >= n })
	for _, c := range p.calls(made.ID) {
		if c.Status != "success" || c.Attempt != 1 {
			t.Errorf("a call is %+v", c)
		}
	}
	if got := len(in.All()); got != n {
		t.Errorf("%d calls arrived, want %d", got, n)
	}
}

// kill -9 in the middle of deliveries and retries, and a restart on the same folder: every event
// that was accepted arrives, the receiver sees no attempt twice, and the call log has every call.
func TestKillLosesNothing(t *testing.T) {
	t.Parallel()
	var healthy atomic.Bool
	hang := make(chan struct{})
	in := harness.Receive(t, func(w http.ResponseWriter, r harness.Call) {
		if healthy.Load() {
			return
		}
		if r.Attempt() == "2" { // under way when the server is killed
			<-hang
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	p := startEmbedded(t)
	var made webhook
	p.api(201, "POST", "/webhooks/", fmt.Sprintf(`{"name":"a","url":%q,"events":["*"],"max_retries":5,"retry_delay":1}`, in.URL), &made)
	const n = 40
	accepted := map[string]bool{}
	for i := range n {
		accepted[p.trigger(fmt.Sprintf(`{"event_type":"patient.created","event_data":{"n":%d}}`, i))] = true
	}
	p.Until("some second attempts are under way", func() bool {
		second := 0
		for _, r := range in.All() {
			if r.Attempt() == "2" {
				second++
			}
		}
		return second >= 5
	})
	p.Kill()
	close(hang)
	healthy.Store(true)
	p.start()

	for id := range accepted {
		p.Until("the event "+id+" is delivered", func() bool {
			var list struct {
				Items []struct {
					State string `json:"state"`
				} `json:"items"`
			}
			p.api(200, "GET", "/webhooks/events/"+id+"/deliveries", "", &list)
			return len(list.Items) == 1 && list.Items[0].State == "delivered"
		})
	}
	var calls []call
	p.Until("the call log has every success", func() bool {
		calls = p.calls(made.ID)
		successes := 0
		for _, c := range calls {
			if c.Status == "success" {
				successes++
			}
		}
		return successes >= n
	})
	logged := map[string]int{}
	succeeded := map[string]int{}
	for _, c := range calls {
		logged[fmt.Sprintf("%s/%d", c.DeliveryID, c.Attempt)]++
		if c.Status == "success" {
			succeeded[c.EventID]++
		}
	}
	seen := map[string]bool{}
	for _, r := range in.All() {
		attempt := r.Delivery() + "/" + r.Attempt()
		if seen[attempt] {
			t.Errorf("the receiver saw %s twice", attempt)
		}
		seen[attempt] = true
		if logged[attempt] == 0 {
			t.Errorf("the call log lacks %s", attempt)
		}
	}
	for attempt, times := range logged {
		if times > 1 {
			t.Errorf("the call log has %s %d times", attempt, times)
		}
	}
	for id := range accepted {
		if succeeded[id] != 1 {
			t.Errorf("event %s succeeded %d times", id, succeeded[id])
		}
	}
	p.command(0, "", "audit", "verify")
}

// Read models that are rebuilt while serving answer as the live ones did.
func TestRebuiltEqualsLive(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	in := harness.Receive(t, func(w http.ResponseWriter, _ harness.Call) {
		if calls.Add(1)%3 == 0 {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	p := start(t)
	var made webhook
	p.api(201, "POST", "/webhooks/", fmt.Sprintf(`{"name":"a","url":%q,"events":["*"],"max_retries":0}`, in.URL), &made)
	p.api(200, "PATCH", "/webhooks/1", `{"description":"changed"}`, nil)
	const n = 18
	var last string
	for i := range n {
		last = p.trigger(fmt.Sprintf(`{"event_type":"visit.completed","event_data":{"n":%d},"correlation_id":"c-%d"}`, i, i%3))
	}
	p.Until("all calls show in the statistics", func() bool {
		var stats struct {
			Total int `json:"total_calls"`
		}
		p.api(200, "GET", "/webhooks/1/stats", "", &stats)
		return stats.Total == n
	})
	p.Until("what was given up is told", func() bool {
		var told struct {
			Items []json.RawMessage `json:"items"`
		}
		p.api(200, "GET", "/webhooks/events?event_type=webhook.alert_raised", "", &told)
		return len(told.Items) == 1
	})
	paths := []string{
		"/webhooks/", "/webhooks/1", "/webhooks/1/stats", "/webhooks/1/calls?limit=100", "/webhooks/1/history", "/webhooks/events?limit=100",
		"/webhooks/events?correlation_id=c-1", "/webhooks/events/" + last + "/deliveries", "/webhooks/system/stats",
	}
	read := func() map[string]string {
		answers := map[string]string{}
		for _, path := range paths {
			status, answer := p.request("GET", "/api/v1"+path, "")
			if status != 200 {
				t.Errorf("GET %s answered %d: %s", path, status, answer)
			}
			answers[path] = steady(t, answer)
		}
		return answers
	}
	before := read()
	p.command(0, "", "audit", "verify")
	p.command(0, "", "projections", "rebuild", "--all")
	for path, answer := range read() {
		if answer != before[path] {
			t.Errorf("GET %s answered before the rebuild\n%s\nand after it\n%s", path, before[path], answer)
		}
	}
	p.command(0, "", "audit", "verify")
}

// steady leaves out of an answer what depends on the moment.
func steady(t *testing.T, answer []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(answer, &v); err != nil {
		t.Fatal(err)
	}
	if object, ok := v.(map[string]any); ok {
		delete(object, "projections")
		delete(object, "projections_lag")
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
