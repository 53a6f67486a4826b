package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// tested is the answer to a test call.
type tested struct {
	details
	WouldMatch bool `json:"would_match"`
	Subscribed bool `json:"type_subscribed"`
	Active     bool
	Filter     struct {
		Matched   bool
		Field     string
		Want, Got json.RawMessage
	}
}

// A test is one attempt, at once, with the real signature, also of a webhook that would
// not get the event; it is marked in the call log and counts for nothing.
func TestTestCall(t *testing.T) {
	t.Parallel()
	const secret = "s3cret-of-the-test"
	status := http.StatusOK
	in := harness.Receive(t, func(w http.ResponseWriter, _ harness.Call) { w.WriteHeader(status) })
	p := start(t, "MEDILAB_ALERT_CONSECUTIVE_FAILURES=0", "MEDILAB_ALERT_SCAN_INTERVAL=50ms")
	w := p.register(in.URL, `{"events":["patient.*"],"filters":{"department":"cardiology"},"secret":"`+secret+`","max_retries":5,"retry_delay":1,"headers":{"X-Api-Key":"key-of-the-test"}}`)
	library, err := standardwebhooks.NewWebhookRaw([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}

	for i, c := range []struct {
		name, body                            string
		deactivate                            bool
		status                                int
		subscribed, active, matched, wouldGet bool
		field                                 string
	}{
		{name: "what it would get", body: `{"event_type":"patient.created","test_data":{"department":"cardiology"}}`,
			status: 200, subscribed: true, active: true, matched: true, wouldGet: true},
		{name: "what its filter keeps out", body: `{"webhook_id":1,"event_type":"patient.created","test_data":{"department":"eyes"}}`,
			status: 204, subscribed: true, active: true, field: "department"},
		{name: "a type that it does not ask for", body: `{"event_type":"visit.created","test_data":{"department":"cardiology"}}`,
			status: 200, active: true, matched: true},
		{name: "the type's example", body: `{"event_type":"patient.created"}`,
			status: 200, subscribed: true, active: true, matched: true, wouldGet: true},
		{name: "inactive", deactivate: true, body: `{"event_type":"patient.created","test_data":{"department":"cardiology"}}`,
			status: 200, subscribed: true, matched: true},
		{name: "a receiver that fails", body: `{"event_type":"patient.created","test_data":{"department":"cardiology"}}`,
			status: 500, subscribed: true, matched: true},
	} {
		if status = c.status; c.deactivate {
			p.api(200, "POST", "/webhooks/1/deactivate", "", nil)
		}
		var got tested
		p.api(200, "POST", "/webhooks/1/test", c.body, &got)
		arrived := in.All() // it is synchronous: no waiting
		if len(arrived) != i+1 {
			t.Fatalf("%s: %d calls arrived, want %d", c.name, len(arrived), i+1)
		}
		call := arrived[i]
		if err := library.Verify(call.Body, call.Header); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got.Payload != string(call.Body) || got.RequestHeaders["X-Webhook-Signature"] != call.Header.Get("X-Webhook-Signature") || call.Header.Get("X-Api-Key") != "key-of-the-test" {
			t.Errorf("%s: shown as %+v, arrived as %s %v", c.name, got.details, call.Body, call.Header)
		}
		success := c.status < 300
		if !got.Test || got.Attempt != 1 || got.NextAttemptAt != nil || (got.Status == "success") != success || got.ResponseStatus == nil || *got.ResponseStatus != c.status {
			t.Errorf("%s: %+v", c.name, got.call)
		}
		if got.Subscribed != c.subscribed || got.Active != c.active || got.Filter.Matched != c.matched || got.WouldMatch != c.wouldGet || got.Filter.Field != c.field {
			t.Errorf("%s: the verdict is %+v", c.name, got)
		}
	}

	calls := p.awaitCalls(w.ID, 6)
	for _, c := range calls {
		if !c.Test {
			t.Errorf("the call log does not mark %+v", c)
		}
	}
	// A real event afterwards is the only call that counts.
	status = http.StatusOK
	p.api(200, "POST", "/webhooks/1/activate", "", nil)
	p.trigger(`{"event_type":"patient.created","event_data":{"department":"cardiology"}}`)
	var stats struct {
		Total, Successes, Failed int
	}
	p.Until("the real call is counted", func() bool {
		_, answer := p.request("GET", "/api/v1/webhooks/1/stats", "")
		var s struct {
			Total     int `json:"total_calls"`
			Successes int `json:"successful_calls"`
			Failed    int `json:"failed_calls"`
		}
		if err := json.Unmarshal(answer, &s); err != nil {
			t.Fatal(err)
		}
		stats = struct{ Total, Successes, Failed int }(s)
		return s.Total > 0
	})
	if stats.Total != 1 || stats.Successes != 1 || stats.Failed != 0 {
		t.Errorf("the statistics count tests: %+v", stats)
	}
	if _, answer := p.request("GET", "/api/v1/webhooks/alerts", ""); !strings.Contains(string(answer), `"items":[]`) {
		t.Errorf("a test raised an alert: %s", answer)
	}

	p.refused(422, "POST", "/webhooks/1/test", `{"event_type":"patient.created","test_data":[]}`, "test_data", "object")
	p.refused(422, "POST", "/webhooks/1/test", `{"event_type":"patient.none"}`, "event_type", "not a known event type")
}
