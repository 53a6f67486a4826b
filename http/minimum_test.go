package http_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"
)

// A webhook with fields is sent these parts alone, however it is sent them, and its filters see
// all of the event.
func TestFields(t *testing.T) {
	s := newService(t)
	s.work()
	r := newReceiver(t, 200)
	const data = `{"patient_id":1.0,"name":"Иван","visit":{"doctor":"Д", "note":"секрет"},"items":[{"code":"A","price":1},{"code":"B"}]}`
	const kept = `{"patient_id":1.0,"visit":{"doctor":"Д"},"items":[{"code":"A"},{"code":"B"}]}`
	before := s.commands.Now().Format(time.RFC3339Nano)
	for version, name := range map[string]string{`"1"`: "event_data", `"2"`: "event_data", `"cloudevents"`: "data"} {
		for _, batch := range []string{"null", `{"max_events":1,"max_wait":1}`} {
			made := s.registerAt(r.URL, `,"filters":{"name":"Иван"},"fields":["items.code","visit.doctor","patient_id"],"batch":`+batch+`,"payload_version":`+version)
			sent := func(how string) string {
				t.Helper()
				got := r.next(t).body
				if !strings.Contains(got, `"`+name+`":`+kept) || strings.Contains(got, "Иван") || strings.Contains(got, "секрет") {
					t.Errorf("version %s, batch %s, %s: %s", version, batch, how, got)
				}
				return got
			}
			path := "/api/v1/webhooks/" + made.get("number")
			s.ask("POST", trigger, `{"event_type":"patient.created","event_data":`+data+`}`).want(202)
			body := sent("event")
			calls := func() string { return s.ask("GET", path+"/calls", "").want(200).get("items") }
			s.until("recorded", func() bool { return calls() != "[]" })
			call := s.ask("GET", path+"/calls", "").want(200).text("items", 0, "call_id")
			if shown := s.ask("GET", path+"/calls/"+call, "").want(200); shown.text("payload") != body {
				t.Errorf("shown as %s, sent %s", shown.body, body)
			}
			s.ask("POST", path+"/test", `{"event_type":"patient.created","test_data":`+data+`}`).want(200)
			sent("test")
			s.ask("POST", path+"/replay", fmt.Sprintf(`{"from":%q,"to":"2100-01-01T00:00:00Z"}`, before)).want(202)
			sent("replay")
			before = s.commands.Now().Format(time.RFC3339Nano)
			s.ask("DELETE", path, "").want(204)
		}
	}
}

// Fields and recipient are set, changed, cleared and remembered.
func TestFieldsAndRecipientOfAWebhook(t *testing.T) {
	s := newService(t)
	made := s.register(`"fields":["a","b.c"],"recipient":{"name":"Страховая","country":"RU","purpose":"оплата"}`)
	want := func(a answer, fields, recipient string) {
		t.Helper()
		if a.get("fields") != fields || a.get("recipient") != recipient {
			t.Errorf("got %s and %s, want %s and %s", a.get("fields"), a.get("recipient"), fields, recipient)
		}
	}
	const one = "/api/v1/webhooks/1"
	const first = `{"name":"Страховая","country":"RU","purpose":"оплата"}`
	want(made, `["a","b.c"]`, first)
	want(s.ask("PATCH", one, `{"fields":["a","b.c"],"recipient":`+first+`}`).want(200), `["a","b.c"]`, first)
	want(s.ask("PATCH", one, `{"recipient":{"name":"CRM"}}`).want(200), `["a","b.c"]`, `{"name":"CRM"}`)
	cleared := s.ask("PUT", one, `{"fields":null,"recipient":null}`).want(200)
	want(cleared, `null`, `null`)
	if v := cleared.get("version"); v != "3" {
		t.Errorf("version %s: what changes nothing made an event", v)
	}
	want(s.ask("GET", one, "").want(200), `null`, `null`)
	want(s.ask("GET", one+"?as_of="+url.QueryEscape(s.ask("GET", one+"/history", "").get("items", 2, "position")), "").want(200), `["a","b.c"]`, first)
	var change struct{ Changes []struct{ Field string } }
	if err := json.Unmarshal([]byte(s.ask("GET", one+"/history", "").get("items", 0)), &change); err != nil || fmt.Sprint(change.Changes) != "[{fields} {recipient}]" {
		t.Errorf("history has %v, %v", change, err)
	}
	for body, field := range map[string]string{`{"fields":["a",""]}`: "fields", `{"recipient":{}}`: "recipient", `{"auth":{}}`: "auth"} {
		if refused := s.ask("PATCH", one, body).want(422).problem().Errors; len(refused) != 1 || refused[0].Field != field || refused[0].Path == "" {
			t.Errorf("%s is refused by %+v", body, refused)
		}
	}
	for body, fields := range map[string][]string{
		`{"fields":[]}`:                                             {"fields"},
		`{"fields":["a",""]}`:                                       {"fields[1]"},
		`{"fields":["a.b","a..b",".a","a."]}`:                       {"fields[1]", "fields[2]", "fields[3]"},
		`{"fields":"a"}`:                                            {"fields"},
		`{"fields":[1]}`:                                            {"fields"},
		`{"recipient":{}}`:                                          {"recipient.name"},
		`{"recipient":"CRM"}`:                                       {"recipient"},
		`{"recipient":{"name":"CRM","country":7,"x":1}}`:            {"recipient.country", "recipient.x"},
		`{"fields":[` + strings.Repeat(`"a",`, 100) + `"a"]}`:       {"fields"},
		`{"recipient":{"name":"` + strings.Repeat("n", 201) + `"}}`: {"recipient.name"},
		`{"recipient":{"name":"CRM","purpose":"one\nanother"}}`:     {"recipient.purpose"},
	} {
		s.ask("PATCH", one, body).refusing(fields...)
	}
}
