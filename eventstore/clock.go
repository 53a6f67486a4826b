package eventstore

import (
	"context"
	"sync"
	"time"
)

// Clock estimates the database clock without a query: due times go by one clock
// however wrong a node's own is. It is never behind the database's (by more than
// the drift of half a minute), so nothing scheduled by it is early.
type Clock struct {
	start time.Time // of this process; its monotonic reading counts

	mu        sync.Mutex
	current   time.Time // the least upper bound of (database's time - monotonic time since start); zero: none
	previous  time.Time // that of the window before
	windowEnd time.Duration
}

// least returns the earlier of two bounds.
func least(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

const clockWindow = 30 * time.Second

// Sleep waits for the time. It returns the cause if ctx ends first.
func Sleep(ctx context.Context, d time.Duration) error {
	Wait(ctx, d, nil)
	return context.Cause(ctx)
}

// Wait waits for the time, or until something comes in by wake, which may be nil. It reports
// whether ctx goes on.
func Wait(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	select {
	case <-ctx.Done():
	case <-wake:
	case <-time.After(d):
	}
	return ctx.Err() == nil
}

// NewClock returns a clock that goes by this machine's until the first Observe.
func NewClock() *Clock { return &Clock{start: time.Now()} }

// Observe takes in that the database said it was at, answering what was sent at
// sent. As the database read its clock after that, at-sent bounds the offset
// from above; the least such bound of the last windows is the best.
func (c *Clock) Observe(at, sent time.Time) {
	sinceStart := sent.Sub(c.start)
	c.mu.Lock()
	defer c.mu.Unlock()
	if sinceStart >= c.windowEnd {
		c.previous, c.current = c.current, time.Time{}
		c.windowEnd = sinceStart + clockWindow
	}
	c.current = least(c.current, at.Add(-sinceStart))
}

// Now is the database's time, in UTC.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	best := least(c.current, c.previous)
	c.mu.Unlock()
	if best.IsZero() {
		best = c.start
	}
	return best.Add(time.Since(c.start)).UTC().Round(0)
}
