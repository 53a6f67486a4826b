package saga_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
)

// Numbers are those of the log's order, whichever node appends, the same for every attempt
// and in a replay, and counted from when they were switched on.
func TestSequence(t *testing.T) {
	t.Parallel()
	url := testdb.New(t)
	var mu sync.Mutex
	sent := map[string][]string{} // numbers by event
	r := newReceiver()
	r.answer = func(call commands.Outgoing) commands.Answer {
		mu.Lock()
		defer mu.Unlock()
		event := headerOf(call, "X-Webhook-Event-ID")
		sent[event] = append(sent[event], headerOf(call, "X-Webhook-Sequence"))
		if len(sent[event]) == 1 {
			return commands.Answer{Outcome: "http_status", Status: 500}
		}
		return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
	}
	nodes := []*node{start(t, url, r), start(t, url, r)}
	w := nodes[0].register(1, func(c *domain.WebhookRegistered) { c.Sequence = true })
	nodes[0].register(2, nil)
	var group sync.WaitGroup
	for _, n := range nodes {
		for range 4 {
			group.Go(func() {
				for range 10 {
					n.trigger()
				}
			})
		}
	}
	group.Wait()
	nodes[1].awaitEmptyQueue() // what is sent later has no number
	off, on := false, true
	nodes[1].change(w, func(domain.Webhook) ([]domain.Change, error) {
		return []domain.Change{domain.WebhookChanged{Sequence: &off}}, nil
	})
	unnumbered := nodes[0].trigger()
	nodes[1].awaitEmptyQueue()
	nodes[1].verify()
	for i, e := range inOrder(t, nodes[0]) {
		mine, other := sent[e.String()], 0
		for _, number := range mine {
			switch {
			case e == unnumbered && number != "":
				t.Errorf("not numbered, and sent with %s", number)
			case number == "":
				other++
			case number != fmt.Sprint(i+1):
				t.Errorf("event %d has the number %s", i+1, number)
			}
		}
		if e != unnumbered && len(mine)-other == 0 { // those without one are the other webhook's
			t.Errorf("event %d: numbers %q", i+1, mine)
		}
	}
	nodes[1].change(w, func(domain.Webhook) ([]domain.Change, error) {
		return []domain.Change{domain.WebhookChanged{Sequence: &on}}, nil
	})
	again := nodes[0].trigger()
	nodes[0].awaitEmptyQueue()
	nodes[0].retry(domain.DeliveryOf(again, w), again, w, 123)
	nodes[0].awaitEmptyQueue()
	mu.Lock()
	defer mu.Unlock()
	if numbers := slices.DeleteFunc(sent[again.String()], func(s string) bool { return s == "" }); len(numbers) < 2 || slices.Max(numbers) != "1" {
		t.Errorf("switched on again, the numbers are %q", numbers)
	}
}

// inOrder returns the events in the order of the log.
func inOrder(t *testing.T, n *node) (ids []domain.EventID) {
	t.Helper()
	err := n.log.Each(t.Context(), 0, eventstore.Filter{Type: domain.EventTriggered{}.ChangeType()}, func(e eventstore.Event) error {
		_, id, err := domain.ParseStream(e.Stream)
		ids = append(ids, domain.EventID(id))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}
