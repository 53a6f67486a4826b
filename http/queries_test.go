package http_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// receiver answers with a status and hands on what it got.
type receiver struct {
	*httptest.Server
	got chan received
}

type received struct {
	header http.Header
	body   string
}

func newReceiver(t *testing.T, status int) *receiver {
	t.Helper()
	r := &receiver{got: make(chan received, 100)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("X-Answer", "yes")
		w.WriteHeader(status)
		if _, err := io.WriteString(w, "принято\xff"); err != nil {
			t.Error(err)
		}
		r.got <- received{request.Header, string(body)}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) next(t *testing.T) received {
	t.Helper()
	select {
	case got := <-r.got:
		return got
	case <-time.After(patience):
		t.Fatal("no call came")
		return received{}
	}
}

func (s *service) registerAt(url, more string) answer {
	s.t.Helper()
	return s.ask("POST", "/api/v1/webhooks", `{"name":"W","url":"`+url+`","events":["patient.created"]`+more+`}`).want(201)
}

func (s *service) deliveryState(event string) string {
	s.t.Helper()
	list := s.ask("GET", "/api/v1/webhooks/events/"+event+"/deliveries", "").want(200)
	if list.get("items") == "[]" {
		return ""
	}
	return list.text("items", 0, "state")
}

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

func TestRetryAndCancel(t *testing.T) {
	s := newService(t)
	s.work()
	r := newReceiver(t, 500)
	s.registerAt(r.URL, `,"retry_delay":86400`)
	event := s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{}}`).want(202).text("event_id")
	r.next(t)
	pending := func() string {
		return s.ask("GET", "/api/v1/webhooks/events/"+event+"/deliveries", "").want(200).get("items", 0, "attempts")
	}
	s.until("one attempt", func() bool { return pending() == "1" })
	delivery := s.ask("GET", "/api/v1/webhooks/events/"+event+"/deliveries", "").text("items", 0, "delivery_id")
	path := "/api/v1/webhooks/deliveries/" + delivery

	if got := s.ask("POST", path+"/retry/", "").want(202); got.text("state") != "pending" || got.text("delivery_id") != delivery {
		t.Errorf("got %s", got.body)
	}
	if got := r.next(t); got.header.Get("X-Webhook-Attempt") != "2" {
		t.Errorf("attempt %s", got.header.Get("X-Webhook-Attempt"))
	}
	s.until("two attempts", func() bool { return pending() == "2" })
	if got := s.ask("POST", path+"/cancel", "").want(202); got.text("state") != "cancelled" {
		t.Errorf("got %s", got.body)
	}
	s.ask("POST", path+"/cancel", "").want(409)
	if state := s.deliveryState(event); state != "cancelled" {
		t.Errorf("state %s", state)
	}
	if verdict := s.ask("GET", "/api/v1/webhooks/events/"+event+"/explain", "").want(200).text("items", 0, "verdict"); verdict != "cancelled" {
		t.Errorf("verdict %s", verdict)
	}
	s.ask("POST", path+"/retry", "").want(409)
	if state := s.deliveryState(event); state != "cancelled" {
		t.Errorf("after a retry that was refused: state %s", state)
	}
	s.ask("POST", "/api/v1/webhooks/deliveries/550e8400-e29b-41d4-a716-446655440000/retry", "").want(404)
	s.ask("POST", "/api/v1/webhooks/deliveries/55/cancel", "").want(404)

	// One that was never tried is in the queue alone.
	s.ask("POST", "/api/v1/webhooks/1/deactivate", "").want(200)
	s.registerAt(r.URL, "")
	s.ask("DELETE", "/api/v1/webhooks/1", "").want(204)
	s.ask("POST", path+"/retry", "").want(409)
}

func TestCancelBeforeTheFirstAttempt(t *testing.T) {
	s := newService(t) // nobody works on the queue
	s.register("")
	event := s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{}}`).want(202).text("event_id")
	delivery := s.ask("GET", "/api/v1/webhooks/events/"+event+"/deliveries", "").want(200).text("items", 0, "delivery_id")
	if got := s.ask("POST", "/api/v1/webhooks/deliveries/"+delivery+"/retry", "").want(202); got.text("event_id") != event {
		t.Errorf("got %s", got.body)
	}
	s.ask("POST", "/api/v1/webhooks/deliveries/"+delivery+"/cancel", "").want(202)
	if state := s.deliveryState(event); state != "cancelled" {
		t.Errorf("state %s", state)
	}
}

func TestGuideTest(t *testing.T) {
	s := newService(t)
	r := newReceiver(t, 503)
	s.registerAt(r.URL, `,"is_active":false,"filters":{"patient_id":{"$gt":200}},"secret":"s","payload_version":"cloudevents"`)
	test := func(body string) answer { t.Helper(); return s.ask("POST", "/api/v1/webhooks/1/test", body) }
	made := test(`{
	  "webhook_id": 1,
	  "event_type": "patient.created",
	  "test_data": {
	    "patient_id": 123,
	    "name": "Тестовый Пациент"
	  }
	}`).want(200)
	got := r.next(t)
	if made.text("payload") != got.body || !strings.Contains(got.body, "Тестовый Пациент") {
		t.Errorf("shown %s, sent %s", made.text("payload"), got.body)
	}
	if made.get("test") != "true" || made.text("status") != "failed" || made.get("response_status") != "503" || made.get("next_attempt_at") != "null" ||
		made.text("request_headers", "X-Webhook-Signature") != got.header.Get("X-Webhook-Signature") {
		t.Errorf("got %s", made.body)
	}
	if made.get("would_match") != "false" || made.get("type_subscribed") != "true" || made.get("active") != "false" ||
		made.get("filter", "matched") != "false" || made.text("filter", "field") != "patient_id" || made.get("filter", "got") != "123" {
		t.Errorf("verdict: %s", made.body)
	}
	again := s.ask("GET", "/api/v1/webhooks/1/calls/"+made.text("call_id"), "").want(200)
	if again.get("payload") != made.get("payload") {
		t.Errorf("shown later: %s", again.get("payload"))
	}
	s.ask("POST", "/api/v1/webhooks/deliveries/"+made.text("delivery_id")+"/retry", "").want(409)

	id := s.ask("GET", "/api/v1/webhooks/1", "").text("id")
	test(`{"webhook_id":"` + id + `","event_type":"webhook.alert_raised"}`).want(200)
	test(`{"event_type":"visit.created","test_data":null}`).want(200)
	test(`{"webhook_id":2,"event_type":"patient.created"}`).refusing("webhook_id")
	test(`{"event_type":"patient.none","test_data":[],"data":{}}`).refusing("data")
	test(`{"event_type":"patient.none","test_data":[]}`).refusing("event_type", "test_data")
	test(`{}`).refusing("event_type")
	s.ask("POST", "/api/v1/webhooks/9/test", `{"event_type":"patient.created"}`).want(404)
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

func TestAlerts(t *testing.T) {
	s := newService(t)
	for i, resolved := range []any{nil, time.Now(), nil} {
		_, err := s.pool.Exec(t.Context(), `INSERT INTO medilab.alerts (position, id, webhook, kind, details, raised_at, resolved_at)
			VALUES ($1, gen_random_uuid(), gen_random_uuid(), 'timeout', '{"timeout":30}', now(), $2)`, i+1, resolved)
		if err != nil {
			t.Fatal(err)
		}
	}
	positions := func(query string) string {
		t.Helper()
		var list struct {
			Items []struct{ Position json.Number }
			Next  *string `json:"next_cursor"`
		}
		s.ask("GET", "/api/v1/webhooks/alerts"+query, "").want(200).into(&list)
		var got []string
		for _, item := range list.Items {
			got = append(got, string(item.Position))
		}
		if list.Next != nil {
			got = append(got, *list.Next)
		}
		return strings.Join(got, " ")
	}
	for query, want := range map[string]string{"": "3 2 1", "/?state=open": "3 1", "?state=resolved": "2", "?state=all": "3 2 1"} {
		if got := positions(query); got != want {
			t.Errorf("%s: got %s, want %s", query, got, want)
		}
	}
	first, cursor, _ := strings.Cut(positions("?limit=1"), " ")
	if rest := positions("?cursor=" + cursor); first != "3" || rest != "2 1" {
		t.Errorf("pages %q and %q", first, rest)
	}
	s.ask("GET", "/api/v1/webhooks/alerts?state=on&webhook=1", "").refusing("state", "webhook")
}

// An alert is acknowledged once, by whom it says, and stays open; it leads to the failed calls.
func TestAcknowledge(t *testing.T) {
	s := newService(t)
	s.work()
	w := s.register(``)
	id, err := uuid.Parse(w.text("id"))
	if err != nil {
		t.Fatal(err)
	}
	key := domain.AlertKey{Webhook: domain.WebhookID(id), Kind: domain.AlertTimeout}
	var alert domain.Alert
	record := func(finding domain.Finding) {
		t.Helper()
		change := domain.DecideAlert(alert, key.Webhook, finding)
		_, err := s.log.Append(t.Context(), eventstore.Unit{Writes: []eventstore.Write{{Stream: key.Stream(), Expected: alert.Version,
			Events: []eventstore.NewEvent{{Type: change.ChangeType(), Data: domain.AppendJSON(nil, change), Value: change}}}}})
		if err != nil {
			t.Fatal(err)
		}
		alert = alert.Evolve(change)
	}
	record(domain.Finding{Kind: domain.AlertTimeout, Holds: true})
	path := "/api/v1/webhooks/alerts/" + alert.ID.String()
	admin := s.token
	s.token = s.tokenFor("webhooks:read")
	s.ask("POST", path+"/acknowledge", "").want(403)
	s.token = s.tokenFor("webhooks:write")
	first := s.ask("POST", path+"/acknowledge", "").want(200)
	if first.text("state") != "open" || !strings.HasPrefix(first.text("acknowledged_by"), "token:") || first.text("acknowledged_at") == "" {
		t.Errorf("%s", first.body)
	}
	head := s.head()
	s.token = admin
	again := s.ask("POST", path+"/acknowledge/", "").want(200)
	if again.text("acknowledged_by") != first.text("acknowledged_by") || s.head() != head {
		t.Errorf("the log ends at %d, not %d: %s", s.head(), head, again.body)
	}
	s.ask("GET", first.text("calls_url"), "").want(200)
	alert.Version, alert.Acknowledged = alert.Version+1, true
	record(domain.Finding{Kind: domain.AlertTimeout})
	s.ask("POST", path+"/acknowledge", "").want(409)
	s.ask("POST", "/api/v1/webhooks/alerts/"+id.String()+"/acknowledge", "").want(404)
	s.ask("POST", "/api/v1/webhooks/alerts/12/acknowledge", "").want(404)
}

func TestParked(t *testing.T) {
	s := newService(t)
	for _, reason := range []string{"first", "second", "third"} {
		_, err := s.pool.Exec(t.Context(), `INSERT INTO medilab.parked_events (event_id, event_type, event_data, emitted_by, emitted_at, reason)
			VALUES (gen_random_uuid(), 'patient.none', '{"a": "\u0000"}', 'clinic', now(), $1)`, reason)
		if err != nil {
			t.Fatal(err)
		}
	}
	first := s.ask("GET", "/api/v1/webhooks/events/parked?limit=2", "").want(200)
	if first.text("items", 0, "reason") != "third" || first.get("items", 1, "event_data") != `{"a":"\u0000"}` {
		t.Errorf("got %s", first.body)
	}
	if rest := s.ask("GET", "/api/v1/webhooks/events/parked?limit=2&cursor="+first.text("next_cursor"), "").want(200); rest.text("items", 0, "reason") != "first" || rest.get("next_cursor") != "null" {
		t.Errorf("got %s", rest.body)
	}
	// What repeats a key cannot be walked through, and is withheld all the same.
	_, err := s.pool.Exec(t.Context(), `INSERT INTO medilab.parked_events (event_id, event_type, event_data, emitted_by, emitted_at, reason)
		VALUES (gen_random_uuid(), 'patient.created', '{"a": "planted", "a": 2}', 'clinic', now(), 'twice')`)
	if err != nil {
		t.Fatal(err)
	}
	hidden := s.as(s.tokenFor(domain.ScopeWebhooksRead), "GET", "/api/v1/webhooks/events/parked", "").want(200)
	if strings.Contains(string(hidden.body), "planted") || hidden.get("items", 0, "event_data") != "null" || hidden.get("items", 0, "redacted") != "true" {
		t.Errorf("shown without the right: %s", hidden.body)
	}
	twice := s.ask("GET", "/api/v1/webhooks/events/parked?limit=1", "").want(200)
	var onRecord bool
	err = s.pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM medilab.events WHERE type = 'data.read' AND position(convert_to($1, 'UTF8') IN data) > 0)`,
		twice.text("items", 0, "event_id")).Scan(&onRecord)
	if err != nil || !onRecord {
		t.Errorf("the reading is not on record: %v", err)
	}
	// A page of large ones is shorter, and nothing is left out.
	_, err = s.pool.Exec(t.Context(), `INSERT INTO medilab.parked_events (event_id, event_type, event_data, emitted_by, emitted_at, reason)
		SELECT gen_random_uuid(), 'patient.created', json_build_object('n', n, 'text', repeat('x', 9 << 20)), 'clinic', now(), 'large' FROM generate_series(1, 5) AS n`)
	if err != nil {
		t.Fatal(err)
	}
	var sizes []int
	ids := map[string]bool{}
	for cursor := ""; cursor != "null"; {
		page := s.ask("GET", "/api/v1/webhooks/events/parked"+cursor, "").want(200)
		var list struct {
			Items []struct {
				ID     json.Number
				Reason string
			}
			Next *string `json:"next_cursor"`
		}
		if err := json.Unmarshal([]byte(page.body), &list); err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(list.Items))
		for _, item := range list.Items {
			ids[item.ID.String()] = true
		}
		if cursor = "null"; list.Next != nil {
			cursor = "?cursor=" + *list.Next
		}
	}
	if fmt.Sprint(sizes) != "[2 2 5]" || len(ids) != 9 {
		t.Errorf("pages of %v, %d events", sizes, len(ids))
	}
}

// A parked event is taken into the log or dropped, once, and who did it stays.
func TestParkedSettled(t *testing.T) {
	s := newService(t)
	park := func(eventType, data string) (id, event string) {
		t.Helper()
		err := s.pool.QueryRow(t.Context(), `INSERT INTO medilab.parked_events (event_id, event_type, event_data, correlation_id, source, emitted_by, emitted_at, reason)
			VALUES (gen_random_uuid(), $1, $2, 'c-1', 'sql', 'clinic', now(), 'it was so') RETURNING id::text, event_id::text`, eventType, data).Scan(&id, &event)
		if err != nil {
			t.Fatal(err)
		}
		return id, event
	}
	settle := func(id, what string) answer {
		return s.ask("POST", "/api/v1/webhooks/events/parked/"+id+"/"+what, "")
	}
	known, event := park("patient.created", ` { "a": 1.0, "b":"\u0000"} `)
	unknown, _ := park("patient.none", `{}`)
	twice, _ := park("patient.created", `{"a":1,"a":2}`)
	if got := settle(known, "retry").want(202); got.text("event_id") != event || got.text("event_type") != "patient.created" {
		t.Errorf("got %s", got.body)
	}
	if got := s.ask("GET", "/api/v1/webhooks/events/"+event, "").want(200); !strings.Contains(string(got.body), `"event_data":{ "a": 1.0, "b":"\u0000"},`) ||
		got.text("correlation_id") != "c-1" || got.text("source") != "sql" {
		t.Errorf("the event is %s", got.body)
	}
	for id, words := range map[string]string{unknown: "not a known event type", twice: "repeats a key"} {
		if got := settle(id, "retry").want(409); !strings.Contains(got.problem().Detail, words) {
			t.Errorf("got %s", got.body)
		}
	}
	s.ask("POST", "/api/v1/webhooks/events/parked/"+unknown+"/retry", `{"event_data":null}`).refusing("event_data")
	settle(unknown, "discard").want(204)
	for _, id := range []string{known, unknown, "0", "99999999999999999999"} {
		settle(id, "retry").want(404)
		settle(id, "discard").want(404)
	}
	// Another caller's event may have got its id meanwhile.
	taken, id := park("patient.created", `{"a":1}`)
	s.ask("POST", trigger, `{"event_id":"`+id+`","event_type":"patient.created","event_data":{}}`).want(202)
	if own := settle(taken, "retry").want(202).text("event_id"); own == id ||
		s.ask("GET", "/api/v1/webhooks/events/"+own, "").want(200).text("client_event_id") != id {
		t.Errorf("got %s", own)
	}
	// Or another one of the same role.
	again, _ := park("patient.created", `{"a":1}`)
	if _, err := s.pool.Exec(t.Context(), `UPDATE medilab.parked_events SET event_id = $2 WHERE id = $1`, again, event); err != nil {
		t.Fatal(err)
	}
	if got := settle(again, "retry").want(409); !strings.Contains(got.problem().Detail, "discarded") {
		t.Errorf("got %s", got.body)
	}
	settle(again, "discard").want(204)

	left := s.ask("GET", "/api/v1/webhooks/events/parked", "").want(200)
	if left.get("items", 0, "id") != twice || left.get("next_cursor") != "null" || strings.Contains(string(left.body), "patient.none") {
		t.Errorf("left are %s", left.body)
	}
	acts := strings.Split(strings.TrimSpace(string(s.ask("GET", "/api/v1/audit/events?type=admin.acted", "").want(200).body)), "\n")
	if len(acts) != 4 {
		t.Fatalf("the log has %q", acts)
	}
	for i, action := range []string{"parked_event.retried", "parked_event.discarded", "parked_event.retried", "parked_event.discarded"} {
		if !strings.Contains(acts[i], action) || !strings.Contains(acts[i], `"actor":"admin"`) || !strings.Contains(acts[i], "it was so") {
			t.Errorf("act %d is %s", i, acts[i])
		}
	}
	// Of several that do something at once one comes first.
	both, _ := park("patient.created", `{}`)
	answers := make(chan int, 8)
	for i := range cap(answers) {
		go func() { answers <- settle(both, []string{"retry", "discard"}[i%2]).status }()
	}
	done := 0
	for range cap(answers) {
		switch got := <-answers; got {
		case 202, 204:
			done++
		case 404:
		default:
			t.Errorf("one was answered %d", got)
		}
	}
	if done != 1 {
		t.Errorf("%d settled one parked event", done)
	}
}

func TestBacktest(t *testing.T) {
	s := newService(t)
	s.register(`"filters":{"age_min":18}`)
	for _, body := range []string{
		`{"event_type":"patient.created","event_data":{"age":20}}`, `{"event_type":"patient.created","event_data":{"age":10}}`,
		`{"event_type":"patient.updated","event_data":{"age":30}}`, `{"event_type":"visit.created","event_data":{}}`,
	} {
		s.ask("POST", trigger, body).want(202)
	}
	for body, want := range map[string]string{
		``:                                "4 1 0 0",
		`{"filters":null}`:                "4 2 1 0",
		`{"events":["patient.*"]}`:        "4 2 1 0",
		`{"filters":{"age_max":15}}`:      "4 1 1 1",
		`{"events":["visit.created"]}`:    "4 0 0 1",
		`{"to":"2020-01-01T00:00:00Z"}`:   "0 0 0 0",
		`{"from":"2020-01-01T00:00:00Z"}`: "4 1 0 0",
	} {
		got := s.ask("POST", "/api/v1/webhooks/1/backtest", body).want(200)
		if counts := strings.Join([]string{got.get("considered"), got.get("matched"), got.get("gained"), got.get("lost")}, " "); counts != want {
			t.Errorf("%s: %s, want %s", body, got.body, want)
		}
	}
	// What the log recorded counts, not what the webhook is by now.
	s.ask("PATCH", "/api/v1/webhooks/1", `{"filters":{"age_max":15}}`).want(200)
	for body, want := range map[string]string{``: "4 1 1 1", `{"filters":{"age_min":18}}`: "4 1 0 0"} {
		got := s.ask("POST", "/api/v1/webhooks/1/backtest", body).want(200)
		if counts := strings.Join([]string{got.get("considered"), got.get("matched"), got.get("gained"), got.get("lost")}, " "); counts != want {
			t.Errorf("after a change, %s: %s, want %s", body, got.body, want)
		}
	}
	s.ask("PATCH", "/api/v1/webhooks/1", `{"filters":{"age_min":18}}`).want(200)
	head := s.head()
	if got := s.ask("POST", "/api/v1/webhooks/1/backtest", `{"filters":{"age_max":15}}`); got.text("samples", 0, "change") != "lost" || got.text("samples", 1, "change") != "gained" {
		t.Errorf("samples: %s", got.body)
	}
	if s.head() != head {
		t.Error("a backtest left something in the log")
	}
	s.ask("POST", "/api/v1/webhooks/1/backtest", `{"events":["x"],"filters":{"a":{"$x":1}},"from":"then","since":1}`).
		refusing("events[0]", "filters.a.$x", "from", "since")
	s.ask("POST", "/api/v1/webhooks/2/backtest", ``).want(404)
}

func TestReplay(t *testing.T) {
	s := newService(t)
	before := s.commands.Now().Format(time.RFC3339Nano)
	for _, eventType := range []string{"patient.created", "patient.created", "patient.updated", "visit.created"} {
		s.ask("POST", trigger, `{"event_type":"`+eventType+`","event_data":{}}`).want(202)
	}
	s.work()
	r := newReceiver(t, 200)
	s.ask("POST", "/api/v1/webhooks", `{"name":"new","url":"`+r.URL+`","events":["patient.*"]}`).want(201)
	span := `"from":"` + before + `","to":"2100-01-01T00:00:00Z"`
	replay := func(more string) answer {
		t.Helper()
		return s.ask("POST", "/api/v1/webhooks/1/replay", `{`+span+more+`}`)
	}
	if dry := replay(`,"dry_run":true`).want(202); dry.get("matched") != "3" || dry.get("replay_id") != "null" {
		t.Errorf("dry: %s", dry.body)
	}
	if none := replay(`,"only_failed":true,"dry_run":true`).want(202); none.get("matched") != "0" {
		t.Errorf("only failed: %s", none.body)
	}
	made := replay(`,"event_types":["patient.created"],"only_failed":false`).want(202)
	if made.get("matched") != "null" { // it counts in the job
		t.Errorf("made: %s", made.body)
	}
	path := "/api/v1/webhooks/1/replays/" + made.text("replay_id")
	if made.header.Get("Location") == "" {
		t.Error("no Location")
	}
	s.settled()
	s.until("replayed", func() bool { return s.ask("GET", path, "").want(200).text("state") == "completed" })
	if done := s.ask("GET", path, "").want(200); done.get("delivered") != "2" || done.get("matched") != "2" || done.get("queued") != "2" {
		t.Errorf("done: %s", done.body)
	}
	for range 2 {
		if got := r.next(t); got.header.Get("X-Webhook-Event") != "patient.created" || got.header.Get("X-Webhook-Attempt") != "1" {
			t.Errorf("got %v", got.header)
		}
	}
	first := s.ask("GET", "/api/v1/webhooks/events?event_type=patient.created", "").want(200).text("items", 0, "event_id")
	if got := s.ask("GET", "/api/v1/webhooks/events/"+first+"/deliveries", "").want(200); got.text("items", 0, "state") != "delivered" {
		t.Errorf("a delivery that a replay made: %s", got.body)
	}
	// What a replay sent is explained, to a webhook that did not exist then too.
	explain := s.ask("GET", "/api/v1/webhooks/events/"+first+"/explain", "").want(200)
	delivery := s.ask("GET", "/api/v1/webhooks/events/"+first+"/deliveries", "").want(200).text("items", 0, "delivery_id")
	sent := fmt.Sprintf(`[{"kind":"replay","id":"%s","delivery_id":"%s","state":"delivered"}]`, made.text("replay_id"), delivery)
	if explain.text("items", 0, "verdict") != "not_registered_yet" || explain.get("items", 0, "webhook_version") != "0" || explain.get("items", 0, "sent_by") != sent {
		t.Errorf("explained as %s, want %s", explain.body, sent)
	}
	again := replay("").want(202)
	for range 3 {
		r.next(t)
	}
	if counted := s.ask("GET", "/api/v1/webhooks/1/replays/"+again.text("replay_id"), "").want(200); counted.get("matched") != "3" {
		t.Errorf("again: %s", counted.body)
	}
	s.ask("GET", "/api/v1/webhooks/1/replays/"+again.text("replay_id")+"0", "").want(404)
	s.ask("GET", "/api/v1/webhooks/1/replays/550e8400-e29b-41d4-a716-446655440000", "").want(404)
	s.ask("POST", "/api/v1/webhooks/1/replay", `{}`).refusing("from", "to")
	s.ask("POST", "/api/v1/webhooks/1/replay", `{"from":1,"to":"2100-01-01T00:00:00Z","event_types":[1],"only":true}`).refusing("from", "event_types", "only")
	replay(`,"event_types":["x.*"]`).refusing("event_types[0]")
}

func TestBatch(t *testing.T) {
	s := newService(t)
	s.work()
	r := newReceiver(t, 500)
	s.registerAt(r.URL, `,"retry_delay":86400,"secret":"s3cret","batch":{"max_events":2,"max_wait":300}`)
	emit := func() string {
		return s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"a":1.0}}`).want(202).text("event_id")
	}
	delivery := func(event string) answer {
		return s.ask("GET", "/api/v1/webhooks/events/"+event+"/deliveries", "").want(200)
	}
	deliveries := "/api/v1/webhooks/deliveries/"
	one := emit()
	if got := delivery(one); got.text("items", 0, "state") != "pending" || got.get("items", 0, "batch_id") != "null" {
		t.Errorf("waiting: %s", got.body)
	}
	two := emit()
	first := r.next(t)
	batch := first.header.Get("X-Webhook-Delivery-ID")
	want := `{"batch":true,"events":[{"event_type":"patient.created","event_data":{"a":1.0},"event_id":"` + one + `"},` +
		`{"event_type":"patient.created","event_data":{"a":1.0},"event_id":"` + two + `"}],"webhook_id":`
	if !strings.HasPrefix(first.body, want) || first.header.Get("X-Webhook-Event") != "batch" || first.header.Get("X-Webhook-Signature") == "" {
		t.Errorf("got %v %s", first.header, first.body)
	}
	s.until("one attempt", func() bool { return delivery(two).get("items", 0, "attempts") == "1" })
	if got := delivery(two); got.text("items", 0, "batch_id") != batch || got.text("items", 0, "event_id") != two || got.get("items", 0, "response_status") != "500" {
		t.Errorf("member: %s", got.body)
	}

	// The call is listed as the batch's, and shown as it was sent.
	s.settled()
	calls := s.ask("GET", "/api/v1/webhooks/1/calls?event_type=batch", "").want(200)
	if calls.text("items", 0, "delivery_id") != batch || calls.text("items", 0, "event_id") != one || calls.text("items", 0, "event_type") != "batch" {
		t.Errorf("calls: %s", calls.body)
	}
	call := s.ask("GET", "/api/v1/webhooks/1/calls/"+calls.text("items", 0, "call_id"), "").want(200)
	if call.text("payload") != first.body || call.text("request_headers", "X-Webhook-Signature") != first.header.Get("X-Webhook-Signature") {
		t.Errorf("shown as %s", call.body)
	}

	// A member can't be taken out; asked for again, all go again.
	member := delivery(two).text("items", 0, "delivery_id")
	s.ask("POST", deliveries+member+"/cancel", "").want(409)
	if got := s.ask("POST", deliveries+member+"/retry", "").want(202); got.text("batch_id") != batch || got.text("event_id") != two || got.text("delivery_id") != member {
		t.Errorf("got %s", got.body)
	}
	if again := r.next(t); again.header.Get("X-Webhook-Delivery-ID") != batch || again.header.Get("X-Webhook-Attempt") != "2" || !strings.HasPrefix(again.body, want) {
		t.Errorf("got %v %s", again.header, again.body)
	}
	s.until("two attempts", func() bool { return delivery(one).get("items", 0, "attempts") == "2" })
	s.ask("POST", deliveries+batch+"/cancel", "").want(202)
	for _, event := range []string{one, two} {
		if state := s.deliveryState(event); state != "cancelled" {
			t.Errorf("state %s", state)
		}
	}

	// One that waits is cancelled or asked for by itself.
	three, four := emit(), ""
	s.ask("POST", deliveries+delivery(three).text("items", 0, "delivery_id")+"/cancel", "").want(202)
	if state := s.deliveryState(three); state != "cancelled" {
		t.Errorf("state %s", state)
	}
	four = emit()
	s.ask("POST", deliveries+delivery(four).text("items", 0, "delivery_id")+"/retry", "").want(202)
	if got := r.next(t); got.header.Get("X-Webhook-Event-ID") != four || got.header.Get("X-Webhook-Event") != "patient.created" {
		t.Errorf("got %v", got.header)
	}
	s.until("one attempt", func() bool { return delivery(four).get("items", 0, "attempts") == "1" })

	// A replay sends what ended, each by itself; what is on its way is left alone.
	five := emit()
	span := `{"from":"2020-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z"}`
	made := s.ask("POST", "/api/v1/webhooks/1/replay", span).want(202)
	again := map[string]bool{}
	for range 3 {
		got := r.next(t)
		again[got.header.Get("X-Webhook-Event-ID")] = got.header.Get("X-Webhook-Attempt") == "1"
	}
	if counted := s.ask("GET", "/api/v1/webhooks/1/replays/"+made.text("replay_id"), "").want(200); counted.get("matched") != "3" {
		t.Errorf("made: %s", counted.body)
	}
	if !again[one] || !again[two] || !again[three] {
		t.Errorf("sent again: %v, not %s, %s", again, four, five)
	}
}

// A type that left the file of event types can still be asked for: the log knows it.
func TestTypesThatLeftTheCatalogue(t *testing.T) {
	s := newService(t)
	builtin := s.commands.Catalog
	s.commands.Catalog = builtin.With([]domain.EventType{"lab.ready"})
	s.work()
	r := newReceiver(t, 200)
	s.ask("POST", "/api/v1/webhooks", `{"name":"lab","url":"`+r.URL+`","events":["lab.ready"]}`).want(201)
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
	s.ask("POST", "/api/v1/webhooks", `{"name":"new","url":"`+r.URL+`","events":["lab.ready"]}`).refusing("events[0]")
	for _, types := range []string{"lab.ready", "lab.*"} {
		got := s.ask("POST", "/api/v1/webhooks/1/replay", `{"from":"2020-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z","dry_run":true,"event_types":["`+types+`"]}`).want(202)
		if got.get("matched") != "1" {
			t.Errorf("a replay of %s: %s", types, got.body)
		}
	}
}

// A batch of CloudEvents is sent, and shown, in their batched mode.
func TestBatchOfCloudEvents(t *testing.T) {
	s := newService(t)
	s.work()
	r := newReceiver(t, 200)
	s.registerAt(r.URL, `,"payload_version":"cloudevents","batch":{"max_events":2,"max_wait":300}`)
	for _, source := range []string{"lab", "ward"} {
		s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"a":1.0},"source":"`+source+`"}`).want(202)
	}
	got := r.next(t)
	var events []struct{ Specversion, Source string }
	if err := json.Unmarshal([]byte(got.body), &events); err != nil || len(events) != 2 || events[0].Specversion != "1.0" || events[1].Source != "ward" ||
		got.header.Get("Content-Type") != "application/cloudevents-batch+json" {
		t.Errorf("%v: got %v %s", err, got.header, got.body)
	}
	list := "/api/v1/webhooks/1/calls"
	s.until("the call is recorded", func() bool {
		s.settled()
		return s.ask("GET", list, "").want(200).get("items") != "[]"
	})
	call := s.ask("GET", list+"/"+s.ask("GET", list, "").want(200).text("items", 0, "call_id"), "").want(200)
	if call.text("payload") != got.body || call.text("request_headers", "Content-Type") != got.header.Get("Content-Type") {
		t.Errorf("shown as %s", call.body)
	}
}

// A replay is a job: started once by a key, seen and changed under both paths, and named in
// what it sends, which the call log shows to the byte.
func TestReplayIsAJob(t *testing.T) {
	s := newService(t)
	s.work()
	r := newReceiver(t, 200)
	s.ask("POST", "/api/v1/webhooks", `{"name":"first","url":"`+r.URL+`","events":["patient.*"],"payload_version":"2"}`).want(201)
	s.ask("POST", "/api/v1/webhooks", `{"name":"second","url":"`+r.URL+`","events":["visit.created"]}`).want(201)
	s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"patient_id":1}}`).want(202)
	first := r.next(t)
	if first.header.Get("X-Webhook-Replay") != "" || strings.Contains(string(first.body), "replay_id") {
		t.Errorf("no replay sent %v %s", first.header, first.body)
	}
	const start, span = "/api/v1/webhooks/1/replay", `{"from":"2020-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z"`
	s.settled()
	made := s.ask("POST", start, span+`,"rate":100}`, "Idempotency-Key", "k").want(202)
	id := made.text("replay_id")
	if again := s.ask("POST", start, span+`,"rate":100}`, "Idempotency-Key", "k").want(202); string(again.body) != string(made.body) {
		t.Errorf("once more: %s, %s", made.body, again.body)
	}
	s.ask("POST", start, span+`}`, "Idempotency-Key", "k").want(409)
	sent := r.next(t)
	if sent.header.Get("X-Webhook-Replay") != id || !strings.Contains(string(sent.body), `"replay_id":"`+id+`"`) ||
		sent.header.Get("X-Webhook-Delivery-ID") != first.header.Get("X-Webhook-Delivery-ID") || sent.header.Get("X-Webhook-Attempt") != "2" {
		t.Errorf("the replay sent %v %s", sent.header, sent.body)
	}
	s.until("completed", func() bool {
		return s.ask("GET", "/api/v1/webhooks/replays/"+id, "").want(200).text("state") == "completed"
	})
	call := s.ask("GET", "/api/v1/webhooks/1/calls", "").want(200).text("items", 0, "call_id")
	if shown := s.ask("GET", "/api/v1/webhooks/1/calls/"+call, "").want(200); shown.text("payload") != string(sent.body) || shown.text("request_headers", "X-Webhook-Replay") != id {
		t.Errorf("the call log shows %s, not %s", shown.body, sent.body)
	}
	one := s.ask("GET", "/api/v1/webhooks/1/replays/"+id, "").want(200)
	for field, want := range map[string]string{
		"kind": `"replay"`, "matched": "1", "queued": "1", "delivered": "1", "failed": "0", "cancelled": "0", "rate": "100", "requested_by": `"admin"`,
	} {
		if got := one.get(field); got != want {
			t.Errorf("%s is %s, want %s", field, got, want)
		}
	}
	for _, list := range []string{"/api/v1/webhooks/replays?limit=1", "/api/v1/webhooks/1/replays"} {
		if got := s.ask("GET", list, "").want(200); got.text("items", 0, "replay_id") != id || got.get("next_cursor") != "null" {
			t.Errorf("%s: %s", list, got.body)
		}
	}
	if got := s.ask("GET", "/api/v1/webhooks/2/replays", "").want(200); got.get("items") != "[]" {
		t.Errorf("of another webhook: %s", got.body)
	}
	s.ask("GET", "/api/v1/webhooks/2/replays/"+id, "").want(404)
	s.ask("POST", "/api/v1/webhooks/2/replays/"+id+"/cancel", "").want(404)
	s.ask("POST", "/api/v1/webhooks/replays/"+id+"/cancel", "").want(409)

	s.ask("POST", "/api/v1/webhooks/1/deactivate", "").want(200)
	waits := s.ask("POST", start, span+`,"rate":0.01}`).want(202).text("replay_id")
	for _, x := range []struct{ ask, want string }{{"pause", "paused"}, {"pause", "paused"}, {"resume", ""}, {"cancel", "cancelled"}, {"cancel", "cancelled"}} {
		if got := s.ask("POST", "/api/v1/webhooks/1/replays/"+waits+"/"+x.ask, ""); x.want != "" && got.want(200).text("state") != x.want {
			t.Errorf("%s: %s", x.ask, got.body)
		}
	}
	s.until("it is over", func() bool {
		got := s.ask("GET", "/api/v1/webhooks/1/replays/"+waits, "").want(200)
		return got.get("finished_at") != "null" && (got.get("matched") == "null" || got.get("cancelled") == "1")
	})
	const retry = "/api/v1/webhooks/deliveries/retry"
	if dry := s.ask("POST", retry, `{"state":"failed","webhook":"1","response_status":"5xx","dry_run":true}`).want(202); dry.get("matched") != "0" || dry.get("replay_id") != "null" {
		t.Errorf("dry: %s", dry.body)
	}
	s.ask("POST", retry, `{}`).refusing("state")
	s.ask("POST", retry, `{"state":"pending","webhook":"77","response_status":"6","rate":0,"event_types":["x.y"],"only_failed":true}`).
		refusing("state", "webhook", "response_status", "rate", "event_types[0]", "only_failed")
	s.ask("POST", start, span+`,"rate":"fast"}`).refusing("rate")
}
