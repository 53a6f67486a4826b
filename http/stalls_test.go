package http_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/filter"
	"github.com/medilab/webhooks/eventstore/cpulimit"
	"github.com/medilab/webhooks/projections"
)

// takeTurns takes all turns for expensive work, which the ends of the tasks give back.
func (s *service) takeTurns() []cpulimit.Task {
	s.t.Helper()
	taken := make([]cpulimit.Task, max(1, runtime.GOMAXPROCS(0)/2))
	for i := range taken {
		taken[i] = s.log.Limiter.Task()
		if err := taken[i].Spend(s.t.Context(), cpulimit.Expensive); err != nil {
			s.t.Fatal(err)
		}
	}
	return taken
}

// serve answers a request without a connection; it may be called by any goroutine.
func (s *service) serve(ctx context.Context, method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+s.token)
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

// start sends a request that waits for its turn, which it must; the result is its status.
func (s *service) start(method, path, body string) (status func() int) {
	s.t.Helper()
	waiting := s.log.Limiter.Waiting()
	var w *httptest.ResponseRecorder
	done := make(chan struct{})
	go func() {
		defer close(done)
		w = s.serve(s.t.Context(), method, path, body)
	}()
	for s.log.Limiter.Waiting() == waiting {
		select {
		case <-done:
			s.t.Fatalf("%s %s did not wait for its turn: %d %.200s", method, path, w.Code, w.Body)
		case <-time.After(time.Millisecond):
		}
	}
	return func() int { <-done; return w.Code }
}

// Whatever is expensive waits for its turn, and nothing else does.
func TestExpensiveRequestsDelayNoOthers(t *testing.T) {
	s := newService(t)
	s.work()
	large := `{"x":["` + strings.Repeat("a", 60<<10) + `"]}`
	register := func(events, filters string) string {
		return fmt.Sprintf(`{"name":"n","url":"http://127.0.0.1:1/","events":["%s"],"is_active":false,"filters":%s}`, events, filters)
	}
	for range 3 {
		s.ask("POST", "/api/v1/webhooks", register("visit.created", large)).want(201)
	}
	for range 8 {
		s.ask("PUT", "/api/v1/webhooks/1", `{"filters":{"y":1}}`).want(200)
		s.ask("PUT", "/api/v1/webhooks/1", `{"filters":`+large+`}`).want(200)
	}
	s.ask("POST", "/api/v1/webhooks", register("patient.updated", `{"note":{"$regex":"^(a|b|aa|ab|ba|bb)*(a|b)?c$"}}`)).want(201)
	s.ask("POST", "/api/v1/webhooks/4/activate", "").want(200)
	plain := `{"event_type":"patient.created","event_data":{"patient_id":1}}`
	costly := `{"event_type":"patient.updated","event_data":{"note":"` + strings.Repeat("ab", 4000) + `"}}`
	event := s.ask("POST", "/api/v1/webhooks/events/trigger", plain).want(202).text("event_id")
	s.settled()

	others := s.token
	taken := s.takeTurns()
	var expensive []func() int
	for _, r := range []struct{ method, path, body string }{
		{"POST", "/api/v1/webhooks/events/trigger", costly},
		{"POST", "/api/v1/webhooks/events/trigger/batch", `{"events":[` + costly + `,` + costly + `]}`},
		{"POST", "/api/v1/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{"text":"` + strings.Repeat("a", 1<<20) + `"}}`},
		{"GET", "/api/v1/webhooks/events/" + event + "/explain", ""},
		{"POST", "/api/v1/webhooks/1/backtest", `{"filters":{"a":1}}`},
		{"POST", "/api/v1/webhooks/1/backtest", `{"filters":` + large + `,"from":1}`},
		{"POST", "/api/v1/webhooks/1/replay", `{"from":"2020-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z","dry_run":true}`},
		{"POST", "/api/v1/webhooks/4/test", `{"event_type":"patient.created","test_data":{}}`},
		{"POST", "/api/v1/webhooks", register("visit.created", large)},
		{"PUT", "/api/v1/webhooks/2", `{"filters":` + strings.Replace(large, "aa", "bb", 1) + `}`},
		{"PUT", "/api/v1/webhooks/2", `{"name":1,"filters":` + large + `}`},
		{"GET", "/api/v1/webhooks", ""},
	} {
		s.token = s.tokenFor(domain.ScopeAdmin) // one caller's large answers wait for each other
		expensive = append(expensive, s.start(r.method, r.path, r.body))
	}
	s.token = others
	for range 2 {
		s.ask("POST", "/api/v1/webhooks/events/trigger", plain).want(202)
		s.ask("POST", "/api/v1/webhooks/events/trigger/batch", `{"events":[`+plain+`,`+plain+`]}`).want(202)
		s.ask("POST", "/api/v1/webhooks", register("visit.created", `{"department":"eyes"}`)).want(201)
		s.ask("PUT", "/api/v1/webhooks/2", `{"name":"another"}`).want(200)
		for _, path := range []string{"", "?limit=2", "/1", "/1/stats", "/1/calls", "/events", "/events/" + event, "/events/types",
			"/events/" + event + "/deliveries", "/alerts?state=open", "/system/stats"} {
			if path != "" {
				s.ask("GET", "/api/v1/webhooks"+path, "").want(200)
			}
		}
	}
	if n := s.log.Limiter.Waiting(); n != len(expensive) {
		t.Errorf("%d of %d still wait", n, len(expensive))
	}
	for i := range taken {
		taken[i].End()
	}
	for i, status := range expensive {
		if got := status(); got >= 500 {
			t.Errorf("request %d: %d", i, got)
		}
	}
}

// A list of large webhooks is read in pages that memory can hold, each of at least one.
func TestListsOfLargeItemsAreShort(t *testing.T) {
	t.Parallel()
	s := newService(t)
	large := `{"x":["` + strings.Repeat("a", 60<<10) + `"]}`
	const count = 100
	for range count {
		s.register(`"filters":` + large)
	}
	found, pages := 0, 0
	for cursor := ""; cursor != "null"; pages++ {
		got := s.ask("GET", "/api/v1/webhooks?limit=1000"+cursor, "").want(200)
		var page struct {
			Items []struct{ Number int } `json:"items"`
		}
		got.into(&page)
		for _, w := range page.Items {
			if found++; w.Number != count+1-found {
				t.Fatalf("item %d is webhook %d", found, w.Number)
			}
		}
		if len(got.body) > 5<<20 || len(page.Items) == 0 {
			t.Fatalf("a page has %d items and %d bytes", len(page.Items), len(got.body))
		}
		if cursor = got.get("next_cursor"); cursor != "null" {
			cursor = "&cursor=" + got.text("next_cursor")
		}
	}
	if found != count || pages < 2 {
		t.Errorf("%d webhooks on %d pages", found, pages)
	}
}

// What is explained does not depend on what was explained before.
func TestExplainGoesOnFromWhatItKnows(t *testing.T) {
	s := newService(t)
	var events []domain.EventID
	trigger := func() {
		id := s.ask("POST", "/api/v1/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{"a":1}}`).want(202).text("event_id")
		events = append(events, domain.EventID(uuid.MustParse(id)))
	}
	for i := range 3 {
		s.register(fmt.Sprintf(`"filters":{"a":%d}`, i))
		trigger()
		for _, change := range []string{`{"filters":{"a":{"$gt":0}}}`, `{"filters":null,"events":["visit.created"]}`, `{"is_active":false}`} {
			s.ask("PUT", fmt.Sprintf("/api/v1/webhooks/%d", i+1), change).want(200)
			trigger()
		}
	}
	s.ask("DELETE", "/api/v1/webhooks/2", "").want(204)
	trigger()
	for _, i := range []int{0, 12, 3, 4, 5, 11, 12, 7, 7, 1, 0, 12} {
		_, got, err := s.queries.Explain(t.Context(), events[i])
		if err != nil {
			t.Fatal(err)
		}
		_, want, err := projections.New(s.pool, s.log, nil).Explain(t.Context(), events[i])
		if err != nil {
			t.Fatal(err)
		}
		if got, want := verdictsOf(got), verdictsOf(want); !reflect.DeepEqual(got, want) || i > 0 && len(got) == 0 {
			t.Errorf("event %d: %+v, want %+v", i, got, want)
		}
	}
}

// verdictsOf returns what an integrator is told.
func verdictsOf(explained []projections.Explained) (told []any) {
	for _, e := range explained {
		var condition filter.Verdict
		if e.Verdict == projections.VerdictFiltered {
			condition = e.Condition()
		}
		told = append(told, e.Webhook, e.Verdict, e.Delivery, e.SentBy, condition)
	}
	return told
}
