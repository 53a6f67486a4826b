package http_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
)

const aTrace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// An event of the past is recorded with its own time, goes to nobody, and a replay sends it.
func TestImportOfThePast(t *testing.T) {
	s := newService(t)
	s.work()
	r := newReceiver(t, 200)
	s.ask("POST", "/api/v1/webhooks", `{"name":"all","url":"`+r.URL+`","events":["patient.*"],"payload_version":"2"}`).want(201)
	s.ask("POST", "/api/v1/webhooks", `{"name":"none","url":"`+r.URL+`","events":["visit.created"]}`).want(201)
	before := s.commands.Now().Add(-time.Second).Format(time.RFC3339Nano)
	past := `{"event_type":"patient.created","event_data":{"n":1},"occurred_at":"2019-03-04T05:06:07.5+03:00","deliver":false}`
	id := s.ask("POST", trigger, past).want(202).text("event_id")
	batch := s.ask("POST", trigger+"/batch", `{"events":[`+strings.Replace(past, ":1}", ":2}", 1)+`,{"event_type":"patient.updated","event_data":{"n":3},"deliver":true}]}`).want(202)

	if live := r.next(t); !strings.Contains(live.body, `{"n":3}`) {
		t.Errorf("sent %s", live.body)
	}
	event := "/api/v1/webhooks/events/" + id
	got := s.ask("GET", event, "").want(200)
	if got.text("occurred_at") != "2019-03-04T02:06:07.500000Z" || got.get("deliver") != "false" || got.text("accepted_at") < before {
		t.Errorf("recorded as %s", got.body)
	}
	explain := s.ask("GET", event+"/explain", "").want(200)
	for i := range 2 {
		if explain.text("items", i, "verdict") != "imported" || explain.get("items", i, "sent_by") != "[]" {
			t.Errorf("explained as %s", explain.body)
		}
	}
	if got := s.ask("GET", event+"/deliveries", "").want(200); got.get("items") != "[]" {
		t.Errorf("deliveries: %s", got.body)
	}
	s.settled()
	if recent := s.ask("GET", "/api/v1/webhooks/events?from="+before, "").want(200); recent.get("items", 0, "deliver") != "true" || strings.Contains(string(recent.body), "2019-") {
		t.Errorf("listed by when they occurred: %s", recent.body)
	}
	list := s.ask("GET", "/api/v1/webhooks/events", "").want(200)
	if list.get("items", 0, "deliver") != "true" || list.text("items", 2, "event_id") != id || list.text("items", 1, "event_id") != batch.text("items", 0, "event_id") {
		t.Errorf("listed as %s", list.body)
	}

	s.ask("POST", "/api/v1/webhooks/1/replay", `{"from":"`+before+`","to":"2100-01-01T00:00:00Z","event_types":["patient.created"]}`).want(202)
	one, two := r.next(t).body, r.next(t).body // of no patient, so in any order
	for n := 1; n <= 2; n++ {
		data := fmt.Sprintf(`{"n":%d}`, n)
		if strings.Contains(one, data) == strings.Contains(two, data) {
			t.Errorf("%s is not in one of %s and %s", data, one, two)
		}
	}
	if then := `"occurred_at":"2019-03-04T02:06:07.500Z"`; !strings.Contains(one, then) || !strings.Contains(two, then) {
		t.Errorf("replayed as %s and %s", one, two)
	}
	s.until("explained", func() bool {
		e := s.ask("GET", event+"/explain", "").want(200)
		return e.text("items", 0, "verdict") == "imported" && e.text("items", 0, "sent_by", 0, "kind") == "replay" && e.text("items", 0, "sent_by", 0, "state") == "delivered"
	})
}

func TestRulesOfThePast(t *testing.T) {
	s := newService(t)
	with := func(more string) string {
		return `{"event_type":"patient.created","event_data":{},"event_id":"550e8400-e29b-41d4-a716-446655440000"` + more + `}`
	}
	future := s.commands.Now().Add(time.Hour).Format(time.RFC3339)
	s.ask("POST", trigger, with(`,"occurred_at":"`+future+`"`)).refusing("occurred_at")
	s.ask("POST", trigger, with(`,"occurred_at":"yesterday","deliver":"no","traceparent":"x"`)).refusing("occurred_at", "deliver", "traceparent")
	s.ask("POST", trigger+"/batch", `{"events":[`+with("")+`,`+with(`,"occurred_at":"`+future+`"`)+`]}`).refusing("events[1].occurred_at", "events[1].event_id")
	// They are part of the content: repeating an event without them is another event.
	const time, recorded = `,"occurred_at":"2020-01-01T00:00:00.1234567Z"`, `,"deliver":false`
	first := s.ask("POST", trigger, with(time+recorded), "Idempotency-Key", "k", "traceparent", aTrace).want(202)
	if again := s.ask("POST", trigger, with(time+recorded), "Idempotency-Key", "k").want(202); string(again.body) != string(first.body) {
		t.Errorf("again: %s", again.body)
	}
	for _, other := range []string{"", time, recorded, `,"occurred_at":"2020-01-01T00:00:01Z"` + recorded} {
		s.ask("POST", trigger, with(other)).want(409)
		s.ask("POST", trigger, strings.Replace(with(other), "4400", "4401", 1), "Idempotency-Key", "k").want(409)
	}
	s.ask("POST", trigger, with(time+recorded+`,"traceparent":null`)).want(202)
}

func TestTraceIsPassedOn(t *testing.T) {
	s := newService(t)
	s.work()
	r := newReceiver(t, 200)
	s.ask("POST", "/api/v1/webhooks", `{"name":"one","url":"`+r.URL+`","events":["patient.created"]}`).want(201)
	s.ask("POST", "/api/v1/webhooks", `{"name":"own","url":"`+r.URL+`","events":["patient.updated"],"headers":{"Traceparent":"mine"}}`).want(201)
	s.ask("POST", "/api/v1/webhooks", `{"name":"many","url":"`+r.URL+`","events":["visit.created"],"batch":{"max_events":2,"max_wait":300}}`).want(201)
	other := strings.Replace(aTrace, "b7-", "b8-", 1)
	event := func(eventType, more string) string {
		return `{"event_type":"` + eventType + `","event_data":{}` + more + `}`
	}
	const state = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"
	s.ask("POST", trigger, event("patient.created", ""), "traceparent", aTrace, "tracestate", state).want(202)
	sent := r.next(t)
	if sent.header.Get("traceparent") != aTrace || sent.header.Get("tracestate") != state {
		t.Errorf("sent %v", sent.header)
	}
	s.until("recorded", func() bool { return s.head() >= 5 })
	s.settled()
	call := s.ask("GET", "/api/v1/webhooks/1/calls", "").want(200).text("items", 0, "call_id")
	if shown := s.ask("GET", "/api/v1/webhooks/1/calls/"+call, "").want(200); shown.text("request_headers", "traceparent") != aTrace || shown.text("request_headers", "tracestate") != state {
		t.Errorf("shown %s", shown.body)
	}
	for _, wrong := range []string{"x", strings.ToUpper(aTrace), "ff" + aTrace[2:], "00-" + strings.Repeat("0", 32) + aTrace[35:], aTrace[:36] + strings.Repeat("0", 16) + "-01"} {
		s.ask("POST", trigger, event("patient.created", ""), "traceparent", wrong, "tracestate", state).want(202)
		if sent := r.next(t); sent.header["Traceparent"] != nil || sent.header["Tracestate"] != nil {
			t.Errorf("%s was passed on: %v", wrong, sent.header)
		}
	}
	s.ask("POST", trigger, event("patient.updated", ""), "traceparent", aTrace, "tracestate", state).want(202)
	if sent := r.next(t); len(sent.header["Traceparent"]) != 1 || sent.header["Tracestate"] != nil || sent.header.Get("traceparent") != "mine" {
		t.Errorf("beside its own it gets %v", sent.header)
	}
	s.until("recorded", func() bool { return s.items("/api/v1/webhooks/2/calls") == 1 })
	call = s.ask("GET", "/api/v1/webhooks/2/calls", "").want(200).text("items", 0, "call_id")
	if shown := s.ask("GET", "/api/v1/webhooks/2/calls/"+call, "").want(200).get("request_headers"); !strings.Contains(shown, `"Traceparent":"***"`) ||
		strings.Contains(shown, `"traceparent"`) || strings.Contains(shown, `"tracestate"`) {
		t.Errorf("beside its own is shown %s", shown)
	}
	// An event's own counts more than the request's; a batch has what its events share.
	s.ask("POST", trigger+"/batch", `{"events":[`+event("visit.created", `,"traceparent":"`+other+`"`)+`,`+event("visit.created", "")+`]}`, "traceparent", aTrace, "tracestate", state).want(202)
	if sent := r.next(t); sent.header["Traceparent"] != nil || sent.header["Tracestate"] != nil {
		t.Errorf("a batch of two traces got %v", sent.header)
	}
	s.ask("POST", trigger+"/batch", `{"events":[`+event("visit.created", "")+`,`+event("visit.created", `,"traceparent":"`+aTrace+`","tracestate":"`+state+`"`)+`]}`,
		"traceparent", aTrace, "tracestate", state).want(202)
	if sent := r.next(t); sent.header.Get("traceparent") != aTrace || sent.header.Get("tracestate") != state {
		t.Errorf("a batch got %v", sent.header)
	}
}

// What was accepted once is answered as then, though its type has left the catalogue.
func TestRepetitionAfterItsTypeLeft(t *testing.T) {
	s := newService(t)
	builtin := s.commands.Catalog
	s.commands.Catalog = builtin.With([]domain.EventType{"lab.ready"})
	one := commands.NewEvent{Event: domain.EventTriggered{EventType: "lab.ready", EventData: []byte(`{}`)}}
	named := one
	named.ID = domain.EventID(uuid.New())
	trigger := func(event commands.NewEvent, key string) (commands.Accepted, error) { // the description has no such type
		return s.commands.TriggerEvent(t.Context(), commands.Caller{Actor: "lab"}, event, key)
	}
	batch := func(key string) (commands.Accepted, error) {
		accepted, err := s.commands.TriggerBatch(t.Context(), commands.Caller{Actor: "lab"}, []commands.NewEvent{one}, key)
		return append(accepted, commands.Accepted{})[0], err
	}
	first := map[string]commands.Accepted{}
	for round := range 2 {
		for name, ask := range map[string]func() (commands.Accepted, error){
			"key": func() (commands.Accepted, error) { return trigger(one, "one") }, "id": func() (commands.Accepted, error) { return trigger(named, "") },
			"batch": func() (commands.Accepted, error) { return batch("many") },
		} {
			got, err := ask()
			if err != nil || round > 0 && got != first[name] {
				t.Errorf("%s: %v, %v, the first time %v", name, got, err, first[name])
			}
			first[name] = got
		}
		s.commands.Catalog = builtin
	}
	head := s.head()
	other := one
	other.Event.EventData = []byte(`{"a":1}`)
	for key, event := range map[string]commands.NewEvent{"": one, "new": one, "one": other} {
		if _, err := trigger(event, key); !errors.Is(err, domain.KindInvalid) {
			t.Errorf("key %q: %v", key, err)
		}
	}
	if _, err := batch("new"); !errors.Is(err, domain.KindInvalid) {
		t.Errorf("a new batch: %v", err)
	}
	if s.head() != head {
		t.Error("what was refused is in the log")
	}
}

// A proposed retry policy is judged by what receivers answered, and sends nothing.
func TestBacktestOfRetries(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.work()
	down := newReceiver(t, 503)
	s.ask("POST", "/api/v1/webhooks", `{"name":"n","url":"`+down.URL+`","events":["patient.created"],"max_retries":1,"retry_delay":1}`).want(201)
	s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{}}`).want(202)
	down.next(t)
	down.next(t)
	up := newReceiver(t, 200)
	s.until("given up", func() bool { return s.head() >= 4 })
	s.ask("PATCH", "/api/v1/webhooks/1", `{"url":"`+up.URL+`"}`).want(200)
	s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{}}`).want(202)
	up.next(t)
	s.until("delivered", func() bool { return s.head() >= 7 })
	backtest := func(body string) answer {
		t.Helper()
		return s.ask("POST", "/api/v1/webhooks/1/backtest", body).want(200)
	}
	if got := backtest(""); strings.Contains(string(got.body), "retries") {
		t.Errorf("without a proposal: %s", got.body)
	}
	for body, want := range map[string]string{
		`{"max_retries":1,"retry_delay":1}`: "2 1 1 0 0 0 3 3",
		`{"max_retries":0}`:                 "2 1 1 0 0 0 3 2",
		`{"retry_delay":86400}`:             "2 1 1 0 0 1 3 2",
		`{"max_retries":1,"retry_delay":1,"to":"2020-01-01T00:00:00Z"}`: "0 0 0 0 0 0 0 0",
	} {
		got := backtest(body)
		numbers := make([]string, 0, 8)
		for _, name := range []string{"considered", "delivered", "failed", "delivered_instead", "failed_instead", "pending_instead", "calls", "calls_instead"} {
			numbers = append(numbers, got.get("retries", name))
		}
		if strings.Join(numbers, " ") != want {
			t.Errorf("%s: %v, want %s", body, numbers, want)
		}
	}
	pending := backtest(`{"retry_delay":86400}`)
	if pending.text("retries", "samples", 0, "state") != "failed" || pending.text("retries", "samples", 0, "state_instead") != "pending" || pending.get("retries", "samples", 0, "ended_at_instead") != "null" {
		t.Errorf("samples: %s", pending.body)
	}
	s.ask("POST", "/api/v1/webhooks/1/backtest", `{"max_retries":11,"retry_delay":"x","timeout":0,"retries":1}`).refusing("max_retries", "retry_delay", "timeout", "retries")

	lines := strings.Split(strings.TrimSpace(string(s.ask("POST", "/api/v1/webhooks/1/backtest", `{"max_retries":0}`, "Accept", "application/x-ndjson").want(200).body)), "\n")
	last := lines[len(lines)-1]
	if len(lines) < 2 || !strings.Contains(lines[0], `"progress":0.`) || !strings.Contains(last, `"considered":2`) || !strings.Contains(last, `"retries":{"considered":2`) {
		t.Errorf("streamed %q", lines)
	}
	s.ask("POST", "/api/v1/webhooks/1/backtest", `{"x":0}`, "Accept", "application/x-ndjson").refusing("x")
}
