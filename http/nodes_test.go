package http_test

import (
	"testing"

	"github.com/medilab/webhooks/migrations/testdb"
)

// Two processes on one database: what one of them was told, the other knows.
func TestTwoNodes(t *testing.T) {
	database := testdb.New(t)
	a, b := newServiceOn(t, database), newServiceOn(t, database)
	id := a.register(`"description":"a"`).text("id")
	b.ask("GET", "/api/v1/webhooks/"+id, "").want(200)

	// Each change is made by the node that knows less.
	for i, s := range []*service{a, b, a, b} {
		s.ask("PUT", "/api/v1/webhooks/1", `{"description":"`+string(rune('b'+i))+`"}`).want(200)
	}
	b.ask("PUT", "/api/v1/webhooks/1", `{"name":"B"}`, "If-Match", `"5"`).want(200)
	a.ask("PUT", "/api/v1/webhooks/1", `{"name":"C"}`, "If-Match", `"6"`).want(200) // newer than a knows
	b.ask("PUT", "/api/v1/webhooks/1", `{"name":"D"}`, "If-Match", `"6"`).want(412)

	const body = `{"event_type":"patient.created","event_data":{}}`
	first := a.ask("POST", trigger, body, "Idempotency-Key", "k").want(202)
	if again := b.ask("POST", trigger, body, "Idempotency-Key", "k").want(202); string(again.body) != string(first.body) {
		t.Errorf("answered %s, the first time %s", again.body, first.body)
	}
}
