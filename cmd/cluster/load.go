package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/cmd/testbed"
)

// load sends events to the nodes, and counts what arrives.
type load struct {
	api, token string
	receiver   *testbed.Receiver

	mu       sync.Mutex
	accepted int
	refused  int             // answers that told it to come again, or none
	arrived  map[string]bool // by delivery
	again    int             // calls that arrived again
}

// newLoad makes a token, which it keeps in the file, and a receiver.
func newLoad(api, file string) (*load, error) {
	l := &load{api: "http://" + api + "/api/v1/webhooks/", token: rand.Text() + rand.Text(), arrived: map[string]bool{}}
	if err := os.WriteFile(file, []byte(l.token+"\n"), 0o600); err != nil {
		return nil, err
	}
	var err error
	l.receiver, err = testbed.Listen()
	return l, err
}

// run subscribes the receiver, and sends until ctx ends.
func (l *load) run(ctx context.Context, rate int, primary func() string) error {
	url := l.receiver.Handle(func(w http.ResponseWriter, r *http.Request, _ []byte) {
		l.mu.Lock()
		defer l.mu.Unlock()
		id := r.Header.Get("X-Webhook-Delivery-ID")
		if l.arrived[id] {
			l.again++
		}
		l.arrived[id] = true
	})
	const webhook = `{"name":"receiver","url":%q,"events":["*"],"max_retries":10,"retry_delay":1}`
	if status, err := l.post(ctx, "", fmt.Appendf(nil, webhook, url)); err != nil || status != http.StatusCreated {
		return errors.Join(err, fmt.Errorf("the webhook was answered %d", status))
	}
	events := time.NewTicker(time.Second / time.Duration(max(1, rate)))
	defer events.Stop()
	lines := time.NewTicker(5 * time.Second)
	defer lines.Stop()
	var group sync.WaitGroup
	defer group.Wait()
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-events.C:
			n++
			group.Go(func() { l.trigger(ctx, n) })
		case <-lines.C:
			l.mu.Lock()
			fmt.Printf("%s  primary %-4s  accepted %d, arrived %d, again %d; told to come again %d\n",
				time.Now().Format(time.TimeOnly), primary(), l.accepted, len(l.arrived), l.again, l.refused)
			l.mu.Unlock()
		}
	}
}

// trigger sends an event until it is accepted, under one key.
func (l *load) trigger(ctx context.Context, n int) {
	const pause = 200 * time.Millisecond
	body, _ := json.Marshal(map[string]any{"event_type": "patient.created", "event_data": map[string]int{"patient_id": n}, "event_id": uuid.NewString()}) // it cannot fail
	for ctx.Err() == nil {
		status, err := l.post(ctx, "events/trigger", body)
		l.mu.Lock()
		if err == nil && status == http.StatusAccepted {
			l.accepted++
			l.mu.Unlock()
			return
		}
		l.refused++
		l.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

func (l *load) post(ctx context.Context, path string, body []byte) (status int, err error) {
	const patience = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := testbed.Request(ctx, l.token, "POST", l.api+path, body)
	return answer.Status, err
}
