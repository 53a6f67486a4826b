package sources

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

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
