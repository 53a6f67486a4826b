package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/commands/emit"
)

// connect opens a connection of the clinic's to the product's database.
func (p *product) connect() *pgx.Conn {
	p.Helper()
	conn, err := pgx.Connect(p.Context(), p.database)
	if err != nil {
		p.Fatal(err)
	}
	return conn
}

// The clinic emits from its own code, in SQL, by HTTP in a batch, and from a file; each event
// arrives once, byte for byte, and one that was rolled back never.
func TestClinicEmits(t *testing.T) {
	t.Parallel()
	in := harness.Receive(t, nil)
	p := start(t)
	p.api(201, "POST", "/webhooks/", fmt.Sprintf(`{"name":"a","url":%q,"events":["patient.*"]}`, in.URL), nil)
	conn := p.connect()
	begin := func() pgx.Tx {
		t.Helper()
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}
	data := func(who string) string { return `{ "who":"` + who + `",  "n":1.00, "text":"\u0000<é>" }` }

	undone := begin()
	if _, err := undone.Exec(t.Context(), `SELECT medilab.emit('patient.created', $1::text::json)`, data("undone")); err != nil {
		t.Fatal(err)
	}
	if err := undone.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	tx := begin()
	if _, err := tx.Exec(t.Context(), `SELECT medilab.emit('patient.created', $1::text::json)`, data("sql")); err != nil {
		t.Fatal(err)
	}
	if _, err := emit.Emit(t.Context(), tx, emit.Event{Type: "patient.updated", Data: json.RawMessage(data("go"))}); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `SELECT medilab.emit('patient.nonsense', '{}')`); err == nil {
		t.Error("an unknown type was not refused at once")
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.command(0, "", "emit", "patient.created", data("command"))
	p.command(0, fmt.Sprintf(`{"event_type":"patient.created","event_data":%s}`+"\n", data("file")), "emit", "--file", "-")
	p.api(202, "POST", "/webhooks/events/trigger/batch", fmt.Sprintf(`{"events":[{"event_type":"patient.created","event_data":%s}]}`, data("batch")), nil)
	p.trigger(fmt.Sprintf(`{"event_type":"patient.created","event_data":%s}`, data("http")))

	got := map[string]int{}
	for _, r := range in.Await(6) {
		for _, who := range []string{"undone", "sql", "go", "command", "file", "batch", "http"} {
			if strings.Contains(string(r.Body), `"event_data":`+data(who)+`,`) {
				got[who]++
			}
		}
	}
	for _, who := range []string{"sql", "go", "command", "file", "batch", "http"} {
		if got[who] != 1 {
			t.Errorf("the event of %s arrived %d times", who, got[who])
		}
	}
	if got["undone"] > 0 {
		t.Error("an event that was rolled back arrived")
	}

	// The auditor sees what concerns the webhook, and goes on where he ended.
	p.Until("all calls are in the log", func() bool {
		return strings.Count(p.command(0, "", "audit", "log", "--webhook", "1", "--json"), "delivery.succeeded") == 6
	})
	whole := p.command(0, "", "audit", "log", "--format", "ndjson")
	_, answer := p.request("GET", "/api/v1/audit/events", "")
	if !strings.HasPrefix(string(answer), whole) { // that the command read payloads follows
		t.Errorf("the command shows\n%s\nand the API\n%s", whole, answer)
	}
	_, rest := p.request("GET", "/api/v1/audit/events?after=3", "")
	if lines := strings.SplitAfterN(whole, "\n", 4); !strings.HasPrefix(string(rest), lines[3]) {
		t.Errorf("after 3 the API shows\n%s", rest)
	}
	p.command(0, "", "audit", "verify")
}
