package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// A clinic's own event types come from a file and are as good as the built-in ones, and
// what nobody knows is refused with the nearest known name.
func TestEventTypesOfAFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "types.json")
	content := `[{"type":"lab.result_ready","ru":"Готов анализ","en":"A result is ready"},{"type":"lab.sample_lost","ru":"Проба потеряна"}]`
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	in := harness.Receive(t, nil)
	p := start(t, "MEDILAB_EVENT_TYPES="+file)

	var list struct {
		Items []struct {
			Type, Group string
			Description struct{ RU, EN string }
			Triggerable bool
		}
	}
	p.api(200, "GET", "/webhooks/events/types", "", &list)
	types := map[string]string{}
	clinic := 0
	for _, item := range list.Items {
		if item.Description.RU == "" || item.Description.EN == "" || item.Group == "" {
			t.Errorf("the catalogue has %+v", item)
		}
		types[item.Type] = item.Description.RU
		if item.Triggerable {
			clinic++
		}
	}
	if clinic != 27 || types["lab.result_ready"] != "Готов анализ" || types["patient.created"] != "Создан новый пациент" {
		t.Errorf("the catalogue has %d of the clinic's types: %v", clinic, types)
	}

	// One, a group, and all: each gets what it asked for.
	one := p.register(in.URL, `{"events":["lab.result_ready"]}`)
	group := p.register(in.URL, `{"events":["lab.*"]}`)
	all := p.register(in.URL, `{"events":["*"]}`)
	p.trigger(`{"event_type":"lab.result_ready","event_data":{}}`)
	p.trigger(`{"event_type":"lab.sample_lost","event_data":{}}`)
	p.trigger(`{"event_type":"patient.created","event_data":{}}`)
	p.command(0, "", "emit", "lab.sample_lost", `{"from":"the command line"}`)
	want := map[string]int{one.ID: 1, group.ID: 3, all.ID: 4}
	got := map[string]int{}
	for _, r := range in.Await(8) {
		got[r.Header.Get("X-Webhook-Id")]++
	}
	for id, n := range want {
		if got[id] != n {
			t.Errorf("webhook %s got %d events, want %d", id, got[id], n)
		}
	}

	for _, c := range []struct{ events, field, words string }{
		{`["pateint.created"]`, "events[0]", "did you mean patient.created?"},
		{`["*","lab.result_redy"]`, "events[1]", "did you mean lab.result_ready?"},
		{`["labs.*"]`, "events[0]", "did you mean lab.*?"},
		{`["queue.called"]`, "events[0]", "did you mean queue.entry_called?"},
		{`["nothing.like_it.at_all"]`, "events[0]", "not a known"},
		{`["PATIENT.CREATED"]`, "events[0]", "did you mean patient.created?"},
		{`[]`, "events", "at least one"},
		{`["patient.created",5]`, "events", "strings"},
	} {
		p.refused(422, "POST", "/webhooks/", `{"name":"a","url":"https://a.example/","events":`+c.events+`}`, c.field, c.words)
		p.refused(422, "PATCH", "/webhooks/1", `{"events":`+c.events+`}`, c.field, c.words)
	}
	for eventType, words := range map[string]string{
		"visit.complete": "did you mean visit.completed?", "lab.result_raedy": "did you mean lab.result_ready?",
		"patient.foo": "did you mean patient.", "system.backup": "did you mean system.backup_", "пациент.создан": "not a known",
		"x": "not a known", "": "required", "webhook.alert_raised": "cannot be triggered", "*": "not a known", "patient.*": "not a known",
	} {
		event := `{"event_type":` + quoted(eventType) + `,"event_data":{}}`
		p.refused(422, "POST", "/webhooks/events/trigger", event, "event_type", words)
		p.refused(422, "POST", "/webhooks/events/trigger/batch", `{"events":[{"event_type":"patient.created","event_data":{}},`+event+`]}`, "events[1].event_type", words)
	}
	p.refused(422, "POST", "/webhooks/1/test", `{"event_type":"lab.result_red"}`, "event_type", "did you mean lab.result_ready?")

	// Nothing of what was refused is an event.
	var events struct{ Items []json.RawMessage }
	p.Until("what was accepted is listed", func() bool {
		p.api(200, "GET", "/webhooks/events?limit=100", "", &events)
		return len(events.Items) >= 4
	})
	if len(events.Items) != 4 {
		t.Errorf("there are %d events, want 4", len(events.Items))
	}
}
