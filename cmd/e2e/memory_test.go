package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// Eight events of 10 MB, accepted at once and delivered at once to two webhooks, arrive
// byte for byte, and the server stays under 1 GB.
func TestMemoryOfLargePayloads(t *testing.T) {
	t.Parallel()
	const events, size, most = 8, 10 << 20, 1 << 30
	in := harness.Receive(t, nil)
	p := start(t)
	p.register(in.URL, `{"timeout":300}`)
	p.register(in.URL, `{"timeout":300,"payload_version":"2","secret":"s3cret"}`)

	data := make([]string, events)
	failures := make(chan error, events)
	for i := range events {
		head, tail := `{"event_type":"visit.created","event_data":`, `}`
		text := strings.Repeat(string(rune('а'+i)), 1000)
		var b strings.Builder
		fmt.Fprintf(&b, `{"n":%d,"parts":[`, i)
		for b.Len()+2200 < size-len(head)-len(tail) {
			b.WriteString(`"` + text + `",`)
		}
		b.WriteString(`1.0]}`)
		data[i] = b.String()
		go func() { failures <- p.post("/api/v1/webhooks/events/trigger", head+data[i]+tail) }()
	}
	for range events {
		if err := <-failures; err != nil {
			t.Fatal(err)
		}
	}
	in.Await(2 * events)
	missing := map[string]int{}
	for _, d := range data {
		missing[d] = 2
	}
	for _, r := range in.All() {
		for d := range missing {
			if bytes.Contains(r.Body, []byte(`"event_data":`+d+`,"webhook_id":`)) {
				missing[d]--
			}
		}
	}
	for d, n := range missing {
		if n != 0 {
			t.Errorf("%.20s did not arrive %d times as it was", d, n)
		}
	}
	// Shown as they were sent, too: the call log makes them anew.
	for _, w := range []string{"1", "2"} {
		calls := p.awaitCalls(w, events)
		shown := p.details(w, calls[0])
		found := false
		for _, r := range in.All() {
			found = found || string(r.Body) == shown.Payload
		}
		if !found {
			t.Errorf("webhook %s: the call log shows what was not sent", w)
		}
	}
	peak := p.memory("VmHWM")
	t.Logf("the server's peak is %d MB", peak>>20)
	if peak > most {
		t.Errorf("the server took %d MB", peak>>20)
	}
}

// A receiver that hangs over large payloads holds up its own deliveries and nobody else's.
func TestLargePayloadsHoldUpNobodyElse(t *testing.T) {
	t.Parallel()
	const events = 12
	release := make(chan struct{})
	hung := harness.Receive(t, func(http.ResponseWriter, harness.Call) { <-release })
	open := true
	finish := func() {
		if open {
			close(release)
		}
		open = false
	}
	t.Cleanup(finish) // before the receiver is closed, which waits for its calls
	in := harness.Receive(t, nil)
	p := start(t)
	p.register(hung.URL, `{"timeout":300,"events":["visit.created"]}`)
	p.register(in.URL, `{"events":["visit.updated"]}`)
	large := `{"a":"` + strings.Repeat("x", 10<<20-200) + `"}`
	for range events {
		p.trigger(`{"event_type":"visit.created","event_data":` + large + `}`)
	}
	hung.Await(2)
	p.trigger(`{"event_type":"visit.updated","event_data":{}}`)
	p.trigger(`{"event_type":"visit.updated","event_data":` + large + `}`)
	in.Await(2)
	if n := len(hung.All()); n == events {
		t.Logf("the receiver that hangs has all %d calls", n)
	}
	finish()
	hung.Await(events)
	p.awaitCalls("1", events)
}

// post triggers from any goroutine.
func (p *product) post(path, body string) (err error) {
	req, err := http.NewRequestWithContext(p.Context(), http.MethodPost, "http://"+p.Addr+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+p.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusAccepted {
		err = fmt.Errorf("answered %d: %s", resp.StatusCode, answer)
	}
	return err
}
