package http_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
)

func TestRetryAndCancel(t *testing.T) {
	s := newService(t)
	s.work()
	r := newReceiver(t, 500)
	s.registerAt(r.URL, `,"retry_delay":86400`)
	event := s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{}}`).want(202).text("event_id")
	r.next(t)
	pending := func() string {
		return s.ask("GET", "/api/v1/webhooks/events/"+event+"/deliveries", "").want(200).get("items", 0, "attempts")
	}
	s.until("one attempt", func() bool { return pending() == "1" })
	delivery := s.ask("GET", "/api/v1/webhooks/events/"+event+"/deliveries", "").text("items", 0, "delivery_id")
	path := "/api/v1/webhooks/deliveries/" + delivery

	if got := s.ask("POST", path+"/retry/", "").want(202); got.text("state") != "pending" || got.text("delivery_id") != delivery {
		t.Errorf("got %s", got.body)
	}
	if got := r.next(t); got.header.Get("X-Webhook-Attempt") != "2" {
		t.Errorf("attempt %s", got.header.Get("X-Webhook-Attempt"))
	}
	s.until("two attempts", func() bool { return pending() == "2" })
	if got := s.ask("POST", path+"/cancel", "").want(202); got.text("state") != "cancelled" {
		t.Errorf("got %s", got.body)
	}
	s.ask("POST", path+"/cancel", "").want(409)
	if state := s.deliveryState(event); state != "cancelled" {
		t.Errorf("state %s", state)
	}
	if e := s.ask("GET", "/api/v1/webhooks/events/"+event+"/explain", "").want(200); e.text("items", 0, "verdict") != "cancelled" || e.get("items", 0, "response_status") != "500" || e.text("items", 0, "error") == "" {
		t.Errorf("explained as %s", e.body)
	}
	s.ask("POST", path+"/retry", "").want(409)
	if state := s.deliveryState(event); state != "cancelled" {
		t.Errorf("after a retry that was refused: state %s", state)
	}
	s.ask("POST", "/api/v1/webhooks/deliveries/550e8400-e29b-41d4-a716-446655440000/retry", "").want(404)
	s.ask("POST", "/api/v1/webhooks/deliveries/55/cancel", "").want(404)

	// One that was never tried is in the queue alone.
	s.ask("POST", "/api/v1/webhooks/1/deactivate", "").want(200)
	s.registerAt(r.URL, "")
	s.ask("DELETE", "/api/v1/webhooks/1", "").want(204)
	s.ask("POST", path+"/retry", "").want(409)
}

// A receiver sees an attempt's number once: also that of a call which was under way when its
// delivery was cancelled, and which a replay sends again.
func TestReplayGoesOnAfterACancelledCall(t *testing.T) {
	s := newService(t)
	s.work()
	attempts, cancelled := make(chan string, 2), make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		attempts <- r.Header.Get("X-Webhook-Attempt")
		<-cancelled
	}))
	t.Cleanup(receiver.Close)
	s.registerAt(receiver.URL, "")
	event := s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{}}`).want(202).text("event_id")
	first := <-attempts
	deliveries := func() answer { return s.ask("GET", "/api/v1/webhooks/events/"+event+"/deliveries", "").want(200) }
	s.ask("POST", "/api/v1/webhooks/deliveries/"+deliveries().text("items", 0, "delivery_id")+"/cancel", "").want(202)
	close(cancelled)
	s.until("the call is recorded", func() bool { return deliveries().get("items", 0, "attempts") == "1" })
	s.ask("POST", "/api/v1/webhooks/1/replay", `{"from":"2000-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z"}`).want(202)
	if second := <-attempts; first != "1" || second != "2" {
		t.Errorf("the attempts are %s and %s", first, second)
	}
}

// What no node had taken when it was cancelled has used no number: also what waited for its turn.
func TestReplayOfWhatNobodyTried(t *testing.T) {
	s := newService(t)
	r := newReceiver(t, 200)
	s.registerAt(r.URL, `,"order_by":"patient.id"`)
	var deliveries []string
	for range 2 {
		event := s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"patient":{"id":1}}}`).want(202).text("event_id")
		deliveries = append(deliveries, s.ask("GET", "/api/v1/webhooks/events/"+event+"/deliveries", "").want(200).text("items", 0, "delivery_id"))
	}
	for _, id := range slices.Backward(deliveries) { // the second waits for the first
		s.ask("POST", "/api/v1/webhooks/deliveries/"+id+"/cancel", "").want(202)
	}
	s.work()
	s.ask("POST", "/api/v1/webhooks/1/replay", `{"from":"2000-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z"}`).want(202)
	for range 2 {
		if got := r.next(t); got.header.Get("X-Webhook-Attempt") != "1" {
			t.Errorf("attempt %s", got.header.Get("X-Webhook-Attempt"))
		}
	}
}

// So has what waited for a later attempt, whatever asked for that.
func TestReplayOfWhatNobodyTriedAgain(t *testing.T) {
	const history = `{"from":"2000-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z"}`
	for name, c := range map[string]struct{ path, body string }{
		"a retry":      {"deliveries/%s/retry", ""},
		"a replay":     {"1/replay", history},
		"a bulk retry": {"deliveries/retry", `{"state":"failed"}`},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t)
			s.work()
			r := newReceiver(t, 500)
			s.registerAt(r.URL, `,"max_retries":0`)
			ask := func(path, body string) answer { return s.ask("POST", "/api/v1/webhooks/"+path, body) }
			event := ask("events/trigger", `{"event_type":"patient.created","event_data":{}}`).want(202).text("event_id")
			delivery := r.next(t).header.Get("X-Webhook-Delivery-ID")
			s.until("it has failed", func() bool { return s.deliveryState(event) == "failed" })
			ask("1/deactivate", "").want(200)
			asked := ask(strings.Replace(c.path, "%s", delivery, 1), c.body).want(202)
			s.until("it waits again", func() bool { return s.deliveryState(event) == "pending" })
			if c.body == "" {
				ask("deliveries/"+delivery+"/cancel", "").want(202)
			} else {
				ask("replays/"+asked.text("replay_id")+"/cancel", "").want(200)
			}
			s.until("it is cancelled", func() bool { return s.deliveryState(event) != "pending" })
			ask("1/activate", "").want(200)
			ask("1/replay", history).want(202)
			if got := r.next(t); got.header.Get("X-Webhook-Attempt") != "2" {
				t.Errorf("attempt %s", got.header.Get("X-Webhook-Attempt"))
			}
		})
	}
}

// What a node claims in the very moment in which it is cancelled may be under way: its number is used.
func TestReplayOfWhatIsClaimedAsItIsCancelled(t *testing.T) {
	s := newService(t)
	r := newReceiver(t, 200)
	s.registerAt(r.URL, "")
	s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{}}`).want(202)
	var id domain.DeliveryID
	claim, err := s.pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer claim.Rollback(t.Context()) //nolint:errcheck // unless it is committed
	if err := claim.QueryRow(t.Context(), `UPDATE medilab.queue SET node = 1 RETURNING delivery_id`).Scan(&id); err != nil {
		t.Fatal(err)
	}
	cancelled := make(chan error, 1)
	go func() {
		_, err := s.commands.CancelDelivery(t.Context(), commands.Caller{Actor: "test"}, id)
		cancelled <- err
	}()
	harness.Until(t, "the cancellation waits for the claim", func() bool {
		return s.count(`SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) == 1
	})
	if err := errors.Join(claim.Commit(t.Context()), <-cancelled); err != nil {
		t.Fatal(err)
	}
	s.work()
	s.ask("POST", "/api/v1/webhooks/1/replay", `{"from":"2000-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z"}`).want(202)
	if got := r.next(t); got.header.Get("X-Webhook-Attempt") != "2" {
		t.Errorf("attempt %s", got.header.Get("X-Webhook-Attempt"))
	}
}

// A delivery, and what explain says of it and of a test, have the last attempt's outcome as its call has.
func TestDeliveriesHaveTheOutcome(t *testing.T) {
	s := newService(t)
	s.work()
	s.register(`"max_retries":0`)
	event := s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{}}`).want(202).text("event_id")
	s.until("it failed", func() bool { return s.deliveryState(event) == "failed" })
	test := s.ask("POST", "/api/v1/webhooks/1/test", `{"event_type":"patient.created"}`).want(200).text("event_id")
	for _, path := range []string{"deliveries?state=failed", "events/" + event + "/deliveries", "events/" + event + "/explain", "events/" + test + "/explain"} {
		got := s.ask("GET", "/api/v1/webhooks/"+path, "").want(200)
		if got.text("items", 0, "outcome") != "connect" || !strings.Contains(got.text("items", 0, "error"), "refused") {
			t.Errorf("%s: %s", path, got.body)
		}
	}
}

func TestCancelBeforeTheFirstAttempt(t *testing.T) {
	s := newService(t) // nobody works on the queue
	s.register("")
	event := s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{}}`).want(202).text("event_id")
	delivery := s.ask("GET", "/api/v1/webhooks/events/"+event+"/deliveries", "").want(200).text("items", 0, "delivery_id")
	if got := s.ask("POST", "/api/v1/webhooks/deliveries/"+delivery+"/retry", "").want(202); got.text("event_id") != event {
		t.Errorf("got %s", got.body)
	}
	s.ask("POST", "/api/v1/webhooks/deliveries/"+delivery+"/cancel", "").want(202)
	if state := s.deliveryState(event); state != "cancelled" {
		t.Errorf("state %s", state)
	}
	if got := s.ask("GET", "/api/v1/search?q="+delivery, "").want(200); got.text("items", 0, "id") != delivery {
		t.Errorf("found %s", got.body)
	}
}

// A test call has the form of the webhook's other calls.
func TestTestCallOfBatches(t *testing.T) {
	s := newService(t)
	r := newReceiver(t, 200)
	s.registerAt(r.URL, `,"secret":"s","payload_version":"cloudevents","batch":{"max_events":10,"max_wait":300},"fields":["a"]`)
	made := s.ask("POST", "/api/v1/webhooks/1/test", `{"event_type":"patient.created","test_data":{"a":1,"b":2}}`).want(200)
	got := r.next(t)
	var events []map[string]any
	if err := json.Unmarshal([]byte(got.body), &events); err != nil || len(events) != 1 {
		t.Fatalf("%v: %s", err, got.body)
	}
	if e := events[0]; e["specversion"] != "1.0" || e["id"] != made.text("event_id") || e["source"] != "test" || e["type"] != "patient.created" || fmt.Sprint(e["data"]) != "map[a:1]" {
		t.Errorf("sent %s", got.body)
	}
	if got.header.Get("Content-Type") != "application/cloudevents-batch+json" || got.header.Get("X-Webhook-Event") != "batch" {
		t.Errorf("sent %v", got.header)
	}
	if made.text("event_type") != "patient.created" || made.text("payload") != got.body || made.text("request_headers", "X-Webhook-Signature") != got.header.Get("X-Webhook-Signature") {
		t.Errorf("shown %s", made.body)
	}
}

func TestGuideTest(t *testing.T) {
	s := newService(t)
	r := newReceiver(t, 503)
	s.registerAt(r.URL, `,"is_active":false,"filters":{"patient_id":{"$gt":200}},"secret":"s","payload_version":"cloudevents"`)
	test := func(body string) answer { t.Helper(); return s.ask("POST", "/api/v1/webhooks/1/test", body) }
	made := test(`{
	  "webhook_id": 1,
	  "event_type": "patient.created",
	  "test_data": {
	    "patient_id": 123,
	    "name": "Тестовый Пациент"
	  }
	}`).want(200)
	got := r.next(t)
	if made.text("payload") != got.body || !strings.Contains(got.body, "Тестовый Пациент") {
		t.Errorf("shown %s, sent %s", made.text("payload"), got.body)
	}
	if made.get("test") != "true" || made.text("status") != "failed" || made.get("response_status") != "503" || made.get("next_attempt_at") != "null" ||
		made.text("request_headers", "X-Webhook-Signature") != got.header.Get("X-Webhook-Signature") {
		t.Errorf("got %s", made.body)
	}
	if made.get("would_match") != "false" || made.get("type_subscribed") != "true" || made.get("active") != "false" ||
		made.get("filter", "matched") != "false" || made.text("filter", "field") != "patient_id" || made.get("filter", "got") != "123" {
		t.Errorf("verdict: %s", made.body)
	}
	again := s.ask("GET", "/api/v1/webhooks/1/calls/"+made.text("call_id"), "").want(200)
	if again.get("payload") != made.get("payload") {
		t.Errorf("shown later: %s", again.get("payload"))
	}
	s.ask("POST", "/api/v1/webhooks/deliveries/"+made.text("delivery_id")+"/retry", "").want(409)

	id := s.ask("GET", "/api/v1/webhooks/1", "").text("id")
	test(`{"webhook_id":"` + id + `","event_type":"webhook.alert_raised"}`).want(200)
	test(`{"event_type":"visit.created","test_data":null}`).want(200)
	// The guide's body names webhook 1, whichever webhook the path does.
	if got := test(`{"webhook_id":2,"event_type":"patient.created"}`).want(200); got.text("webhook_id") != id {
		t.Errorf("tested is %s", got.body)
	}
	test(`{"webhook_id":[1],"event_type":"patient.created"}`).refusing("webhook_id")
	test(`{"event_type":"patient.none","test_data":[],"data":{}}`).refusing("data")
	test(`{"event_type":"patient.none","test_data":[]}`).refusing("event_type", "test_data")
	for _, nothing := range []string{`{}`, ``} {
		if made := test(nothing).want(200); made.text("event_type") != "patient.created" || !strings.Contains(made.text("payload"), `"data":{"patient_id"`) {
			t.Errorf("a test of no type: %s", made.body)
		}
	}
	s.ask("POST", "/api/v1/webhooks/9/test", `{"event_type":"patient.created"}`).want(404)
}
