package saga

import (
	"time"

	"github.com/medilab/webhooks/domain"
)

// limit is how many calls the lane may have in flight now.
func (l *lanes) limit(ln *lane) int {
	return ln.pace.most(max(1, min(ln.window, firstCalls+ln.successes, lanesShare*(l.workers-l.inFlight))))
}

// keeps returns how many of the lane may wait besides those that can start at once: as
// many as it starts in keepFor, and alone as many as it may hold at all.
func (l *lanes) keeps(ln *lane) int {
	if !l.sharing.others && !ln.pace.limited() {
		return windowsKept * ln.window
	}
	now := time.Now()
	if age := now.Sub(ln.counted); age >= 2*keepFor {
		ln.started, ln.starts, ln.counted = 0, 0, now
	} else if age >= keepFor {
		ln.started, ln.starts, ln.counted = ln.starts, 0, now
	}
	return max(ln.started, ln.starts)
}

// most returns how many deliveries of the lane may wait in memory.
func (l *lanes) most(ln *lane) int {
	atOnce := max(0, min(l.limit(ln)-ln.inFlight, l.workers-l.inFlight))
	if atOnce == 0 && ln.inFlight == 0 && !time.Now().Before(ln.left) {
		atOnce = 1 // it waits for its turn among the lanes
	}
	return min(windowsKept*ln.window, atOnce+l.keeps(ln))
}

// wants reports whether the lane should claim from the table. Small claims cost as
// much as large ones: it waits until half of what it may keep is free, but not while newer
// deliveries, which may come all the time, go before what the table holds.
func (l *lanes) wants(ln *lane) bool {
	return ln.backlog && (ln.little || len(ln.waiting) <= l.most(ln)/2)
}

// adapt moves the window by what the call showed of the receiver.
func (ln *lane) adapt(workers int, call domain.Call) {
	switch {
	case call.Status >= 200 && call.Status != 429 && call.Status != 503 && call.Outcome != domain.OutcomeTimeout:
		ln.window = min(ln.window+1, workers) // it answers, and in time
	case call.Outcome == domain.OutcomeTimeout:
		ln.window = max(ln.window/2, leastWindow)
	default:
		ln.window = max(ln.window*3/4, leastWindow)
	}
}
