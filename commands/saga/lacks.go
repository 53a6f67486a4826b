package saga

import (
	"time"

	"github.com/medilab/webhooks/domain"
)

// A call that this server could not make, for want of something of its own, never
// happened: nothing is recorded, the delivery stays due in the table, and its lane
// pauses. Other nodes may take it meanwhile.
const (
	firstPause   = time.Second
	longestPause = 15 * time.Second
	// lackShown is how long a lack is published at least, lackKept how long that of a
	// lane that tries no more.
	lackShown = 5 * time.Second
	lackKept  = time.Minute
)

// await returns to the table what cannot be called now.
func (s *session) await(d *delivery, call domain.Call) {
	s.logger.Debug("call not made", "delivery", d.id.String(), "webhook", d.webhook.String(), "outcome", string(call.Outcome), "error", call.Error)
	pause := s.lanes.pause(d, call.Outcome)
	s.putBack(func() []*delivery { return s.lanes.takeOut(d, anyDelivery) })
	s.claimer.due.earlier(s.clock.Now().Add(pause))
}

// pause says that no call was made, as this node lacks something. It returns how long the
// lane claims nothing. The pause doubles with each round of failures.
func (l *lanes) pause(d *delivery, lack domain.Outcome) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln, now := l.lane(d.webhook), time.Now()
	if !now.Before(ln.pausedUntil) { // else it is of the same round as another
		ln.pause = min(max(2*ln.pause, firstPause), longestPause)
		ln.pausedUntil = now.Add(ln.pause)
		ln.window = max(ln.window/2, leastWindow)
	}
	ln.lacks = lack
	l.free(d)
	return ln.pausedUntil.Sub(now)
}

// paused reports whether the lane waits for what this node lacks.
func (ln *lane) paused() bool { return ln.lacks != "" && time.Now().Before(ln.pausedUntil) }

// lack returns what this node lacks, or "".
func (l *lanes) lack() domain.Outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	var lacks domain.Outcome
	for _, ln := range l.byID {
		if ln.lacks > lacks && now.Sub(ln.pausedUntil) < lackKept {
			lacks = ln.lacks // the last in the alphabet, so that it stays the same
		}
	}
	if lacks != "" {
		l.lacked, l.lackedAt = lacks, now
	} else if now.Sub(l.lackedAt) >= lackShown {
		l.lacked = ""
	}
	return l.lacked
}
