package http_test

import (
	"fmt"
	"slices"
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
	call := s.ask("GET", "/api/v1/webhooks/2/calls", "").want(200).text("items", 0, "call_id")
	whole := s.ask("GET", "/api/v1/webhooks/2/calls/"+call, "").want(200)
	var entry struct{ Position int }
	s.ask("GET", "/api/v1/audit/events?stream=delivery-"+delivery, "").want(200).into(&entry)
	if whole.text("correlation_id") != "run-1" || entry.Position == 0 || whole.get("position") != fmt.Sprint(entry.Position) {
		t.Errorf("the call is %s", whole.body)
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

// What never arrived is listed across webhooks and events, and leaves the list when it is
// retried with success. What waits in the queue is listed too, though nobody tried it.
func TestDeliveriesAcrossWebhooks(t *testing.T) {
	s := newService(t)
	s.work()
	good, bad := newReceiver(t, 200), newReceiver(t, 404)
	s.registerAt(good.URL, "")
	failing := s.registerAt(bad.URL, `,"max_retries":0`)
	waiting := s.registerAt(good.URL, `,"max_retries":1,"batch":{"max_events":10,"max_wait":300}`)
	var events []string
	for range 3 {
		events = append(events, s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{}}`).want(202).text("event_id"))
		good.next(t)
		bad.next(t)
	}
	s.until("all failed", func() bool { return s.items("/api/v1/webhooks/deliveries?state=failed") == 3 })
	s.until("all arrived", func() bool { return s.items("/api/v1/webhooks/deliveries?state=delivered") == 3 })
	list := s.ask("GET", "/api/v1/webhooks/deliveries?state=failed", "").want(200)
	for field, want := range map[string]string{
		"event_id": events[2], "webhook_id": failing.text("id"), "event_type": "patient.created", "state": "failed", "error": "the receiver answered 404",
	} {
		if got := list.text("items", 0, field); got != want {
			t.Errorf("%s is %q, not %q", field, got, want)
		}
	}
	for field, want := range map[string]string{"attempts": "1", "next_attempt_at": "null", "response_status": "404", "waiting_behind": "null"} {
		if got := list.get("items", 0, field); got != want {
			t.Errorf("%s is %s, not %s", field, got, want)
		}
	}
	failed := list.text("items", 0, "delivery_id")
	for query, want := range map[string]int{
		"": 9, "?state=pending": 3, "?state=pending&webhook=3": 3, "?state=pending&webhook=" + waiting.text("id"): 3, "?state=pending&webhook=1": 0,
		"?state=failed&webhook=2": 3, "?state=failed&webhook=1": 0, "?webhook=1": 3, "?state=failed&response_status=4xx": 3, "?response_status=404": 3,
		"?response_status=200": 3, "?state=failed&response_status=500": 0, "?state=failed&event_type=patient.updated": 0, "?state=failed&event_type=patient.created": 3,
		"?state=failed&limit=2": 2, "?state=cancelled": 0, "?state=failed&from=2020-01-01T00:00:00Z": 3, "?state=failed&to=2020-01-01T00:00:00Z": 0, "?state=delivered&response_status=404": 0,
		"?attempts_min=1": 6, "?state=failed&attempts_min=1": 3, "?state=failed&attempts_min=2": 0, "?state=pending&attempts_min=1": 0,
	} {
		if got := s.items("/api/v1/webhooks/deliveries" + query); got != want {
			t.Errorf("%s lists %d, not %d", query, got, want)
		}
	}
	s.ask("GET", "/api/v1/webhooks/deliveries?state=dead&webhook=99", "").refusing("state")
	s.ask("GET", "/api/v1/webhooks/deliveries?webhook=99", "").refusing("webhook")
	s.ask("GET", "/api/v1/webhooks/deliveries?attempts_min=0", "").refusing("attempts_min")
	s.ask("PATCH", "/api/v1/webhooks/2", `{"url":"`+good.URL+`"}`).want(200)
	s.ask("POST", "/api/v1/webhooks/deliveries/"+failed+"/retry", "").want(202)
	good.next(t)
	s.until("the retried one has left", func() bool { return s.items("/api/v1/webhooks/deliveries?state=failed") == 2 })
	s.until("it arrived after a retry", func() bool { return s.items("/api/v1/webhooks/deliveries?state=delivered&attempts_min=2") == 1 })
}

// What is in a batch that nobody has tried is listed as pending, and what only a replay
// delivered as delivered.
func TestDeliveriesOfBatchesAndReplays(t *testing.T) {
	t.Parallel()
	s := newService(t)
	r := newReceiver(t, 200)
	s.registerAt(r.URL, `,"order_by":"*","batch":{"max_events":2,"max_wait":300}`)
	var events []string
	for range 5 {
		events = append(events, s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{}}`).want(202).text("event_id"))
	}
	s.ask("POST", "/api/v1/webhooks/1/deactivate", "").want(200)
	s.work()
	s.until("two batches are made", func() bool {
		return s.ask("GET", "/api/v1/webhooks/events/"+events[3]+"/deliveries", "").want(200).get("items", 0, "batch_id") != "null"
	})
	for _, query := range []string{"", "&webhook=1"} {
		var listed []string
		for cursor := ""; cursor != "null"; {
			page := s.ask("GET", "/api/v1/webhooks/deliveries?state=pending&limit=2"+query+cursor, "").want(200)
			for i := range s.items("/api/v1/webhooks/deliveries?state=pending&limit=2" + query + cursor) {
				listed = append(listed, page.text("items", i, "event_id"))
			}
			if cursor = page.get("next_cursor"); cursor != "null" {
				cursor = "&cursor=" + page.text("next_cursor")
			}
		}
		slices.Reverse(listed)
		if !slices.Equal(listed, events) {
			t.Errorf("lists %v, want %v", listed, events)
		}
	}
	s.registerAt(r.URL, "")
	s.ask("POST", "/api/v1/webhooks/2/replay", `{"from":"2020-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z"}`).want(202)
	for range events {
		r.next(t)
	}
	s.until("all are listed as delivered", func() bool { return s.items("/api/v1/webhooks/deliveries?state=delivered&webhook=2") == len(events) })
	if n := s.items("/api/v1/webhooks/deliveries?state=delivered&webhook=2&response_status=200"); n != len(events) {
		t.Errorf("%d were answered 200, want %d", n, len(events))
	}
}

// The time of an event is when it occurred, in the lists of events and deliveries and in
// retries of what failed.
func TestListsByTheEventsTime(t *testing.T) {
	s := newService(t)
	s.work()
	bad := newReceiver(t, 404)
	s.registerAt(bad.URL, `,"max_retries":0`)
	s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{},"occurred_at":"2019-03-04T05:06:07Z"}`).want(202)
	s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{}}`).want(202)
	s.until("both failed", func() bool { return s.items("/api/v1/webhooks/deliveries?state=failed") == 2 })
	for query, want := range map[string]int{
		"to=2020-01-01T00:00:00Z": 1, "from=2020-01-01T00:00:00Z": 1, "from=2019-03-04T05:06:07Z&to=2019-03-04T05:06:08Z": 1,
		"from=2019-03-04T05:06:08Z&to=2020-01-01T00:00:00Z": 0, "from=2019-01-01T00:00:00Z": 2,
	} {
		for _, list := range []string{"events?", "deliveries?state=failed&", "deliveries?webhook=1&", "deliveries?"} {
			if got := s.items("/api/v1/webhooks/" + list + query); got != want {
				t.Errorf("%s%s lists %d, not %d", list, query, got, want)
			}
		}
		body := `{"state":"failed","dry_run":true`
		for _, part := range strings.Split(query, "&") {
			name, at, _ := strings.Cut(part, "=")
			body += `,"` + name + `":"` + at + `"`
		}
		if dry := s.ask("POST", "/api/v1/webhooks/deliveries/retry", body+"}").want(202); dry.get("matched") != fmt.Sprint(want) {
			t.Errorf("a retry by %s: %s, not %d", query, dry.body, want)
		}
	}
}
