package commands

import (
	"testing"

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
