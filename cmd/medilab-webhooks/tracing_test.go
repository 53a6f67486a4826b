package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/medilab/webhooks/migrations/testdb"
)

// collectSpans is a collector of OTLP over HTTP. It passes on each span with its service.
func collectSpans(t *testing.T) (url string, spans <-chan *tracepb.Span) {
	t.Helper()
	got := make(chan *tracepb.Span, 1000)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collector.ExportTraceServiceRequest
		if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &request) != nil {
			t.Errorf("%s: no spans of OTLP: %v", r.URL.Path, err)
		}
		for _, of := range request.ResourceSpans {
			if !strings.Contains(of.Resource.String(), `"clinic"`) {
				t.Errorf("spans of %s", of.Resource)
			}
			for _, scope := range of.ScopeSpans {
				for _, span := range scope.Spans {
					got <- span
				}
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(s.Close)
	return s.URL, got
}

// serveHere runs `serve` until stop, on a database of its own unless the flags say otherwise.
func serveHere(t *testing.T, flags ...string) (url string, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	notes, log := io.Pipe()
	ended := make(chan int, 1)
	args := append([]string{
		"serve", "--database-url", testdb.New(t), "--addr", "127.0.0.1:0", "--keys", filepath.Join(t.TempDir(), "keys.json"),
		"--allow-targets", "loopback", "--log", "json",
	}, flags...)
	go func() {
		ended <- run(ctx, args, strings.NewReader(""), io.Discard, log)
		_ = log.Close() // a pipe's never fails
	}()
	lines := bufio.NewScanner(notes)
	for url == "" && lines.Scan() {
		var line struct{ Msg, Address string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "serving" {
			url = line.Address
		}
	}
	if url == "" {
		t.Fatalf("serve exits %d", <-ended)
	}
	go func() { _, _ = io.Copy(io.Discard, notes) }() // until it is closed
	return url, func() {
		cancel()
		if code := <-ended; code != 0 {
			t.Errorf("serve exits %d", code)
		}
	}
}

const (
	testToken = "admin-token-of-the-tests-0123456789" //nolint:gosec // of tests
	traced    = "4bf92f3577b34da6a3ce929d0e0e4736"
	untraced  = "0af7651916cd43dd8448eb211c80319c"
	parent    = "00f067aa0ba902b7"
	// traceState is what callers of other systems know of it.
	traceState = "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"
)

// The spans of an event are one trace, from the caller's to the call; and a trace that its
// caller does not sample has none.
func TestSpansOfAnEvent(t *testing.T) {
	to, spans := collectSpans(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", to)
	t.Setenv("OTEL_SERVICE_NAME", "clinic")
	t.Setenv("MEDILAB_TOKEN", testToken)
	called := make(chan string, 2)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		called <- r.Header.Get("traceparent") + r.Header.Get("tracestate")
	}))
	t.Cleanup(receiver.Close)
	server, stop := serveHere(t)
	ask := func(path, body, traceparent string) { t.Helper(); post(t, server+path, body, traceparent) }
	ask("/api/v1/webhooks", `{"name":"W","url":"`+receiver.URL+`/?key=canary-key","events":["*"]}`, "")
	const event = `{"event_type":"patient.created","event_data":{"name":"canary-name"}}`
	ask("/api/v1/webhooks/events/trigger", event, "00-"+traced+"-"+parent+"-01")
	sent := next(t, called)
	ask("/api/v1/webhooks/events/trigger", event, "00-"+untraced+"-"+parent+"-00")
	if got := next(t, called); !strings.HasPrefix(got, "00-"+untraced) || !strings.HasSuffix(got, "-00"+traceState) {
		t.Errorf("the receiver got the trace %q", got)
	}
	stop() // which sends the last spans

	ids, parents := map[string]string{}, map[string]string{}
	for len(spans) > 0 {
		span := <-spans
		if strings.Contains(span.String(), "canary") {
			t.Errorf("a span shows %s", span)
		}
		switch hex.EncodeToString(span.TraceId) {
		case untraced:
			t.Errorf("a span of a trace that is not sampled: %s", span)
		case traced:
			ids[span.Name], parents[span.Name] = hex.EncodeToString(span.SpanId), hex.EncodeToString(span.ParentSpanId)
		}
	}
	const request = "POST /api/v1/webhooks/events/trigger"
	if parents[request] != parent || ids["append"] == "" || ids["call"] == "" || parents["append"] != ids[request] || parents["call"] != ids[request] {
		t.Errorf("spans %v have the parents %v", ids, parents)
	}
	if want := "00-" + traced + "-" + ids[request] + "-01" + traceState; sent != want {
		t.Errorf("the receiver got the trace %q, want %q", sent, want)
	}
}

// post asks a server of serveHere and returns its answer.
func post(t *testing.T, url, body, traceparent string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+testToken)
	r.Header.Set("Traceparent", traceparent)
	r.Header.Set("Tracestate", traceState)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close() //nolint:errcheck // only read
	said, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode >= 300 {
		t.Fatalf("%s: %s %s, %v", url, answer.Status, said, err)
	}
	return string(said)
}

func next(t *testing.T, got <-chan string) string {
	t.Helper()
	select {
	case one := <-got:
		return one
	case <-time.After(time.Minute):
		t.Fatal("no call came")
		return ""
	}
}

func TestTracingIsOff(t *testing.T) {
	logger := slog.New(slog.DiscardHandler)
	for name, env := range map[string]map[string]string{
		"no collector": {"OTEL_SERVICE_NAME": "clinic"},
		"disabled":     {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
		"no exporter":  {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
	} {
		t.Run(name, func(t *testing.T) {
			for key, value := range env {
				t.Setenv(key, value)
			}
			tracer, flush, err := startTracing(t.Context(), logger)
			if tracer != nil || err != nil || flush(t.Context()) != nil {
				t.Errorf("got %v, %v", tracer, err)
			}
		})
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	if _, _, err := startTracing(t.Context(), logger); err == nil {
		t.Error("grpc is taken for a protocol")
	}
}
