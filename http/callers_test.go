package http_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// as sends a request with another token.
func (s *service) as(token, method, path, body string, headers ...string) answer {
	s.t.Helper()
	return s.ask(method, path, body, append([]string{"Authorization", "Bearer " + token}, headers...)...)
}

// An idempotency key is each caller's own, also of two tokens with one name.
func TestCallersShareNoKeys(t *testing.T) {
	s := newService(t)
	tokens := []string{s.tokenFor(domain.ScopeEventsWrite), s.tokenFor(domain.ScopeEventsWrite), adminToken}
	seen := map[string]bool{}
	for i, token := range tokens {
		body := fmt.Sprintf(`{"event_type":"patient.created","event_data":{"n":%d}}`, i)
		first := s.as(token, "POST", trigger, body, "Idempotency-Key", "k").want(202)
		if again := s.as(token, "POST", trigger, body, "Idempotency-Key", "k").want(202); string(again.body) != string(first.body) {
			t.Errorf("first %s, then %s", first.body, again.body)
		}
		s.as(token, "POST", trigger, `{"event_type":"visit.created","event_data":{}}`, "Idempotency-Key", "k").want(409)
		seen[first.text("event_id")] = true
	}
	if len(seen) != len(tokens) {
		t.Errorf("%d events for %d callers", len(seen), len(tokens))
	}
}

// An event id is each caller's own: the second that uses it gets another one, each time the
// same, and learns nothing of the first.
func TestCallersShareNoEventIDs(t *testing.T) {
	s := newService(t)
	id := uuid.NewString()
	mine, theirs := s.tokenFor(domain.ScopeEventsWrite), s.tokenFor(domain.ScopeEventsWrite)
	body := `{"event_type":"patient.created","event_data":{"a":1},"event_id":"` + id + `"}`
	batch := `{"events":[` + body + `,{"event_type":"visit.created","event_data":{}}]}`
	first := s.as(mine, "POST", trigger, body).want(202)
	own := s.as(theirs, "POST", trigger, body).want(202)
	if first.text("event_id") != id || own.text("event_id") == id {
		t.Fatalf("got %s and %s", first.body, own.body)
	}
	for token, was := range map[string]answer{mine: first, theirs: own} {
		if again := s.as(token, "POST", trigger, body).want(202); string(again.body) != string(was.body) {
			t.Errorf("first %s, then %s", was.body, again.body)
		}
		if together := s.as(token, "POST", trigger+"/batch", batch).want(202); together.text("items", 0, "event_id") != was.text("event_id") {
			t.Errorf("first %s, in a batch %s", was.body, together.body)
		}
		s.as(token, "POST", trigger, strings.Replace(body, "1", "2", 1)).want(409)
	}
	if third := s.ask("POST", trigger+"/batch", batch).want(202).text("items", 0, "event_id"); third == id || third == own.text("event_id") {
		t.Errorf("the third caller got %s", third)
	}
	for event, want := range map[string]string{id: "null", own.text("event_id"): `"` + id + `"`} {
		if got := s.ask("GET", "/api/v1/webhooks/events/"+event, "").want(200); got.get("client_event_id") != want {
			t.Errorf("got %s", got.body)
		}
	}
}

// A log of versions that named callers by the names of their tokens, and had one set of keys
// for all, still answers those callers as the first time, and nobody else.
func TestKeysOfFormerVersions(t *testing.T) {
	s := newService(t)
	caller := commands.Caller{Actor: "test"}
	token := func(name string) string {
		_, clear, err := s.commands.CreateToken(t.Context(), caller, name, []domain.Scope{domain.ScopeEventsWrite}, s.commands.Now().AddDate(1, 0, 0))
		if err != nil {
			t.Fatal(err)
		}
		return clear.Reveal()
	}
	crm, other, system := token("crm"), token("billing"), token("system:dispatcher")
	record := func(by, stream string, change domain.Change) {
		t.Helper()
		_, err := s.log.Append(t.Context(), eventstore.Unit{Writes: []eventstore.Write{{
			Stream: stream, Metadata: eventstore.Metadata{Actor: by},
			Events: []eventstore.NewEvent{{Type: change.ChangeType(), Data: domain.AppendJSON(nil, change), Value: change}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	id := domain.EventID(uuid.New())
	event := domain.EventTriggered{EventType: "patient.created", EventData: []byte(`{"a":1}`), Recipients: []domain.Recipient{}}
	record("crm", id.Stream(), event)
	// The hash of the body below, as that version wrote it.
	used := domain.IdempotencyKeyUsed{EventIDs: []domain.EventID{id}, BodyHash: "b0c8125dca4a00601235d82e5f37b94f050eafcb8047e12b7a0d038cbe13154c"}
	record("crm", domain.FormerKeyStream("k"), used)
	record("system:dispatcher", domain.FormerKeyStream("s"), used)

	body := `{"event_type":"patient.created","event_data":{"a":1}}`
	for name, tt := range map[string]struct {
		token, key string
		same       bool
	}{"its caller": {crm, "k", true}, "another": {other, "k", false}, "the administrator": {adminToken, "k", false}, "one named as the system": {system, "s", false}} {
		if got := s.as(tt.token, "POST", trigger, body, "Idempotency-Key", tt.key).want(202).text("event_id"); (got == id.String()) != tt.same {
			t.Errorf("%s: got %s", name, got)
		}
	}
	s.as(crm, "POST", trigger, `{"event_type":"patient.created","event_data":{}}`, "Idempotency-Key", "k").want(409)
	// One of the name that is newer than the entry was not its caller.
	if got := s.as(token("crm"), "POST", trigger, body, "Idempotency-Key", "k").want(202).text("event_id"); got == id.String() {
		t.Error("a new token of the name is answered as its predecessor")
	}
	withID := `{"event_id":"` + id.String() + `","event_type":"patient.created","event_data":{"a":1}}`
	if got := s.as(crm, "POST", trigger, withID).want(202).text("event_id"); got != id.String() {
		t.Errorf("the event's caller got %s", got)
	}
	if got := s.as(other, "POST", trigger, withID).want(202).text("event_id"); got == id.String() {
		t.Error("another caller got the event's id")
	}
}

// The log names the token by its id, whatever name somebody gave it.
func TestActorsAreTokens(t *testing.T) {
	s := newService(t)
	made, clear, err := s.commands.CreateToken(t.Context(), commands.Caller{Actor: "test"}, "admin", []domain.Scope{domain.ScopeAdmin}, s.commands.Now().AddDate(1, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	s.as(clear.Reveal(), "POST", "/api/v1/webhooks", `{"name":"CRM","url":"http://127.0.0.1:9/","events":["*"]}`).want(201)
	want := "token:" + made.ID.String() + " (admin)"
	if got := s.ask("GET", "/api/v1/webhooks/1/history", "").want(200).text("items", 0, "actor"); got != want {
		t.Errorf("the history names %q", got)
	}
	if log := s.ask("GET", "/api/v1/audit/events?type=webhook.registered", "").want(200); !strings.Contains(string(log.body), `"actor":"`+want+`"`) {
		t.Errorf("the log has %s", log.body)
	}
}
