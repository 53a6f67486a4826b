package saga

import (
	"sync"
	"time"
)

// wakeAt knows when the next retry comes due.
type wakeAt struct {
	mu      sync.Mutex
	at      time.Time // zero: not known
	changed chan struct{}
}

// earlier says that a retry is due at the time.
func (w *wakeAt) earlier(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.at.IsZero() || at.Before(w.at) {
		w.at = at
		signal(w.changed)
	}
}

func (w *wakeAt) reset(at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = at
}

// wait is how long to sleep, at most most.
func (w *wakeAt) wait(now time.Time, most time.Duration) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.at.IsZero() {
		return most
	}
	return min(most, max(0, w.at.Sub(now)))
}
