package http_test

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/medilab/webhooks/domain"
	api "github.com/medilab/webhooks/http"
	"github.com/medilab/webhooks/migrations/testdb"
)

func TestNoSuchPath(t *testing.T) {
	s := newService(t)
	s.token = ""
	for _, path := range []string{"/nothing", "/api/v1", "/api/v1/nothing", "/api/v2/webhooks", "/api/v1/webhooks/not-an-id", "/api/v1//webhooks", "/../healthz"} {
		s.ask("GET", path, "").want(404)
	}
}

func TestWrongMethod(t *testing.T) {
	s := newService(t)
	for path, allow := range map[string]string{
		"/api/v1/webhooks": "GET, HEAD, POST", "/api/v1/webhooks/1": "GET, HEAD, PUT, PATCH, DELETE", trigger: "POST", "/healthz/": "GET, HEAD",
	} {
		if got := s.ask("OPTIONS", path, "").want(405); got.header.Get("Allow") != allow {
			t.Errorf("%s: Allow %q, want %q", path, got.header.Get("Allow"), allow)
		}
	}
}

func TestHealth(t *testing.T) {
	s := newService(t)
	s.token = ""
	s.ask("GET", "/healthz", "").want(200)
	s.ask("GET", "/readyz/", "").want(200)
	s.ready = errors.New("the database's password is hunter2")
	if got := s.ask("GET", "/readyz", "").want(503); strings.Contains(string(got.body), "hunter2") || got.header.Get("Retry-After") == "" {
		t.Errorf("got %v %s", got.header, got.body)
	}
	s.ask("GET", "/healthz", "").want(200)
	if got := s.ask("HEAD", "/healthz", "").want(200); len(got.body) != 0 {
		t.Errorf("got %s", got.body)
	}
}

// Anybody may ask, so what asking costs the database does not grow with how many do.
func TestProbesCostWhatOneCosts(t *testing.T) {
	const callers = 50
	var asking atomic.Int64
	begun, release := make(chan struct{}, 2*callers), make(chan struct{})
	hold := func() { begun <- struct{}{}; <-release }
	server := httptest.NewServer(api.NewProbes(api.Config{
		Ready: func(context.Context) error {
			defer asking.Add(-1)
			if asking.Add(1) > 1 {
				t.Error("two ask the database at once")
			}
			hold()
			return nil
		},
		Metrics: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hold() }),
	}).Handler())
	t.Cleanup(server.Close)
	get := func(path string) int {
		response, err := http.Get(server.URL + path)
		if err != nil {
			t.Error(err)
			return 0
		}
		_ = response.Body.Close() // its status is all we want
		return response.StatusCode
	}
	answers := make(chan int, callers)
	metrics := func() { go func() { answers <- get("/metrics") }() }
	for range 4 {
		metrics()
		<-begun
	}
	if got := get("/metrics"); got != 429 {
		t.Errorf("one reader of the metrics too many: %d", got)
	}
	for range callers {
		go func() { answers <- get("/readyz") }()
	}
	<-begun // the first asks; the others wait for it or for the next
	close(release)
	for range 4 + callers {
		if got := <-answers; got != 200 {
			t.Errorf("got %d", got)
		}
	}
	if got := get("/metrics"); got != 200 {
		t.Errorf("when nobody reads any more: %d", got)
	}
}

func TestRequestID(t *testing.T) {
	s := newService(t)
	if got := s.ask("GET", "/nothing", "", "X-Request-Id", "mine-1"); got.header.Get("X-Request-Id") != "mine-1" || got.text("request_id") != "mine-1" {
		t.Errorf("got %v", got.header)
	}
	for _, bad := range []string{"a b", strings.Repeat("x", 101), `"`} {
		if got := s.ask("GET", "/healthz", "", "X-Request-Id", bad).header.Get("X-Request-Id"); got == bad || got == "" {
			t.Errorf("%q is kept as %q", bad, got)
		}
	}
}

// A body that ends before its Content-Length says so is the caller's fault.
func TestBodyCutOff(t *testing.T) {
	s := newService(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // nothing is written any more
	request := "POST " + trigger + " HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + adminToken + "\r\nContent-Length: 100\r\n\r\n{"
	if _, err := conn.Write([]byte(request)); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // its status is all we want
	if response.StatusCode != 400 {
		t.Errorf("got %d", response.StatusCode)
	}
}

// A caller that sends all before it listens is told that it was too much.
func TestTooLargeIsToldToThoseWhoSendFirst(t *testing.T) {
	s := newService(t)
	for _, framing := range []string{"Content-Length: 12000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nb71b00\r\n"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // nothing is written any more
		request := "POST " + trigger + " HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + adminToken + "\r\n" + framing + strings.Repeat(" ", 12_000_000)
		if strings.Contains(framing, "chunked") {
			request += "\r\n0\r\n\r\n"
		}
		if _, err := conn.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if response.Body.Close(); response.StatusCode != 413 { //nolint:errcheck // its status is all we want
			t.Errorf("got %d", response.StatusCode)
		}
	}
}

// What takes no body refuses fields, and does nothing: a rate for a job that goes on, say, would
// seem to be taken. An empty body or object, or null, is none.
func TestFieldsWhereNoneAre(t *testing.T) {
	s := newService(t)
	s.register("")
	for _, body := range []string{"", "{}", ` { } `, "null"} {
		s.ask("POST", "/api/v1/webhooks/1/deactivate", body).want(200)
	}
	s.ask("POST", "/api/v1/webhooks/1/activate", `{"rate":5}`).refusing("rate")
	s.ask("DELETE", "/api/v1/webhooks/1", `{"purge":true}`).refusing("purge")
	if got := s.ask("GET", "/api/v1/webhooks/1", "").want(200); got.get("is_active") != "false" {
		t.Errorf("%s", got.body)
	}
}

// Nothing a caller sends makes a 500, on any path with any method, and every refusal is
// a problem.
func TestJunk(t *testing.T) {
	t.Parallel()
	s := newService(t)
	s.register("")
	s.ask("POST", trigger, `{"event_id":"ffffffff-ffff-ffff-ffff-ffffffffffff","event_type":"patient.created","event_data":{}}`).want(202)
	paths := []string{
		"/api/v1/webhooks", "/api/v1/webhooks/1", "/api/v1/webhooks/99999999999999999999", "/api/v1/webhooks/-1", "/api/v1/webhooks/00000000-0000-0000-0000-000000000000",
		"/api/v1/webhooks/1/activate", "/api/v1/webhooks/1/deactivate", "/api/v1/webhooks/1/rotate-secret",
		"/api/v1/webhooks/1/test", "/api/v1/webhooks/1/backtest", "/api/v1/webhooks/1/replay", "/api/v1/webhooks/1/replays/1", "/api/v1/webhooks/1/replays", "/api/v1/webhooks/replays", "/api/v1/webhooks/replays/1/cancel", "/api/v1/webhooks/deliveries/retry", "/api/v1/webhooks/1/calls", "/api/v1/webhooks/1/calls/1", "/api/v1/webhooks/1/stats", "/api/v1/webhooks/system/stats",
		"/api/v1/webhooks/1/history", "/api/v1/webhooks/events", "/api/v1/webhooks/events/1", "/api/v1/webhooks/deliveries/1/retry",
		"/api/v1/webhooks/events/ffffffff-ffff-ffff-ffff-ffffffffffff/explain", "/api/v1/webhooks/1/calls/ffffffff-ffff-ffff-ffff-ffffffffffff", "/api/v1/audit/events",
		trigger, trigger + "/batch", "/api/v1/webhooks/events/types", "/%00", "/api/v1/webhooks/%2e%2e", "/api/v1/webhooks/1%2Ftest",
	}
	queries := []string{"", "?limit=-1&cursor=AAAA&status=%00", "?q=%FF%00&event_type=%FF", "?%zz", "?;", "?as_of=0000-01-01T00:00:00Z", "?as_of=99999-01-01T00:00:00Z",
		"?from=0001-01-01T00:00:00Z&to=9999-12-31T23:59:59Z", "?from=9999-12-31T23:59:59Z&to=0001-01-01T00:00:00Z&bucket=hour", "?after=9223372036854775807&stream=%00&type=*", "?correlation_id=%00", "?cursor=djEuOTIyMzM3MjAzNjg1NDc3NTgwNw", "?cursor=YzE6OTIyMzM3MjAzNjg1NDc3NTgwNw"}
	bodies := []string{
		"", "null", "[]", "{}", `"`, "{\"\x00\":1}", `{"name":{"name":[]},"events":[[]],"headers":{"":""},"batch":[],"filters":{"$or":[{"$or":[]}]},"secret":"whsec_"}`,
		`{"name":"\ud83d\ude00","url":"http://[::1","events":["*","*","\u0000"],"filters":{"a.b.c":{"$regex":"(((("}},"headers":{"\u0000":"\u0000"}}`,
		`{"event_type":"\u0000","event_data":{"":{"":[{}]}},"event_id":"{550e8400-e29b-41d4-a716-446655440000}"}`, `{"events":[null,[],"",1e308,{}]}`,
		`{"overlap_seconds":1e308,"secret":""}`, `{"max_retries":-0,"timeout":1E400}`, strings.Repeat("[", 100_000),
	}
	for _, path := range paths {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "TRACE"} {
			if method == "DELETE" && path == "/api/v1/webhooks/1" {
				continue
			}
			for _, query := range queries {
				for _, body := range bodies {
					if (method == "GET" || method == "HEAD") && body != "" || method != "GET" && query != "" {
						continue
					}
					got := s.ask(method, path+query, body)
					if got.status >= 500 || got.status >= 400 && got.header.Get("Content-Type") != "application/problem+json" {
						t.Errorf("%s %s %.80s: %d %s %s", method, path+query, body, got.status, got.header.Get("Content-Type"), got.body)
					}
				}
			}
		}
	}
}

type lines chan string

func (l lines) Write(line []byte) (int, error) { l <- string(line); return len(line), nil }

// What is wrong with hundreds of events the caller is told whole, and the log in short.
func TestErrorsAreLoggedInShort(t *testing.T) {
	logged := make(lines, 10)
	s := newServiceOn(t, testdb.New(t), func(c *api.Config) { c.Logger = slog.New(slog.NewTextHandler(logged, nil)) })
	batch := `{"events":[` + strings.Repeat(`{"event_type":"nonsense","event_data":{}},`, 299) + `{"event_type":"nonsense","event_data":{}}]}`
	if got := s.ask("POST", "/api/v1/webhooks/events/trigger/batch", batch).want(422); got.get("errors", 299, "field") == "null" {
		t.Errorf("not all errors are told: %.300s", got.body)
	}
	line := <-logged
	for !strings.Contains(line, "status=422") { // another request's
		line = <-logged
	}
	if len(line) > 2000 || !strings.Contains(line, "events[0].event_type") {
		t.Errorf("%d bytes are logged: %.300s", len(line), line)
	}
}

// Names in what a caller sent may be a patient's data: the caller is told them, the log is not.
func TestNamesOfTheDataAreNotLogged(t *testing.T) {
	logged := make(lines, 100)
	catalog, err := domain.ParseCatalog([]byte(`[{"type":"patient.created","enforce":true,"schema":{"properties":{
		"contacts":{"additionalProperties":{"properties":{"phone":{"type":"string"}},"additionalProperties":false}}}}}]`))
	if err != nil {
		t.Fatal(err)
	}
	s := newServiceOn(t, testdb.New(t), func(c *api.Config) {
		c.Logger, c.Commands.Catalog = slog.New(slog.NewTextHandler(logged, nil)), catalog
	})
	event := func(data string) string { return `{"event_type":"patient.created","event_data":` + data + `}` }
	for _, c := range []struct {
		path, body string
		status     int
		told, log  string
	}{
		{trigger, event(`{"contacts":{"Иванов":1,"Иванов":2}}`), 400, "(in event_data.contacts.Иванов)", "the JSON repeats a key at byte 75"},
		{trigger, event(`{"contacts":{"Иванов":{"phone":1}}}`), 422, "event_data.contacts.Иванов.phone", "event_data.contacts.*.phone must be of type string"},
		{trigger, event(`{"contacts":{"79161234567":{"Иванов":1}}}`), 422, "event_data.contacts[79161234567].Иванов", "event_data.contacts.*.* is not allowed"},
		{trigger, `{"Иванов":1}`, 422, `"Иванов"`, "* is not a field of an event"},
		{trigger + "/batch", `{"events":[` + event(`{"contacts":{"Иванов":{"phone":1}}}`) + `]}`, 422, "events[0].event_data.contacts.Иванов.phone", "events[0].event_data.contacts.*.phone must"},
		{trigger + "/batch", `{"events":[{"Иванов":1}]}`, 422, "events[0].Иванов", "events[0].* is not a field of an event"},
	} {
		if got := s.ask("POST", c.path, c.body).want(c.status); !strings.Contains(string(got.body), c.told) {
			t.Errorf("%s: told is %s", c.body, got.body)
		}
		line := <-logged
		for !strings.Contains(line, "method=POST") {
			line = <-logged
		}
		if !strings.Contains(line, c.log) || strings.Contains(line, "Иванов") || strings.Contains(line, "7916") {
			t.Errorf("%s: logged is %s", c.body, line)
		}
	}
}
