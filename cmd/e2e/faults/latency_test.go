package faults

import (
	"slices"
	"testing"
	"time"
)

// within is how much longer than alone the latencies may be.
const within = 1.5

// inTurns measures two things in turns, so that what else the machine does falls
// on both, and wants the other within the bound of the one: the lower quartile of
// each or the least of each, as a busy machine only ever adds: it finds flaws that are in
// every window. It measures on while that is not so, since more windows take away noise.
func inTurns(t testing.TB, what string, one, other func() time.Duration) {
	t.Helper()
	least, most := scaled(4, 8), scaled(12, 32)
	var ones, others []time.Duration
	ratio := func() float64 {
		return min(float64(quartile(others))/float64(quartile(ones)), float64(slices.Min(others))/float64(slices.Min(ones)))
	}
	for turn := range most {
		if turn%2 == 0 {
			ones = append(ones, one())
			others = append(others, other())
		} else {
			others = append(others, other())
			ones = append(ones, one())
		}
		if turn+1 >= least && ratio() <= within {
			break
		}
	}
	t.Logf("%s: %v and %v, ratio %.2f (lower quartiles of %d turns each)",
		what, quartile(ones).Round(100*time.Microsecond), quartile(others).Round(100*time.Microsecond), ratio(), len(ones))
	if ratio() > within {
		t.Errorf("%s: %.2f times as long: %v and %v", what, ratio(), ones, others)
	}
}

func quartile(of []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[len(sorted)/4]
}

// p95 loads the nodes with events of some types for a time and gives the 95th percentile of the times from
// the first request to trigger an event to its first arrival at the webhook.
func (l *ledger) p95(h *hook, d time.Duration, rate int, types []string, nodes ...*node) time.Duration {
	l.t.Helper()
	from, began := l.callsSeen(), time.Now()
	stop := l.loadOf(rate, types, nodes...)
	pass(l.t, d)
	stop()
	asked := l.askedSince(h, began)
	if len(asked) == 0 {
		l.t.Fatalf("%s got nothing to be measured", h.name)
	}
	var took []time.Duration
	until(l.t, "what is measured has arrived", func() bool {
		took = took[:0]
		for _, r := range l.since(from) {
			if at, ok := asked[r.event]; ok && r.webhook == h.ID && r.attempt == 1 {
				took = append(took, r.at.Sub(at))
			}
		}
		return len(took) >= len(asked)
	})
	return percentile(took, 0.95)
}

// askedSince is when the first request came of each event to the webhook that was
// accepted since.
func (l *ledger) askedSince(h *hook, began time.Time) map[string]time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	asked := map[string]time.Time{}
	for id, e := range l.accepted {
		if e.began.After(began) && h.matches(e.eventType, e.n) {
			asked[id] = e.began
		}
	}
	return asked
}

// percentile of durations, which it sorts.
func percentile(of []time.Duration, p float64) time.Duration {
	slices.Sort(of)
	return of[min(len(of)-1, int(p*float64(len(of))))]
}
