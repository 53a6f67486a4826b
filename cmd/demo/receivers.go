package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/medilab/webhooks/cmd/testbed"
)

// receiver is one of the outside systems that the clinic's events go to.
type receiver struct {
	name, what string
	webhook    map[string]any // its fields besides name, url and secret
	answer     func(w http.ResponseWriter, r *http.Request, n int64)
	calls      atomic.Int64
}

const secret = "the secret of the demo's receivers"

// receivers returns the outside systems; those that ask back ask the API at the address with the token.
func receivers(api, token string) []*receiver {
	screen := &board{api: api, token: token}
	taken := func(w http.ResponseWriter, _ *http.Request, _ int64) { w.WriteHeader(http.StatusNoContent) }
	return []*receiver{
		{name: "CRM", what: "plain", answer: taken, webhook: map[string]any{"events": []string{"patient.*", "appointment.*"}}},
		{name: "Accounting", what: "plain, CloudEvents", answer: taken, webhook: map[string]any{
			"events": []string{"payment.*", "user.*", "system.*"}, "payload_version": "cloudevents"}},
		{name: "SMS gateway", what: "flaky: every third call fails", answer: flaky, webhook: map[string]any{
			"events": []string{"appointment.*", "queue.entry_called"}, "retry_delay": 1, "max_retries": 5}},
		{name: "Insurer", what: "slow: answers after a second or two", answer: slow, webhook: map[string]any{
			"events": []string{"visit.*"}, "max_concurrent": 4, "batch": map[string]int{"max_events": 20, "max_wait": 5}}},
		{name: "Waiting room", what: "ordered: numbered, one after another, gaps filled from the feed", answer: screen.answer, webhook: map[string]any{
			"events": []string{"queue.*"}, "order_by": "*", "sequence": true, "max_retries": 0}},
	}
}

// take checks the signature of a call and answers it.
func (r *receiver) take(w http.ResponseWriter, req *http.Request, body []byte) {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	if !hmac.Equal([]byte(req.Header.Get("X-Webhook-Signature")), []byte("sha256="+hex.EncodeToString(mac.Sum(nil)))) {
		http.Error(w, "wrong signature", http.StatusUnauthorized)
		return
	}
	r.answer(w, req, r.calls.Add(1))
}

func flaky(w http.ResponseWriter, _ *http.Request, n int64) {
	switch {
	case n%30 == 0:
		panic(http.ErrAbortHandler) // hangs up
	case n%3 == 0:
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		w.WriteHeader(http.StatusOK)
	}
}

func slow(w http.ResponseWriter, r *http.Request, n int64) {
	select {
	case <-time.After(time.Second + time.Duration(n%10)*100*time.Millisecond):
	case <-r.Context().Done():
	}
	w.WriteHeader(http.StatusOK)
}

// board is the screen in the waiting room. It shows each event once and in order.
type board struct {
	api, token string

	mu   sync.Mutex
	last int // what it has is numbered 1 to last
}

// answer takes a call. Sometimes there is no power; what was missed so, or before the board was
// started, is read from the feed when the next call shows a gap.
func (b *board) answer(w http.ResponseWriter, r *http.Request, n int64) {
	sequence, err := strconv.Atoi(r.Header.Get("X-Webhook-Sequence"))
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case n%100 == 50:
		err = fmt.Errorf("no power")
	case err == nil && sequence == b.last+1:
		b.last = sequence
	case err == nil && sequence > b.last:
		err = b.catchUp(r.Context(), r.Header.Get("X-Webhook-Id"))
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

// catchUp reads what came after last.
func (b *board) catchUp(ctx context.Context, webhook string) error {
	for {
		var page struct {
			Items []struct{ Sequence int }
			Next  *string `json:"next_cursor"`
		}
		if err := testbed.Call(ctx, b.token, "GET", fmt.Sprintf("%s/webhooks/%s/feed?after=%d&limit=1000", b.api, webhook, b.last), nil, &page); err != nil {
			return err
		}
		for _, item := range page.Items {
			b.last = item.Sequence
		}
		if page.Next == nil {
			return nil
		}
	}
}

// register makes the webhooks those of the receivers, which are reached there.
func register(ctx context.Context, api, token string, outside *testbed.Receiver, all []*receiver) error {
	list := make([]map[string]any, len(all))
	for i, r := range all {
		list[i] = map[string]any{"name": r.name, "description": r.what, "url": outside.Handle(r.take), "secret": secret}
		maps.Copy(list[i], r.webhook)
	}
	return testbed.Call(ctx, token, "POST", api+"/webhooks/apply", map[string]any{"webhooks": list}, nil)
}
