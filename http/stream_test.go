package http_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/migrations/testdb"
)

// streamed is an item of the stream.
type streamed struct {
	id         int64
	kind, data string
}

// stream is an open stream. It ends with the test.
type stream struct {
	t      testing.TB
	close  context.CancelFunc
	header http.Header
	lines  *bufio.Scanner
}

// stream opens a stream; headers are name and value by turns.
func (s *service) stream(query string, headers ...string) *stream {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	s.t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "GET", s.url+"/api/v1/stream"+query, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+s.token)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		s.t.Fatal(err)
	}
	if response.StatusCode != 200 || response.Header.Get("Content-Type") != "text/event-stream" {
		s.t.Fatalf("answered %s, %q", response.Status, response.Header.Get("Content-Type"))
	}
	in := bufio.NewScanner(response.Body)
	in.Buffer(nil, 1<<20)
	return &stream{s.t, cancel, response.Header, in}
}

// next returns the next item; false: the stream has ended.
func (s *stream) next() (item streamed, ok bool) {
	s.t.Helper()
	for s.lines.Scan() {
		name, value, _ := strings.Cut(s.lines.Text(), ": ")
		switch {
		case name == "event":
			item.kind = value
		case name == "data":
			item.data = value
		case name == "id":
			id, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				s.t.Error(err)
			}
			item.id = id
		case name == "" && item.kind != "":
			return item, true
		}
	}
	return item, false
}

// want returns the next item, which must be of the kind.
func (s *stream) want(kind string) streamed {
	s.t.Helper()
	item, ok := s.next()
	if !ok || item.kind != kind {
		s.t.Fatalf("got %+v, want an item of kind %s", item, kind)
	}
	return item
}

// cutAgainAndAgain reads the stream until last says so, over connections that end after a few
// items, and resumes behind what came whole.
func (s *service) cutAgainAndAgain(random *rand.Rand, from int64, last func(streamed) bool) (all []streamed) {
	for {
		whole, c := from, s.stream("", "Last-Event-ID", strconv.FormatInt(from, 10))
		var entry []streamed // the items of one entry
		for range 1 + random.IntN(60) {
			item, ok := c.next()
			if !ok {
				break
			}
			if len(entry) > 0 && item.id != entry[0].id {
				all, whole, entry = append(all, entry...), entry[0].id, nil
			}
			if entry = append(entry, item); last(item) {
				c.close()
				return append(all, entry...)
			}
		}
		c.close()
		from = whole
	}
}

// list returns all items of a list, the oldest first.
func (s *service) list(path string) (items []string) {
	s.t.Helper()
	for cursor := ""; ; {
		var page struct {
			Items []json.RawMessage `json:"items"`
			Next  *string           `json:"next_cursor"`
		}
		s.ask("GET", path+"?limit=1000&cursor="+cursor, "").want(200).into(&page)
		for _, item := range page.Items {
			items = append(items, string(item))
		}
		if page.Next == nil {
			slices.Reverse(items)
			return items
		}
		cursor = *page.Next
	}
}

func (s *service) idIn(item, name string) string {
	s.t.Helper()
	return answer{t: s.t, body: []byte(item)}.text(name)
}

// What is streamed is what lists show, under load, on each node, over connections that break.
func TestStreamIsWhatListsShow(t *testing.T) {
	t.Parallel()
	database := testdb.New(t)
	a, b := newServiceOn(t, database), newServiceOn(t, database)
	a.work()
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Webhook-Event") == "visit.completed" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer receiver.Close()
	start := int64(a.head())
	a.stream("?kinds=alert") // open throughout, so that others resume in the middle of what is in memory
	a.registerAt(receiver.URL, `,"max_retries":0`)
	a.ask("POST", "/api/v1/webhooks", `{"name":"failing","url":"`+receiver.URL+`","events":["visit.*"],"max_retries":0}`).want(201)
	a.ask("POST", "/api/v1/webhooks", `{"name":"batches","url":"`+receiver.URL+`","events":["*"],"batch":{"max_events":7,"max_wait":1}}`).want(201)
	a.ask("POST", "/api/v1/webhooks", `{"name":"paused","url":"`+receiver.URL+`","events":["visit.*"],"is_active":false}`).want(201)

	last := func(item streamed) bool { return item.kind == "webhook" && strings.Contains(item.data, `"the end"`) }
	results := make([][]streamed, 2)
	var readers sync.WaitGroup
	for i, s := range []*service{a, b} {
		readers.Go(func() { results[i] = s.cutAgainAndAgain(rand.New(rand.NewPCG(1, uint64(i))), start, last) })
	}
	var writers sync.WaitGroup
	for range 2 {
		writers.Go(func() {
			for n := range 30 {
				body := `{"event_type":"` + []string{"patient.created", "visit.completed"}[n%2] + "\",\"event_data\":{\"n\":\r\n[1,\n2]}}"
				a.ask("POST", trigger, body).want(202)
			}
		})
	}
	writers.Wait()
	a.until("all is tried", func() bool {
		var waiting int
		err := a.pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM medilab.pending) + (SELECT count(*) FROM medilab.batch_members)`).Scan(&waiting)
		return err == nil && waiting == 0
	})
	failed := a.ask("GET", "/api/v1/webhooks/deliveries?state=failed&limit=1", "").want(200).text("items", 0, "delivery_id")
	a.ask("POST", "/api/v1/webhooks/deliveries/"+failed+"/cancel", "").want(202)
	a.ask("DELETE", "/api/v1/webhooks/2", "").want(204)
	a.ask("PUT", "/api/v1/webhooks/1", `{"name":"the end"}`).want(200)
	readers.Wait()
	a.checkStreamed(results[0])
	results = append(results, b.cutAgainAndAgain(rand.New(rand.NewPCG(1, 5)), start, last)) // late, it gets the same
	for i := range results {
		if !slices.Equal(results[i], results[0]) {
			t.Errorf("reader %d has got %d items, or others than reader 0 has, %d", i, len(results[i]), len(results[0]))
		}
	}
}

// checkStreamed checks items, from the beginning of the log on, against the lists.
func (s *service) checkStreamed(all []streamed) {
	s.t.Helper()
	byKind, latest := map[string][]string{}, map[string]string{}
	for i, item := range all {
		if i > 0 && item.id < all[i-1].id {
			s.t.Errorf("%d after %d", item.id, all[i-1].id)
		}
		if key := fmt.Sprint(item); latest[key] != "" {
			s.t.Errorf("twice: %v", item)
		} else {
			latest[key] = "seen"
		}
		byKind[item.kind] = append(byKind[item.kind], item.data)
	}
	for kind, path := range map[string]string{"call": "/api/v1/webhooks/calls", "event": "/api/v1/webhooks/events"} {
		listed := s.list(path)
		for i := range listed {
			listed[i] = strings.NewReplacer("\n", " ", "\r", " ").Replace(listed[i])
		}
		if !slices.Equal(byKind[kind], listed) {
			s.t.Errorf("%d items of kind %s, the list has %d", len(byKind[kind]), kind, len(listed))
		}
	}
	for kind, of := range map[string][2]string{"delivery": {"/api/v1/webhooks/deliveries", "delivery_id"}, "webhook": {"/api/v1/webhooks", "id"}} {
		last := map[string]string{}
		for _, item := range byKind[kind] {
			last[s.idIn(item, of[1])] = item
		}
		listed := s.list(of[0])
		for _, item := range listed {
			if got := last[s.idIn(item, of[1])]; got != item {
				s.t.Errorf("the last item of a %s is\n%s\nthe list has\n%s", kind, got, item)
			}
		}
		if deleted := map[string]int{"webhook": 1}[kind]; len(last) != len(listed)+deleted {
			s.t.Errorf("%d of kind %s, the list has %d", len(last), kind, len(listed))
		}
	}
}

func (s *service) registerStreamToken(scopes ...domain.Scope) (token domain.Token, clear string) {
	s.t.Helper()
	token, secret, err := s.commands.CreateToken(s.t.Context(), commands.Caller{Actor: "test"}, fmt.Sprint(scopes), scopes, time.Time{})
	if err != nil {
		s.t.Fatal(err)
	}
	return token, secret.Reveal()
}

// Payloads are withheld from those who may not see them, and that others see them is on record
// before they do.
func TestStreamOfPayloads(t *testing.T) {
	s := newService(t)
	s.work()
	s.register(`"is_active":false`)
	before := s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"name":"Иванов"}}`).want(202).text("event_id")
	blind, seeing := s.stream("?kinds=event", "Authorization", "Bearer "+s.tokenFor(domain.ScopeWebhooksRead)), s.stream("?kinds=event", "X-Access-Reason", "a visit")
	if blind.header.Get("X-Redacted") != "true" || seeing.header.Get("X-Redacted") != "" {
		t.Errorf("the headers are %v and %v", blind.header, seeing.header)
	}
	event := s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"name":"Иванов"}}`).want(202).text("event_id")
	if got := blind.want("event").data; strings.Contains(got, "Иванов") || !strings.Contains(got, `"event_data":null`) || !strings.Contains(got, `"redacted":true`) {
		t.Errorf("withheld: %s", got)
	}
	if got := seeing.want("event").data; got != s.ask("GET", "/api/v1/webhooks/events/"+event, "").get() {
		t.Errorf("streamed: %s", got)
	}
	access := func(event string) answer { return s.ask("GET", "/api/v1/audit/access?event="+event, "").want(200) }
	s.settled()
	if got := access(event); !strings.Contains(string(got.body), `"what":"stream"`) || !strings.Contains(string(got.body), `"reason":"a visit"`) {
		t.Errorf("not on record: %s", got.body)
	}
	if got := access(before); got.get("items") != "[]" {
		t.Errorf("on record, and not shown: %s", got.body)
	}
}

// A stream has the kinds and the webhook that it was asked for.
func TestStreamOfAWebhook(t *testing.T) {
	s := newService(t)
	s.work()
	s.register("")
	two := s.ask("POST", "/api/v1/webhooks", `{"name":"2","url":"http://127.0.0.1:9/","events":["visit.completed"]}`).want(201)
	first, second := s.stream("?webhook=1"), s.stream("?kinds=webhook,event&webhook="+two.text("id"))
	s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{}}`).want(202)
	s.ask("PUT", "/api/v1/webhooks/2", `{"name":"two"}`).want(200)
	s.ask("DELETE", "/api/v1/webhooks/2", "").want(204)
	changed := second.want("webhook")
	if then := s.ask("GET", "/api/v1/webhooks/"+two.text("id")+"?as_of="+strconv.FormatInt(changed.id, 10), "").get(); changed.data != then {
		t.Errorf("changed: %s, it was %s", changed.data, then)
	}
	if got := second.want("webhook").data; !strings.Contains(got, `"status":"deleted"`) {
		t.Errorf("deleted: %s", got)
	}
	event := first.want("event")
	if got := first.want("delivery"); got.id != event.id || !strings.Contains(got.data, `"pending","attempts":0`) {
		t.Errorf("%+v follows %+v", got, event)
	}
	call := first.want("call") // refused
	if got := first.want("delivery"); got.id != call.id || !strings.Contains(got.data, `"pending","attempts":1`) {
		t.Errorf("%+v follows %+v", got, call)
	}
}

// That patients' data is gone is told whatever webhook the stream is about.
func TestStreamOfErasures(t *testing.T) {
	s := newService(t)
	s.commands.Directory.Keys.Keep = 50 * time.Second // periods of a second
	s.work()
	s.register(`"is_active":false`)
	s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"patient_id":"18"}}`).want(202)
	about, beside := s.stream("?kinds=erasure&webhook=1"), s.stream("?kinds=event")
	s.ask("POST", trigger, `{"event_type":"patient.created","event_data":{"patient_id":"17"}}`).want(202)
	told := beside.want("event")
	erased := s.ask("POST", "/api/v1/subjects/17/erase", `{"reason":"asked for"}`).want(200)
	got := about.want("erasure")
	before := strconv.FormatInt(told.id-1, 10)
	if again := s.stream("?kinds=event", "Last-Event-ID", before).want("event"); again.id != told.id || !strings.Contains(told.data, `"17"`) || strings.Contains(again.data, `"17"`) {
		t.Errorf("%s was told, and %s after the erasure", told.data, again.data)
	}
	if strconv.FormatInt(got.id, 10) != erased.get("position") || s.idIn(got.data, "type") != "subject.erased" {
		t.Errorf("%+v, erased %s", got, erased.body)
	}
	const old = -10 * time.Second // also of the period that is not over
	if err := s.commands.ExpirePayloads(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if got := about.want("erasure"); s.idIn(got.data, "type") != "payloads.expired" || !strings.HasSuffix(s.idIn(got.data, "recorded_at"), "Z") {
		t.Errorf("%+v", got)
	}
}

// What cannot be streamed is refused before the stream begins.
func TestStreamRefuses(t *testing.T) {
	s := newService(t)
	s.ask("GET", "/api/v1/stream?kinds=call,calls", "").refusing("kinds")
	s.ask("GET", "/api/v1/stream?kind=call", "").refusing("kind")
	s.ask("GET", "/api/v1/stream?webhook=7", "").refusing("webhook")
	s.ask("GET", "/api/v1/stream", "", "Last-Event-ID", "x").refusing("Last-Event-ID")
	s.ask("HEAD", "/api/v1/stream", "").want(200)
	s.token = s.tokenFor(domain.ScopeAuditRead)
	s.ask("GET", "/api/v1/stream", "").want(403)
}

// A stream ends when its token is revoked, and when the server stops, with others unharmed.
func TestStreamEnds(t *testing.T) {
	t.Parallel()
	s := newService(t)
	token, clear := s.registerStreamToken(domain.ScopeWebhooksRead)
	revoked, other := s.stream("", "Authorization", "Bearer "+clear), s.stream("?kinds=webhook")
	if err := s.commands.RevokeToken(t.Context(), commands.Caller{Actor: "test"}, token.ID); err != nil {
		t.Fatal(err)
	}
	if item, ok := revoked.next(); ok {
		t.Errorf("got %+v after the token was revoked", item)
	}
	s.work()
	s.register(`"is_active":false`)
	other.want("webhook")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.drain(ctx); err != nil {
		t.Error(err)
	}
	if item, ok := other.next(); ok {
		t.Errorf("got %+v from a server that has stopped", item)
	}
}

// A node that follows the others by nothing but what it is asked for shows no event that was accepted
// later than a second after the stream's token was revoked, and none after it has expired.
func TestStreamsEndWithTheirTokens(t *testing.T) {
	t.Parallel()
	database := testdb.New(t)
	a, b := newServiceOn(t, database), newServiceOn(t, database)
	a.work()
	caller := commands.Caller{Actor: "test"}
	// last returns when the last event was accepted that the stream shows, while events come
	// until it ends.
	last := func(token string, begun func()) (at time.Time) {
		t.Helper()
		follow := b.stream("?kinds=event", "Authorization", "Bearer "+token)
		items := make(chan streamed)
		go func() {
			defer close(items)
			for item, ok := follow.next(); ok; item, ok = follow.next() {
				items <- item
			}
		}()
		deadline := time.After(patience)
		for {
			a.ask("POST", trigger, `{"event_type":"patient.created","event_data":{}}`).want(202)
			select {
			case item, ok := <-items:
				if !ok {
					return at
				}
				if at.IsZero() {
					begun()
				}
				accepted, err := time.Parse(time.RFC3339, a.idIn(item.data, "accepted_at"))
				if err != nil {
					t.Fatal(err)
				}
				at = accepted
			case <-deadline:
				t.Fatal("the stream does not end")
			default:
			}
		}
	}

	token, clear := a.registerStreamToken(domain.ScopeWebhooksRead)
	var revoked time.Time
	at := last(clear, func() {
		if err := a.commands.RevokeToken(t.Context(), caller, token.ID); err != nil {
			t.Fatal(err)
		}
		revoked = a.commands.Now()
	})
	if late := at.Sub(revoked); late > time.Second {
		t.Errorf("an event is shown that was accepted %s after the token was revoked", late)
	}

	expires := a.commands.Now().Add(2 * time.Second)
	_, secret, err := a.commands.CreateToken(t.Context(), caller, "short", []domain.Scope{domain.ScopeWebhooksRead}, expires)
	if err != nil {
		t.Fatal(err)
	}
	const clocks = 500 * time.Millisecond // by which two processes take the database's time to differ, at the most
	if late := last(secret.Reveal(), func() {}).Sub(expires); late > clocks {
		t.Errorf("an event is shown that was accepted %s after the token had expired", late)
	}
}
