package http_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/medilab/webhooks/commands/outbox"
	"github.com/medilab/webhooks/domain"
)

const trigger = "/api/v1/webhooks/events/trigger"

func TestGuideTrigger(t *testing.T) {
	s := newService(t)
	body := `{
	  "event_type": "patient.created",
	  "event_data": {
	    "patient_id": 123,
	    "name": "Иван Иванов",
	    "phone": "+7900123456"
	  },
	  "source": "manual",
	  "correlation_id": "manual-trigger-001"
	}`
	got := s.ask("POST", trigger, body, "Content-Type", "application/json").want(202)
	if got.text("event_type") != "patient.created" || !strings.HasSuffix(got.text("accepted_at"), "Z") {
		t.Errorf("got %s", got.body)
	}
	events, err := s.log.Load(t.Context(), "event-"+got.text("event_id"))
	if err != nil || len(events) != 1 {
		t.Fatalf("%v, %v", events, err)
	}
	was := events[0].Value.(domain.EventTriggered)
	if was.Source != "manual" || was.CorrelationID != "manual-trigger-001" || !strings.Contains(string(was.EventData), "\"name\": \"Иван Иванов\",\n") {
		t.Errorf("kept %+v", was)
	}
	if metadata := string(events[0].Metadata); !strings.Contains(metadata, `"actor":"admin"`) || !strings.Contains(metadata, "manual-trigger-001") {
		t.Errorf("metadata %s", metadata)
	}
}

func TestTriggerRules(t *testing.T) {
	s := newService(t)
	post := func(body string, headers ...string) answer {
		t.Helper()
		return s.ask("POST", trigger, body, headers...)
	}
	post(`{}`).refusing("event_type", "event_data")
	post(`{"event_type":"patient.creatd","event_data":[]}`).refusing("event_type", "event_data")
	post(`{"event_type":1,"event_data":null,"source":{},"correlation_id":[],"event_id":"x","evnt":1}`).
		refusing("event_type", "event_data", "source", "correlation_id", "event_id", "evnt")
	post(`{"event_type":"webhook.alert_raised","event_data":{}}`).refusing("event_type")
	post(`{"event_type":"patient.created","event_data":{},"event_id":"00000000-0000-0000-0000-000000000000"}`).refusing("event_id")
	post(`{"event_type":"patient.created","event_data":{},"correlation_id":"` + strings.Repeat("x", 501) + `"}`).refusing("correlation_id")
	post(`{"event_type":"patient.created","event_data":{}}`, "Idempotency-Key", strings.Repeat("k", 256)).refusing("Idempotency-Key")
	deep := strings.Repeat(`{"a":`, 63)
	for name, body := range map[string]string{
		"no JSON": `{`, "empty": ``, "not an object": `[]`, "a repeated key": `{"event_type":"a","event_type":"b"}`,
		"deep":      `{"event_type":"patient.created","event_data":` + strings.Repeat(`{"a":`, 64) + `1` + strings.Repeat("}", 64) + `}`,
		"not UTF-8": "{\"event_type\":\"patient.created\",\"event_data\":{\"a\":\"\xff\"}}", "a huge number": `{"event_type":"patient.created","event_data":{"a":1e309}}`,
	} {
		if got := post(body); got.status != 400 {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		} else {
			got.problem()
		}
	}
	for name, body := range map[string]string{
		"deep enough": `{"event_type":"patient.created","event_data":` + deep + `1` + strings.Repeat("}", 63) + `}`,
		"NUL":         `{"event_type":"patient.created","event_data":{"a":"\u0000","b":` + strings.Repeat("9", 300) + `}}`,
		"no type":     `{"event_type":"patient.created","event_data":{}}`,
	} {
		if got := post(body); got.status != 202 {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	post(`{}`, "Content-Type", "text/plain").want(415)
	post(`{}`, "Content-Type", "application/json; charset=koi8-r").want(415)
	post(`{}`, "Content-Encoding", "gzip").want(415)
	post(`{}`, "Content-Type", "application/json; charset=UTF-8").want(422)
	post(`{"event_type":"patient.created","event_data":{"a":"` + strings.Repeat("x", 10<<20) + `"}}`).want(413)
}

func TestEventIDIsAcceptedOnce(t *testing.T) {
	s := newService(t)
	const id = "550e8400-e29b-41d4-a716-446655440000"
	body := `{"event_id":"` + id + `","event_type":"patient.created","event_data":{"a": 1}}`
	first := s.ask("POST", trigger, body).want(202)
	if first.text("event_id") != id {
		t.Fatalf("got %s", first.body)
	}
	if again := s.ask("POST", trigger, body).want(202); string(again.body) != string(first.body) {
		t.Errorf("answered %s, the first time %s", again.body, first.body)
	}
	for _, other := range []string{
		strings.Replace(body, "1}", "2}", 1), strings.Replace(body, "created", "updated", 1),
		strings.Replace(body, "{\"event_id", "{\"source\":\"x\",\"event_id", 1),
	} {
		s.ask("POST", trigger, other).want(409)
	}
	if s.head() != 1 {
		t.Errorf("the log has %d events", s.head())
	}

	// With a key besides, both hold.
	if got := s.ask("POST", trigger, body, "Idempotency-Key", "k").want(202); string(got.body) != string(first.body) {
		t.Errorf("with a key: %s", got.body)
	}
	s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{}}`, "Idempotency-Key", "k").want(409)
	if got := s.ask("POST", trigger, body, "Idempotency-Key", "k").want(202); string(got.body) != string(first.body) {
		t.Errorf("with the key again: %s", got.body)
	}
}

func TestIdempotencyKeyIsUsedOnce(t *testing.T) {
	s := newService(t)
	const body = `{"event_type":"patient.created","event_data":{"a": 1}}`
	var wg sync.WaitGroup
	answers := make([]answer, 8)
	for i := range answers {
		wg.Go(func() { answers[i] = s.ask("POST", trigger, body, "Idempotency-Key", "ключ-1") })
	}
	wg.Wait()
	for _, a := range answers {
		if a.status != 202 || string(a.body) != string(answers[0].body) {
			t.Errorf("%d %s, and the first %s", a.status, a.body, answers[0].body)
		}
	}
	if s.head() != 2 {
		t.Errorf("the log has %d events", s.head())
	}
	s.ask("POST", trigger, strings.Replace(body, "1}", "2}", 1), "Idempotency-Key", "ключ-1").want(409)
	if other := s.ask("POST", trigger, body, "Idempotency-Key", "ключ-2").want(202); string(other.body) == string(answers[0].body) {
		t.Error("another key is another event")
	}
}

func TestTriggerBatch(t *testing.T) {
	s := newService(t)
	post := func(body string, headers ...string) answer {
		t.Helper()
		return s.ask("POST", trigger+"/batch", body, headers...)
	}
	const id = "550e8400-e29b-41d4-a716-446655440000"
	body := `{"events":[{"event_type":"patient.created","event_data":{}},{"event_id":"` + id + `","event_type":"visit.created","event_data":{"b":2}}]}`
	got := post(body).want(202)
	if got.text("items", 1, "event_id") != id || got.text("items", 0, "event_type") != "patient.created" || got.text("items", 0, "accepted_at") == "" {
		t.Errorf("got %s", got.body)
	}
	if s.head() != 2 {
		t.Fatalf("the log has %d events", s.head())
	}
	// The second event is there already: it is not there twice, and the first is new.
	again := post(body).want(202)
	if again.get("items", 1) != got.get("items", 1) || again.get("items", 0) == got.get("items", 0) || s.head() != 3 {
		t.Errorf("again: %s", again.body)
	}
	with := post(body, "Idempotency-Key", "k").want(202)
	if repeated := post(body, "Idempotency-Key", "k").want(202); string(repeated.body) != string(with.body) || s.head() != 5 {
		t.Errorf("%s, and the first time %s; the log has %d", repeated.body, with.body, s.head())
	}

	post(`{}`).refusing("events")
	post(`{"events":[]}`).refusing("events")
	post(`{"events":{}}`).refusing("events")
	post(`{"events":[{"event_type":"patient.created","event_data":{}}],"event":1}`).refusing("event")
	post(`{"events":[{"event_type":"patient.created","event_data":{}},1,{"event_type":"patient.x","event_data":1,"x":0},{"event_id":1}]}`).
		refusing("events[1]", "events[2].event_type", "events[2].event_data", "events[2].x", "events[3].event_id", "events[3].event_type", "events[3].event_data")
	post(`{"events":[{"event_type":"patient.x","event_data":{}},{"event_type":"patient.created","event_data":{},"x":0}]}`).
		refusing("events[0].event_type", "events[1].x")
	post(`{"events":[{"event_type":"patient.created","event_data":{},"event_id":"` + id + `"},{"event_type":"patient.created","event_data":{},"event_id":"` + id + `"}]}`).
		refusing("events[1].event_id")
	many := strings.TrimSuffix(strings.Repeat(`{"event_type":"patient.created","event_data":{}},`, 1001), ",")
	post(`{"events":[` + many + `]}`).refusing("events")
	if s.head() != 5 {
		t.Errorf("a refused batch left something: %d", s.head())
	}
	thousand := strings.TrimSuffix(strings.Repeat(`{"event_type":"patient.created","event_data":{}},`, 1000), ",")
	if all := post(`{"events":[` + thousand + `]}`).want(202); all.get("items", 999) == "" || s.head() != 1005 {
		t.Errorf("the log has %d", s.head())
	}
}

func TestEventTypes(t *testing.T) {
	s := newService(t)
	var list struct {
		Items []struct {
			Type, Group string
			Description struct{ RU, EN string }

			Example, Schema map[string]any
			Enforce         bool
		}
	}
	s.ask("GET", "/api/v1/webhooks/events/types/", "").want(200).into(&list)
	first := list.Items[0]
	if len(list.Items) != 28 || fmt.Sprint(first.Type, " ", first.Group, " ", first.Description) != "patient.created patient {Создан новый пациент A new patient was created}" {
		t.Errorf("got %d, the first %v", len(list.Items), first)
	}
	for _, one := range list.Items {
		if len(one.Example) == 0 || one.Schema["type"] != "object" || one.Enforce {
			t.Errorf("%s: the example is %v, the schema %v", one.Type, one.Example, one.Schema)
		}
	}
}

// An enforced schema refuses data that breaks it, naming the field, and nothing else is checked.
func TestEnforcedSchema(t *testing.T) {
	s := newService(t)
	s.enforce(`[{"type":"payment.created","enforce":true,
		"schema":{"required":["result_id"],"properties":{"values":{"items":{"type":"number"}},"note":{"pattern":"^[a-z]*$"}}}}]`)
	event := func(eventType, data string) string {
		return `{"event_type":"` + eventType + `","event_data":` + data + `,"event_id":"550e8400-e29b-41d4-a716-446655440000"}`
	}
	const first = `{"result_id":1,"values":[1.5]}`
	s.ask("POST", trigger, event("payment.created", first)).want(202)
	s.ask("POST", trigger, event("payment.created", `{"result_id":2,"values":[1.5,"high"]}`)).refusing("event_data.values[1]")
	s.ask("POST", trigger, event("payment.created", `{}`)).refusing("event_data.result_id")
	s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"name":5}}`).want(202)
	another := s.tokenFor(domain.ScopeEventsWrite) // has the event under an id of its own
	own := s.as(another, "POST", trigger, event("payment.created", first)).want(202)
	s.ask("POST", trigger+"/batch", `{"events":[`+event("payment.created", `{"result_id":"x","note":"A"}`)+`]}`).refusing("events[0].event_data.note")
	large := `{"result_id":1,"note":"` + strings.Repeat("a", 5<<20) + `"}`
	s.ask("POST", trigger, event("payment.created", large)).refusing("event_data")
	if s.head() != 4 {
		t.Errorf("the log has %d events, want 4", s.head())
	}

	// What was accepted before it was enforced is a repetition as any other.
	s.enforce(`[{"type":"payment.created","enforce":true,"schema":{"required":["another"]}}]`)
	s.ask("POST", trigger, event("payment.created", first)).want(202)
	for path, body := range map[string]string{trigger: event("payment.created", first), trigger + "/batch": `{"events":[` + event("payment.created", first) + `]}`} {
		if again := s.as(another, "POST", path, body).want(202); !strings.Contains(string(again.body), own.text("event_id")) {
			t.Errorf("first %s, then %s", own.body, again.body)
		}
		s.as(another, "POST", path, strings.Replace(body, "1.5", "2.5", 1)).want(422)
	}

	// A dead letter can be mended only with data that fit.
	if err := outbox.SyncEventTypes(t.Context(), s.pool, s.commands.Catalog); err != nil {
		t.Fatal(err)
	}
	if _, err := s.pool.Exec(t.Context(), `INSERT INTO medilab.parked_events (event_id, event_type, event_data, emitted_by, emitted_at, reason)
		VALUES (gen_random_uuid(), 'payment.created', '{}', 'clinic', now(), 'event_data.another is required')`); err != nil {
		t.Fatal(err)
	}
	s.ask("POST", "/api/v1/webhooks/events/parked/1/retry", "").want(409)
	s.ask("POST", "/api/v1/webhooks/events/parked/1/retry", `{"event_data":{"result_id":1}}`).refusing("event_data.another")
	s.ask("POST", "/api/v1/webhooks/events/parked/1/retry", `{"event_data":{"another":1}}`).want(202)
}

// enforce makes the service use the event types of a file.
func (s *service) enforce(file string) {
	s.t.Helper()
	catalog, err := domain.ParseCatalog([]byte(file))
	if err != nil {
		s.t.Fatal(err)
	}
	s.commands.Catalog = catalog
}

// A test call without data sends the example of its type.
func TestTestCallsSendTheExample(t *testing.T) {
	s := newService(t)
	received := make(chan string, 1)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		received <- string(body)
	}))
	defer receiver.Close()
	s.ask("POST", "/api/v1/webhooks/", `{"name":"n","url":"`+receiver.URL+`","events":["*"]}`).want(201)
	for _, info := range append(s.commands.Catalog.Clinic(), s.commands.Catalog.System()...) {
		s.ask("POST", "/api/v1/webhooks/1/test", `{"event_type":"`+string(info.Type)+`"}`).want(200)
		if body := <-received; !strings.Contains(body, `"event_data":`+string(info.Example)+`,`) {
			t.Errorf("sent %s, want the example %s", body, info.Example)
		}
	}
	s.enforce(`[{"type":"patient.created","schema":{"required":["snils"]}}]`)
	s.ask("POST", "/api/v1/webhooks/1/test", `{"event_type":"patient.created","test_data":null}`).want(200)
	if body := <-received; !strings.Contains(body, `"event_data":{},`) { // the example does not fit the schema of the file
		t.Errorf("sent %s", body)
	}
}
