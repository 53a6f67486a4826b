package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// batchBody is the body of a batch.
type batchBody struct {
	Batch  bool `json:"batch"`
	Events []struct {
		EventID   string          `json:"event_id"`
		EventType string          `json:"event_type"`
		EventData json.RawMessage `json:"event_data"`
	} `json:"events"`
	WebhookID string    `json:"webhook_id"`
	Timestamp time.Time `json:"timestamp"`
	Attempt   int       `json:"attempt"`
}

func readBatch(t *testing.T, r harness.Call) batchBody {
	t.Helper()
	var b batchBody
	if err := json.Unmarshal(r.Body, &b); err != nil || !b.Batch || r.Header.Get("X-Webhook-Event") != "batch" || r.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("no batch: %v %v %.200s", err, r.Header, r.Body)
	}
	return b
}

// numbered makes the data of n events.
func numbered(from, n int) []string {
	data := make([]string, n)
	for i := range data {
		data[i] = fmt.Sprintf(`{"n":%d,"text":"Иван <\u0000>"}`, from+i)
	}
	return data
}

// A full batch goes at once: one delivery with one signature, in the log's order; it is
// retried as the same batch, also by a server that was killed in between.
func TestBatchIsFullAndRetried(t *testing.T) {
	t.Parallel()
	const secret = "batch-secret"
	library, err := standardwebhooks.NewWebhookRaw([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	var healthy atomic.Bool
	in := harness.Receive(t, func(w http.ResponseWriter, _ harness.Call) {
		if !healthy.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	p := start(t)
	w := p.register(in.URL, `{"batch":{"max_events":10,"max_wait":300},"secret":"`+secret+`","max_retries":10,"retry_delay":2}`)
	ids := append(p.triggerAll("visit.created", numbered(0, 4)...), p.triggerAll("patient.created", numbered(4, 6)...)...)
	first := in.Await(1)[0]
	body := readBatch(t, first)
	if len(body.Events) != 10 || body.Attempt != 1 || body.WebhookID != w.ID || time.Since(body.Timestamp).Abs() > patience {
		t.Fatalf("the batch is %s", first.Body)
	}
	for i, e := range body.Events {
		wantType := "visit.created"
		if i >= 4 {
			wantType = "patient.created"
		}
		if e.EventID != ids[i] || e.EventType != wantType || string(e.EventData) != numbered(i, 1)[0] {
			t.Errorf("event %d of the batch is %+v %s", i, e, e.EventData)
		}
	}
	if err := library.Verify(first.Body, first.Header); err != nil {
		t.Error(err)
	}
	if strings.Contains(string(first.Body), "delivery_id") {
		t.Errorf("the body has more than was promised: %s", first.Body)
	}
	p.awaitCalls(w.ID, 1)
	p.Kill()
	seen := len(in.All()) // its second attempt may have been made
	healthy.Store(true)
	p.start()
	again := in.Await(seen + 1)[seen]
	repeated := readBatch(t, again)
	if again.Delivery() != first.Delivery() || fmt.Sprint(repeated.Events) != fmt.Sprint(body.Events) || repeated.Attempt < 2 {
		t.Errorf("it is retried as %s %s", again.Delivery(), again.Body)
	}
	if err := library.Verify(again.Body, again.Header); err != nil {
		t.Error(err)
	}
	for _, id := range ids {
		p.Until("the event is delivered", func() bool {
			list := p.deliveries(id)
			return len(list) == 1 && list[0].State == "delivered" && list[0].BatchID != nil && *list[0].BatchID == first.Delivery()
		})
	}
	for _, c := range p.calls(w.ID) {
		if c.DeliveryID != first.Delivery() {
			t.Errorf("the call log has %+v", c)
		}
	}
	p.command(0, "", "audit", "verify")
}

// What waits for company goes after max_wait at the latest, counted from its turn and not
// from the restart in between.
func TestBatchWaitsNoLonger(t *testing.T) {
	t.Parallel()
	in := harness.Receive(t, nil)
	p := start(t)
	w := p.register(in.URL, `{"batch":{"max_events":1000,"max_wait":8}}`)
	ids := p.triggerAll("visit.created", numbered(0, 3)...)
	p.Kill()
	p.start()
	ready := time.Now()
	got := in.Await(1)[0]
	const wait = 8 * time.Second
	if anew := time.Since(ready); anew >= wait {
		t.Errorf("the batch waited %v after the restart", anew)
	}
	body := readBatch(t, got)
	if len(body.Events) != 3 || body.Events[0].EventID != ids[0] || body.Events[2].EventID != ids[2] {
		t.Errorf("the batch is %s", got.Body)
	}
	var event struct {
		AcceptedAt time.Time `json:"accepted_at"`
	}
	p.api(200, "GET", "/webhooks/events/"+ids[0], "", &event)
	calls := p.awaitCalls(w.ID, 1)
	if late := calls[0].CreatedAt.Sub(event.AcceptedAt); late < wait {
		t.Errorf("the batch went %v after its first event", late)
	}
	if len(in.All()) != 1 {
		t.Errorf("%d calls arrived, want 1", len(in.All()))
	}
}

// More than a batch holds goes in several, and the order of the log stands.
func TestBatchesInARow(t *testing.T) {
	t.Parallel()
	in := harness.Receive(t, nil)
	p := start(t)
	w := p.register(in.URL, `{"batch":{"max_events":100,"max_wait":1},"payload_version":"2"}`)
	var ids []string
	for i := range 3 {
		ids = append(ids, p.triggerAll("visit.created", numbered(i*90, 90)...)...)
	}
	arrived := map[string]int{} // by event: which batch
	p.Until("all events arrived", func() bool {
		clear(arrived)
		for i, r := range in.All() {
			previous := -1
			for _, e := range readBatch(t, r).Events {
				if _, twice := arrived[e.EventID]; twice {
					t.Fatalf("event %s came twice", e.EventID)
				}
				arrived[e.EventID] = i
				var n struct{ N int }
				if err := json.Unmarshal(e.EventData, &n); err != nil || n.N <= previous {
					t.Fatalf("event %d stands after %d, %v", n.N, previous, err)
				}
				previous = n.N
			}
		}
		return len(arrived) == len(ids)
	})
	sizes := map[int]int{}
	for _, id := range ids {
		sizes[arrived[id]]++
	}
	for i, size := range sizes {
		if size > 100 {
			t.Errorf("batch %d has %d events", i, size)
		}
	}
	// A batch is told as such, whatever version its webhook has.
	if got := in.All()[0].Header.Get("X-Webhook-Payload-Version"); got != "1" {
		t.Errorf("the batch has version %s", got)
	}
	if calls := p.awaitCalls(w.ID, len(sizes)); len(calls) != len(in.All()) {
		t.Errorf("%d calls are logged, %d arrived", len(calls), len(in.All()))
	}
}
