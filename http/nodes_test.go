package http_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/medilab/webhooks/eventstore/cpulimit"
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

// A trigger that takes long to match is accepted, however often another process changes
// webhooks meanwhile.
func TestChangesDoNotStarveTriggers(t *testing.T) {
	database := testdb.New(t)
	a, b := newServiceOn(t, database), newServiceOn(t, database)
	a.register(`"filters":{"note":{"$regex":"(a|aa)*b"}}`)
	// One turn is left, and it is ours when the matching begins: each time it has read the
	// configuration already.
	taken := a.takeTurns()
	defer func() {
		for i := range taken {
			taken[i].End()
		}
	}()
	turn := make(chan *cpulimit.Task)
	await := func() {
		task := a.log.Limiter.Task()
		if err := task.Spend(t.Context(), cpulimit.Expensive); err != nil {
			t.Error(err)
		}
		turn <- &task
	}
	waiting := func(n int) {
		for a.log.Limiter.Waiting() != n {
			time.Sleep(time.Millisecond)
		}
	}
	go await()
	waiting(1)
	accepted := make(chan int, 1)
	go func() {
		accepted <- a.serve(t.Context(), "POST", trigger, `{"event_type":"patient.created","event_data":{"note":"aaa"}}`).Code
	}()
	waiting(2)
	taken[0].End()
	ours := <-turn
	held := func() (is bool) {
		if err := a.pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
			WHERE locktype = 'advisory' AND datname = current_database())`).Scan(&is); err != nil {
			t.Fatal(err)
		}
		return is
	}
	for changes := 0; !held(); changes++ {
		if changes == 10 {
			t.Fatal("decided in vain after 10 changes")
		}
		b.ask("PUT", "/api/v1/webhooks/1", fmt.Sprintf(`{"name":"%d"}`, changes)).want(200)
		go await()
		waiting(2)
		ours.End()
		ours = <-turn
		waiting(1)
	}
	changed := make(chan int, 1)
	go func() {
		changed <- b.serve(t.Context(), "PUT", "/api/v1/webhooks/1", `{"name":"last"}`).Code
	}()
	ours.End()
	if status := <-accepted; status != 202 {
		t.Errorf("the trigger is answered %d", status)
	}
	if status := <-changed; status != 200 {
		t.Errorf("the change is answered %d", status)
	}
}
