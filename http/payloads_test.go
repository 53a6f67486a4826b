package http_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/medilab/webhooks/domain"
)

// planted stands in all that events hold and receivers answer, and nowhere else.
const planted = "Иванов-0451"

// clinic is a service with payloads everywhere that answers may show them.
type clinic struct {
	*service
	variables map[string]string // of paths
	event     string
}

func newClinic(t *testing.T) *clinic {
	t.Helper()
	s := newService(t)
	s.work()
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Patient", url.PathEscape(planted))
		_, _ = io.WriteString(w, planted)
	}))
	t.Cleanup(receiver.Close)
	s.registerAt(receiver.URL, ``)
	s.ask("POST", "/api/v1/webhooks", `{"name":"filtered","url":"`+receiver.URL+`","events":["*"],"filters":{"name":"somebody else"}}`).want(201)
	event := s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"patient_id":123,"name":"`+planted+`"}}`).want(202).text("event_id")
	_, err := s.pool.Exec(t.Context(), `INSERT INTO medilab.parked_events (event_id, event_type, event_data, emitted_by, emitted_at, reason)
		VALUES (gen_random_uuid(), 'patient.none', $1, 'clinic', now(), 'no such type')`, `{"name":"`+planted+`"}`)
	if err != nil {
		t.Fatal(err)
	}
	calls := func() answer { return s.ask("GET", "/api/v1/webhooks/1/calls", "").want(200) }
	s.until("called", func() bool { return calls().get("items") != "[]" })
	replay := s.ask("POST", "/api/v1/webhooks/1/replay", `{"from":"2020-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z"}`).want(202).text("replay_id")
	s.until("replayed", func() bool { return len(strings.Split(calls().get("items"), "call_id")) == 3 })
	return &clinic{s, map[string]string{
		"webhook": "1", "event": event, "parked": "1", "replay": replay,
		"call": calls().text("items", 0, "call_id"), "delivery": calls().text("items", 0, "delivery_id"),
	}, event}
}

// described are the operations as the API describes them, those that change little first.
func (c *clinic) described() (list []describedOperation) {
	c.t.Helper()
	var document struct {
		Paths map[string]map[string]struct {
			ID        string `json:"operationId"`
			Responses map[string]struct{ Content map[string]any }
		}
	}
	c.ask("GET", "/api/v1/openapi.json", "").want(200).into(&document)
	variable := regexp.MustCompile(`\{\w+\}`)
	for path, methods := range document.Paths {
		for method, o := range methods {
			if _, live := o.Responses["200"].Content["text/event-stream"]; live {
				continue // it does not end
			}
			filled := variable.ReplaceAllStringFunc(path, func(name string) string {
				if value := c.variables[strings.Trim(name, "{}")]; value != "" {
					return value
				}
				return "550e8400-e29b-41d4-a716-446655440000"
			})
			list = append(list, describedOperation{strings.ToUpper(method), filled, o.ID})
		}
	}
	rank := func(o describedOperation) int {
		return slices.Index([]string{"GET", "POST", "PATCH", "PUT", "DELETE"}, o.method)
	}
	slices.SortFunc(list, func(a, b describedOperation) int { return rank(a) - rank(b) })
	return list
}

type describedOperation struct{ method, path, id string }

// bodies are requests that operations accept; others get {}.
var bodies = map[string]string{
	"testWebhook":      `{"event_type":"patient.created","test_data":{"name":"` + planted + `"}}`,
	"retryParkedEvent": `{"event_data":{"name":"` + planted + `"}}`,
	"triggerEvent":     `{"event_type":"patient.created","event_data":{"name":"` + planted + `"}}`,
	"triggerEvents":    `{"events":[{"event_type":"patient.created","event_data":{"name":"` + planted + `"}}]}`,
}

// No operation shows payloads to a token that lacks the right to read them, whatever else it
// may do; where it would show some, it says that they were withheld.
func TestPayloadsAreWithheld(t *testing.T) {
	c := newClinic(t)
	most := c.tokenFor(domain.ScopeWebhooksRead, domain.ScopeWebhooksWrite, domain.ScopeEventsWrite, domain.ScopeReplaysWrite, domain.ScopeAuditRead)
	holds := func(a answer) bool {
		return strings.Contains(string(a.body), planted) || strings.Contains(string(a.body), url.PathEscape(planted)) ||
			strings.Contains(string(a.body), "0JjQstCw0L3QvtCy") // in base64
	}
	var redacted []string
	for _, o := range c.described() {
		got := c.as(most, o.method, o.path, bodies[o.id])
		if holds(got) {
			t.Errorf("%s shows %s", o.id, got.body)
		}
		if strings.Contains(string(got.body), `"redacted":true`) {
			redacted = append(redacted, o.id)
		}
		if o.method != "GET" {
			continue
		}
		// Callers with the right get it.
		if full := c.ask(o.method, o.path, ""); holds(full) != slices.Contains(redacted, o.id) || strings.Contains(string(full.body), `"redacted"`) && o.id != "openAPI" {
			t.Errorf("%s: redacted is %s of %s", o.id, got.body, full.body)
		}
	}
	slices.Sort(redacted)
	if want := []string{"auditEvents", "explainEvent", "getCall", "getEvent", "listEvents", "listParkedEvents", "testWebhook"}; !slices.Equal(redacted, want) {
		t.Errorf("redacted are %v, want %v", redacted, want)
	}
}

// What is withheld is null, and the rest is as it was.
func TestWithheldIsNull(t *testing.T) {
	c := newClinic(t)
	c.token = c.tokenFor(domain.ScopeWebhooksRead)
	call := c.ask("GET", "/api/v1/webhooks/1/calls/"+c.variables["call"], "").want(200)
	for _, member := range []string{"payload", "request_headers", "response_headers", "response_body"} {
		if got := call.get(member); got != "null" {
			t.Errorf("%s is %s", member, got)
		}
	}
	if call.get("redacted") != "true" || call.text("status") != "success" || call.text("event_id") != c.event {
		t.Errorf("call: %s", call.body)
	}
	explained := c.ask("GET", "/api/v1/webhooks/events/"+c.event+"/explain", "").want(200)
	if explained.text("items", 1, "field") != "name" || explained.get("items", 1, "want") != "null" || explained.get("items", 1, "got") != "null" || explained.get("items", 1, "redacted") != "true" || explained.get("items", 0, "redacted") != "" {
		t.Errorf("explained: %s", explained.body)
	}
	if list := c.ask("GET", "/api/v1/webhooks/events", "").want(200); list.get("items", 0, "event_data") != "null" || list.get("items", 0, "redacted") != "true" || list.get("redacted") != "" {
		t.Errorf("list: %s", list.body)
	}
	if filters := c.ask("GET", "/api/v1/webhooks/2", "").want(200); filters.get("filters") != `{"name":"somebody else"}` {
		t.Errorf("a webhook's own configuration: %s", filters.body)
	}
}
