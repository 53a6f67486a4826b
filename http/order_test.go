package http_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
)

const deliveriesPath = "/api/v1/webhooks/deliveries/"

func (s *service) emit(data string) string {
	s.t.Helper()
	return s.ask("POST", trigger, `{"event_type":"patient.created","event_data":`+data+`}`).want(202).text("event_id")
}

func (s *service) delivery(event string) answer {
	s.t.Helper()
	return s.ask("GET", "/api/v1/webhooks/events/"+event+"/deliveries", "").want(200)
}

func TestOrderOfDeliveries(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.work()
	r := newReceiver(t, 500)
	s.registerAt(r.URL, `,"max_retries":0,"order_by":"patient.id","order_on_failure":"block","sequence":true`)
	one, two, three := s.emit(`{"patient":{"id":1}}`), s.emit(`{"patient":{"id": 1.0}}`), s.emit(`{"patient":{"id":1}}`)
	r.next(t)
	s.until("it gave up", func() bool { return s.deliveryState(one) == "failed" })
	first := s.delivery(one).text("items", 0, "delivery_id")
	second := s.delivery(two)
	if second.text("items", 0, "waiting_behind") != first || second.text("items", 0, "state") != "pending" || s.delivery(one).get("items", 0, "waiting_behind") != "null" {
		t.Errorf("waiting: %s", second.body)
	}
	explained := s.ask("GET", "/api/v1/webhooks/events/"+three+"/explain", "").want(200)
	if explained.text("items", 0, "waiting_behind") != second.text("items", 0, "delivery_id") || explained.text("items", 0, "verdict") != "pending" {
		t.Errorf("explain: %s", explained.body)
	}

	s.ask("POST", deliveriesPath+first+"/retry", "").want(202)
	r.next(t)
	s.until("it gave up again", func() bool { return s.delivery(one).get("items", 0, "attempts") == "2" })
	if got := s.delivery(two).text("items", 0, "waiting_behind"); got != first {
		t.Errorf("after a retry that failed, it waits behind %q", got)
	}
	if got := s.ask("POST", deliveriesPath+first+"/cancel", "").want(202); got.text("state") != "cancelled" {
		t.Errorf("cancelled: %s", got.body)
	}
	s.ask("POST", deliveriesPath+first+"/cancel", "").want(409)
	if got := r.next(t); got.header.Get("X-Webhook-Event-ID") != two || got.header.Get("X-Webhook-Sequence") != "2" {
		t.Errorf("then came %v", got.header)
	}
	s.until("the second gave up", func() bool { return s.deliveryState(two) == "failed" })
	s.settled()
	stats := s.ask("GET", "/api/v1/webhooks/1/stats", "").want(200)
	if stats.get("exhausted") != "1" || stats.get("pending_deliveries") != "1" {
		t.Errorf("stats: %s", stats.body)
	}
	call := s.ask("GET", "/api/v1/webhooks/1/calls?limit=1", "").want(200).text("items", 0, "call_id")
	if shown := s.ask("GET", "/api/v1/webhooks/1/calls/"+call, "").want(200); shown.text("request_headers", "X-Webhook-Sequence") != "2" {
		t.Errorf("shown as %s", shown.body)
	}
}

func TestOrderFields(t *testing.T) {
	s := newService(t)
	if got := s.register("").want(201); got.get("order_by") != "null" || got.text("order_on_failure") != "skip" || got.get("sequence") != "false" {
		t.Errorf("the defaults: %s", got.body)
	}
	path := "/api/v1/webhooks/1"
	s.ask("PATCH", path, `{"order_by":"","order_on_failure":"stop","sequence":1}`).refusing("order_by", "order_on_failure", "sequence")
	s.ask("PATCH", path, `{"order_by":5}`).refusing("order_by")
	set := s.ask("PATCH", path, `{"order_by":"*","order_on_failure":"block","sequence":true}`).want(200)
	if set.text("order_by") != "*" || set.text("order_on_failure") != "block" || set.get("sequence") != "true" {
		t.Errorf("set: %s", set.body)
	}
	history := s.ask("GET", path+"/history", "").want(200)
	if got := history.get("items", 0, "changes"); got != `[{"field":"order_by","was":null,"became":"*"},{"field":"order_on_failure","was":"skip","became":"block"},{"field":"sequence","was":false,"became":true}]` {
		t.Errorf("history: %s", got)
	}
	head := s.head()
	if got := s.ask("PUT", path, `{"order_by":null,"order_on_failure":null,"sequence":null}`).want(200); got.get("order_by") != "null" || got.text("order_on_failure") != "skip" || got.get("sequence") != "false" {
		t.Errorf("cleared: %s", got.body)
	}
	if got := s.ask("GET", path+"?as_of="+fmt.Sprint(head), "").want(200); got.text("order_by") != "*" || got.get("sequence") != "true" {
		t.Errorf("as it was: %s", got.body)
	}
}

func TestFeed(t *testing.T) {
	s := newService(t) // nobody works on the queue
	s.register("")
	s.ask("GET", "/api/v1/webhooks/1/feed", "").want(409)
	s.ask("PATCH", "/api/v1/webhooks/1", `{"sequence":true}`).want(200)
	if got := s.ask("GET", "/api/v1/webhooks/1/feed", "").want(200); string(got.body) != `{"items":[],"next_cursor":null}` {
		t.Errorf("empty: %s", got.body)
	}
	var events []string
	for i := range 3 {
		events = append(events, s.emit(fmt.Sprintf(`{ "n" : %d.0 }`, i)))
	}
	feed := s.ask("GET", "/api/v1/webhooks/1/feed?limit=2", "").want(200)
	occurred := s.ask("GET", "/api/v1/webhooks/events/"+events[0], "").want(200).get("occurred_at")
	if want := `{"sequence":1,"event_id":"` + events[0] + `","event_type":"patient.created","event_data":{ "n" : 0.0 },"occurred_at":` + occurred +
		`,"delivery":{"delivery_id":"` + s.delivery(events[0]).text("items", 0, "delivery_id") + `","state":"pending"}}`; feed.get("items", 0) != want {
		t.Errorf("the first is %s, want %s", feed.get("items", 0), want)
	}
	next := feed.text("next_cursor")
	for _, query := range []string{"after=2", "cursor=" + next, "after=" + next, "after=0&cursor=" + next} {
		got := s.ask("GET", "/api/v1/webhooks/1/feed?"+query, "").want(200)
		if got.get("items", 0, "sequence") != "3" || got.text("items", 0, "event_id") != events[2] || got.get("next_cursor") != "null" {
			t.Errorf("%s: %s", query, got.body)
		}
	}
	s.ask("GET", "/api/v1/webhooks/1/feed?after=-1", "").refusing("after")

	s.as(s.tokenFor(domain.ScopeWebhooksRead), "GET", "/api/v1/webhooks/1/feed", "").want(403)
	s.ask("PATCH", "/api/v1/webhooks/1", `{"fields":["other"]}`).want(200)
	narrow := s.as(s.tokenFor(domain.ScopeWebhooksRead, domain.ScopePayloadsRead), "GET", "/api/v1/webhooks/1/feed", "").want(200)
	if got := narrow.get("items", 0, "event_data"); got != "{}" {
		t.Errorf("the feed has more than the webhook is sent: %s", got)
	}
}

// A receiver that drops calls at random, and catches up by the feed, ends with every event
// once.
func TestReceiverCatchesUpByTheFeed(t *testing.T) {
	s := newService(t)
	s.work()
	var mu sync.Mutex
	taken := map[int64]string{} // events by number
	take := func(number int64, event string) {
		if before, known := taken[number]; known && before != event {
			t.Errorf("%d is the number of %s and of %s", number, before, event)
		}
		taken[number] = event
	}
	r := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if rand.IntN(3) == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		number, err := strconv.ParseInt(r.Header.Get("X-Webhook-Sequence"), 10, 64)
		if err != nil {
			t.Error(err)
		}
		take(number, r.Header.Get("X-Webhook-Event-ID"))
	}))
	defer r.Close()
	s.registerAt(r.URL, `,"max_retries":0,"sequence":true`)
	want := map[string]bool{}
	for i := range 60 {
		want[s.emit(fmt.Sprintf(`{"n":%d}`, i))] = true
	}
	s.until("all are called", func() bool {
		var pending int
		if err := s.pool.QueryRow(t.Context(), `SELECT count(*) FROM medilab.pending`).Scan(&pending); err != nil {
			t.Fatal(err)
		}
		return pending == 0
	})
	mu.Lock()
	defer mu.Unlock()
	for known := int64(0); ; {
		for taken[known+1] != "" {
			known++
		}
		var page struct {
			Items []struct {
				Sequence int64
				EventID  string          `json:"event_id"`
				Data     json.RawMessage `json:"event_data"`
			}
		}
		s.ask("GET", fmt.Sprintf("/api/v1/webhooks/1/feed?limit=7&after=%d", known), "").want(200).into(&page)
		if len(page.Items) == 0 {
			break
		}
		for _, item := range page.Items {
			take(item.Sequence, item.EventID)
		}
	}
	for number, event := range taken {
		if !want[event] || number < 1 || number > 60 {
			t.Errorf("%d: %s is not expected, or twice", number, event)
		}
		delete(want, event)
	}
	if len(want) > 0 {
		t.Errorf("%d events are missing", len(want))
	}
}

// What an older version queued waits in the line that newer events of its key come to.
func TestLinesOfOlderVersionsGoOn(t *testing.T) {
	s := newService(t)
	w := s.register(`"order_by":"patient_id"`)
	id, data := uuid.MustParse(w.text("id")), []byte(`{"patient_id":"17"}`)
	before := domain.Webhook{WebhookSettings: domain.WebhookSettings{OrderBy: "patient_id"}}.LineOf(data)
	_, err := s.pool.Exec(t.Context(), `INSERT INTO medilab.queue (delivery_id, webhook_id, event_id, size, attempt, retries, version, due_at, batch, line, position)
		VALUES ($1, $2, $1, 1, 1, 0, 0, now(), false, $3, 1)`, uuid.New(), id, int64(before))
	if err != nil {
		t.Fatal(err)
	}
	s.emit(string(data))
	rows, err := s.pool.Query(t.Context(), `SELECT line, node IS NOT DISTINCT FROM 0 FROM medilab.queue ORDER BY position`)
	if err != nil {
		t.Fatal(err)
	}
	type queued struct {
		Line  domain.Line
		Waits bool
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[queued])
	if err != nil || len(found) != 2 || found[0].Line != found[1].Line || found[0].Waits || !found[1].Waits {
		t.Errorf("queued are %v, %v: want the second to wait for the first", found, err)
	}
	if len(found) > 0 && found[0].Line == before {
		t.Error("the line is a hash that everybody can make")
	}
}
