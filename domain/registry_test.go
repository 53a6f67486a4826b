package domain

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/medilab/webhooks/domain/filter"
)

func webhookID(n int64) WebhookID {
	return WebhookID(uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, n)))
}

// registration returns the event that registers webhook n for the types.
func registration(n int64, types ...string) WebhookRegistered {
	return WebhookRegistered{ID: webhookID(n), Number: n, URL: "https://a.example/", Events: types, Active: true}
}

var registryTime = time.Unix(1_800_000_000, 0)

// filtered returns a registry of webhooks for one event type, each with the filters that say gives.
func filtered(n int, filters func(i int) string) *Registry {
	draft := NewRegistry().Draft()
	at := time.Date(2024, 1, 15, 10, 30, 0, 0, time.UTC)
	for i := range n {
		id := WebhookID(uuid.NewSHA1(uuid.Nil, fmt.Append(nil, i)))
		draft.Apply(id, WebhookRegistered{ID: id, Number: int64(i + 1), Name: "a", URL: "https://a.example/",
			Events: []string{"visit.completed"}, Filters: json.RawMessage(filters(i)), Active: true}, at)
	}
	return draft.Registry()
}

// ordered returns all webhooks of the registry by number.
func ordered(r *Registry) (all []*registered) {
	for _, b := range r.blocks {
		all = append(all, b.webhooks...)
	}
	return all
}

// A change makes a new registry; the one before still answers as it did.
func TestRegistryIsASnapshot(t *testing.T) {
	first := NewRegistry().With(webhookID(1), registration(1, "visit.completed"), registryTime)
	second := first.With(webhookID(2), registration(2, "visit.*"), registryTime)
	third := second.With(webhookID(1), WebhookDeactivated{}, registryTime)
	fourth := third.With(webhookID(1), WebhookDeleted{}, registryTime)
	for i, want := range []struct {
		r          *Registry
		recipients []int64
		all        int
		active     bool
	}{{NewRegistry(), nil, 0, false}, {first, []int64{1}, 1, true}, {second, []int64{1, 2}, 2, true}, {third, []int64{2}, 2, false}, {fourth, []int64{2}, 2, false}} {
		recipients := want.r.Recipients("visit.completed", nil)
		if recipients == nil || !slices.EqualFunc(recipients, want.recipients, func(got Recipient, n int64) bool { return got.WebhookID == webhookID(n) }) {
			t.Errorf("registry %d: %v, want %v", i, recipients, want.recipients)
		}
		if n := len(want.r.All()); n != want.all {
			t.Errorf("registry %d has %d webhooks, want %d", i, n, want.all)
		}
		w, ok := want.r.ByNumber(1)
		if byID, _ := want.r.Webhook(webhookID(1)); ok != (want.all > 0) || w.Active != want.active || byID.Version != w.Version {
			t.Errorf("registry %d: webhook 1 is %+v, %t", i, w, ok)
		}
		for _, n := range []int64{-1, 0, 3, blockSize, 1 << 40} {
			if _, ok := want.r.ByNumber(n); ok {
				t.Errorf("registry %d has webhook %d", i, n)
			}
		}
	}
	if second.With(webhookID(1), EventTriggered{}, registryTime) != second {
		t.Error("an event that changes nothing made a new registry")
	}
}

// Webhooks in any blocks and any order of events: a draft of all events and a registry
// for each are the same, and both recipients and lists are by number.
func TestRegistryOfRandomHistories(t *testing.T) {
	types := []string{"*", "visit.*", "visit.completed", "visit.created", "webhook.*", "webhook.alert_raised"}
	rapid.Check(t, func(t *rapid.T) {
		draft, step := NewRegistry().Draft(), NewRegistry()
		state := map[WebhookID]Webhook{}
		for range rapid.IntRange(0, 60).Draw(t, "events") {
			n := rapid.Int64Range(0, 12).Draw(t, "webhook") * (blockSize / 3)
			var change Change
			switch rapid.IntRange(0, 5).Draw(t, "kind") {
			case 0, 1:
				registered := registration(n, rapid.SliceOfN(rapid.SampledFrom(types), 1, 3).Draw(t, "types")...)
				if rapid.Bool().Draw(t, "filtered") {
					registered.Filters = json.RawMessage(rapid.SampledFrom([]string{`{"a":1}`, `{"a":{"$gt":5}}`, `{"$gone":1}`}).Draw(t, "filter"))
				}
				change = registered
			case 2:
				change = WebhookDeactivated{}
			case 3:
				change = WebhookActivated{}
			case 4:
				change = WebhookDeleted{}
			case 5:
				events := rapid.SliceOfN(rapid.SampledFrom(types), 1, 3).Draw(t, "types")
				change = WebhookChanged{Events: &events}
			}
			id := webhookID(n)
			w := state[id]
			w.ID = id
			state[id] = w.Evolve(change, registryTime)
			draft.Apply(id, change, registryTime)
			step = step.With(id, change, registryTime)
		}
		whole := draft.Registry()
		if !slices.EqualFunc(whole.All(), step.All(), func(a, b Webhook) bool { return a.ID == b.ID && a.Version == b.Version }) || len(whole.All()) != len(state) {
			t.Fatalf("a draft has %d webhooks, single steps %d, want %d", len(whole.All()), len(step.All()), len(state))
		}
		newest := slices.Collect(whole.Newest())
		slices.Reverse(newest)
		if !slices.EqualFunc(newest, whole.All(), func(a, b Webhook) bool { return a.ID == b.ID }) {
			t.Fatal("newest is not all, reversed")
		}
		for _, w := range whole.All() {
			if !reflect.DeepEqual(w, state[w.ID]) {
				t.Fatalf("%+v, want %+v", w, state[w.ID])
			}
		}
		for _, eventType := range []EventType{"visit.completed", "visit.created", "visit.other", "patient.created", "webhook.alert_raised", "webhook.other"} {
			for _, event := range []string{`{"a":1}`, `{"a":6}`, `{}`} {
				want := []Recipient{}
				for _, w := range whole.All() {
					m, err := NewMatcher(w.Events, w.Filters)
					if err == nil && w.Exists() && w.Active && m.Match(eventType, filter.Parse([]byte(event))) {
						want = append(want, Recipient{WebhookID: w.ID, WebhookVersion: w.Version})
					}
				}
				explained := []Recipient{}
				for e := range step.Explain(eventType, []byte(event)) {
					if subscribed := SubscriptionsOf(e.Webhook.Events).Match(eventType); e.Subscribed != subscribed || e.Active != e.Webhook.Active {
						t.Fatalf("%s: %v is explained as subscribed %t, active %t", eventType, e.Webhook.Events, e.Subscribed, e.Active)
					}
					if e.Matched {
						explained = append(explained, Recipient{WebhookID: e.Webhook.ID, WebhookVersion: e.Webhook.Version})
					}
				}
				for _, got := range [][]Recipient{whole.Recipients(eventType, []byte(event)), step.Recipients(eventType, []byte(event)), explained} {
					if got == nil || !slices.Equal(got, want) {
						t.Fatalf("%s %s goes to %v, want %v", eventType, event, got, want)
					}
				}
			}
		}
	})
}

// Registering many webhooks, one after another, rebuilds a block each time, not all.
func TestRegistryRebuildsOneBlock(t *testing.T) {
	const webhooks = 10_000
	r := NewRegistry()
	rebuilt := 0
	for n := range int64(webhooks) {
		before := r
		r = r.With(webhookID(n+1), registration(n+1, "visit.completed"), registryTime)
		for i, b := range r.blocks {
			if i < len(before.blocks) && before.blocks[i] == b {
				continue
			}
			rebuilt += len(b.audience("visit.completed").candidates)
		}
	}
	if rebuilt > webhooks*blockSize {
		t.Errorf("%d candidates were rebuilt", rebuilt)
	}
	if n := len(r.Recipients("visit.completed", nil)); n != webhooks {
		t.Errorf("%d recipients", n)
	}
}

// Events without filters cost no memory when one block answers.
func TestRecipientsWithoutFiltersAllocateNothing(t *testing.T) {
	r := NewRegistry()
	for n, asked := range []string{"visit.completed", "visit.*", "*"} {
		r = r.With(webhookID(int64(n+1)), registration(int64(n+1), asked), registryTime)
	}
	for _, eventType := range []EventType{"visit.completed", "visit.created", "patient.created", "webhook.alert_raised"} {
		if n := testing.AllocsPerRun(100, func() { r.Recipients(eventType, nil) }); n > 0 {
			t.Errorf("%s: %v allocations", eventType, n)
		}
	}
}

// Events are matched by many goroutines while another makes new registries.
func TestRegistryIsSafeForConcurrentUse(t *testing.T) {
	draft := NewRegistry().Draft()
	for n := range int64(3 * blockSize) {
		registered := registration(n+1, "visit.completed")
		registered.Filters = json.RawMessage(fmt.Sprintf(`{"a":%d}`, n%5))
		draft.Apply(webhookID(n+1), registered, registryTime)
	}
	var latest atomic.Pointer[Registry]
	latest.Store(draft.Registry())
	done := make(chan struct{})
	var matching sync.WaitGroup
	for range 8 {
		matching.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				r := latest.Load()
				got := r.Recipients("visit.completed", json.RawMessage(`{"a":3}`))
				explained := 0
				for e := range r.Explain("visit.completed", json.RawMessage(`{"a":3}`)) {
					if e.Matched {
						explained++
					}
				}
				if len(got) != explained {
					t.Errorf("%d recipients, %d explained", len(got), explained)
					return
				}
			}
		})
	}
	for n := range int64(300) {
		r := latest.Load()
		r = r.With(webhookID(n+1), WebhookDeactivated{}, registryTime)
		latest.Store(r.With(webhookID(10_000+n), registration(10_000+n, "visit.*"), registryTime))
	}
	close(done)
	matching.Wait()
}

// A change of filters counts from the next registry on.
func TestRegistryOfChangedFilters(t *testing.T) {
	r := filtered(1000, func(i int) string { return fmt.Sprintf(`{"department":"d%d","kind":"visit"}`, i) })
	id := ordered(r)[5].ID
	filters := json.RawMessage(`{"department":"moved"}`)
	r = r.With(id, WebhookChanged{Filters: &filters}, time.Unix(1_800_000_000, 0))
	for event, want := range map[string]int{`{"department":"d5","kind":"visit"}`: 0, `{"department":"moved"}`: 1} {
		if got := r.Recipients("visit.completed", []byte(event)); len(got) != want {
			t.Errorf("after the change %s goes to %d, want %d", event, len(got), want)
		}
	}
}
