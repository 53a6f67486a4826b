package http

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
)

const answersToken = "admin-token-of-the-tests-0123456789"

func answersConfig() Config {
	return Config{AdminToken: domain.NewSecret(answersToken), Commands: &commands.Commands{Log: &eventstore.Log{}}}
}

// answering is a server with one operation, whose answers are large. most is the highest
// number of them that were held at once.
type answering struct {
	*Server
	http       *httptest.Server
	now, most  atomic.Int64
	ended      chan struct{}
	answerSize int
}

func newAnswering(t *testing.T, patience time.Duration) *answering {
	t.Helper()
	a := &answering{Server: newServer(answersConfig()), ended: make(chan struct{}, 1<<10)}
	const large = 16 << 20 // more than the sockets' buffers hold
	a.large, a.patience = newAnswerBudget(4*largeAnswer), patience
	body := bytes.Repeat([]byte("x"), large)
	a.answerSize = large
	a.add("", tagServer, []operation{{method: "GET", path: "/large", id: "large", scope: domain.ScopeAdmin, large: true, serve: func(x *request, _ *http.Request) error {
		held := a.now.Add(1)
		for most := a.most.Load(); held > most && !a.most.CompareAndSwap(most, held); most = a.most.Load() {
		}
		x.write(http.StatusOK, jsonMedia, body)
		a.now.Add(-1)
		a.ended <- struct{}{}
		return nil
	}}})
	a.http = httptest.NewUnstartedServer(a.Handler())
	a.http.EnableHTTP2 = true
	a.http.StartTLS()
	t.Cleanup(a.http.Close)
	return a
}

// dial returns a connection with the protocol.
func (a *answering) dial(t *testing.T, protocol string) *tls.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", a.http.Listener.Addr().String(), &tls.Config{RootCAs: a.http.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "example.com", NextProtos: []string{protocol}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// idle waits until nothing is held any more.
func (a *answering) idle(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := a.large.all.Acquire(ctx, 4*largeAnswer); err != nil {
		t.Fatal("some of the budget is still held")
	}
	a.large.all.Release(4 * largeAnswer)
}

// Each answer that nobody reads holds its size until it is cut, on whatever connection
// or stream, and those that there is no room for are not even made.
func TestAnswersThatNobodyReadsAreBounded(t *testing.T) {
	const requests = 16
	a := newAnswering(t, 200*time.Millisecond)
	for range requests / 2 {
		conn := a.dial(t, "http/1.1")
		if _, err := io.WriteString(conn, "GET /large HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "+answersToken+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	//lint:ignore SA1019 its connection is one that the test opened
	h2, err := new(http2.Transport).NewClientConn(a.dial(t, "h2"))
	if err != nil {
		t.Fatal(err)
	}
	for range requests / 2 {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://a/large", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+answersToken)
		go func() { _, _ = h2.RoundTrip(r) }() // the body is never read
	}
	for range requests {
		select {
		case <-a.ended: // as it is cut
		case <-time.After(time.Minute):
			t.Fatal("an answer that nobody reads is not cut")
		}
	}
	a.idle(t)
	// One caller has two shares of large answers, and an answer that is made keeps its size.
	if most := int64(2 * largeAnswer / a.answerSize); a.most.Load() > most || a.most.Load() == 0 {
		t.Errorf("%d answers were held at once, and there is room for %d", a.most.Load(), most)
	}
	a.large.callers.mu.Lock()
	defer a.large.callers.mu.Unlock()
	if len(a.large.callers.all) != 0 {
		t.Error("callers are kept for good")
	}
}

// Small answers do not wait for large ones, not even for those of the same caller.
func TestSmallAnswersDoNotWaitForLargeOnes(t *testing.T) {
	s := newServer(answersConfig())
	var actor string
	s.add("", tagServer, []operation{{method: "GET", path: "/small", id: "small", scope: domain.ScopeAdmin, serve: func(x *request, _ *http.Request) error {
		actor = x.caller.Actor
		return x.respondJSON([]byte("{}"))
	}}})
	ask := func() int {
		r := httptest.NewRequest(http.MethodGet, "/small", nil)
		r.Header.Set("Authorization", "Bearer "+answersToken)
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		return w.Code
	}
	if status := ask(); status != http.StatusOK {
		t.Fatal(status)
	}
	hold, err := s.large.acquire(t.Context(), actor, s.large.share)
	if err != nil {
		t.Fatal(err)
	}
	defer hold.release()
	if status := ask(); status != http.StatusOK {
		t.Errorf("status %d", status)
	}
}

// An answer that reads little of the log is a small one, and is no longer when it reads more.
func TestReadingsMakeAnswersLarge(t *testing.T) {
	pool, err := eventstore.OpenPool(t.Context(), testdb.New(t), 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	log := eventstore.Open(eventstore.Config{Pool: pool})
	t.Cleanup(log.Close)
	for stream, text := range map[string]string{"little": "-", "much": strings.Repeat("-", smallReading)} {
		unit := eventstore.Unit{Writes: []eventstore.Write{{Stream: stream, Events: []eventstore.NewEvent{{Type: "t", Data: []byte(`"` + text + `"`)}}}}}
		if _, err := log.Append(t.Context(), unit); err != nil {
			t.Fatal(err)
		}
	}
	s := newServer(answersConfig())
	var held *answerBudget
	serve := func(x *request, r *http.Request) error {
		if events, err := log.Load(r.Context(), r.URL.Path[1:]); err != nil || len(events) != 1 {
			t.Error(events, err)
		}
		held = x.held.budget
		return x.respondJSON([]byte("{}"))
	}
	s.add("", tagServer, []operation{
		{method: "GET", path: "/little", id: "little", scope: domain.ScopeAdmin, serve: serve},
		{method: "GET", path: "/much", id: "much", scope: domain.ScopeAdmin, serve: serve},
		{method: "POST", path: "/much", id: "muchOverTime", scope: domain.ScopeAdmin, unbounded: true, serve: serve},
	})
	for request, budget := range map[string]*answerBudget{"GET /little": s.small, "GET /much": s.large, "POST /much": s.small} {
		method, path, _ := strings.Cut(request, " ")
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("Authorization", "Bearer "+answersToken)
		w := httptest.NewRecorder()
		if s.Handler().ServeHTTP(w, r); w.Code != http.StatusOK || held != budget {
			t.Errorf("%s: status %d, the right budget: %v", request, w.Code, held == budget)
		}
	}
	for _, budget := range []*answerBudget{s.small, s.large} {
		if len(budget.callers.all) > 0 {
			t.Error("some of a budget is still held")
		}
	}
}

// A caller whose answers fill its share keeps no other caller waiting.
func TestAnswersAreSharedByCaller(t *testing.T) {
	b := newAnswerBudget(8)
	hog, err := b.acquire(t.Context(), "a", 4)
	if err != nil {
		t.Fatal(err)
	}
	waits := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := b.acquire(ctx, "a", 3)
		waits <- err
	}()
	other, err := b.acquire(t.Context(), "b", 4)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-waits:
		t.Fatalf("a caller holds more than its share: %v", err)
	default:
	}
	cancel()
	if err := <-waits; err == nil {
		t.Error("a caller that is gone got its share")
	}
	hog.shrink(1)
	more, err := b.acquire(t.Context(), "a", 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []*heldAnswer{hog, more, other} {
		h.release()
	}
	if len(b.callers.all) != 0 || !b.all.TryAcquire(8) {
		t.Error("something is held for good")
	}
}

// pipes is a listener of connections without any buffer.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{} }

// A client that reads, slowly, gets the whole answer; one that stops is cut.
func TestSlowReaderGetsTheWholeAnswer(t *testing.T) {
	for _, c := range []struct {
		pause  time.Duration // before each chunk
		chunks int
		whole  bool
	}{{answerPatience / 3, 12, true}, {answerPatience * 2, 12, false}, {answerPatience / 3, 40, false}} { // the last is too slow on the whole
		synctest.Test(t, func(t *testing.T) {
			size := c.chunks * writeChunk
			s := newServer(answersConfig())
			s.add("", tagServer, []operation{{method: "GET", path: "/slow", id: "slow", scope: domain.ScopeAdmin, serve: func(x *request, _ *http.Request) error {
				return x.respondJSON(make([]byte, size))
			}}})
			listener, server := make(pipes), &http.Server{Handler: s.Handler(), WriteTimeout: time.Minute}
			served := make(chan error, 1)
			go func() { served <- server.Serve(listener) }()
			client, conn := net.Pipe()
			listener <- conn
			if _, err := io.WriteString(client, "GET /slow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer "+answersToken+"\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			n := int64(0)
			for err := error(nil); err == nil && n < int64(size); {
				time.Sleep(c.pause)
				var m int64
				m, err = io.CopyN(io.Discard, client, writeChunk)
				n += m
			}
			if whole := n >= int64(size); whole != c.whole {
				t.Errorf("a pause of %s: %d bytes of %d", c.pause, n, size)
			}
			if err := server.Close(); err != nil {
				t.Error(err)
			}
			<-served
		})
	}
}

// A request whose answer is cut off releases what it held, and is logged.
func TestCutOffAnswersHoldNothing(t *testing.T) {
	config, lines := answersConfig(), bytes.Buffer{}
	config.Logger = slog.New(slog.NewTextHandler(&lines, nil))
	s := newServer(config)
	s.add("", tagServer, []operation{{method: "GET", path: apiRoot + "/half", id: "half", scope: domain.ScopeAdmin, serve: func(x *request, _ *http.Request) error {
		_, _ = x.Write([]byte("half"))
		return errors.New("the rest cannot be read")
	}}})
	r := httptest.NewRequest("GET", apiRoot+"/half", nil)
	r.Header.Set("Authorization", "Bearer "+answersToken)
	func() {
		defer func() {
			if problem := recover(); problem != http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
				t.Errorf("the connection does not end: %v", problem)
			}
		}()
		s.Handler().ServeHTTP(httptest.NewRecorder(), r)
	}()
	if !s.small.all.TryAcquire(smallAnswers) {
		t.Error("it holds memory of answers for good")
	}
	if !strings.Contains(lines.String(), "msg=request") {
		t.Errorf("logged is %s", &lines)
	}
}

// The status is open until the first line is sent, however late that comes: what fails before is answered as a problem.
func TestNoLineIsNoStatus(t *testing.T) {
	sent := httptest.NewRecorder()
	x := &request{ResponseWriter: sent}
	w := newLineWriter(x)
	w.flushed = time.Time{}
	if err := w.write([]byte("{}")); err != nil || sent.Flushed || x.status != 0 {
		t.Errorf("status %d, flushed: %v, %v", x.status, sent.Flushed, err)
	}
	if err := w.flush(); err != nil || !sent.Flushed || x.status != http.StatusOK || sent.Body.String() != "{}\n" {
		t.Errorf("status %d, flushed: %v, %q, %v", x.status, sent.Flushed, sent.Body, err)
	}
}
