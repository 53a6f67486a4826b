package sources

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/outbox"
	"github.com/medilab/webhooks/domain"
)

// A message is parked as the event that it is when no more than its data cannot be read, so that
// the data can be mended.
func TestParkedWithoutDataCanBeMended(t *testing.T) {
	r := newRig(t)
	sources, err := Parse("nats://127.0.0.1/?stream=clinic")
	r.check(err)
	s, report := sources[0], &reporter{logger: r.intake.Logger}
	const id = "0198c0de-0000-7000-8000-00000000000"
	binary := map[string]string{"ce-specversion": "1.0", "ce-id": id + "5", "ce-source": "/his", "ce-type": "patient.created", "ce-correlationid": "c-5", "ce-time": "2026-01-02T03:04:05Z"}
	unread := false
	for i, c := range []struct {
		payload string
		headers map[string]string
		id      string // "": nothing of the message is known
	}{
		{`{"event_type":"patient.created","event_id":"` + id + `1","event_data":{"Иванов":1,"Иванов":2},"correlation_id":"c-0","source":"/his","occurred_at":"2026-01-02T03:04:05Z"}`, nil, id + "1"},
		{`{"event_data":{"n":1e999},"correlation_id":"c-1","source":"/his","event_id":"p-1","event_type":"patient.created","occurred_at":"2026-01-02T03:04:05Z"}`, nil, s.eventID("p-1").String()},
		{`{"event_type":"patient.created","event_id":"` + id + `3","event_\u0064ata":{"n":"` + "\xff" + `"},"correlation_id":"c-2","source":"/his","occurred_at":"2026-01-02T03:04:05Z"}`, nil, id + "3"},
		{`{"specversion":"1.0","id":"` + id + `4","source":"/his","type":"patient.created","correlationid":"c-3","time":"2026-01-02T03:04:05Z","data":{"a":{"b":1,"b":2}}}`, nil, id + "4"},
		{`{"n":1,"n":2}`, binary, id + "5"},
		{`{"event_type":"patient.created","event_type":"patient.updated","event_data":{"n":1,"n":2}}`, nil, ""},
		{`{"event_type":"patient.created","event_data":{"n":1,"n":2},"event_data":{}}`, nil, ""},
		{`{"event_type":"patient.created","event_data":{"n":[}},"source":"/his"}`, nil, ""},
		{`[{"event_type":"patient.created","event_data":{"n":1,"n":2}}]`, nil, ""},
	} {
		m := message.NewMessage("m-"+fmt.Sprint(i), []byte(c.payload))
		for name, value := range c.headers {
			m.Metadata.Set(name, value)
		}
		for range 2 { // a redelivery is not another
			r.check(r.intake.accept(t.Context(), s, m, report))
		}
		parked, more, err := outbox.Parked(t.Context(), r.pool, 0, 1)
		r.check(err)
		if len(parked) == 0 || more && !unread {
			t.Fatalf("%s: parked are %+v", c.payload, parked)
		}
		p := parked[0]
		if !strings.HasPrefix(p.Reason, "the JSON ") || strings.Contains(p.Reason, "Иванов") || string(p.EventData[0]) != `"` {
			t.Errorf("%s: parked is %s, %s", c.payload, p.Reason, p.EventData)
		}
		if c.id == "" {
			unread = true // and stays
			if p.EventType != "" || p.Source != nil {
				t.Errorf("%s: read is %+v", c.payload, p)
			}
			continue
		}
		if p.EventID.String() != c.id || p.EventType != "patient.created" || *p.Source != "/his" || p.EmittedAt.Format("2006-01-02T15:04:05") != "2026-01-02T03:04:05" {
			t.Errorf("%s: read is %+v", c.payload, p)
		}
		accepted, err := outbox.RetryParked(t.Context(), r.intake.Commands, commands.Caller{Actor: "admin"}, p.ID, []byte(`{"n":1}`))
		if err != nil || accepted.EventID != domain.EventID(uuid.MustParse(c.id)) {
			t.Errorf("%s: mended it is %v, %v", c.payload, accepted, err)
		}
	}
}

// A field of a wrong type is named, and the message is parked once however often it comes.
func TestFieldsOfAWrongTypeAreRefused(t *testing.T) {
	r := newRig(t)
	sources, err := Parse("nats://127.0.0.1/?stream=clinic")
	r.check(err)
	s, report := sources[0], &reporter{logger: r.intake.Logger}
	plain := func(field string) string {
		return `{"event_type":"patient.created","event_data":{"n":1},` + field + `}`
	}
	structured := func(field string) string {
		return `{"specversion":"1.0","type":"patient.created","data":{"n":1},` + field + `}`
	}
	for payload, reason := range map[string]string{
		plain(`"event_id":1764530000`):                     "event_id must be a UUID",
		plain(`"event_id":{"a":1}`):                        "event_id must be a UUID",
		plain(`"event_id":"a","correlation_id":1`):         "correlation_id must be text",
		plain(`"event_id":"b","source":[]`):                "source must be text",
		plain(`"event_id":"c","occurred_at":5`):            "occurred_at must be",
		plain(`"event_id":"d","traceparent":5`):            "traceparent must be text",
		structured(`"id":5,"source":"/his"`):               "id must be text",
		structured(`"id":"5","source":5`):                  "source must be text",
		structured(`"id":"6","correlationid":5`):           "correlationid must be text",
		structured(`"id":"7","source":"/","time":5`):       "time must be text",
		structured(`"id":"8","source":"/","tracestate":5`): "tracestate must be text",
	} {
		before, _, err := outbox.Parked(t.Context(), r.pool, 0, 100)
		r.check(err)
		m := message.NewMessage("m-1", []byte(payload))
		for range 2 {
			r.check(r.intake.accept(t.Context(), s, m, report))
		}
		parked, _, err := outbox.Parked(t.Context(), r.pool, 0, 100)
		r.check(err)
		if len(parked) != len(before)+1 || !strings.HasPrefix(parked[0].Reason, reason) || parked[0].EventType != "patient.created" || string(parked[0].EventData) != `{"n":1}` {
			t.Errorf("%s: parked are %+v", payload, parked)
		}
	}
	for i, id := range []string{"null", `""`, "null", `""`} { // are none
		r.check(r.intake.accept(t.Context(), s, message.NewMessage(fmt.Sprint("none-", i), []byte(plain(`"event_id":`+id))), report))
	}
	if events := r.events(); len(events) != 4 {
		t.Errorf("the log has %v", events)
	}
}

// A redelivered message that was accepted is no dead letter, though its type is gone by now.
func TestRedeliveryAfterItsTypeIsGone(t *testing.T) {
	r := newRig(t)
	sources, err := Parse("nats://127.0.0.1/?stream=clinic")
	r.check(err)
	deliver := func() {
		r.check(r.intake.accept(t.Context(), sources[0], message.NewMessage("m-1", []byte(unknown)), &reporter{logger: r.intake.Logger}))
	}
	r.intake.Commands.Catalog = domain.BuiltinCatalog().With([]domain.EventType{"patient.unheard_of"})
	deliver()
	r.intake.Commands.Catalog = domain.BuiltinCatalog()
	deliver()
	parked, _, err := outbox.Parked(t.Context(), r.pool, 0, 1)
	r.check(err)
	if events := r.events(); len(events) != 1 || len(parked) > 0 {
		t.Errorf("the log has %v, parked are %+v", events, parked)
	}
}

// Every message that cannot be accepted is kept, once however often it comes; others that have its id
// are kept too. The server's log says parked of what was.
func TestEachBadMessageOfAnIDIsParked(t *testing.T) {
	r := newRig(t)
	sources, err := Parse("nats://127.0.0.1/?stream=clinic")
	r.check(err)
	logged := &harness.Output{}
	r.intake.Logger = slog.New(slog.NewTextHandler(logged, nil))
	deliver := func(body string) {
		r.check(r.intake.accept(t.Context(), sources[0], message.NewMessage("m-1", []byte(body)), &reporter{logger: r.intake.Logger}))
	}
	deliver(`{"event_type":"patient.created","event_data":{"n":1},"event_id":"p"}`)
	bad := []string{
		`{"event_type":"patient.created","event_data":{"n":2},"event_id":"p"}`,
		`{"event_type":"patient.created","event_data":{"n":3},"event_id":"p"}`,
		`{"event_type":"patient.updated","event_data":{"n":1},"event_id":"p"}`,
		`{"event_type":"patient.created","event_data":{"n":1},"event_id":"p","correlation_id":"c"}`,
		`{"event_type":"patient.created","event_data":{"n":1},"event_id":"p","source":"his"}`,
		`{"event_type":"patient.created","event_data":{"n":1},"event_id":"p","deliver":false}`,
		`{"event_type":"patient.created","event_data":{"n":1},"event_id":"p","occurred_at":"2026-01-02T03:04:05.1234567Z"}`,
		`{"event_type":"patient.created","event_data":{"n":1},"event_id":"p","occurred_at":"2026-01-02T03:04:06Z"}`,
		"no JSON", "no JSON either",
	}
	for range 3 {
		for _, body := range bad {
			deliver(body)
		}
	}
	parked, _, err := outbox.Parked(t.Context(), r.pool, 0, 100)
	r.check(err)
	if len(parked) != len(bad) || strings.Count(logged.String(), "is parked\"") != len(bad) {
		t.Errorf("%d of %d are parked, and the server's log says %s", len(parked), len(bad), logged)
	}
}
