package saga

import (
	"time"

	"github.com/medilab/webhooks/domain"
)

// lowWaterMarks say from which due time on a lane is claimed.
//
// While an old transaction is open anywhere, Postgres keeps every row that was claimed
// or deleted since, and the lane's index leads to all of them: a claim behind 300,000
// of them took 325 ms, and one that begins at the last claimed due time 0.1 ms. Rows
// that are older all the same (released, or held by another node's claim that failed)
// are found by claims of the whole lane, which come seldom enough to cost a small share
// of the time.
type lowWaterMarks map[domain.WebhookID]*lowWaterMark

type lowWaterMark struct {
	due     time.Time
	wholeAt time.Time // by this process's clock: when the whole lane is claimed from again
}

const (
	// lateRows is how late a row may appear that was queued with its due time.
	lateRows = 5 * time.Second
	// A claim of the whole lane comes after leastWhole, and after wholeShare times
	// what the last one took.
	leastWhole, mostWhole = time.Second, 30 * time.Second
	wholeShare            = 50
	// lookShare is the same for looking over all lanes, and lookRest when some are
	// known to be due.
	lookShare = 20
	lookRest  = 2
)

// beginning is before any due time.
var beginning = time.Unix(0, 0)

// of returns the marks for a claim at the time.
func (m lowWaterMarks) of(webhooks [][16]byte, now time.Time) []time.Time {
	since := make([]time.Time, len(webhooks))
	for i, id := range webhooks {
		since[i] = beginning
		if at := m[id]; at != nil && now.Before(at.wholeAt) {
			since[i] = at.due
		}
	}
	return since
}

// claimed moves the marks by what a claim from them returned. now is the database's
// time after it, and began this process's before it.
func (m lowWaterMarks) claimed(webhooks [][16]byte, since []time.Time, claimed []*delivery, now, began time.Time) {
	last := map[domain.WebhookID]time.Time{}
	for _, d := range claimed {
		if d.due.After(last[d.webhook]) {
			last[d.webhook] = d.due
		}
	}
	pause := min(mostWhole, max(leastWhole, wholeShare*time.Since(began)))
	for i, id := range webhooks {
		at := m[id]
		whole := since[i].Equal(beginning)
		if at == nil {
			at = &lowWaterMark{}
			m[id] = at
		}
		if whole {
			at.wholeAt = began.Add(pause)
		}
		if due, ok := last[id]; ok {
			at.due = due.Add(-lateRows)
		} else if whole {
			at.due = now.Add(-lateRows) // nothing older is left
		}
	}
}
