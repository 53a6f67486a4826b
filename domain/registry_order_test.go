package domain

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestRegistryKeepsTheOrderOfNumbers(t *testing.T) {
	r := NewRegistry()
	at := time.Unix(1_800_000_000, 0)
	for _, n := range []int64{2, 1, 4, 3} {
		id := WebhookID(uuid.NewSHA1(uuid.NameSpaceOID, []byte{byte(n)}))
		r = r.With(id, WebhookRegistered{ID: id, Number: n}, at)
		if n%2 == 0 {
			r = r.With(id, WebhookDeactivated{}, at)
		}
	}
	before := r.Newest()
	id := WebhookID(uuid.NewSHA1(uuid.NameSpaceOID, []byte{9}))
	r = r.With(id, WebhookRegistered{ID: id, Number: 9}, at)
	numbers := func(list []Webhook) (out []int64) {
		for _, w := range list {
			out = append(out, w.Number)
		}
		return out
	}
	if got, want := numbers(r.All()), []int64{1, 2, 3, 4, 9}; !slices.Equal(got, want) {
		t.Errorf("all: %v, want %v", got, want)
	}
	if got, want := numbers(slices.Collect(r.Newest())), []int64{9, 4, 3, 2, 1}; !slices.Equal(got, want) {
		t.Errorf("newest: %v, want %v", got, want)
	}
	if got, want := numbers(slices.Collect(before)), []int64{4, 3, 2, 1}; !slices.Equal(got, want) {
		t.Errorf("from before the last came: %v, want %v", got, want)
	}
}

func TestRegistryFindsWhoAskedOnce(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	asks := [][]string{
		{"patient.created"}, {"patient.*"}, {"*"}, {"visit.*"}, {"*", "patient.*", "patient.created", "patient.created"},
		{"webhook.alert_raised"}, {"webhook.*", "*"},
	}
	r := NewRegistry()
	for n, events := range asks {
		id := WebhookID(uuid.NewSHA1(uuid.NameSpaceOID, []byte{byte(n)}))
		r = r.With(id, WebhookRegistered{ID: id, Number: int64(n + 1), Events: events, Active: true}, at)
	}
	for _, eventType := range []EventType{"patient.created", "patient.updated", "visit.completed", "webhook.alert_raised", "other.one"} {
		var want, got []int64
		for _, w := range ordered(r) {
			if w.Active && w.subscriptions.Match(eventType) {
				want = append(want, w.Number)
			}
		}
		for _, a := range r.audiences(eventType, nil) {
			for _, w := range a.candidates {
				got = append(got, w.Number)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", eventType, got, want)
		}
	}
}
