package http_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestBacktest(t *testing.T) {
	s := newService(t)
	s.register(`"filters":{"age_min":18}`)
	for _, body := range []string{
		`{"event_type":"patient.created","event_data":{"age":20}}`, `{"event_type":"patient.created","event_data":{"age":10}}`,
		`{"event_type":"patient.updated","event_data":{"age":30}}`, `{"event_type":"visit.created","event_data":{}}`,
	} {
		s.ask("POST", trigger, body).want(202)
	}
	for body, want := range map[string]string{
		``:                                "4 1 0 0",
		`{"filters":null}`:                "4 2 1 0",
		`{"events":["patient.*"]}`:        "4 2 1 0",
		`{"filters":{"age_max":15}}`:      "4 1 1 1",
		`{"events":["visit.created"]}`:    "4 0 0 1",
		`{"to":"2020-01-01T00:00:00Z"}`:   "0 0 0 0",
		`{"from":"2020-01-01T00:00:00Z"}`: "4 1 0 0",
	} {
		got := s.ask("POST", "/api/v1/webhooks/1/backtest", body).want(200)
		if counts := strings.Join([]string{got.get("considered"), got.get("matched"), got.get("gained"), got.get("lost")}, " "); counts != want {
			t.Errorf("%s: %s, want %s", body, got.body, want)
		}
	}
	// What the log recorded counts, not what the webhook is by now.
	s.ask("PATCH", "/api/v1/webhooks/1", `{"filters":{"age_max":15}}`).want(200)
	for body, want := range map[string]string{``: "4 1 1 1", `{"filters":{"age_min":18}}`: "4 1 0 0"} {
		got := s.ask("POST", "/api/v1/webhooks/1/backtest", body).want(200)
		if counts := strings.Join([]string{got.get("considered"), got.get("matched"), got.get("gained"), got.get("lost")}, " "); counts != want {
			t.Errorf("after a change, %s: %s, want %s", body, got.body, want)
		}
	}
	s.ask("PATCH", "/api/v1/webhooks/1", `{"filters":{"age_min":18}}`).want(200)
	head := s.head()
	if got := s.ask("POST", "/api/v1/webhooks/1/backtest", `{"filters":{"age_max":15}}`); got.text("samples", 0, "change") != "lost" || got.text("samples", 1, "change") != "gained" {
		t.Errorf("samples: %s", got.body)
	}
	if s.head() != head {
		t.Error("a backtest left something in the log")
	}
	s.ask("POST", "/api/v1/webhooks/1/backtest", `{"events":["x"],"filters":{"a":{"$x":1}},"from":"then","since":1}`).
		refusing("events[0]", "filters.a.$x", "from", "since")
	s.ask("POST", "/api/v1/webhooks/2/backtest", ``).want(404)
}

// A webhook that does not exist yet is tried on all of history, or on the newest events of its
// types, with why each does not match; showing what they hold is on record.
func TestBacktestOfDraft(t *testing.T) {
	s := newService(t)
	for _, body := range []string{
		`{"event_type":"patient.created","event_data":{"age":20}}`, `{"event_type":"patient.created","event_data":{"age":10}}`,
		`{"event_type":"visit.created","event_data":{"age":20}}`, `{"event_type":"patient.updated","event_data":{}}`,
	} {
		s.ask("POST", trigger, body).want(202)
	}
	s.work()
	s.settled()
	path := "/api/v1/webhooks/backtest"
	all := s.ask("POST", path, `{"events":["patient.*"],"filters":{"age_min":18}}`).want(200)
	if all.get("considered") != "4" || all.get("matched") != "1" || all.get("gained") != "1" || strings.Contains(string(all.body), `"events"`) {
		t.Errorf("%s", all.body)
	}
	read := len(s.accesses(""))
	newest := s.ask("POST", path, `{"events":["patient.*"],"filters":{"age_min":18},"newest":3}`, "Accept-Language", "ru").want(200)
	if newest.get("considered") != "3" || newest.get("matched") != "1" || newest.text("events", 0, "reason") != "в событии нет age" ||
		newest.text("events", 1, "field") != "age_min" || newest.get("events", 1, "got") != "10" || newest.get("events", 2, "matched") != "true" {
		t.Errorf("%s", newest.body)
	}
	if got := s.accesses(""); len(got) != read+1 || got[0].What != "backtestDraft" {
		t.Errorf("on record: %v", got)
	}
	if got := s.ask("POST", path, `{"events":["*"],"newest":2}`).want(200); got.get("considered") != "2" || got.get("matched") != "2" {
		t.Errorf("%s", got.body)
	}
	s.ask("POST", path, `{"newest":201,"filters":{"a":{"$x":1}}}`).refusing("events", "filters.a.$x", "newest")
	s.ask("POST", path, `{"newest":0,"events":["*"]}`).refusing("newest") // not all of history instead
	s.register(`"filters":{"age_min":1}`)
	admin := s.token
	s.token = s.tokenFor("webhooks:read")
	s.ask("POST", path, `{"events":["patient.*"],"filters":{"age_min":18},"newest":3}`).want(403) // what matches tells of ages
	s.ask("POST", path, `{"events":["patient.*"],"newest":3}`).want(200)
	s.ask("POST", "/api/v1/webhooks/1/backtest", `{"filters":{"age_min":18}}`).want(200) // on record
	s.token = admin
	if got := s.accesses(""); len(got) != read+2 || got[0].What != "backtestWebhook" {
		t.Errorf("on record: %v", got)
	}
	s.token = s.tokenFor("events:write")
	s.ask("POST", path, `{"events":["*"]}`).want(403)
}

func TestReplay(t *testing.T) {
	s := newService(t)
	before := s.commands.Now().Format(time.RFC3339Nano)
	for _, eventType := range []string{"patient.created", "patient.created", "patient.updated", "visit.created"} {
		s.ask("POST", trigger, `{"event_type":"`+eventType+`","event_data":{}}`).want(202)
	}
	s.work()
	r := newReceiver(t, 200)
	s.ask("POST", "/api/v1/webhooks", `{"name":"new","url":"`+r.URL+`","events":["patient.*"]}`).want(201)
	span := `"from":"` + before + `","to":"2100-01-01T00:00:00Z"`
	replay := func(more string) answer {
		t.Helper()
		return s.ask("POST", "/api/v1/webhooks/1/replay", `{`+span+more+`}`)
	}
	if dry := replay(`,"dry_run":true`).want(202); dry.get("matched") != "3" || dry.get("replay_id") != "null" {
		t.Errorf("dry: %s", dry.body)
	}
	if none := replay(`,"only_failed":true,"dry_run":true`).want(202); none.get("matched") != "0" {
		t.Errorf("only failed: %s", none.body)
	}
	made := replay(`,"event_types":["patient.created"],"only_failed":false`).want(202)
	if made.get("matched") != "null" { // it counts in the job
		t.Errorf("made: %s", made.body)
	}
	path := "/api/v1/webhooks/1/replays/" + made.text("replay_id")
	if made.header.Get("Location") == "" {
		t.Error("no Location")
	}
	s.settled()
	s.until("replayed", func() bool { return s.ask("GET", path, "").want(200).text("state") == "completed" })
	if done := s.ask("GET", path, "").want(200); done.get("delivered") != "2" || done.get("matched") != "2" || done.get("queued") != "2" {
		t.Errorf("done: %s", done.body)
	}
	for range 2 {
		if got := r.next(t); got.header.Get("X-Webhook-Event") != "patient.created" || got.header.Get("X-Webhook-Attempt") != "1" {
			t.Errorf("got %v", got.header)
		}
	}
	first := s.ask("GET", "/api/v1/webhooks/events?event_type=patient.created", "").want(200).text("items", 0, "event_id")
	if got := s.ask("GET", "/api/v1/webhooks/events/"+first+"/deliveries", "").want(200); got.text("items", 0, "state") != "delivered" {
		t.Errorf("a delivery that a replay made: %s", got.body)
	}
	// What a replay sent is explained, to a webhook that did not exist then too.
	explain := s.ask("GET", "/api/v1/webhooks/events/"+first+"/explain", "").want(200)
	delivery := s.ask("GET", "/api/v1/webhooks/events/"+first+"/deliveries", "").want(200).text("items", 0, "delivery_id")
	sent := fmt.Sprintf(`[{"kind":"replay","id":"%s","delivery_id":"%s","state":"delivered"}]`, made.text("replay_id"), delivery)
	if explain.text("items", 0, "verdict") != "not_registered_yet" || explain.get("items", 0, "webhook_version") != "0" || explain.get("items", 0, "sent_by") != sent {
		t.Errorf("explained as %s, want %s", explain.body, sent)
	}
	again := replay("").want(202)
	for range 3 {
		r.next(t)
	}
	if counted := s.ask("GET", "/api/v1/webhooks/1/replays/"+again.text("replay_id"), "").want(200); counted.get("matched") != "3" {
		t.Errorf("again: %s", counted.body)
	}
	s.ask("GET", "/api/v1/webhooks/1/replays/"+again.text("replay_id")+"0", "").want(404)
	s.ask("GET", "/api/v1/webhooks/1/replays/550e8400-e29b-41d4-a716-446655440000", "").want(404)
	s.ask("POST", "/api/v1/webhooks/1/replay", `{}`).refusing("from", "to")
	s.ask("POST", "/api/v1/webhooks/1/replay", `{"from":1,"to":"2100-01-01T00:00:00Z","event_types":[1],"only":true}`).refusing("from", "event_types", "only")
	replay(`,"event_types":["x.*"]`).refusing("event_types[0]")
}

// A replay is a job: started once by a key, seen and changed under both paths, and named in
// what it sends, which the call log shows to the byte.
func TestReplayIsAJob(t *testing.T) {
	s := newService(t)
	s.work()
	r := newReceiver(t, 200)
	s.ask("POST", "/api/v1/webhooks", `{"name":"first","url":"`+r.URL+`","events":["patient.*"],"payload_version":"2"}`).want(201)
	s.ask("POST", "/api/v1/webhooks", `{"name":"second","url":"`+r.URL+`","events":["visit.created"]}`).want(201)
	s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"patient_id":1}}`).want(202)
	first := r.next(t)
	if first.header.Get("X-Webhook-Replay") != "" || strings.Contains(string(first.body), "replay_id") {
		t.Errorf("no replay sent %v %s", first.header, first.body)
	}
	const start, span = "/api/v1/webhooks/1/replay", `{"from":"2020-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z"`
	s.settled()
	made := s.ask("POST", start, span+`,"rate":100}`, "Idempotency-Key", "k").want(202)
	id := made.text("replay_id")
	if again := s.ask("POST", start, span+`,"rate":100}`, "Idempotency-Key", "k").want(202); string(again.body) != string(made.body) {
		t.Errorf("once more: %s, %s", made.body, again.body)
	}
	s.ask("POST", start, span+`}`, "Idempotency-Key", "k").want(409)
	sent := r.next(t)
	if sent.header.Get("X-Webhook-Replay") != id || !strings.Contains(string(sent.body), `"replay_id":"`+id+`"`) ||
		sent.header.Get("X-Webhook-Delivery-ID") != first.header.Get("X-Webhook-Delivery-ID") || sent.header.Get("X-Webhook-Attempt") != "2" {
		t.Errorf("the replay sent %v %s", sent.header, sent.body)
	}
	s.until("completed", func() bool {
		return s.ask("GET", "/api/v1/webhooks/replays/"+id, "").want(200).text("state") == "completed"
	})
	call := s.ask("GET", "/api/v1/webhooks/1/calls", "").want(200).text("items", 0, "call_id")
	if shown := s.ask("GET", "/api/v1/webhooks/1/calls/"+call, "").want(200); shown.text("payload") != string(sent.body) || shown.text("request_headers", "X-Webhook-Replay") != id {
		t.Errorf("the call log shows %s, not %s", shown.body, sent.body)
	}
	one := s.ask("GET", "/api/v1/webhooks/1/replays/"+id, "").want(200)
	for field, want := range map[string]string{
		"kind": `"replay"`, "matched": "1", "queued": "1", "delivered": "1", "failed": "0", "cancelled": "0", "rate": "100", "requested_by": `"admin"`,
	} {
		if got := one.get(field); got != want {
			t.Errorf("%s is %s, want %s", field, got, want)
		}
	}
	for _, list := range []string{"/api/v1/webhooks/replays?limit=1", "/api/v1/webhooks/1/replays"} {
		if got := s.ask("GET", list, "").want(200); got.text("items", 0, "replay_id") != id || got.get("next_cursor") != "null" {
			t.Errorf("%s: %s", list, got.body)
		}
	}
	if got := s.ask("GET", "/api/v1/webhooks/2/replays", "").want(200); got.get("items") != "[]" {
		t.Errorf("of another webhook: %s", got.body)
	}
	s.ask("GET", "/api/v1/webhooks/2/replays/"+id, "").want(404)
	s.ask("POST", "/api/v1/webhooks/2/replays/"+id+"/cancel", "").want(404)
	s.ask("POST", "/api/v1/webhooks/replays/"+id+"/cancel", "").want(409)

	s.ask("POST", "/api/v1/webhooks/1/deactivate", "").want(200)
	waits := s.ask("POST", start, span+`,"rate":0.01}`).want(202).text("replay_id")
	for _, x := range []struct{ ask, want string }{{"pause", "paused"}, {"pause", "paused"}, {"resume", ""}, {"cancel", "cancelled"}, {"cancel", "cancelled"}} {
		if got := s.ask("POST", "/api/v1/webhooks/1/replays/"+waits+"/"+x.ask, ""); x.want != "" && got.want(200).text("state") != x.want {
			t.Errorf("%s: %s", x.ask, got.body)
		}
	}
	s.until("it is over", func() bool {
		got := s.ask("GET", "/api/v1/webhooks/1/replays/"+waits, "").want(200)
		return got.get("finished_at") != "null" && (got.get("matched") == "null" || got.get("cancelled") == "1")
	})
	const retry = "/api/v1/webhooks/deliveries/retry"
	if dry := s.ask("POST", retry, `{"state":"failed","webhook":"1","response_status":"5xx","dry_run":true}`).want(202); dry.get("matched") != "0" || dry.get("replay_id") != "null" {
		t.Errorf("dry: %s", dry.body)
	}
	s.ask("POST", retry, `{}`).refusing("state")
	s.ask("POST", retry, `{"state":"failed","webhook":""}`).refusing("webhook")
	s.ask("POST", retry, `{"state":"pending","webhook":"77","response_status":"6","rate":0,"event_types":["x.y"],"only_failed":true}`).
		refusing("state", "webhook", "response_status", "rate", "event_types[0]", "only_failed")
	s.ask("POST", start, span+`,"rate":"fast"}`).refusing("rate")
}
