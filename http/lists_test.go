package http_test

import (
	"strings"
	"testing"
)

// Calls are listed across webhooks, and by what they answered and delivered.
func TestCallsAcrossWebhooks(t *testing.T) {
	s := newService(t)
	s.work()
	good, bad := newReceiver(t, 200), newReceiver(t, 404)
	s.registerAt(good.URL, "")
	failing := s.registerAt(bad.URL, `,"max_retries":0`)
	event := s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{},"correlation_id":"run-1"}`).want(202).text("event_id")
	good.next(t)
	bad.next(t)
	s.until("both calls are recorded", func() bool { return s.items("/api/v1/webhooks/calls?event_id="+event) == 2 })
	delivery := s.ask("GET", "/api/v1/webhooks/calls?response_status=404", "").want(200).text("items", 0, "delivery_id")
	for query, want := range map[string]int{
		"": 2, "?webhook=1": 1, "?webhook=" + failing.text("id"): 1, "?response_status=404": 1, "?response_status=4xx": 1, "?response_status=2XX": 1,
		"?response_status=500": 0, "?status=failed": 1, "?status=failed&webhook=1": 0, "?correlation_id=run-1": 2, "?correlation_id=run-2": 0,
		"?event_id=" + event + "&status=failed": 1, "?delivery_id=" + delivery: 1, "?event_type=patient.created": 2, "?limit=1": 1,
	} {
		if got := s.items("/api/v1/webhooks/calls" + query); got != want {
			t.Errorf("%s lists %d calls, not %d", query, got, want)
		}
	}
	for query, want := range map[string]int{"?response_status=4xx": 1, "?response_status=200": 0, "?delivery_id=" + delivery: 1, "?correlation_id=run-1": 1} {
		if got := s.items("/api/v1/webhooks/2/calls" + query); got != want {
			t.Errorf("of webhook 2 %s lists %d calls, not %d", query, got, want)
		}
	}
	for _, wrong := range []string{"40", "4x", "0xx", "1000", "x", "-44", "+44", "4xxx"} {
		s.ask("GET", "/api/v1/webhooks/calls?response_status="+strings.ReplaceAll(wrong, "+", "%2B"), "").refusing("response_status")
	}
	s.ask("GET", "/api/v1/webhooks/calls?webhook=99&event_id=1&delivery_id=x", "").refusing("event_id", "delivery_id")
	s.ask("GET", "/api/v1/webhooks/calls?webhook=99", "").refusing("webhook")
	s.ask("GET", "/api/v1/webhooks/1/calls?webhook=1", "").refusing("webhook")
}

// items returns how many items a list has.
func (s *service) items(path string) int {
	s.t.Helper()
	var list struct{ Items []any }
	s.ask("GET", path, "").want(200).into(&list)
	return len(list.Items)
}
