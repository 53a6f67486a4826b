package http_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestTheHealthOfWebhooks(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.work()
	good, bad := newReceiver(t, 200), newReceiver(t, 500)
	hook := func(name, url, more string) {
		s.ask("POST", "/api/v1/webhooks", `{"name":"`+name+`","url":"`+url+`","events":["patient.created"]`+more+`}`).want(201)
	}
	hook("b good", good.URL, "")
	hook("A quiet", good.URL, `,"filters":{"never":1}`)
	hook("c failing", bad.URL, `,"max_retries":1,"retry_delay":3600`)
	hook("d off", good.URL, `,"is_active":false`)
	s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{}}`).want(202)
	good.next(t)
	bad.next(t)
	names := func(query string) (all []string) {
		var page struct {
			Items []struct{ Name string }
		}
		s.ask("GET", "/api/v1/webhooks/health"+query, "").want(200).into(&page)
		for _, item := range page.Items {
			all = append(all, item.Name[:1])
		}
		return all
	}
	s.until("counted", func() bool {
		return s.ask("GET", "/api/v1/webhooks/system/stats", "").want(200).get("total_calls") == "2"
	})
	for query, want := range map[string]string{
		"": "c d A b", "?sort=name": "A b c d", "?sort=number": "d c A b", "?sort=failures&limit=1": "c", "?sort=pending&limit=1": "c",
		"?status=inactive": "d", "?q=quiet": "A", "?event_type=visit.created": "", "?sort=last_call&limit=3": "",
	} {
		got := strings.Join(names(query), " ")
		if query == "?sort=last_call&limit=3" { // the two that were called come first
			if got != "b c d" && got != "c b d" {
				t.Errorf("%s: %s", query, got)
			}
			continue
		}
		if got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	first := s.ask("GET", "/api/v1/webhooks/health?limit=1", "").want(200)
	for _, one := range [][2]string{
		{first.get("items", 0, "consecutive_failures"), "1"}, {first.get("items", 0, "pending_deliveries"), "1"}, {first.get("items", 0, "failed_calls"), "1"},
		{first.get("items", 0, "failures_by_hour", 23), "1"}, {first.get("items", 0, "calls_by_hour", 0), "0"},
		{first.get("totals", "webhooks"), "4"}, {first.get("totals", "active"), "3"}, {first.get("totals", "failing"), "1"},
	} {
		if one[0] != one[1] {
			t.Errorf("%s, want %s, in %s", one[0], one[1], first.body)
		}
	}
	if next := s.ask("GET", "/api/v1/webhooks/health?limit=3&cursor="+first.text("next_cursor"), "").want(200); next.text("items", 0, "name") != "d off" || next.get("next_cursor") != "null" {
		t.Errorf("the rest: %s", next.body)
	}
	// What waits for its next attempt has waited since its event, unless the webhook is off.
	oldest := func() string {
		return s.ask("GET", "/api/v1/webhooks/health", "").want(200).get("totals", "oldest_waiting_seconds")
	}
	if oldest() == "0" {
		t.Error("nothing has waited, with an attempt to come")
	}
	s.ask("POST", "/api/v1/webhooks/3/deactivate", "").want(200)
	if got := oldest(); got != "0" {
		t.Errorf("what waits for an inactive webhook has waited for %s s", got)
	}
	s.ask("POST", "/api/v1/webhooks/3/activate", "").want(200)
	s.ask("GET", "/api/v1/webhooks/health?sort=x", "").refusing("sort")
	s.ask("GET", "/api/v1/webhooks/health?sort=", "").refusing("sort")

	// By the minute, counted from the log.
	from := time.Now().Add(-10 * time.Minute).UTC().Format(time.RFC3339)
	for path, calls := range map[string]int{"system": 2, "3": 1, "2": 0} {
		stats := s.ask("GET", fmt.Sprintf("/api/v1/webhooks/%s/stats?bucket=minute&from=%s", path, from), "").want(200)
		var series struct {
			Bucket string `json:"series_bucket"`
			Series []struct {
				Calls int `json:"total_calls"`
				At    time.Time
			}
		}
		stats.into(&series)
		sum := 0
		for _, part := range series.Series {
			if sum += part.Calls; !part.At.Equal(part.At.Truncate(time.Minute)) {
				t.Errorf("a part at %v", part.At)
			}
		}
		if series.Bucket != "minute" || sum != calls {
			t.Errorf("%s: %d calls by %s, want %d by the minute: %s", path, sum, series.Bucket, calls, stats.body)
		}
	}

	// A rotated secret's overlap has an end, which a shorter one after it does not bring nearer.
	s.ask("PATCH", "/api/v1/webhooks/1", `{"secret":"first"}`).want(200)
	s.ask("POST", "/api/v1/webhooks/1/rotate-secret", `{"overlap_seconds":3600}`).want(200)
	until := s.ask("GET", "/api/v1/webhooks/1", "").want(200).text("previous_secret_until")
	if until == "" {
		t.Error("no end of the overlap")
	}
	for _, overlap := range []string{"60", "0"} {
		s.ask("POST", "/api/v1/webhooks/1/rotate-secret", `{"overlap_seconds":`+overlap+`}`).want(200)
		if got := s.ask("GET", "/api/v1/webhooks/1", "").want(200).text("previous_secret_until"); got != until {
			t.Errorf("after an overlap of %s s the first ends at %q, not %q", overlap, got, until)
		}
	}
	if until := s.ask("GET", "/api/v1/webhooks/2", "").want(200).get("previous_secret_until"); until != "null" {
		t.Errorf("an overlap without a rotation: %s", until)
	}
}
