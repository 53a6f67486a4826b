package remote_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/commands/emit/remote"
	"github.com/medilab/webhooks/migrations/testdb"
)

const token = "remote-admin-token-0123456789-0123456789"

func serve(t *testing.T) *harness.Process {
	t.Helper()
	p := prepare(t)
	p.Start()
	return p
}

func prepare(t *testing.T) *harness.Process {
	t.Helper()
	return harness.NewProcess(t, "the server", harness.Program(t), harness.Environment(
		"DATABASE_URL="+testdb.New(t), "MEDILAB_DATA_DIR="+t.TempDir(), "MEDILAB_TOKEN="+token)...)
}

// refusals collects what a client reports.
type refusals struct {
	mu   sync.Mutex
	text []string
}

func (r *refusals) add(e remote.Event, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text = append(r.text, fmt.Sprintf("%s %s: %v", e.Type, e.Data, err))
}

func open(t *testing.T, config remote.Config) *remote.Client {
	t.Helper()
	if config.Token == "" {
		config.Token = token
	}
	client, err := remote.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		client.Close(ctx) //nolint:errcheck // the test has closed it, or has failed
	})
	return client
}

func emit(t *testing.T, client *remote.Client, e remote.Event) uuid.UUID {
	t.Helper()
	id, err := client.Emit(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func event(n int) remote.Event {
	return remote.Event{Type: "patient.created", Data: json.RawMessage(fmt.Sprintf(`{"n":%d}`, n))}
}

// recorded is an event as the server lists it.
type recorded struct {
	ID          uuid.UUID       `json:"event_id"`
	Type        string          `json:"event_type"`
	Data        json.RawMessage `json:"event_data"`
	Source      string          `json:"source"`
	Correlation *string         `json:"correlation_id"`
	Traceparent *string         `json:"traceparent"`
	Tracestate  *string         `json:"tracestate"`
	OccurredAt  time.Time       `json:"occurred_at"`
}

// log returns what the server has, as soon as it shows so many events, in the order in which it
// accepted them.
func log(t *testing.T, p *harness.Process, want int) (all []recorded) {
	t.Helper()
	p.Until(fmt.Sprintf("%d events are shown", want), func() bool {
		all = nil
		for cursor := ""; ; {
			var page struct {
				Items []recorded
				Next  *string `json:"next_cursor"`
			}
			p.API(200, token, "GET", "/webhooks/events?limit=1000&cursor="+cursor, nil, &page)
			all = append(all, page.Items...)
			if page.Next == nil {
				slices.Reverse(all)
				return len(all) >= want
			}
			cursor = url.QueryEscape(*page.Next)
		}
	})
	return all
}

// Events arrive once and in order, byte for byte, though every second answer is lost, and the
// server is killed and comes back.
func TestEachEventOnce(t *testing.T) {
	t.Parallel()
	p := serve(t)
	behind, err := url.Parse("http://" + p.Addr)
	if err != nil {
		t.Fatal(err)
	}
	var requests atomic.Int64
	killed := make(chan struct{}, 1)
	proxy := httputil.NewSingleHostReverseProxy(behind)
	proxy.ModifyResponse = func(*http.Response) error {
		if n := requests.Add(1); n == 3 {
			killed <- struct{}{}
		} else if n%2 == 0 {
			return nil
		}
		return errors.New("lost")
	}
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	front := httptest.NewServer(proxy)
	defer front.Close()

	var refused refusals
	client := open(t, remote.Config{URL: front.URL, Refused: refused.add})
	const awkward = `{ "z":1.00,"a":"\u0000<>&ü\"\\",  "n":12345678901234567890.10 }`
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	at := time.Date(2020, 1, 2, 3, 4, 5, 6000, time.UTC)
	ids := []uuid.UUID{emit(t, client, remote.Event{
		Type: "visit.created", Data: json.RawMessage(awkward), CorrelationID: "c", Source: "reception", Traceparent: trace, Tracestate: "rojo=1", OccurredAt: at,
	})}
	for n := range 2500 {
		ids = append(ids, emit(t, client, event(n)))
	}
	<-killed
	p.Kill()
	p.Start()
	if err := client.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Emit(t.Context(), event(0)); !errors.Is(err, remote.ErrClosed) {
		t.Errorf("after Close an event is answered %v", err)
	}
	all := log(t, p, len(ids))
	var got []uuid.UUID
	for _, one := range all {
		got = append(got, one.ID)
	}
	if !slices.Equal(got, ids) || len(refused.text) != 0 {
		t.Errorf("%d events in the log, want %d in their order; refused: %v", len(got), len(ids), refused.text)
	}
	var first recorded
	p.API(200, token, "GET", "/webhooks/events/"+ids[0].String(), nil, &first)
	if string(first.Data) != awkward || first.Source != "reception" || *first.Correlation != "c" || *first.Traceparent != trace || *first.Tracestate != "rojo=1" || !first.OccurredAt.Equal(at) {
		t.Errorf("recorded is %+v", first)
	}
	if all[1].Source != "go" || all[1].OccurredAt.After(time.Now()) {
		t.Errorf("an event without source and time is %+v", all[1])
	}
}

// What the server never accepts is reported event by event, and all others are accepted: among
// them those for which the server names no event.
func TestRefusedEvents(t *testing.T) {
	t.Parallel()
	p := serve(t)
	var refused refusals
	gate := make(chan struct{})
	client := open(t, remote.Config{URL: "http://" + p.Addr, Refused: refused.add, Client: &http.Client{Transport: gated{gate}}})
	taken := emit(t, client, event(-1))
	for n := range 40 {
		switch n {
		case 7:
			emit(t, client, remote.Event{Type: "patient.nonsense", Data: json.RawMessage(`{"n":7}`)})
		case 13: // no event is named
			emit(t, client, remote.Event{Type: "patient.created", Data: json.RawMessage(`{"n":1,"n":13}`)})
		case 21:
			emit(t, client, remote.Event{Type: "patient.created", Data: json.RawMessage(`{"n":21}`), ID: taken})
		case 30:
			emit(t, client, remote.Event{Type: "patient.created", Data: json.RawMessage(`{"n":30}`), OccurredAt: time.Now().Add(time.Hour)})
		default:
			emit(t, client, event(n))
		}
	}
	close(gate)
	if err := client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(log(t, p, 1+36)); n != 1+36 {
		t.Errorf("%d events were accepted", n)
	}
	all := strings.Join(refused.text, "\n")
	for _, want := range []string{`patient.nonsense {"n":7}: the server answered 422`, `event_type`, `{"n":1,"n":13}: the server answered 400`, `{"n":21}: the server answered 409`, `{"n":30}: the server answered 422`} {
		if !strings.Contains(all, want) || len(refused.text) != 4 {
			t.Errorf("refused without %s:\n%s", want, all)
		}
	}
	for _, data := range []string{"", "[]", "{", `"a"`} {
		if _, err := client.TryEmit(remote.Event{Type: "patient.created", Data: json.RawMessage(data)}); err == nil {
			t.Errorf("data %q were taken", data)
		}
	}
}

// gated sends nothing before the gate opens.
type gated struct{ gate chan struct{} }

func (g gated) RoundTrip(r *http.Request) (*http.Response, error) {
	<-g.gate
	return http.DefaultTransport.RoundTrip(r)
}

// What is emitted again before there was an answer is there once, and is not refused.
func TestEmittedTwice(t *testing.T) {
	t.Parallel()
	p := prepare(t)
	var refused refusals
	client := open(t, remote.Config{URL: "http://" + p.Addr, Refused: refused.add})
	emit(t, client, event(0)) // which waits for the server, and the others behind it
	twice := event(1)
	twice.ID, twice.OccurredAt = uuid.New(), time.Now()
	for range 2 {
		if id := emit(t, client, twice); id != twice.ID {
			t.Errorf("its id is %s", id)
		}
	}
	p.Start()
	if err := client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	twice.Data = json.RawMessage(`{"n":2}`) // this is another
	emit(t, client, twice)
	if err := client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all := log(t, p, 2); len(all) != 2 || len(refused.text) != 1 || !strings.Contains(refused.text[0], `{"n":2}: the server answered 409`) {
		t.Errorf("%d events, refused %q", len(all), refused.text)
	}
}

// Memory is bounded: Emit waits for room, TryEmit fails, and Close reports the events that it drops.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	var received atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-gate
		body, _ := io.ReadAll(r.Body) //nolint:errcheck // what arrived counts
		received.Add(int64(bytes.Count(body, []byte("event_type"))))
		w.WriteHeader(http.StatusAccepted)
	}))
	defer server.Close()
	client := open(t, remote.Config{URL: server.URL, MaxBytes: 10_000})
	taken := 0
	for err := error(nil); err == nil; taken++ {
		if _, err = client.TryEmit(event(taken)); err != nil && !errors.Is(err, remote.ErrFull) || taken > 1000 {
			t.Fatal(taken, err)
		}
	}
	if _, err := client.TryEmit(remote.Event{Type: "a.b", Data: json.RawMessage(`{"a":"` + strings.Repeat("a", 10_000) + `"}`)}); err == nil || errors.Is(err, remote.ErrFull) {
		t.Errorf("what never fits is answered %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.Emit(ctx, event(0)); !errors.Is(err, remote.ErrFull) || !errors.Is(err, context.Canceled) {
		t.Errorf("without room it is answered %v", err)
	}
	waited := make(chan error)
	go func() {
		_, err := client.Emit(t.Context(), event(0))
		waited <- err
	}()
	close(gate)
	if err := <-waited; err != nil {
		t.Error(err)
	}
	if err := client.Close(t.Context()); err != nil || received.Load() != int64(taken) {
		t.Errorf("%d of %d events were received, %v", received.Load(), taken, err)
	}

	var refused refusals
	asked := make(chan struct{}, 1)
	away := open(t, remote.Config{URL: server.URL, Refused: refused.add, Client: &http.Client{Transport: never{asked}}})
	emit(t, away, event(1))
	<-asked
	emit(t, away, event(2))
	if err := away.Close(ctx); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "2 events") || len(refused.text) != 2 {
		t.Errorf("Close that gives up: %v, %v", err, refused.text)
	}
}

// never answers.
type never struct{ asked chan struct{} }

func (n never) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case n.asked <- struct{}{}:
	default:
	}
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// A server that has no time is asked again when it said, and one that refuses the caller or that a
// proxy stands in for, later. Of a proxy's refusals only the size counts. A clock that is ahead of the
// server's costs no event.
func TestRetries(t *testing.T) {
	t.Parallel()
	problem := func(status int, body string) func(w http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(status)
			io.WriteString(w, body) //nolint:errcheck // the client says so
		}
	}
	answers := []func(w http.ResponseWriter){
		func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		},
		problem(http.StatusUnauthorized, `{"title":"Unauthorized"}`),
		func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadRequest) }, // a proxy's
		func(w http.ResponseWriter) { w.WriteHeader(http.StatusRequestEntityTooLarge) },
		problem(http.StatusUnprocessableEntity, `{"errors":[{"field":"events[0].occurred_at","message":"must not be in the future"}]}`),
	}
	var requests []string
	accepted := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) //nolint:errcheck // what arrived counts
		requests = append(requests, string(body))
		if n := len(requests); n <= len(answers) {
			answers[n-1](w)
			return
		}
		accepted += bytes.Count(body, []byte("event_type"))
		w.WriteHeader(http.StatusAccepted)
	}))
	defer server.Close()
	var waits []time.Duration
	var said []string
	var refused refusals
	gate := make(chan struct{})
	client := open(t, remote.Config{URL: server.URL + "/", Refused: refused.add, Client: &http.Client{Transport: gated{gate}},
		Retrying: func(err error, wait time.Duration) { waits, said = append(waits, wait), append(said, err.Error()) }})
	emit(t, client, event(0)) // the first request has this one or some more
	for n := range 5 {
		if _, err := client.TryEmit(event(n + 1)); err != nil {
			t.Fatal(err)
		}
	}
	close(gate)
	if err := client.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(waits) != 3 || waits[0] < time.Second || !strings.Contains(said[0], "503") || !strings.Contains(said[1], "401") {
		t.Errorf("waited %v for %q", waits, said)
	}
	lone := strings.Count(requests[0], "event_type") == 1 // too large alone, it is refused
	if n := len(refused.text); lone && (n != 1 || accepted != 5) || !lone && (n != 0 || accepted != 6) {
		t.Errorf("%d accepted, and refused: %q", accepted, refused.text)
	}
	if with, without := requests[len(answers)-1], requests[len(answers)]; strings.Count(with, "occurred_at") != strings.Count(without, "occurred_at")+1 {
		t.Errorf("after %s came %s", with, without)
	}
}

// A server that asks for years is asked again within the hour.
func TestRetryAfterIsBounded(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "2000000000")
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer server.Close()
	waits := make(chan time.Duration, 1)
	client, err := remote.New(remote.Config{URL: server.URL, Token: "t", Retrying: func(_ error, wait time.Duration) { waits <- wait }})
	if err != nil {
		t.Fatal(err)
	}
	emit(t, client, event(0))
	if wait := <-waits; wait != time.Hour {
		t.Errorf("waits %v", wait)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := client.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func ExampleClient() {
	client, err := remote.New(remote.Config{
		URL: "http://127.0.0.1:8000", Token: "a token with the scope events:write",
		Refused: func(e remote.Event, err error) { fmt.Println("never accepted:", e.Type, err) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = client.TryEmit(remote.Event{Type: "patient.created", Data: json.RawMessage(`"not an object"`)})
	fmt.Println(err)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := client.Close(ctx); err != nil { // waits until every event is answered
		fmt.Println(err)
	}
	// Output: remote: the data of patient.created are not a JSON object
}
