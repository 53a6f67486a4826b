package http_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/medilab/webhooks/domain"
	api "github.com/medilab/webhooks/http"
)

// Where a reason is required, nothing is done and nothing shown without one to those who would
// see payloads; others need none.
func TestReasonRequired(t *testing.T) {
	s := newService(t)
	s.work()
	server := httptest.NewServer(api.NewServer(api.Config{Commands: s.commands, Queries: s.queries, AdminToken: domain.NewSecret(adminToken), ReasonRequired: true}).Handler())
	t.Cleanup(server.Close)
	s.url = server.URL
	event := s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"name":"Иван"}}`).want(202).text("event_id")
	s.register("")
	path, reason := "/api/v1/webhooks/events/"+event, "X-Access-Reason"
	s.ask("GET", path, "").refusing(reason)
	s.ask("GET", path, "", reason, "").refusing(reason)
	s.ask("GET", path, "", reason, "%0A").refusing(reason)
	s.ask("GET", path, "", reason, strings.Repeat("x", 1001)).refusing(reason)
	s.ask("GET", path, "", reason, "100 % sure").want(200)
	before := s.head()
	s.ask("POST", "/api/v1/webhooks/1/test", `{"event_type":"patient.created"}`).refusing(reason)
	s.ask("GET", "/api/v1/audit/events", "").refusing(reason)
	s.ask("GET", "/api/v1/audit/events?type=log.*&type=event.*", "").refusing("type")
	for _, harmless := range []string{"log.*", "log.archived", "webhook.*", "session.*", "token.created", "data.read"} {
		s.ask("GET", "/api/v1/audit/events?type="+harmless, "").want(200)
	}
	for _, other := range []string{"event.*", "event.triggered", "*", ""} {
		s.ask("GET", "/api/v1/audit/events?type="+other, "").refusing(reason)
	}
	for _, kinds := range []string{"", "?kinds=", "?kinds=call,event"} {
		s.ask("GET", "/api/v1/stream"+kinds, "").refusing(reason)
	}
	s.stream("?kinds=call,delivery,alert,webhook").close()
	if s.head() != before {
		t.Error("what was refused is in the log")
	}
	s.ask("GET", "/api/v1/webhooks/1/calls", "").want(200)
	s.as(s.tokenFor(domain.ScopeWebhooksRead), "GET", path, "").want(200)
	if got := s.accesses("?event=" + event); len(got) != 1 || *got[0].Reason != "100 % sure" {
		t.Errorf("on record: %+v", got)
	}
}
