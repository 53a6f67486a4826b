package commands

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
)

// What has no key waits for nothing; what has several waits for each, and holds up each.
func TestFeedKeepsOrders(t *testing.T) {
	one, other := domain.WebhookID(uuid.New()), domain.WebhookID(uuid.New())
	f := &feed{busy: map[sendOrder]bool{}}
	for i, c := range []struct {
		webhook domain.WebhookID
		order   []string
		waits   bool
	}{
		{one, nil, false}, {one, nil, false}, {one, []string{"a"}, false}, {one, []string{"b", "a"}, true}, {one, []string{"b"}, true},
		{other, []string{"a"}, false}, {one, []string{"c"}, false}, {other, []string{"c"}, false}, {one, nil, false},
	} {
		if waits := f.take(candidate{webhook: c.webhook, order: c.order}); waits != c.waits {
			t.Errorf("candidate %d with the keys %q: waits is %v", i, c.order, waits)
		}
	}
}

// The window of a replay widens while the webhook takes what is sent, and no further; one that is slow
// has the least.
func TestWindowFollowsTheWebhook(t *testing.T) {
	const step = 10 * time.Millisecond
	window := windowAfter(0, 0, time.Hour) // it begins
	if window != replayWindow {
		t.Errorf("it begins at %d", window)
	}
	for range 10 {
		window = windowAfter(window, window, step) // all of it has ended
	}
	if window != mostWindow {
		t.Errorf("of a fast webhook it is %d", window)
	}
	for range 10 {
		window = windowAfter(window, 10, step) // a thousand a second
	}
	if window < 50 || window > 55 {
		t.Errorf("of one that takes 50 in the time it is %d", window)
	}
	for range 10 {
		window = windowAfter(window, 1, time.Second)
	}
	if window != replayWindow || windowAfter(window, 5, 0) != replayWindow {
		t.Errorf("of a slow webhook it is %d", window)
	}
}

// Live events of a webhook with limits wait behind little of a replay.
func TestReplayQueuesWhatStartsSoon(t *testing.T) {
	for _, c := range []struct {
		concurrent int
		rate       float64
		want       int
	}{{0, 0, 200}, {0, 0.5, 1}, {0, 5, 1}, {0, 20, 2}, {0, 1000, 100}, {0, 5000, 200}, {3, 0, 12}, {3, 20, 2}, {100, 0, 200}} {
		var w domain.Webhook
		w.MaxConcurrent, w.RateLimit = c.concurrent, c.rate
		if got := mostQueued(200, w); got != c.want {
			t.Errorf("with %d at once and %g a second it queues %d, want %d", c.concurrent, c.rate, got, c.want)
		}
	}
}
