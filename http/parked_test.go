package http_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/outbox"
	"github.com/medilab/webhooks/domain"
)

func TestParked(t *testing.T) {
	t.Parallel()
	s := newService(t)
	for _, reason := range []string{"first", "second", "third"} {
		_, err := s.pool.Exec(t.Context(), `INSERT INTO medilab.parked_events (event_id, event_type, event_data, emitted_by, emitted_at, reason)
			VALUES (gen_random_uuid(), 'patient.none', '{"a": "\u0000"}', 'clinic', now(), $1)`, reason)
		if err != nil {
			t.Fatal(err)
		}
	}
	first := s.ask("GET", "/api/v1/webhooks/events/parked?limit=2", "").want(200)
	if first.text("items", 0, "reason") != "third" || first.get("items", 1, "event_data") != `{"a":"\u0000"}` {
		t.Errorf("got %s", first.body)
	}
	if rest := s.ask("GET", "/api/v1/webhooks/events/parked?limit=2&cursor="+first.text("next_cursor"), "").want(200); rest.text("items", 0, "reason") != "first" || rest.get("next_cursor") != "null" {
		t.Errorf("got %s", rest.body)
	}
	// What repeats a key cannot be walked through, and is withheld all the same.
	_, err := s.pool.Exec(t.Context(), `INSERT INTO medilab.parked_events (event_id, event_type, event_data, emitted_by, emitted_at, reason)
		VALUES (gen_random_uuid(), 'patient.created', '{"a": "planted", "a": 2}', 'clinic', now(), 'twice')`)
	if err != nil {
		t.Fatal(err)
	}
	hidden := s.as(s.tokenFor(domain.ScopeWebhooksRead), "GET", "/api/v1/webhooks/events/parked", "").want(200)
	if strings.Contains(string(hidden.body), "planted") || hidden.get("items", 0, "event_data") != "null" || hidden.get("items", 0, "redacted") != "true" {
		t.Errorf("shown without the right: %s", hidden.body)
	}
	twice := s.ask("GET", "/api/v1/webhooks/events/parked?limit=1", "").want(200)
	var onRecord bool
	err = s.pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM medilab.events WHERE type = 'data.read' AND position(convert_to($1, 'UTF8') IN data) > 0)`,
		twice.text("items", 0, "event_id")).Scan(&onRecord)
	if err != nil || !onRecord {
		t.Errorf("the reading is not on record: %v", err)
	}
	// A page of large ones is shorter, and nothing is left out.
	_, err = s.pool.Exec(t.Context(), `INSERT INTO medilab.parked_events (event_id, event_type, event_data, emitted_by, emitted_at, reason)
		SELECT gen_random_uuid(), 'patient.created', json_build_object('n', n, 'text', repeat('x', 9 << 20)), 'clinic', now(), 'large' FROM generate_series(1, 5) AS n`)
	if err != nil {
		t.Fatal(err)
	}
	var sizes []int
	ids := map[string]bool{}
	for cursor := ""; cursor != "null"; {
		page := s.ask("GET", "/api/v1/webhooks/events/parked"+cursor, "").want(200)
		var list struct {
			Items []struct {
				ID     json.Number
				Reason string
			}
			Next *string `json:"next_cursor"`
		}
		if err := json.Unmarshal([]byte(page.body), &list); err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(list.Items))
		for _, item := range list.Items {
			ids[item.ID.String()] = true
		}
		if cursor = "null"; list.Next != nil {
			cursor = "?cursor=" + *list.Next
		}
	}
	if fmt.Sprint(sizes) != "[2 2 5]" || len(ids) != 9 {
		t.Errorf("pages of %v, %d events", sizes, len(ids))
	}
}

// A parked event is taken into the log or dropped, once, and who did it stays.
func TestParkedSettled(t *testing.T) {
	s := newService(t)
	park := func(eventType, data string) (id, event string) {
		t.Helper()
		err := s.pool.QueryRow(t.Context(), `INSERT INTO medilab.parked_events (event_id, event_type, event_data, correlation_id, source, emitted_by, emitted_at, reason)
			VALUES (gen_random_uuid(), $1, $2, 'c-1', 'sql', 'clinic', now(), 'it was so') RETURNING id::text, event_id::text`, eventType, data).Scan(&id, &event)
		if err != nil {
			t.Fatal(err)
		}
		return id, event
	}
	settle := func(id, what string) answer {
		return s.ask("POST", "/api/v1/webhooks/events/parked/"+id+"/"+what, "")
	}
	known, event := park("patient.created", ` { "a": 1.0, "b":"\u0000"} `)
	unknown, _ := park("patient.none", `{}`)
	twice, _ := park("patient.created", `{"a":1,"a":2}`)
	if got := settle(known, "retry").want(202); got.text("event_id") != event || got.text("event_type") != "patient.created" {
		t.Errorf("got %s", got.body)
	}
	if got := s.ask("GET", "/api/v1/webhooks/events/"+event, "").want(200); !strings.Contains(string(got.body), `"event_data":{ "a": 1.0, "b":"\u0000"},`) ||
		got.text("correlation_id") != "c-1" || got.text("source") != "sql" {
		t.Errorf("the event is %s", got.body)
	}
	for id, words := range map[string]string{unknown: "not a known event type", twice: "repeats a key"} {
		if got := settle(id, "retry").want(409); !strings.Contains(got.problem().Detail, words) {
			t.Errorf("got %s", got.body)
		}
	}
	s.ask("POST", "/api/v1/webhooks/events/parked/"+unknown+"/retry", `{"event_data":null}`).refusing("event_data")
	settle(unknown, "discard").want(204)
	for _, id := range []string{known, unknown, "0", "99999999999999999999"} {
		settle(id, "retry").want(404)
		settle(id, "discard").want(404)
	}
	// Another caller's event may have got its id meanwhile.
	taken, id := park("patient.created", `{"a":1}`)
	s.ask("POST", trigger, `{"event_id":"`+id+`","event_type":"patient.created","event_data":{}}`).want(202)
	if own := settle(taken, "retry").want(202).text("event_id"); own == id ||
		s.ask("GET", "/api/v1/webhooks/events/"+own, "").want(200).text("client_event_id") != id {
		t.Errorf("got %s", own)
	}
	// Or another one of the same role.
	again, _ := park("patient.created", `{"a":1}`)
	if _, err := s.pool.Exec(t.Context(), `UPDATE medilab.parked_events SET event_id = $2 WHERE id = $1`, again, event); err != nil {
		t.Fatal(err)
	}
	if got := settle(again, "retry").want(409); !strings.Contains(got.problem().Detail, "discarded") {
		t.Errorf("got %s", got.body)
	}
	settle(again, "discard").want(204)

	left := s.ask("GET", "/api/v1/webhooks/events/parked", "").want(200)
	if left.get("items", 0, "id") != twice || left.get("next_cursor") != "null" || strings.Contains(string(left.body), "patient.none") {
		t.Errorf("left are %s", left.body)
	}
	acts := strings.Split(strings.TrimSpace(string(s.ask("GET", "/api/v1/audit/events?type=admin.acted", "").want(200).body)), "\n")
	if len(acts) != 4 {
		t.Fatalf("the log has %q", acts)
	}
	for i, action := range []string{"parked_event.retried", "parked_event.discarded", "parked_event.retried", "parked_event.discarded"} {
		if !strings.Contains(acts[i], action) || !strings.Contains(acts[i], `"actor":"admin"`) || !strings.Contains(acts[i], "it was so") {
			t.Errorf("act %d is %s", i, acts[i])
		}
	}
	// Of several that do something at once one comes first.
	both, _ := park("patient.created", `{}`)
	answers := make(chan int, 8)
	for i := range cap(answers) {
		go func() { answers <- settle(both, []string{"retry", "discard"}[i%2]).status }()
	}
	done := 0
	for range cap(answers) {
		switch got := <-answers; got {
		case 202, 204:
			done++
		case 404:
		default:
			t.Errorf("one was answered %d", got)
		}
	}
	if done != 1 {
		t.Errorf("%d settled one parked event", done)
	}
}

// What is accepted after all is what was sent: only recorded if that was asked for, and in its trace.
func TestParkedIsWhole(t *testing.T) {
	s := newService(t)
	s.register("")
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	event := domain.EventTriggered{EventType: "patient.created", EventData: []byte(`{}`), Imported: true, Trace: domain.NewTrace(trace, "a=b")}
	_, err := outbox.ParkMessage(t.Context(), s.pool, outbox.Message{Actor: "source:his", Event: commands.NewEvent{Event: event}, Reason: "it was so"})
	if err != nil {
		t.Fatal(err)
	}
	id := s.ask("POST", "/api/v1/webhooks/events/parked/1/retry", "").want(202).text("event_id")
	got := s.ask("GET", "/api/v1/webhooks/events/"+id, "").want(200)
	if got.get("deliver") != "false" || got.text("traceparent") != trace || got.text("tracestate") != "a=b" {
		t.Errorf("accepted as %s", got.body)
	}
	if got := s.ask("GET", "/api/v1/webhooks/events/"+id+"/explain", "").want(200); got.text("items", 0, "verdict") != "imported" {
		t.Errorf("explained by %s", got.body)
	}
}

// A source may say any time at which an event happens. One that has not come yet is no more
// accepted from the parked events than by a trigger.
func TestParkedOfTheFuture(t *testing.T) {
	s := newService(t)
	event := domain.EventTriggered{EventType: "patient.created", EventData: []byte(`{}`), OccurredAt: time.Now().Add(time.Hour)}
	_, err := outbox.ParkMessage(t.Context(), s.pool, outbox.Message{Actor: "source:his", Event: commands.NewEvent{Event: event}, Reason: "too early"})
	if err != nil {
		t.Fatal(err)
	}
	if got := s.ask("POST", "/api/v1/webhooks/events/parked/1/retry", "", "Accept-Language", "ru").want(409); !strings.Contains(got.problem().Detail, "occurred_at: не должно быть в будущем") {
		t.Errorf("got %s", got.body)
	}
}
