package saga

import (
	"slices"
	"sync"
	"time"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// A lane is one webhook's share of this node's calls. Its bounds:
//
//   - no lane takes more than lanesShare times what is still free of all workers
//     (the dynamic threshold of Choudhury and Hahne, 1998): one busy lane gets
//     almost all, many get equal parts, and something is always free for a lane
//     that wants its first call;
//   - a window grows by one a success and shrinks when the receiver is in
//     trouble, so that one that comes back gets its backlog step by step.
//
// What waits in memory is bounded too, in number (by the same threshold: no lane
// keeps more than are still free) and bytes; the rest stays in the queue's table,
// unread. What is kept here costs a third of what is claimed from the table later.
// Beside other nodes a lane keeps no more than it starts within moments, and what does
// not start soon goes back to the table: a node that has nothing to do takes it.
const (
	lanesShare      = 8
	firstWindow     = 64
	leastWindow     = 4
	windowsKept     = 16 // of a lane, in memory
	maxWaitingBytes = 64 << 20
	// A lane may hold as many bytes as are left to others, so that a receiver that
	// hangs over large payloads never takes the memory that all live by. So little
	// each may hold even then, and a first payload of any size, up to maxHeldBytes
	// of all.
	leastLaneBytes = 1 << 20
	maxHeldBytes   = 2 * maxWaitingBytes
	// maxRecording is how many outcomes may wait for the log besides the calls in
	// flight: when it cannot keep up, calls wait.
	maxRecording = 4096
	// patientFor is how long a delivery waits here for its call while other nodes
	// may be free for it.
	patientFor = time.Second
	// keepFor is how much of its own work a lane keeps waiting while other nodes live.
	keepFor = 100 * time.Millisecond
	// leftFor is how long what could not start here is left to others: each of
	// them looks once in that time at least.
	leftFor = 2 * claimPoll
)

// delivery is a claimed delivery in this node's memory.
type delivery struct {
	id         domain.DeliveryID
	webhook    domain.WebhookID
	eventID    domain.EventID
	event      domain.EventTriggered
	occurredAt time.Time
	due        time.Time // as the table said when it was claimed
	isBatch    bool
	batch      []domain.PayloadEvent // of a batch, instead of event and occurredAt
	left       []domain.LeftOut      // of its events: what is not in batch any more
	broken     string                // why it cannot be sent at all; else ""
	attempt    int
	retries    int
	version    int64
	replay     domain.ReplayID // that asked for it; zero: none
	size       int
	line       domain.Line
	sequence   int64                // its number; 0: none
	was        domain.DeliveryState // failed: it gave up, and holds up its line
	since      time.Time            // when it came into this node's memory
	started    bool                 // it has a place among the calls in flight
	together   *together            // the row of claims that it shares; nil: it has one of its own, or has ended
}

// eventType is what the delivery's calls are listed under; "" when that is not known.
func (d *delivery) eventType() string {
	if d.isBatch {
		return string(domain.BatchEventType)
	}
	return d.event.EventType
}

type lane struct {
	webhook  domain.WebhookID
	waiting  []*delivery
	inFlight int
	bytes    int // of its payloads in memory
	window   int
	started  int       // calls, in the keepFor before counted
	starts   int       // calls since counted
	counted  time.Time // when starts was last begun
	left     time.Time // until when others come first, unless something can start at once
	backlog  bool      // the table may hold more that is due
	fresh    bool      // that was noticed since the last claim began
	little   bool      // the last claim left nothing, and newer ones need not wait for what came since
	ringed   bool      // it is among those that wait for a turn

	pace          *pace // what else bounds its calls; nil: nothing
	successes     int   // of calls, since the receiver was new or asked for a pause
	configuration eventstore.Position
	url           string // of the webhook, as of the configuration

	lacks       domain.Outcome // why its last call was not made; "": it was
	pause       time.Duration  // after that
	pausedUntil time.Time

	tentative laneTentative
}

// lanes holds what this node has claimed until its outcome is recorded. Safe for
// concurrent use.
type lanes struct {
	workers  int
	node     int64
	webhooks configuration // nil: no webhook has a limit

	mu        sync.Mutex
	byID      map[domain.WebhookID]*lane
	paced     map[domain.WebhookID]*lane // those with a pace
	ring      []*lane                    // lanes with deliveries that wait, in turns
	inFlight  int
	waiting   int
	bytes     int // of the payloads in memory
	claimed   map[domain.DeliveryID]*delivery
	stopped   bool
	idle      chan struct{} // closed when stopped and nothing is in flight or being recorded
	recording int

	tentative tentative
	sharing   sharing
	lacked    domain.Outcome // what was published last of what this node lacks
	lackedAt  time.Time
	shared    map[domain.DeliveryID]*together // claims of which something is open
	done      []domain.DeliveryID             // those of which nothing is
	over      chan struct{}                   // a token: there are some
	strays    chan struct{}                   // a token: what waits may start nothing soon
	start     chan struct{}                   // a token: something may start
	claim     chan struct{}                   // a token: the table may hold what there is room for
}

func newLanes(workers int) *lanes {
	return &lanes{
		workers: workers,
		byID:    map[domain.WebhookID]*lane{},
		paced:   map[domain.WebhookID]*lane{},
		shared:  map[domain.DeliveryID]*together{},
		over:    make(chan struct{}, 1),
		strays:  make(chan struct{}, 1),
		claimed: map[domain.DeliveryID]*delivery{},
		idle:    make(chan struct{}),
		start:   make(chan struct{}, 1),
		claim:   make(chan struct{}, 1),
		sharing: sharing{share: 1},

		tentative: tentative{taken: map[domain.DeliveryID]taking{}, turns: map[domain.WebhookID]bool{}},
	}
}

// lane returns the webhook's lane. The caller holds the lock.
func (l *lanes) lane(id domain.WebhookID) *lane {
	ln := l.byID[id]
	if ln == nil {
		ln = &lane{webhook: id, window: min(firstWindow, l.workers)}
		l.byID[id] = ln
	}
	return ln
}

// room is how many more deliveries the lane may hold in memory.
func (l *lanes) room(ln *lane) int {
	tentative, paced := l.tentativeOf(ln), l.pacedRoom(ln)
	held, mine := l.bytes+l.tentative.bytes, ln.bytes+tentative.bytes
	if l.stopped || ln.paused() || paced == 0 || held >= maxHeldBytes || mine >= max(leastLaneBytes, maxWaitingBytes-held) {
		return 0
	}
	keeps := len(ln.waiting) + tentative.claims
	free := 2*windowsKept*l.workers - l.waiting - l.tentative.count
	return max(0, min((free-keeps)/2, l.most(ln)-keeps, paced-keeps))
}

// add takes in what was claimed from the table.
func (l *lanes) add(claimed []*delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range claimed {
		l.push(l.lane(d.webhook), d)
	}
}

func (l *lanes) push(ln *lane, d *delivery) {
	d.since = time.Now()
	at := len(ln.waiting)
	if d.replay == (domain.ReplayID{}) { // live events go first
		for at > 0 && ln.waiting[at-1].replay != (domain.ReplayID{}) {
			at--
		}
	}
	ln.waiting = slices.Insert(ln.waiting, at, d)
	l.claimed[d.id] = d
	l.waiting++
	l.hold(ln, d.size)
	l.enlist(ln)
}

// hold counts payload that comes, or, below zero, goes.
func (l *lanes) hold(ln *lane, size int) {
	ln.bytes += size
	l.bytes += size
}

func (l *lanes) enlist(ln *lane) {
	if !ln.ringed && len(ln.waiting) > 0 {
		ln.ringed = true
		l.ring = append(l.ring, ln)
	}
	eventstore.Signal(l.start)
}

// next takes the delivery whose turn it is, lane by lane, or nil when none may
// start now.
func (l *lanes) next() *delivery {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped || l.inFlight >= l.workers || l.recording >= l.workers+maxRecording {
		return nil
	}
	for range len(l.ring) {
		ln := l.ring[0]
		l.ring = l.ring[1:]
		if len(ln.waiting) == 0 {
			ln.ringed = false
			continue
		}
		if l.wait(ln) > 0 {
			ln.ringed = false // it is woken
			continue
		}
		l.ring = append(l.ring, ln)
		if ln.inFlight >= l.limit(ln) {
			continue
		}
		d := ln.waiting[0]
		ln.waiting[0] = nil
		ln.waiting = ln.waiting[1:]
		d.started = true
		ln.inFlight++
		l.inFlight++
		l.waiting--
		l.recording++
		ln.starts++
		ln.pace.start()
		if l.wants(ln) {
			eventstore.Signal(l.claim)
		}
		return d
	}
	return nil
}

// called says that the delivery's call has ended: its place is free, but the
// delivery is here until it is recorded.
func (l *lanes) called(d *delivery, call domain.Call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.lane(d.webhook)
	ln.adapt(l.workers, call)
	if call.Outcome == domain.OutcomeSuccess {
		ln.successes++
	}
	ln.lacks, ln.pause = "", 0
	l.free(d)
}

// uncalled says that no call was made, so that nothing was learnt of the receiver.
func (l *lanes) uncalled(d *delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free(d)
}

// free returns the delivery's place to another. The caller holds the lock.
func (l *lanes) free(d *delivery) {
	if !d.started {
		return // it is free already
	}
	d.started = false
	ln := l.lane(d.webhook)
	ln.inFlight--
	l.inFlight--
	l.sharing.calls++
	l.enlist(ln)
	if len(ln.waiting) == 0 && l.wants(ln) {
		eventstore.Signal(l.claim)
	}
}

// forget lets go of a delivery: it is recorded, or no longer this node's.
func (l *lanes) forget(d *delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.claimed[d.id] == d { // its next attempt may be here already
		delete(l.claimed, d.id)
	}
	ln := l.lane(d.webhook)
	if ln.bytes >= leastLaneBytes || l.bytes >= maxWaitingBytes/2 {
		eventstore.Signal(l.claim) // somebody may have found no room for bytes
	}
	l.hold(ln, -d.size)
	if l.recording--; l.recording == l.workers+maxRecording-1 {
		eventstore.Signal(l.start)
	}
	l.checkIdle()
}

// has reports whether the delivery is in this node's memory.
func (l *lanes) has(id domain.DeliveryID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.claimed[id]
	return ok
}

// found says that the table holds due deliveries of these webhooks, which other nodes may take as well.
// New ones do not wait for them unless a claim shows that there are many. It reports whether this node
// may call any of them soon.
func (l *lanes) found(webhooks []domain.WebhookID) (soon bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range webhooks {
		ln := l.lane(id)
		ln.turn()
		soon = soon || ln.pace.wait(time.Now()) <= claimPoll
	}
	return soon
}

// stock says that the table may hold a backlog, which comes before new deliveries.
func (ln *lane) stock() { ln.backlog, ln.fresh, ln.little = true, true, false }

// turn says that the table holds something that is due. New deliveries need not wait for it.
func (ln *lane) turn() { ln.backlog, ln.fresh, ln.little = true, true, ln.little || !ln.backlog }

// wanted lists the lanes that may claim from the table, and how many each.
func (l *lanes) wanted(most int) (webhooks [][16]byte, rooms []int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, ln := range l.byID {
		if !l.wants(ln) {
			continue
		}
		if room := l.room(ln); room > 0 {
			ln.fresh = false
			webhooks = append(webhooks, id)
			rooms = append(rooms, int32(min(room, most)))
			if len(webhooks) == maxLanesAClaim {
				break
			}
		}
	}
	return webhooks, rooms
}

// drained says that the table held no more than what was claimed, and may yet hold what came
// since the claim began.
func (l *lanes) drained(id domain.WebhookID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.lane(id)
	ln.backlog, ln.little = ln.fresh, true
}

// filled says that the claim took all that there was room for.
func (l *lanes) filled(id domain.WebhookID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lane(id).little = false
}

// stop lets nothing start any more and returns what has not started.
func (l *lanes) stop() []*delivery {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	var unstarted []*delivery
	for _, ln := range l.byID {
		unstarted = append(unstarted, l.empty(ln)...)
	}
	l.checkIdle()
	return unstarted
}

// stale removes what waits in lanes whose first has waited for too long.
func (l *lanes) stale(now time.Time) []*delivery {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*delivery
	for _, ln := range l.ring {
		if len(ln.waiting) == 0 || now.Sub(ln.waiting[0].since) < patientFor {
			continue
		}
		out = append(out, l.empty(ln)...)
		ln.left = now.Add(leftFor)
		ln.stock()
	}
	return out
}

// remove removes the matching deliveries of those that wait in the lane. The caller holds the lock.
func (l *lanes) remove(ln *lane, matches func(*delivery) bool) (out []*delivery) {
	ln.waiting = slices.DeleteFunc(ln.waiting, func(d *delivery) bool {
		if !matches(d) {
			return false
		}
		delete(l.claimed, d.id)
		l.waiting--
		l.hold(ln, -d.size)
		out = append(out, d)
		return true
	})
	return out
}

// empty removes what waits in the lane. The caller holds the lock.
func (l *lanes) empty(ln *lane) []*delivery {
	return l.remove(ln, anyDelivery)
}

func anyDelivery(*delivery) bool { return true }

// takeOut removes what waits in the lane of d, which is about to be called, and matches: it must wait in the
// table. d comes with it, and must be forgotten all the same.
func (l *lanes) takeOut(d *delivery, matches func(*delivery) bool) []*delivery {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.claimed, d.id)
	ln := l.lane(d.webhook)
	out := l.remove(ln, matches)
	if l.wants(ln) {
		eventstore.Signal(l.claim)
	}
	return append(out, d)
}

// cancelled removes a delivery whose call has not begun: its row is gone.
func (l *lanes) cancelled(id domain.DeliveryID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d := l.claimed[id]; d != nil {
		l.settled(d)
		l.remove(l.lane(d.webhook), func(other *delivery) bool { return other == d })
	}
}

func (l *lanes) checkIdle() {
	if l.stopped && l.recording == 0 {
		select {
		case <-l.idle:
		default:
			close(l.idle)
		}
	}
}

// Figures of this node's lanes, for metrics.
func (l *lanes) figures() commands.DeliveryFigures {
	l.mu.Lock()
	defer l.mu.Unlock()
	full := 0
	for _, ln := range l.byID {
		if len(ln.waiting) > 0 && ln.inFlight >= l.limit(ln) {
			full++
		}
	}
	return commands.DeliveryFigures{InFlight: l.inFlight, Waiting: l.waiting, WaitingBytes: l.bytes, Lanes: len(l.byID), FullLanes: full,
		Workers: l.workers, Lacks: l.lacked}
}
