package http_test

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestBatch(t *testing.T) {
	s := newService(t)
	s.work()
	r := newReceiver(t, 500)
	s.registerAt(r.URL, `,"retry_delay":86400,"secret":"s3cret","batch":{"max_events":2,"max_wait":300}`)
	emit := func() string {
		return s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"a":1.0}}`).want(202).text("event_id")
	}
	delivery := func(event string) answer {
		return s.ask("GET", "/api/v1/webhooks/events/"+event+"/deliveries", "").want(200)
	}
	deliveries := "/api/v1/webhooks/deliveries/"
	one := emit()
	if got := delivery(one); got.text("items", 0, "state") != "pending" || got.get("items", 0, "batch_id") != "null" {
		t.Errorf("waiting: %s", got.body)
	}
	two := emit()
	first := r.next(t)
	batch := first.header.Get("X-Webhook-Delivery-ID")
	want := `{"batch":true,"events":[{"event_type":"patient.created","event_data":{"a":1.0},"event_id":"` + one + `"},` +
		`{"event_type":"patient.created","event_data":{"a":1.0},"event_id":"` + two + `"}],"webhook_id":`
	if !strings.HasPrefix(first.body, want) || first.header.Get("X-Webhook-Event") != "batch" || first.header.Get("X-Webhook-Signature") == "" {
		t.Errorf("got %v %s", first.header, first.body)
	}
	s.until("one attempt", func() bool { return delivery(two).get("items", 0, "attempts") == "1" })
	if got := delivery(two); got.text("items", 0, "batch_id") != batch || got.text("items", 0, "event_id") != two || got.get("items", 0, "response_status") != "500" {
		t.Errorf("member: %s", got.body)
	}

	// The call is listed as the batch's, and shown as it was sent.
	s.settled()
	calls := s.ask("GET", "/api/v1/webhooks/1/calls?event_type=batch", "").want(200)
	if calls.text("items", 0, "delivery_id") != batch || calls.text("items", 0, "event_id") != one || calls.text("items", 0, "event_type") != "batch" {
		t.Errorf("calls: %s", calls.body)
	}
	call := s.ask("GET", "/api/v1/webhooks/1/calls/"+calls.text("items", 0, "call_id"), "").want(200)
	if call.text("payload") != first.body || call.text("request_headers", "X-Webhook-Signature") != first.header.Get("X-Webhook-Signature") {
		t.Errorf("shown as %s", call.body)
	}

	// A member can't be taken out; asked for again, all go again.
	member := delivery(two).text("items", 0, "delivery_id")
	s.ask("POST", deliveries+member+"/cancel", "").want(409)
	if got := s.ask("POST", deliveries+member+"/retry", "").want(202); got.text("batch_id") != batch || got.text("event_id") != two || got.text("delivery_id") != member {
		t.Errorf("got %s", got.body)
	}
	if again := r.next(t); again.header.Get("X-Webhook-Delivery-ID") != batch || again.header.Get("X-Webhook-Attempt") != "2" || !strings.HasPrefix(again.body, want) {
		t.Errorf("got %v %s", again.header, again.body)
	}
	s.until("two attempts", func() bool { return delivery(one).get("items", 0, "attempts") == "2" })
	s.ask("POST", deliveries+batch+"/cancel", "").want(202)
	for _, event := range []string{one, two} {
		if state := s.deliveryState(event); state != "cancelled" {
			t.Errorf("state %s", state)
		}
	}

	// One that waits is cancelled or asked for by itself.
	three, four := emit(), ""
	s.ask("POST", deliveries+delivery(three).text("items", 0, "delivery_id")+"/cancel", "").want(202)
	if state := s.deliveryState(three); state != "cancelled" {
		t.Errorf("state %s", state)
	}
	four = emit()
	s.ask("POST", deliveries+delivery(four).text("items", 0, "delivery_id")+"/retry", "").want(202)
	if got := r.next(t); got.header.Get("X-Webhook-Event-ID") != four || got.header.Get("X-Webhook-Event") != "patient.created" {
		t.Errorf("got %v", got.header)
	}
	s.until("one attempt", func() bool { return delivery(four).get("items", 0, "attempts") == "1" })

	// A replay sends what ended, each by itself; what is on its way is left alone.
	five := emit()
	span := `{"from":"2020-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z"}`
	made := s.ask("POST", "/api/v1/webhooks/1/replay", span).want(202)
	again := map[string]bool{}
	for range 3 {
		got := r.next(t)
		again[got.header.Get("X-Webhook-Event-ID")] = got.header.Get("X-Webhook-Attempt") == "1"
	}
	if counted := s.ask("GET", "/api/v1/webhooks/1/replays/"+made.text("replay_id"), "").want(200); counted.get("matched") != "3" {
		t.Errorf("made: %s", counted.body)
	}
	if !again[one] || !again[two] || !again[three] {
		t.Errorf("sent again: %v, not %s, %s", again, four, five)
	}
}

// A batch of CloudEvents is sent, and shown, in their batched mode.
func TestBatchOfCloudEvents(t *testing.T) {
	s := newService(t)
	s.work()
	r := newReceiver(t, 200)
	s.registerAt(r.URL, `,"payload_version":"cloudevents","batch":{"max_events":2,"max_wait":300}`)
	for _, source := range []string{"lab", "ward"} {
		s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"a":1.0},"source":"`+source+`"}`).want(202)
	}
	got := r.next(t)
	var events []struct{ Specversion, Source string }
	if err := json.Unmarshal([]byte(got.body), &events); err != nil || len(events) != 2 || events[0].Specversion != "1.0" || events[1].Source != "ward" ||
		got.header.Get("Content-Type") != "application/cloudevents-batch+json" {
		t.Errorf("%v: got %v %s", err, got.header, got.body)
	}
	list := "/api/v1/webhooks/1/calls"
	s.until("the call is recorded", func() bool {
		s.settled()
		return s.ask("GET", list, "").want(200).get("items") != "[]"
	})
	call := s.ask("GET", list+"/"+s.ask("GET", list, "").want(200).text("items", 0, "call_id"), "").want(200)
	if call.text("payload") != got.body || call.text("request_headers", "Content-Type") != got.header.Get("Content-Type") {
		t.Errorf("shown as %s", call.body)
	}
}
