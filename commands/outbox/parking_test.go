package outbox

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
)

func TestRelayParksWhatCannotBeAccepted(t *testing.T) {
	r := newRig(t)
	_, err := r.pool.Exec(t.Context(), `TRUNCATE medilab.event_types`) // as before the first start
	r.check(err)
	taken := r.emit(r.pool, `{"first":1}`)
	cases := []struct{ eventType, data, reason string }{
		{"visit.created", `{"nobody":1}`, "event_id must not be the nil UUID"},
		{"patient.created", `{"a":1,"a":2}`, "repeats a key"},
		{"patient.created", `{"a\u0000":{"b":1,"b":2}}`, "repeats a key"},
		{"patient.created", `{"a":1e999}`, "number"},
		{"patient.created", `{"a":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`, "nests deeper"},
		{"patient.made", `{}`, "is not a known event type"},
		{"webhook.alert_raised", `{}`, "of the service itself"},
	}
	for _, c := range cases {
		id := uuid.New()
		if strings.Contains(c.reason, "nil UUID") {
			id = uuid.Nil
		}
		_, err := r.pool.Exec(t.Context(), `SELECT medilab.emit($1, $2::text::json, event_id => $3)`, c.eventType, c.data, id)
		r.check(err)
	}
	_, err = r.pool.Exec(t.Context(), `SELECT medilab.emit('patient.created', '{"other":1}', event_id => $1)`, uuid.UUID(taken))
	r.check(err)
	r.emit(r.pool, `{"last":1}`)
	r.run(r.relay(r.join()))
	if got := r.data(2); !slices.Equal(got, []string{`{"first":1}`, `{"last":1}`}) {
		t.Errorf("the log has %v", got)
	}
	r.awaitEmpty()

	parked, _, err := Parked(t.Context(), r.pool, 0, 100)
	r.check(err)
	// The one that lost its id to another is settled last, and newest come first.
	if len(parked) != len(cases)+1 || parked[0].Reason != "another event is recorded under this event_id" || parked[0].EventID != uuid.UUID(taken) {
		t.Fatalf("parked are %+v", parked)
	}
	for i, c := range cases {
		p := parked[len(cases)-i]
		if p.EventType != c.eventType || string(p.EventData) != c.data || !strings.Contains(p.Reason, c.reason) {
			t.Errorf("parked is %+v; want reason %q", p, c.reason)
		}
	}
	page, _, err := Parked(t.Context(), r.pool, parked[1].ID, 2)
	r.check(err)
	if len(page) != 2 || page[0].ID != parked[2].ID {
		t.Errorf("the next page is %+v", page)
	}
	state, err := ReadState(t.Context(), r.pool)
	r.check(err)
	if state != (State{Parked: int64(len(cases)) + 1}) {
		t.Errorf("the state is %+v", state)
	}
}

// Data that break an enforced schema are parked; of those that take long to check, which are
// moved last, too.
func TestRelayParksWhatBreaksASchema(t *testing.T) {
	r := newRig(t)
	relay := r.relay(r.join())
	catalog, err := domain.ParseCatalog([]byte(`[{"type":"patient.created","enforce":true,
		"schema":{"required":["id"],"properties":{"name":{"maxLength":5},"note":{"pattern":"^(x+)+$"}}}}]`))
	r.check(err)
	relay.catalog = catalog
	r.emit(r.pool, `{"id":1,"note":"`+strings.Repeat("x", 1<<20)+`"}`)
	r.emit(r.pool, `{"name":"Иванов"}`)
	r.emit(r.pool, `{"id":1,"name":"Иван"}`)
	r.run(relay)
	if got := r.data(1); !slices.Equal(got, []string{`{"id":1,"name":"Иван"}`}) {
		t.Errorf("the log has %v", got)
	}
	r.awaitEmpty()
	parked, _, err := Parked(t.Context(), r.pool, 0, 10)
	r.check(err)
	var reasons []string
	for _, p := range parked {
		reasons = append(reasons, p.Reason)
	}
	want := []string{"event_data is too costly to check against the schema of its type", "event_data.id is required"}
	if !slices.Equal(reasons, want) {
		t.Errorf("parked because %q, want %q", reasons, want)
	}
}

// Keys of the data may be names of patients: a reason has none of them, nor has what the log says
// when the event is settled.
func TestReasonsHaveNoNamesOfTheData(t *testing.T) {
	r := newRig(t)
	relay := r.relay(r.join())
	logged := &harness.Output{}
	relay.logger = slog.New(slog.NewTextHandler(logged, nil))
	catalog, err := domain.ParseCatalog([]byte(`[{"type":"patient.created","enforce":true,"schema":{"properties":{"contacts":{"additionalProperties":{"type":"object"}}}}}]`))
	r.check(err)
	relay.catalog = catalog
	r.emit(r.pool, `{"contacts":{"Иванов":1,"Иванов":2}}`)
	r.emit(r.pool, `{"contacts":{"Иванов":1}}`)
	r.emit(r.pool, `{"name":"\ud800Иванов"}`)
	r.run(relay)
	r.awaitEmpty()
	_, err = r.pool.Exec(t.Context(), `INSERT INTO medilab.parked_events (event_id, event_type, event_data, emitted_by, emitted_at, reason)
		VALUES (gen_random_uuid(), 'patient.created', '{"Иванов":1,"Иванов":2}', 'clinic', now(), 'event_data: the JSON repeats a key at byte 14 (in Иванов)'),
			(gen_random_uuid(), 'patient.created', '{"contacts":{"Иванов":1}}', 'clinic', now(), 'event_data.contacts.Иванов must be of type object'),
			(gen_random_uuid(), 'patient.created', '{"Иванов":1,"Иванов":2}', 'clinic', now(), 'Иванов is not a field of an event'),
			(gen_random_uuid(), 'patient.created', '{"Иванов":1,"Иванов":2}', 'clinic', now(), E'event_data: the JSON is not valid at byte 9: invalid surrogate pair "\\\\ud800Иванов" in string')`)
	r.check(err) // as an earlier version parked it

	parked, _, err := Parked(t.Context(), r.pool, 0, 10)
	r.check(err)
	var reasons []string
	c := &commands.Commands{Log: r.log, Directory: r.directory, Catalog: catalog, Pool: r.pool}
	for _, p := range parked {
		reasons = append(reasons, p.Reason)
		if _, err := RetryParked(t.Context(), c, commands.Caller{Actor: "admin"}, p.ID, nil); err == nil || strings.Contains(err.Error(), "Иванов") {
			t.Errorf("retried: %v", err)
		}
		r.check(DiscardParked(t.Context(), c, commands.Caller{Actor: "admin"}, p.ID))
	}
	// Which names are the schema's cannot be told of what earlier versions parked: the log has none.
	const surrogate = "event_data: the JSON is not valid at byte 9: invalid surrogate pair in string"
	want := []string{surrogate, "Иванов is not a field of an event", "event_data.contacts.Иванов must be of type object", "event_data: the JSON repeats a key at byte 14", surrogate, "event_data.contacts.* must be of type object", "event_data: the JSON repeats a key at byte 30"}
	if !slices.Equal(reasons, want) {
		t.Errorf("parked because %q, want %q", reasons, want)
	}
	var told int
	r.check(r.pool.QueryRow(t.Context(), `SELECT count(*) FROM medilab.events WHERE type = 'admin.acted' AND convert_from(data, 'UTF8') LIKE '%Иванов%'`).Scan(&told))
	if told > 0 || strings.Contains(logged.String(), "Иванов") {
		t.Errorf("%d entries of the log name the patient; the server's log is %s", told, logged)
	}
}

// What an erasure deletes after the relay has read it, or while somebody retries it, does not
// reach the log.
func TestWhatIsGoneIsNotAppended(t *testing.T) {
	r := newRig(t)
	relay := r.relay(r.join())
	read := func() []emission {
		t.Helper()
		relay.reader.restart()
		found, _, err := relay.reader.read(t.Context(), relay.node.ID)
		r.check(err)
		return found
	}
	t.Cleanup(func() { r.check(relay.reader.close(context.Background())) })
	relay.generation = r.log.Generation()
	_, owner, err := r.log.AcquireLease(t.Context(), relay.node, leaseName, silence)
	if r.check(err); !owner {
		t.Fatal("the relay is another's")
	}
	gone := r.emit(r.pool, `{"n":1}`)
	r.emit(r.pool, `{"n":2}`)
	batch := read()
	_, err = r.pool.Exec(t.Context(), `DELETE FROM medilab.outbox WHERE event_id = $1`, uuid.UUID(gone))
	r.check(err)
	r.check(relay.moveAll(t.Context(), batch))
	if got := r.data(1); !slices.Equal(got, []string{`{"n":2}`}) || r.count("outbox")+r.count("parked_events") > 0 {
		t.Errorf("the log has %v, %d rows wait", got, r.count("outbox")+r.count("parked_events"))
	}

	r.emit(r.pool, `{"n":3}`)
	r.check(relay.park(t.Context(), read()[0], "a test"))
	parked, _, err := Parked(t.Context(), r.pool, 0, 1)
	r.check(err)
	_, err = r.pool.Exec(t.Context(), `DELETE FROM medilab.parked_events`)
	r.check(err)
	_, err = r.log.Append(t.Context(), parked[0].remove(commands.Caller{Actor: "test"}, domain.AdminParkedRetried))
	if err = parked[0].removed(err); domain.KindOf(err) != domain.KindNotFound {
		t.Errorf("removing what is gone: %v", err)
	}
}
