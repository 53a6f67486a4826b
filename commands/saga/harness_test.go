package saga_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// receiver is the other side: it answers as told and remembers every call.
type receiver struct {
	mu     sync.Mutex
	calls  map[string][]string // delivery id -> attempt numbers, as sent
	answer func(call commands.Outgoing) commands.Answer
	seen   chan struct{} // a token after each call
}

func newReceiver() *receiver {
	return &receiver{calls: map[string][]string{}, seen: make(chan struct{}, 1<<16), answer: func(commands.Outgoing) commands.Answer {
		return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
	}}
}

// headerOf returns the value of a header, "" if it is not sent.
func headerOf(call commands.Outgoing, name string) string {
	for _, h := range call.Header {
		if h.Name == name {
			return h.Value
		}
	}
	return ""
}

func (r *receiver) Send(ctx context.Context, call commands.Outgoing) commands.Answer {
	r.mu.Lock()
	id := headerOf(call, "X-Webhook-Delivery-ID")
	r.calls[id] = append(r.calls[id], headerOf(call, "X-Webhook-Attempt"))
	answer := r.answer
	r.mu.Unlock()
	r.seen <- struct{}{}
	return answer(call)
}

func (r *receiver) attempts(id domain.DeliveryID) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.calls[id.String()]...)
}

// clear is a Decrypter for tests: nothing is encrypted.
type clear struct{}

func (clear) Decrypt(_ domain.WebhookID, _ string, sealed domain.Sealed) (string, error) {
	return string(sealed), nil
}

// node is one process: a log, a directory and a saga.
type node struct {
	t         *testing.T
	log       *eventstore.Log
	directory *commands.Directory
	pool      *pgxpool.Pool
	heard     chan []string // what other nodes announced, once that is taken in
	stop      func()
}

// start runs a node; what more it does is the parts'.
func start(t *testing.T, url string, sender commands.Sender, parts ...func(*node, *saga.Config)) *node {
	t.Helper()
	pool, err := eventstore.OpenPool(t.Context(), url, 16)
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.DiscardHandler)
	directory, s := commands.NewDirectory(logger), saga.New(64)
	log := eventstore.Open(eventstore.Config{
		Pool: pool, Logger: logger,
		Codec:     func(name string, data []byte) (any, error) { return domain.Decode(name, data) },
		Inline:    []eventstore.Inline{saga.Queue{Saga: s}},
		Observers: []eventstore.Observer{directory.Observe, s.Observe},
		Lost:      func(eventstore.Loss) { s.TailLost() },
	})
	if err := directory.Open(t.Context(), log); err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, log: log, directory: directory, pool: pool, heard: make(chan []string, 1<<12)}
	config := saga.Config{
		Log: log, Pool: pool, Directory: directory, Logger: logger, Grace: 10 * time.Second, Name: t.Name(),
		Attempter: &commands.Attempter{Sender: sender, Decrypter: clear{}, Clock: log.Clock()},
		Dispatch:  true, Deliver: true,
	}
	for _, add := range parts {
		add(n, &config)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	group.Go(func() { directory.Run(ctx) })
	group.Go(func() {
		log.Listen(ctx, func(keys []string) {
			directory.Announced(keys)
			s.Announced(keys)
			select {
			case n.heard <- keys:
			default: // the test does not listen
			}
		})
	})
	group.Go(func() {
		if err := s.Run(ctx, config); err != nil {
			t.Error(err)
		}
	})
	var once sync.Once
	n.stop = func() {
		once.Do(func() {
			cancel()
			group.Wait()
			log.Close()
			pool.Close()
		})
	}
	t.Cleanup(n.stop)
	for deadline := time.Now().Add(time.Minute); s.Node() == 0; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the node has not joined")
		}
	}
	return n
}

func (n *node) append(stream string, expected int64, change domain.Change) {
	n.t.Helper()
	_, err := n.directory.Append(n.t.Context(), eventstore.Unit{Writes: []eventstore.Write{{
		Stream: stream, Expected: expected,
		Events: []eventstore.NewEvent{{Type: change.ChangeType(), Data: domain.AppendJSON(nil, change), Value: change}},
	}}})
	if err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) register(number int64, change func(*domain.WebhookRegistered)) domain.WebhookID {
	n.t.Helper()
	c := domain.WebhookRegistered{
		ID: domain.WebhookID(uuid.New()), Number: number, Name: "test", URL: "http://receiver.test/", Events: []string{"patient.created"},
		MaxRetries: 3, RetryDelay: 1, Timeout: 30, PayloadVersion: domain.PayloadV1, Active: true,
	}
	if change != nil {
		change(&c)
	}
	n.append(c.ID.Stream(), 0, c)
	return c.ID
}

func (n *node) trigger() domain.EventID {
	n.t.Helper()
	id := domain.EventID(uuid.Must(uuid.NewV7()))
	n.append(id.Stream(), 0, domain.EventTriggered{EventType: "patient.created", EventData: []byte(`{"patient_id": 123}`)})
	return id
}

// awaitHeard waits until the node has taken in that another announced the key.
func (n *node) awaitHeard(key string) {
	n.t.Helper()
	for timeout := time.After(time.Minute); ; {
		select {
		case keys := <-n.heard:
			if slices.Contains(keys, key) {
				return
			}
		case <-timeout:
			n.t.Fatalf("%s is not announced", key)
		}
	}
}

// awaitState waits until the delivery's stream says so.
func (n *node) awaitState(id domain.DeliveryID, want domain.DeliveryState) domain.Delivery {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), time.Minute)
	defer cancel()
	for {
		events, err := n.log.Load(ctx, id.Stream())
		if err != nil {
			n.t.Fatalf("waiting for %s: %v", want, err)
		}
		var d domain.Delivery
		for _, e := range events {
			d = d.Evolve(e.Value.(domain.Change), e.RecordedAt)
		}
		if d.State == want {
			return d
		}
		wake, stop := n.log.Appends(nil)
		select {
		case <-wake:
		case <-time.After(50 * time.Millisecond): // another node's append may not wake us
		case <-ctx.Done():
			n.t.Fatalf("waiting for %s, the delivery is %+v", want, d)
		}
		stop()
	}
}

// awaitEmptyQueue waits until nothing is pending.
func (n *node) awaitEmptyQueue() {
	n.t.Helper()
	n.awaitRows(`SELECT count(*) FROM medilab.pending`, 0)
}
