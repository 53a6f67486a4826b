package saga

import (
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// tentative is what was claimed for the batch that is being appended.
type tentative struct {
	batch int // counts batches
	bytes int
	taken map[domain.DeliveryID]taking // what there was room for
	claim *together                    // what shares a row; nil: nothing does
	count int                          // of those that are claimed
	turns map[domain.WebhookID]bool    // true: the batch lets others go on in its lines

	numbers map[domain.DeliveryID]int64
}

// taking says whether a delivery is claimed or, the zero value, left to other nodes.
type taking struct {
	ours   bool
	shared *together // the row of claims that it shares; nil: it has its own
}

// laneTentative is the lane's part of it.
type laneTentative struct{ batch, claims, bytes int }

// tentativeOf returns what was claimed of the lane for the batch.
func (l *lanes) tentativeOf(ln *lane) *laneTentative {
	if ln.tentative.batch != l.tentative.batch {
		ln.tentative = laneTentative{batch: l.tentative.batch}
	}
	return &ln.tentative
}

// beginClaims begins the claims of the batch that is about to be appended, and forgets
// those of a batch that was not committed.
func (l *lanes) beginClaims() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.tentative.taken)
	clear(l.tentative.turns)
	l.tentative.numbers, l.tentative.claim = nil, nil
	l.tentative.batch++
	l.tentative.bytes, l.tentative.count = 0, 0
}

// claimNew claims a delivery that is about to be queued, if its lane has room and no backlog that
// comes before it. It returns the node that makes the first attempt, or 0, and whether the delivery
// shares a row of claims: what is in a line, has a number or a limit does not.
func (l *lanes) claimNew(d domain.Dispatch, size int) (node int64, shared bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.lane(d.WebhookID)
	if ln.backlog && !ln.little || l.room(ln) == 0 {
		return 0, false
	}
	limited := ln.pace.limited()
	if !limited && !l.sharing.takes() { // a limited one nobody else may take
		l.tentative.taken[d.DeliveryID] = taking{}
		return 0, false
	}
	tentative := l.tentativeOf(ln)
	tentative.claims++
	tentative.bytes += size
	l.tentative.count++
	l.tentative.bytes += size
	if d.Line != domain.NoLine || d.NumberedSince != 0 || limited {
		l.tentative.taken[d.DeliveryID] = taking{ours: true}
		return l.node, false
	}
	if l.tentative.claim == nil {
		l.tentative.claim = &together{first: d.DeliveryID}
	}
	l.tentative.claim.open++
	l.tentative.taken[d.DeliveryID] = taking{ours: true, shared: l.tentative.claim}
	return l.node, true
}

// behind notes the deliveries of the batch that wait for others of their lines: no node has them.
func (l *lanes) behind(deliveries [][16]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range deliveries {
		l.tentative.taken[id] = taking{}
	}
}

// turned notes the lanes in whose lines the batch lets others go on.
func (l *lanes) turned(webhooks [][16]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range webhooks {
		l.tentative.turns[id] = true
	}
}

// numbered notes the numbers of the deliveries of the batch.
func (l *lanes) numbered(rows pgx.Rows) error {
	numbers, err := eventstore.CollectMap[domain.DeliveryID, int64](rows)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tentative.numbers = numbers
	return err
}

// endedInLine notes the end of a delivery in a line: the batch may have let the next go on.
func (l *lanes) endedInLine(id domain.WebhookID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tentative.turns[id] {
		l.lane(id).turn()
		eventstore.Signal(l.claim)
	}
}

// dispatched takes in whom one event goes to: what was claimed for it is here now, the
// rest is in the table.
func (l *lanes) dispatched(dispatched domain.EventDispatched, triggered domain.EventTriggered, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range dispatched.Deliveries {
		if d.BatchWait > 0 {
			continue // it waits for others
		}
		ln := l.lane(d.WebhookID)
		taken, asked := l.tentative.taken[d.DeliveryID]
		if !taken.ours {
			if !asked { // else it is left to other nodes; should none take it, a look finds it
				ln.stock()
				eventstore.Signal(l.claim)
			}
			continue
		}
		if t := taken.shared; t != nil {
			l.shared[t.first] = t
		}
		l.push(ln, &delivery{
			id: d.DeliveryID, webhook: d.WebhookID, eventID: dispatched.EventID, event: triggered,
			occurredAt: triggered.Occurred(at), attempt: 1, size: dispatched.Size, line: d.Line, sequence: l.tentative.numbers[d.DeliveryID], together: taken.shared,
		})
	}
}

// sharing evens out the calls of the nodes. A node takes, in the appends that queue them,
// as many deliveries as it has room for, which costs the least. When it makes more calls
// than its peers do on average, it takes only a share and leaves the rest to them.
type sharing struct {
	others bool  // whether other nodes live
	calls  int64 // that this node made
	share  float64
	credit float64 // of what was due to this node

	workers     int   // peers that make calls, at the last comparison
	mine, peers int64 // calls until then
}

const (
	leastShare = 1. / 64
	// fewCalls between two comparisons are not worth moving to another node.
	fewCalls = 50
	// uneven is how many times the average a node may make.
	uneven = 1.2
)

// takes reports whether this node takes the next delivery that it has room for.
func (s *sharing) takes() bool {
	if s.credit += s.share; s.credit < 1 {
		return false
	}
	s.credit--
	return true
}

// compare moves the share by the calls that the nodes made since the last comparison.
func (s *sharing) compare(peers eventstore.Peers) {
	mine, theirs := s.calls-s.mine, peers.Work-s.peers
	same := peers.Workers == s.workers && theirs >= 0
	s.others, s.workers, s.mine, s.peers = peers.Others > 0, peers.Workers, s.calls, peers.Work
	switch average := float64(mine+theirs) / float64(peers.Workers+1); {
	case peers.Workers == 0:
		s.share, s.credit = 1, 0
	case !same: // a peer came or went
	case mine > fewCalls && float64(mine) > uneven*average:
		s.share = max(leastShare, s.share*average/float64(mine))
	case float64(mine) < average || mine <= fewCalls:
		s.share = min(1, 1.5*s.share)
	}
}

// balance takes in what the other nodes do, and returns the calls of this one.
func (l *lanes) balance(peers eventstore.Peers) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sharing.compare(peers)
	return l.sharing.calls
}
