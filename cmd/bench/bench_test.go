package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/cmd/testbed"
)

// TestMain lets the test binary stand in for the two programs that the bench
// starts: the forwarder, and a product that keeps its promises or breaks one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "forwarder":
			if err := runForwarder(os.Args[2:]); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		case "serve":
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
			defer stop()
			go func() {
				fmt.Fprintln(os.Stderr, http.ListenAndServe(os.Getenv("MEDILAB_ADDR"), &pretender{fault: os.Getenv("PRETEND")}))
				os.Exit(1)
			}()
			<-ctx.Done()
			return
		}
	}
	os.Exit(m.Run())
}

// pretender answers like the product, sends at once, and keeps counts alone.
type pretender struct {
	fault string

	mu    sync.Mutex
	url   string
	total int
	calls int
}

func (p *pretender) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch path := strings.TrimPrefix(r.URL.Path, "/api/v1"); {
	case path == "/webhooks/":
		var made struct{ URL string }
		if err := json.Unmarshal(body, &made); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		p.url, p.calls = made.URL, 0
		fmt.Fprint(w, `{"id":"1"}`)
	case strings.HasSuffix(path, "/stats"):
		lag := 0
		if p.fault == "lag" {
			lag = 7
		}
		fmt.Fprintf(w, `{"total_calls":%d,"events_total":%d,"projections":{"lag_events":%d}}`, p.calls, p.total, lag)
	case path == "/webhooks/events/trigger":
		id := uuid.NewString()
		p.total++
		n := 1
		switch {
		case p.fault == "lose" && p.total == 5:
			n = 0
		case p.fault == "repeat" && p.total == 5:
			n = 2
		}
		for range n {
			p.send(r.Context(), id, body)
		}
		if p.fault == "unlogged" && p.total == 5 {
			p.calls--
		}
		w.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(w, `{"event_id": "%s","event_type":"x"}`, id)
	}
}

func (p *pretender) send(ctx context.Context, id string, body []byte) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return
	}
	req.Header.Set("X-Webhook-Event-ID", id)
	if resp, err := http.DefaultClient.Do(req); err == nil && resp.Body.Close() == nil {
		p.calls++
	}
}

func TestBenchAssertsWhatItMeasures(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for fault, want := range map[string]string{
		"":         "",
		"repeat":   "1 arrived more than once",
		"unlogged": "holds 19 calls of 20",
		"lag":      "projections lag by 7",
		"lose":     "only 19 of 20 deliveries arrived",
	} {
		t.Run("fault "+fault, func(t *testing.T) {
			t.Setenv("PRETEND", fault)
			b := &bench{binary: self, workers: 4, duration: time.Minute, limit: 20, patience: time.Second, producer: newProducer(token)}
			var err error
			if b.receiver, err = testbed.Listen(); err != nil {
				t.Fatal(err)
			}
			defer b.receiver.Close()
			r := &report{}
			if err := b.measure(t.Context(), r, "deliver-512", 1); err != nil {
				t.Fatal(err)
			}
			r.finish()
			failures := strings.Join(r.Failures, "\n")
			if (want == "") != (failures == "") || !strings.Contains(failures, want) {
				t.Errorf("reported %q, want %q", failures, want)
			}
			if want == "" && (len(r.Figures) == 0 || r.Figures[0].Ratio <= 0) {
				t.Errorf("figures %+v", r.Figures)
			}
		})
	}
}

func TestPercentiles(t *testing.T) {
	var target target
	for i := range 100 {
		target.latency = append(target.latency, time.Duration(100-i))
	}
	if got := target.percentiles(0.5, 0.99); got[0] != 51 || got[1] != 100 {
		t.Errorf("p50, p99 = %d, %d", got[0], got[1])
	}
}

func TestEventSaysWhenItWasMade(t *testing.T) {
	before := now()
	body := event(eventType)
	sent, ok := sentAt(body)
	if len(body) != eventSize || !json.Valid(body) || !ok || sent < before || sent > now() {
		t.Errorf("%d bytes, sent at %v (%v): %s", len(body), sent, ok, body)
	}
}

func TestEventIDs(t *testing.T) {
	a, b := uuid.NewString(), uuid.NewString()
	got := eventIDs([]byte(`{"items":[{"event_id":"` + a + `","event_type":"x"}, {"event_id": "` + b + `"}]}`))
	if len(got) != 2 || got[0] != a || got[1] != b {
		t.Errorf("got %v", got)
	}
}
