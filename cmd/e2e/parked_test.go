package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// What the clinic emitted and the service cannot accept waits with its reason for somebody to
// decide: taken in once it can be, it goes its way byte for byte; discarded, it goes nowhere.
func TestParkedEvents(t *testing.T) {
	t.Parallel()
	in := harness.Receive(t, nil)
	p := start(t)
	p.register(in.URL, "")
	conn := p.connect()
	const data = `{ "n":1.00, "who":"Иван \u0000" }`
	// A service that knows more types than this one was here.
	for _, sql := range []string{
		`INSERT INTO medilab.event_types VALUES ('lab.result_ready', 'Готов анализ', 'A result is ready')`,
		`SELECT medilab.emit('lab.result_ready', '` + data + `', correlation_id => 'c-7', event_id => '0190163d-8694-739b-aea5-966c26f8ad90')`,
		`SELECT medilab.emit('patient.created', '{"twice":1,"twice":2}')`,
		`SELECT medilab.emit('patient.updated', '{"poisoned":1e999}')`,
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	type parked struct {
		ID     int64
		Reason string
		Event  string `json:"event_id"`
		Type   string `json:"event_type"`
	}
	list := func() (byType map[string]parked) {
		t.Helper()
		var page struct{ Items []parked }
		p.api(200, "GET", "/webhooks/events/parked", "", &page)
		byType = map[string]parked{}
		for _, one := range page.Items {
			byType[one.Type] = one
		}
		return byType
	}
	var waiting map[string]parked
	p.Until("all are parked", func() bool { waiting = list(); return len(waiting) == 3 })
	unknown, twice, poisoned := waiting["lab.result_ready"], waiting["patient.created"], waiting["patient.updated"]
	path := func(of parked, what string) string { return fmt.Sprintf("/webhooks/events/parked/%d/%s", of.ID, what) }
	p.refused(409, "POST", path(unknown, "retry"), "", "", "not a known event type")
	p.refused(409, "POST", path(twice, "retry"), "", "", "repeats a key")

	// Now this one knows it too.
	file := filepath.Join(t.TempDir(), "types.json")
	if err := os.WriteFile(file, []byte(`[{"type":"lab.result_ready","ru":"Готов анализ"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	p.stop()
	p.extra = append(p.extra, "MEDILAB_EVENT_TYPES="+file)
	p.start()
	var accepted struct {
		ID   string `json:"event_id"`
		Type string `json:"event_type"`
	}
	p.api(202, "POST", path(unknown, "retry"), "", &accepted)
	if accepted.ID != unknown.Event || accepted.Type != "lab.result_ready" {
		t.Errorf("accepted is %+v", accepted)
	}
	if got := in.Await(1)[0]; !strings.Contains(string(got.Body), `"event_data":`+data+`,`) || got.Header.Get("X-Webhook-Event-Id") != unknown.Event {
		t.Errorf("delivered was %s", got.Body)
	}
	// One is mended, and keeps its id.
	p.refused(422, "POST", path(poisoned, "retry"), `{"event_data":[]}`, "event_data", "")
	p.refused(422, "POST", path(poisoned, "retry"), `{"data":{}}`, "data", "")
	p.api(202, "POST", path(poisoned, "retry"), `{"event_data":{ "poisoned":false }}`, &accepted)
	if got := in.Await(2)[1]; accepted.ID != poisoned.Event || !strings.Contains(string(got.Body), `"event_data":{ "poisoned":false },`) {
		t.Errorf("accepted is %+v, delivered was %s", accepted, got.Body)
	}
	p.api(204, "POST", path(twice, "discard"), "", nil)
	for _, gone := range []parked{unknown, twice, poisoned} {
		p.refused(404, "POST", path(gone, "retry"), "", "", "")
		p.refused(404, "POST", path(gone, "discard"), "", "", "")
	}
	if left := list(); len(left) != 0 {
		t.Errorf("still parked are %+v", left)
	}
	_, metrics := p.request("GET", "/metrics", "")
	if !strings.Contains(string(metrics), "medilab_outbox_parked_events 0\n") {
		t.Error("the metrics count parked events")
	}
	said := p.command(0, "", "audit", "log", "--type", "admin.acted", "--format", "ndjson")
	for _, words := range []string{"parked_event.retried", "parked_event.discarded", unknown.Event, twice.Event, `"actor":"admin"`} {
		if !strings.Contains(said, words) {
			t.Errorf("the log does not tell of %s: %s", words, said)
		}
	}
	if !strings.Contains(said, "parked_event.mended") || !strings.Contains(said, poisoned.Event) || strings.Count(said, "SHA-256") != 2 {
		t.Errorf("the log does not tell what was mended: %s", said)
	}
	if strings.Contains(said, "Иван") {
		t.Errorf("the record of it holds the event's data: %s", said)
	}
	p.command(0, "", "audit", "verify")
	if out := p.command(0, "", "__complete", "audit", "log", "--webhook", ""); !strings.HasPrefix(out, "1\t") {
		t.Errorf("the webhook's number is completed as %s", out)
	}
	if n := len(in.All()); n != 2 {
		t.Errorf("%d calls arrived, want 2", n)
	}

	// Nobody settles one for as long as payloads are kept.
	p.stop()
	p.extra = append(p.extra, "MEDILAB_KEEP_PAYLOADS=1s")
	p.start()
	conn = p.connect()
	if _, err := conn.Exec(t.Context(), `SELECT medilab.emit('patient.created', '{"thrice":1,"thrice":2}')`); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.Until("it is discarded", func() bool {
		said = p.command(0, "", "audit", "log", "--type", "admin.acted", "--format", "ndjson")
		return strings.Contains(said, "system:retention")
	})
	if left := list(); len(left) != 0 || strings.Contains(said, "thrice") {
		t.Errorf("still parked are %+v; the log says %s", left, said)
	}
}
