package http_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
)

// What was answered is in the next answer, however soon that is asked for.
func TestQueriesHoldWhatWasAnswered(t *testing.T) {
	s := newService(t)
	s.work()
	for i := range 10 {
		s.register("")
		correlation := fmt.Sprint("c-", i)
		event := s.ask("POST", trigger, `{"event_type":"patient.updated","event_data":{},"correlation_id":"`+correlation+`"}`).want(202).text("event_id")
		if got := s.ask("GET", "/api/v1/webhooks/events?correlation_id="+correlation, "").want(200).get("items"); !strings.Contains(got, event) {
			t.Fatalf("the list of events lacks %s: %s", event, got)
		}
		if stats := s.ask("GET", "/api/v1/webhooks/system/stats", "").want(200); stats.get("webhooks_total") != fmt.Sprint(i+1) || stats.get("events_total") != fmt.Sprint(i+1) {
			t.Fatalf("after %d: %s", i+1, stats.body)
		}
	}
	if stats := s.ask("GET", "/api/v1/webhooks/1/stats?bucket=hour", "").want(200); stats.get("series") != "[]" {
		t.Errorf("a series of no calls: %s", stats.body)
	}
	if stats := s.ask("GET", "/api/v1/webhooks/1/stats", "").want(200); stats.get("series") != "" {
		t.Errorf("a series that nobody asked for: %s", stats.body)
	}
}

// The catalogue and the verdicts are whole unless pages are asked for.
func TestPagesOfWhatIsWhole(t *testing.T) {
	s := newService(t)
	s.work()
	for range 60 {
		s.register("")
	}
	event := s.ask("POST", trigger, `{"event_type":"visit.created","event_data":{}}`).want(202).text("event_id")
	for path, field := range map[string]string{"/api/v1/webhooks/events/" + event + "/explain": "webhook_id", "/api/v1/webhooks/events/types": "type"} {
		var whole struct{ Items []map[string]any }
		s.ask("GET", path, "").want(200).into(&whole)
		if field == "webhook_id" && len(whole.Items) != 60 {
			t.Fatalf("%s gives %d", path, len(whole.Items))
		}
		for _, limit := range []int{1, 7, len(whole.Items), 1000} {
			var got, want []any
			for cursor := ""; ; {
				page := s.ask("GET", fmt.Sprintf("%s?limit=%d&cursor=%s", path, limit, cursor), "").want(200)
				var list struct {
					Items []map[string]any
					Next  *string `json:"next_cursor"`
				}
				if page.into(&list); len(list.Items) > limit {
					t.Fatalf("%s: a page of %d holds %d", path, limit, len(list.Items))
				}
				for _, item := range list.Items {
					got = append(got, item[field])
				}
				if list.Next == nil {
					break
				}
				cursor = *list.Next
			}
			for _, item := range whole.Items {
				want = append(want, item[field])
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s in pages of %d: %v, whole %v", path, limit, got, want)
			}
		}
		for _, wrong := range []string{"0", "1001", "x"} {
			s.ask("GET", path+"?limit="+wrong, "").refusing("limit")
		}
		s.ask("GET", path+"?cursor=x", "").refusing("cursor")
	}
}

func TestTheWayOfAnEvent(t *testing.T) {
	s := newService(t)
	s.work()
	r := newReceiver(t, 201)
	s.registerAt(r.URL+"/hook", `,"headers":{"X-API-Key":"key-in-clear"},"secret":"s3cret","payload_version":"2"`)
	s.registerAt(r.URL, `,"filters":{"age_min":18}`)
	s.registerAt(r.URL, `,"is_active":false`)
	s.ask("POST", "/api/v1/webhooks", `{"name":"V","url":"`+r.URL+`","events":["visit.*"]}`).want(201)
	first := time.Now().UTC().Format(time.RFC3339Nano)

	event := s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"age": 17, "n": 1.0},"source":"manual","correlation_id":"c-1"}`).want(202).text("event_id")
	got := r.next(t)
	s.until("delivered", func() bool { return s.deliveryState(event) == "delivered" })
	s.settled()

	deliveries := s.ask("GET", "/api/v1/webhooks/events/"+event+"/deliveries/", "").want(200)
	if deliveries.get("items", 0, "attempts") != "1" || deliveries.get("items", 0, "next_attempt_at") != "null" || deliveries.get("next_cursor") != "null" {
		t.Errorf("deliveries: %s", deliveries.body)
	}

	explain := s.ask("GET", "/api/v1/webhooks/events/"+event+"/explain", "").want(200)
	var verdicts []string
	var list struct {
		Items []struct {
			Verdict, Field string
			Version        int64 `json:"webhook_version"`
			Want, Got      any
		}
	}
	explain.into(&list)
	for _, item := range list.Items {
		verdicts = append(verdicts, item.Verdict)
	}
	if strings.Join(verdicts, " ") != "delivered filtered inactive type_not_subscribed" {
		t.Errorf("explain: %s", explain.body)
	}
	if f := list.Items[1]; f.Field != "age_min" || f.Want != float64(18) || f.Got != float64(17) || f.Version != 1 {
		t.Errorf("explain: %+v", f)
	}

	calls := s.ask("GET", "/api/v1/webhooks/1/calls?limit=100", "").want(200)
	if calls.text("items", 0, "event_id") != event || calls.text("items", 0, "status") != "success" || calls.get("items", 0, "response_status") != "201" ||
		calls.get("items", 0, "attempt") != "1" || calls.get("items", 0, "test") != "false" || calls.get("items", 0, "next_attempt_at") != "null" {
		t.Errorf("calls: %s", calls.body)
	}
	for query, want := range map[string]int{"?status=success": 1, "?status=failed": 0, "?event_type=patient.created&from=" + first: 1, "?event_type=visit.created": 0, "?to=" + first: 0} {
		var page struct{ Items []json.RawMessage }
		s.ask("GET", "/api/v1/webhooks/1/calls"+query, "").want(200).into(&page)
		if len(page.Items) != want {
			t.Errorf("calls%s: %d, want %d", query, len(page.Items), want)
		}
	}
	s.ask("GET", "/api/v1/webhooks/1/calls?status=ok&event_type=patient.x&from=then&limit=0&cursor=x&state=1", "").
		refusing("status", "event_type", "from", "limit", "cursor", "state")
	s.ask("GET", "/api/v1/webhooks/1/calls?cursor=x", "").refusing("cursor")

	id := calls.text("items", 0, "call_id")
	call := s.ask("GET", "/api/v1/webhooks/1/calls/"+id, "").want(200)
	if call.text("payload") != got.body {
		t.Errorf("shown  %s\nand sent %s", call.text("payload"), got.body)
	}
	if call.text("method") != "POST" || call.text("url") != r.URL+"/hook" || call.text("response_body") != "принято\uFFFD" || call.text("response_body_base64") == "" ||
		call.text("response_headers", "X-Answer") != "yes" || call.get("response_truncated") != "false" {
		t.Errorf("call: %s", call.body)
	}
	for name, want := range map[string]string{
		"Content-Type": got.header.Get("Content-Type"), "User-Agent": "MediLab-Webhook/1.0", "X-Webhook-Signature": got.header.Get("X-Webhook-Signature"),
		"webhook-signature": got.header.Get("Webhook-Signature"), "X-API-Key": "***",
	} {
		if shown := call.text("request_headers", name); shown != want || want == "" {
			t.Errorf("%s: shown %q, sent %q", name, shown, want)
		}
	}
	if strings.Contains(string(call.body), "key-in-clear") || got.header.Get("X-Api-Key") != "key-in-clear" {
		t.Error("the header's value shows, or was not sent")
	}
	s.ask("GET", "/api/v1/webhooks/2/calls/"+id, "").want(404)
	s.ask("GET", "/api/v1/webhooks/1/calls/00000000-0000-0000-0000-000000000001", "").want(404)

	stats := s.ask("GET", "/api/v1/webhooks/1/stats/?bucket=hour", "").want(200)
	if stats.get("total_calls") != "1" || stats.get("success_rate") != "100" || stats.get("series", 0, "total_calls") != "1" || stats.get("delivered") != "1" {
		t.Errorf("stats: %s", stats.body)
	}
	if unused := s.ask("GET", "/api/v1/webhooks/2/stats", "").want(200); unused.get("success_rate") != "null" || unused.get("total_calls") != "0" {
		t.Errorf("stats: %s", unused.body)
	}
	system := s.ask("GET", "/api/v1/webhooks/system/stats", "").want(200)
	if system.get("webhooks_total") != "4" || system.get("webhooks_active") != "3" || system.get("events_total") != "1" {
		t.Errorf("system stats: %s", system.body)
	}
	s.ask("GET", "/api/v1/webhooks/1/stats?bucket=week&since=1", "").refusing("bucket", "since")

	events := s.ask("GET", "/api/v1/webhooks/events?event_type=patient.created&correlation_id=c-1&from="+first, "").want(200)
	if events.text("items", 0, "event_id") != event || events.get("items", 0, "event_data") != `{"age": 17, "n": 1.0}` || events.get("next_cursor") != "null" {
		t.Errorf("events: %s", events.body)
	}
	if one := s.ask("GET", "/api/v1/webhooks/events/"+event, "").want(200); one.get("event_data") != `{"age": 17, "n": 1.0}` || one.text("source") != "manual" {
		t.Errorf("event: %s", one.body)
	}
	for _, path := range []string{"", "/deliveries", "/explain"} {
		s.ask("GET", "/api/v1/webhooks/events/550e8400-e29b-41d4-a716-446655440000"+path, "").want(404)
		s.ask("GET", "/api/v1/webhooks/events/550e"+path, "").want(404)
	}

	// What is deleted can still be read.
	s.ask("DELETE", "/api/v1/webhooks/1", "").want(204)
	deleted := s.head()
	s.ask("GET", "/api/v1/webhooks/1/calls/"+id, "").want(200)
	s.ask("GET", "/api/v1/webhooks/1/stats", "").want(200)
	if then := s.ask("GET", "/api/v1/webhooks/1?as_of="+first, "").want(200); then.get("version") != "1" {
		t.Errorf("then: %s", then.body)
	}
	s.ask("GET", "/api/v1/webhooks/1?as_of=2020-01-01T00:00:00Z", "").want(404)
	s.ask("GET", "/api/v1/webhooks/1?as_of="+time.Now().Add(time.Hour).UTC().Format(time.RFC3339), "").want(404)
	s.ask("GET", "/api/v1/webhooks/1?as_of=yesterday", "").refusing("as_of")
	for position, want := range map[string]string{"1": "1", fmt.Sprint(deleted - 1): "1"} {
		if then := s.ask("GET", "/api/v1/webhooks/1?as_of="+position, "").want(200); then.get("version") != want {
			t.Errorf("as of position %s: %s", position, then.body)
		}
	}
	s.ask("GET", "/api/v1/webhooks/1?as_of="+fmt.Sprint(deleted), "").want(404)
	s.ask("GET", "/api/v1/webhooks/1?as_of=0", "").refusing("as_of")
	s.ask("GET", "/api/v1/webhooks/1?as_of=-1", "").refusing("as_of")
}

func TestHistory(t *testing.T) {
	s := newService(t)
	s.register(`"secret":"first-secret","headers":{"X-A":"header-value"}`)
	s.ask("PUT", "/api/v1/webhooks/1", `{"name":"B","headers":{"X-A":"other-value"},"is_active":false}`).want(200)
	s.token = s.tokenFor("webhooks:write", "webhooks:read")
	s.ask("POST", "/api/v1/webhooks/1/rotate-secret", `{"secret":"second-secret"}`).want(200)
	s.ask("DELETE", "/api/v1/webhooks/1", "").want(204)

	history := s.ask("GET", "/api/v1/webhooks/1/history/", "").want(200)
	var list struct {
		Items []struct {
			Version     int64
			Type, Actor string
			Changes     []struct {
				Field       string
				Was, Became any
			}
		}
	}
	history.into(&list)
	var types []string
	for _, item := range list.Items {
		types = append(types, item.Type)
	}
	if got := strings.Join(types, " "); got != "webhook.deleted webhook.secret_rotated webhook.deactivated webhook.changed webhook.registered" {
		t.Fatalf("got %s", got)
	}
	if list.Items[0].Actor == "admin" || list.Items[4].Actor != "admin" {
		t.Errorf("who: %s", history.body)
	}
	changed := list.Items[3].Changes
	if len(changed) != 2 || changed[0].Field != "name" || changed[0].Was != "CRM" || changed[0].Became != "B" || changed[1].Field != "headers" {
		t.Errorf("changed: %+v", changed)
	}
	for _, secret := range []string{"first-secret", "second-secret", "header-value", "other-value"} {
		if strings.Contains(string(history.body), secret) {
			t.Errorf("%s shows", secret)
		}
	}
	first := s.ask("GET", "/api/v1/webhooks/1/history?limit=3", "").want(200)
	if rest := s.ask("GET", "/api/v1/webhooks/1/history?limit=3&cursor="+first.text("next_cursor"), "").want(200); rest.text("items", 1, "type") != "webhook.registered" {
		t.Errorf("the rest: %s", rest.body)
	}
	s.ask("GET", "/api/v1/webhooks/2/history", "").want(404)
}

func TestAudit(t *testing.T) {
	s := newService(t)
	s.register("")
	body := `{"event_type":"patient.created","event_data":{"a":
 1}}`
	for range 3 {
		s.ask("POST", trigger, body).want(202)
	}
	event := s.ask("POST", trigger, `{"event_type":"visit.created","event_data":{},"correlation_id":"a\"я"}`).want(202).text("event_id")
	s.token = s.tokenFor("audit:read") // what it reads holds no payloads, and is not on record
	lines := func(query string) []map[string]any {
		t.Helper()
		got := s.ask("GET", "/api/v1/audit/events"+query, "").want(200)
		if got.header.Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("Content-Type %q", got.header.Get("Content-Type"))
		}
		var list []map[string]any
		for line := range strings.Lines(string(got.body)) {
			var entry map[string]any
			if err := json.Unmarshal([]byte(line), &entry); err != nil {
				t.Fatalf("%v in %q", err, line)
			}
			list = append(list, entry)
		}
		return list
	}
	all := lines("")
	if len(all) != int(s.head()) || all[0]["type"] != "webhook.registered" || all[0]["position"] != float64(1) || all[0]["metadata"] == nil || all[0]["recorded_at"] == nil {
		t.Fatalf("got %v", all)
	}
	for i, entry := range all {
		if entry["position"] != float64(i+1) {
			t.Errorf("position %v at %d", entry["position"], i)
		}
	}
	if rest := lines("?after=2"); len(rest) != len(all)-2 || rest[0]["position"] != float64(3) {
		t.Errorf("after 2: %v", rest)
	}
	if some := lines("?type=webhook.*"); len(some) != 1 {
		t.Errorf("by type: %v", some)
	}
	stream, inStream := all[1]["stream"].(string), 0
	for _, entry := range all {
		if entry["stream"] == stream {
			inStream++
		}
	}
	if some := lines("?stream=" + stream); len(some) != inStream || some[0]["position"] != all[1]["position"] {
		t.Errorf("by stream: %v", some)
	}
	if none := lines("?to=2020-01-01T00:00:00Z"); len(none) != 0 {
		t.Errorf("by time: %v", none)
	}
	for query, want := range map[string]string{
		"?webhook=1": "1 2 3 4", "?webhook=" + all[0]["stream"].(string)[len("webhook-"):] + "&type=webhook.*": "1", "?event=" + event: "5",
		"?event=" + event + "&stream=" + stream: "", "?correlation_id=a%22%D1%8F": "5", "?correlation_id=a": "", "?actor=admin": "1 2 3 4 5", "?actor=adm": "",
		"?actor=admin&webhook=1&after=2": "3 4",
	} {
		var got []string
		for _, entry := range lines(query) {
			got = append(got, fmt.Sprint(entry["position"]))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", query, got, want)
		}
	}
	s.ask("GET", "/api/v1/audit/events?webhook=2", "").refusing("webhook")
	s.ask("GET", "/api/v1/audit/events?webhook=x&event=1", "").refusing("event")
	s.ask("GET", "/api/v1/audit/events?after=-1&streams=x&from=x", "").refusing("after", "streams", "from")
	s.token = s.tokenFor("webhooks:read")
	s.ask("GET", "/api/v1/audit/events", "").want(403)
}

// A type that left the file of event types can still be asked for: the log knows it.
func TestTypesThatLeftTheCatalogue(t *testing.T) {
	s := newService(t)
	builtin := s.commands.Catalog
	s.commands.Catalog = builtin.With([]domain.EventType{"lab.ready", "xray.done"})
	s.work()
	r := newReceiver(t, 200)
	s.ask("POST", "/api/v1/webhooks", `{"name":"lab","url":"`+r.URL+`","events":["lab.ready"]}`).want(201)
	s.ask("POST", "/api/v1/webhooks", `{"name":"group","url":"`+r.URL+`","events":["xray.*"],"is_active":false}`).want(201)
	accepted, err := s.commands.TriggerEvent(t.Context(), commands.Caller{Actor: "lab"}, // the description has no such type
		commands.NewEvent{Event: domain.EventTriggered{EventType: "lab.ready", EventData: []byte(`{}`)}}, "")
	if err != nil {
		t.Fatal(err)
	}
	event := accepted.EventID.String()
	r.next(t)
	s.settled()
	s.commands.Catalog = builtin
	for _, path := range []string{"/webhooks/events", "/webhooks/1/calls"} {
		if got := s.ask("GET", "/api/v1"+path+"?event_type=lab.ready", "").want(200); got.text("items", 0, "event_id") != event {
			t.Errorf("%s: %s", path, got.body)
		}
		s.ask("GET", "/api/v1"+path+"?event_type=lab.raedy&limit=0", "").refusing("event_type", "limit")
	}
	s.ask("PUT", "/api/v1/webhooks/1", `{"name":"again","events":["lab.ready"]}`).want(200)
	s.ask("POST", "/api/v1/webhooks/1/backtest", `{"events":["lab.ready"]}`).want(200)
	s.ask("POST", "/api/v1/webhooks", `{"name":"new","url":"`+r.URL+`","events":["lab.ready","xray.*"]}`).refusing("events[0]", "events[1]")
	s.ask("PUT", "/api/v1/webhooks/2", `{"events":["*.*"]}`).refusing("events[0]")
	s.ask("PUT", "/api/v1/webhooks/2", `{"name":"group of old","events":["xray.*"]}`).want(200)
	s.ask("PATCH", "/api/v1/webhooks/2", `{"max_retries":1}`).want(200)
	s.ask("POST", "/api/v1/webhooks/apply", `{"webhooks":[{"name":"group of old","url":"`+r.URL+`","events":["xray.*"],"is_active":false}]}`).want(200)
	if list := s.ask("GET", "/api/v1/webhooks?q=group", "").want(200); list.text("items", 0, "events", 0) != "xray.*" {
		t.Errorf("listed %s", list.body)
	}
	for _, types := range []string{"lab.ready", "lab.*"} {
		got := s.ask("POST", "/api/v1/webhooks/1/replay", `{"from":"2020-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z","dry_run":true,"event_types":["`+types+`"]}`).want(202)
		if got.get("matched") != "1" {
			t.Errorf("a replay of %s: %s", types, got.body)
		}
	}
}
