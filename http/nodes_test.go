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

	// What one answered, the other's next answer holds, also by the number and in
	// the list, however many strangers asked just before.
	for range 5 {
		number := a.register("").get("number")
		b.ask("GET", "/api/v1/webhooks/999", "").want(404)
		b.ask("GET", "/api/v1/webhooks/"+number, "").want(200)
		a.ask("PUT", "/api/v1/webhooks/"+number, `{"name":"N`+number+`"}`).want(200)
		if got := b.ask("GET", "/api/v1/webhooks/"+number, "").want(200).text("name"); got != "N"+number {
			t.Errorf("webhook %s is still called %s", number, got)
		}
		a.ask("POST", "/api/v1/webhooks/"+number+"/deactivate", "").want(200)
		if first := b.ask("GET", "/api/v1/webhooks?limit=1", "").want(200); first.get("items", 0, "number") != number || first.get("items", 0, "is_active") != "false" {
			t.Errorf("the list lacks %s: %s", number, first.body)
		}
	}

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
