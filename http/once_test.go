package http_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Whatever acts takes an idempotency key: the description says so of each operation.
func TestWhatActsTakesAKey(t *testing.T) {
	var description struct {
		Paths map[string]map[string]struct {
			ID         string `json:"operationId"`
			Parameters []struct{ Name string }
		}
	}
	s := newService(t)
	if err := json.Unmarshal(s.ask("GET", "/api/v1/openapi.json", "").want(200).body, &description); err != nil {
		t.Fatal(err)
	}
	reads := map[string]bool{"backtestWebhook": true, "backtestDraft": true, "startSession": true, "endSession": true, "verifyLog": true, "rebuildReadModel": true}
	acts := 0
	for path, methods := range description.Paths {
		for method, o := range methods {
			has := false
			for _, p := range o.Parameters {
				has = has || p.Name == "Idempotency-Key"
			}
			if want := method != "get" && !reads[o.ID]; has != want {
				t.Errorf("%s %s takes a key: %t", method, path, has)
			} else if want {
				acts++
			}
		}
	}
	if acts < 20 {
		t.Errorf("%d operations act", acts)
	}
}

// A request that comes again with its key changes nothing, and is answered as the first time:
// also by another process, and when the state has moved on.
func TestRepetitionChangesNothing(t *testing.T) {
	s := newService(t)
	other := newServiceOn(t, s.pool.Config().ConnString())
	s.work()
	r := newReceiver(t, 500)
	s.ask("POST", "/api/v1/webhooks", `{"name":"first","url":"`+r.URL+`","events":["patient.*"],"max_retries":0}`).want(201)
	s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"patient_id":"12345"}}`).want(202)
	r.next(t)
	var failed string
	s.until("failed", func() bool {
		list := s.ask("GET", "/api/v1/webhooks/deliveries?state=failed", "").want(200)
		if !strings.Contains(string(list.body), "delivery_id") {
			return false
		}
		failed = list.text("items", 0, "delivery_id")
		return true
	})
	w, _ := s.commands.Directory.Number(1)
	raised := domain.DecideAlert(domain.Alert{}, w, domain.Finding{Kind: domain.AlertTimeout, Holds: true})
	stream := domain.AlertKey{Webhook: w, Kind: domain.AlertTimeout}.Stream()
	if _, err := s.log.Append(t.Context(), eventstore.Unit{Writes: []eventstore.Write{{Stream: stream,
		Events: []eventstore.NewEvent{{Type: raised.ChangeType(), Data: domain.AppendJSON(nil, raised), Value: raised}}}}}); err != nil {
		t.Fatal(err)
	}
	s.settled()
	alert := s.ask("GET", "/api/v1/webhooks/alerts", "").want(200).text("items", 0, "alert_id")
	if _, err := s.pool.Exec(t.Context(), `INSERT INTO medilab.parked_events (id, event_id, event_type, event_data, emitted_by, emitted_at, reason) OVERRIDING SYSTEM VALUE
		SELECT n, gen_random_uuid(), 'patient.created', '{}', 'clinic', now(), 'why not' FROM generate_series(901, 902) AS n`); err != nil {
		t.Fatal(err)
	}
	const base = "/api/v1/webhooks"
	// What callers ask for; deliveries, alerts and jobs go on meanwhile.
	const asked = `SELECT count(*) FROM medilab.events WHERE type NOT LIKE ALL ('{data.read,delivery.%,alert.%,replay.%}')
		OR type = 'replay.requested' OR type = 'delivery.retry_requested' AND metadata ->> 'causation_id' IS NULL`
	var keys []string
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", base, `{"name":"second","url":"https://x.example","events":["*"]}`, 201},
		{"PATCH", base + "/2", `{"name":"renamed"}`, 200},
		{"POST", base + "/2/deactivate", "", 200},
		{"POST", base + "/2/activate", "", 200},
		{"POST", base + "/apply", `{"webhooks":[{"name":"third","url":"https://x.example","events":["*"]}]}`, 200},
		{"POST", base + "/1/test", `{"event_type":"patient.created","test_data":{"patient_id":"12345"}}`, 200},
		{"POST", base + "/deliveries/" + failed + "/retry", "", 202},
		{"POST", base + "/alerts/" + alert + "/acknowledge", "", 200},
		{"POST", base + "/events/parked/901/retry", "", 202},
		{"POST", base + "/events/parked/902/discard", "", 204},
		{"POST", base + "/deliveries/retry", `{"state":"failed"}`, 202},
		{"POST", base + "/deliveries/" + failed + "/cancel", "", 202},
		{"DELETE", base + "/2", "", 204},
		{"POST", "/api/v1/subjects/12345/erase", `{"reason":"asked"}`, 200},
	} {
		key := c.method + c.path
		keys = append(keys, key)
		first := s.ask(c.method, c.path, c.body, "Idempotency-Key", key).want(c.status)
		if keeps := !strings.HasSuffix(c.path, "/test"); keeps && strings.Contains(string(first.body), "12345") {
			t.Errorf("%s: an answer that is kept tells of a patient: %s", key, first.body)
		}
		before := s.count(asked)
		for _, again := range []answer{s.ask(c.method, c.path, c.body, "Idempotency-Key", key), other.ask(c.method, c.path, c.body, "Idempotency-Key", key)} {
			again.want(c.status)
			if string(again.body) != string(first.body) || again.header.Get("Location") != first.header.Get("Location") || again.header.Get("ETag") != first.header.Get("ETag") {
				t.Errorf("%s: first %v %s, then %v %s", key, first.header, first.body, again.header, again.body)
			}
		}
		if after := s.count(asked); after != before {
			t.Errorf("%s: the log grew from %d to %d", key, before, after)
		}
		s.ask("POST", base, `{"name":"other","url":"https://x.example","events":["*"]}`, "Idempotency-Key", key).want(409)
	}
	if tests := s.count(`SELECT count(*) FROM medilab.events WHERE type = 'delivery.tested'`); tests != 1 {
		t.Errorf("%d test calls", tests)
	}
	// The patient was erased last. Answers that are kept do not tell of patients, and the others are made again.
	test := "POST" + base + "/1/test"
	again := s.ask("POST", base+"/1/test", `{"event_type":"patient.created","test_data":{"patient_id":"12345"}}`, "Idempotency-Key", test).want(200)
	if again.get("erased") != "true" || strings.Contains(string(again.body), "12345") {
		t.Errorf("of an erased patient a repetition is answered %s", again.body)
	}
	if kept := s.count(`SELECT count(*) FROM medilab.answers`); kept != len(keys)-1 {
		t.Errorf("%d answers to %d requests are kept, want all but the test call's", kept, len(keys))
	}
}

// A repetition of a test call is answered as the first time, and at once, when its webhook was
// deleted since. Under a key that is new, or of another request, there is nothing to answer with.
func TestRepeatedTestOfADeletedWebhook(t *testing.T) {
	s := newService(t)
	r := newReceiver(t, 200)
	s.registerAt(r.URL, "")
	const path, body = "/api/v1/webhooks/1/test", `{"event_type":"patient.created","test_data":{"a":1}}`
	first := s.ask("POST", path, body, "Idempotency-Key", "k").want(200)
	r.next(t)
	s.ask("DELETE", "/api/v1/webhooks/1", "").want(204)
	again := s.ask("POST", path, body, "Idempotency-Key", "k").want(200)
	for _, field := range []string{"call_id", "payload", "response_status", "created_at"} {
		if again.get(field) != first.get(field) {
			t.Errorf("first %s, then %s", first.body, again.body)
		}
	}
	s.ask("POST", path, `{"event_type":"patient.updated"}`, "Idempotency-Key", "k").want(409)
	s.ask("POST", path, body, "Idempotency-Key", "new").want(404)
	s.ask("POST", path, body).want(404)
	s.ask("POST", path, `{"event_type":"x"}`).want(404)
	if tests := s.count(`SELECT count(*) FROM medilab.events WHERE type = 'delivery.tested'`); tests != 1 {
		t.Errorf("%d test calls", tests)
	}
}

// A key goes with what is asked, however its path spells ids.
func TestRepetitionByAnotherSpelling(t *testing.T) {
	s := newService(t)
	s.work() // an erasure waits for the read models
	const base = "/api/v1/webhooks/"
	id := s.ask("POST", base, `{"name":"w","url":"https://x.example","events":["*"]}`).want(201).text("id")
	first := s.ask("POST", base+id+"/rotate-secret", `{}`, "Idempotency-Key", "k").want(200)
	for _, name := range []string{strings.ToUpper(id), "1", "01"} {
		if again := s.ask("POST", base+name+"/rotate-secret/", `{}`, "Idempotency-Key", "k").want(200); string(again.body) != string(first.body) {
			t.Errorf("by %s: %s", name, again.body)
		}
	}
	s.ask("POST", "/api/v1/subjects/A/erase", `{"reason":"asked"}`, "Idempotency-Key", "erase").want(200)
	s.ask("POST", "/api/v1/subjects/a/erase", `{"reason":"asked"}`, "Idempotency-Key", "erase").want(409)
}

// Of many that come at once with one key, one is carried out and all are answered alike.
func TestRepetitionsAtOnce(t *testing.T) {
	s := newService(t)
	r := newReceiver(t, 200)
	for _, c := range []struct {
		path, body string
		status     int
	}{
		{"/api/v1/webhooks", `{"name":"first","url":"` + r.URL + `","events":["*"]}`, 201},
		{"/api/v1/webhooks/1/test", `{"event_type":"patient.created","test_data":{"a":1}}`, 200},
	} {
		answers := make(chan answer, 8)
		for range cap(answers) {
			go func() { answers <- s.ask("POST", c.path, c.body, "Idempotency-Key", c.path) }()
		}
		first := (<-answers).want(c.status)
		for range cap(answers) - 1 {
			if got := (<-answers).want(c.status); string(got.body) != string(first.body) {
				t.Errorf("first %s, then %s", first.body, got.body)
			}
		}
	}
	r.next(t)
	if n := s.count(`SELECT count(*) FROM medilab.events WHERE type IN ('webhook.registered', 'delivery.tested')`); n != 2 {
		t.Errorf("%d events", n)
	}
}

// The log alone decides: when the answer is lost, as in a crash behind the append, a repetition
// changes nothing and says so. What was refused may be tried again under its key.
func TestRepetitionWithoutItsAnswer(t *testing.T) {
	s := newService(t)
	const path, body = "/api/v1/webhooks", `{"name":"first","url":"https://x.example","events":["*"]}`
	s.ask("POST", path, `{"name":"first"}`, "Idempotency-Key", "k").want(422)
	s.ask("POST", path, body, "Idempotency-Key", "k").want(201)
	// As if it were long ago: a repetition waits for what may still be under way.
	for _, statement := range []string{
		`TRUNCATE medilab.answers`, `ALTER TABLE medilab.events DISABLE TRIGGER USER`,
		`UPDATE medilab.events SET recorded_at = recorded_at - interval '1 hour' WHERE type = 'idempotency_key.used'`,
	} {
		if _, err := s.pool.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	s.ask("POST", path, body, "Idempotency-Key", "k").want(http.StatusConflict)
	if n := s.count(`SELECT count(*) FROM medilab.events WHERE type = 'webhook.registered'`); n != 1 {
		t.Errorf("%d webhooks", n)
	}
}

// count returns the one number that the statement asks for.
func (s *service) count(statement string) (n int) {
	s.t.Helper()
	if err := s.pool.QueryRow(s.t.Context(), statement).Scan(&n); err != nil {
		s.t.Fatal(err)
	}
	return n
}
