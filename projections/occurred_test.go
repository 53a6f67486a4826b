package projections

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/medilab/webhooks/domain"
)

// TestEventsByTheirTime compares the list of events by random times with what the log holds,
// also of the past and accepted later.
func TestEventsByTheirTime(t *testing.T) {
	b := newBench(t)
	h := newHistory(b, rand.Uint64())
	for range 400 {
		h.step()
	}
	b.fill()
	events := func(f EventFilter) (list []Event) {
		t.Helper()
		for {
			page, err := b.Events(b.ctx, f)
			if err != nil || len(page.Items) > f.Limit {
				t.Fatalf("%d items, %v", len(page.Items), err)
			}
			list = append(list, page.Items...)
			if f.Cursor = page.NextCursor; f.Cursor == 0 {
				return list
			}
		}
	}
	all, late := events(EventFilter{Limit: 100}), 0
	for range 100 {
		f := EventFilter{Limit: []int{1, 7, 150}[h.rand.IntN(3)], From: all[h.rand.IntN(len(all))].OccurredAt, To: all[h.rand.IntN(len(all))].OccurredAt}
		switch h.rand.IntN(3) {
		case 0:
			f.From = time.Time{}
		case 1:
			f.To = time.Time{}
		}
		var want []domain.EventID
		for _, e := range all {
			if !e.OccurredAt.Before(f.From) && (f.To.IsZero() || e.OccurredAt.Before(f.To)) {
				want = append(want, e.ID)
				if !f.To.IsZero() && !e.AcceptedAt.Before(f.To) {
					late++
				}
			}
		}
		var got []domain.EventID
		for _, e := range events(f) {
			got = append(got, e.ID)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%+v lists %d, not %d", f, len(got), len(want))
		}
	}
	if late == 0 {
		t.Error("no event was accepted after the times that were asked for")
	}
}
