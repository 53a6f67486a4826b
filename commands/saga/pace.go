package saga

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// A lane may be bounded by more than its window:
//
//   - by its webhook, over all nodes (max_concurrent, rate_limit): then one node at a time
//     makes all of its calls, the one that medilab.paced names, and counts them in memory. It
//     releases the lane when it is idle, and loses it with its lease;
//   - by its receiver, with Retry-After and RateLimit headers. They are heeded where they
//     came in: another node is told the same by its own first calls.
//
// What cannot start soon stays in the queue's table.
const (
	// firstCalls may be in flight to a receiver that nobody has tried. Each success allows
	// one more: their number doubles with each round of successes.
	firstCalls = 8
	// paceAhead is how long before it may start a delivery is claimed.
	paceAhead = 250 * time.Millisecond
	// pacedShare of the rate is what is called on average, so that calls which reach the
	// receiver a little late are not too many in the seconds after.
	pacedShare = 0.97
	// pacedIdle is how long a lane must be idle to be given up.
	pacedIdle = 10 * time.Second
	pacedPoll = time.Second
	// never is when a lane may start calls that another node makes.
	never = time.Duration(math.MaxInt64)
)

// configuration is what lanes read of their webhooks.
type configuration interface {
	Configuration() eventstore.Position
	Webhook(id domain.WebhookID) (domain.Webhook, bool)
}

// pace bounds the calls of a lane. Its methods take nil as no bound.
type pace struct {
	concurrent int       // calls in flight at once; 0: no limit
	rate       float64   // calls a second; 0: no limit
	tokens     float64   // calls that may start at once
	filled     time.Time // when tokens was counted
	since      time.Time // the term in which this node makes the calls; zero: it does not
	denied     time.Time // until when it does not ask for them again
	used       time.Time // when a call started last

	calls int       // in flight, as the receiver asked
	until time.Time // when that ends

	timer *time.Timer // wakes the lane
}

func (p *pace) limited() bool { return p != nil && (p.concurrent > 0 || p.rate > 0) }

// burst is how many calls may start at once after a pause. It is below what the contract
// allows, max(1, rate), as calls do not reach the receiver as evenly as they start.
func (p *pace) burst() float64 { return max(1, (p.rate+1)/2) }

// limit sets the webhook's limits. Without any, this node's term is over.
func (p *pace) limit(concurrent int, rate float64, now time.Time) {
	p.fill(now)
	p.concurrent, p.rate = concurrent, rate
	if p.tokens = min(p.tokens, p.burst()); !p.limited() {
		p.since = time.Time{}
	}
}

func (p *pace) fill(now time.Time) {
	p.tokens = min(p.burst(), p.tokens+pacedShare*p.rate*now.Sub(p.filled).Seconds())
	p.filled = now
}

// begin starts this node's term. Of a lane that another node had, or this one with a
// memory that is gone, it is not known how many calls were made just now.
func (p *pace) begin(since time.Time, fresh bool, now time.Time) {
	p.since, p.filled, p.used, p.tokens = since, now, now, 0
	if fresh {
		p.tokens = p.burst()
	}
}

// wait returns how long no call may start; 0: one may.
func (p *pace) wait(now time.Time) time.Duration {
	switch {
	case p == nil:
		return 0
	case p.calls == 0 && now.Before(p.until):
		return p.until.Sub(now)
	case p.limited() && p.since.IsZero():
		return never
	case p.rate == 0:
		return 0
	}
	if p.fill(now); p.tokens >= 1 {
		return 0
	}
	return time.Duration((1-p.tokens)/(pacedShare*p.rate)*float64(time.Second)) + time.Microsecond
}

// most bounds how many calls may be in flight.
func (p *pace) most(calls int) int {
	if p == nil {
		return calls
	}
	if p.concurrent > 0 {
		calls = min(calls, p.concurrent)
	}
	if time.Now().Before(p.until) {
		calls = min(calls, max(1, p.calls))
	}
	return calls
}

// start counts a call that starts.
func (p *pace) start() {
	if p == nil {
		return
	}
	p.used = time.Now()
	if p.rate > 0 {
		p.tokens--
	}
}

// paceOf returns the lane's pace, which it gets. The caller holds the lock.
func (l *lanes) paceOf(ln *lane) *pace {
	if ln.pace == nil {
		ln.pace = &pace{}
		l.paced[ln.webhook] = ln
	}
	return ln.pace
}

// heed reads the lane's webhook again if the configuration has changed.
func (l *lanes) heed(ln *lane) {
	if l.webhooks == nil || l.webhooks.Configuration() == ln.configuration {
		return
	}
	ln.configuration = l.webhooks.Configuration()
	w, known := l.webhooks.Webhook(ln.webhook)
	if known && ln.url != w.URL {
		ln.url, ln.successes = w.URL, 0 // nobody has tried that receiver
		l.resume(ln)
	}
	if ln.pace.limited() || w.MaxConcurrent > 0 || w.RateLimit > 0 {
		l.paceOf(ln).limit(w.MaxConcurrent, w.RateLimit, time.Now())
	}
}

// wait returns how long no call of the lane may start. Then the lane is woken.
func (l *lanes) wait(ln *lane) time.Duration {
	l.heed(ln)
	if ln.pace == nil {
		return 0
	}
	wait := ln.pace.wait(time.Now())
	if wait > patientFor && len(ln.waiting) > 0 {
		eventstore.Signal(l.strays)
	}
	l.wakeAfter(ln, wait)
	return wait
}

// pacedRoom is how many deliveries of the lane may be held that have not started: those
// for which a call may start soon.
func (l *lanes) pacedRoom(ln *lane) int {
	l.heed(ln)
	if ln.pace == nil {
		return math.MaxInt
	}
	wait := ln.pace.wait(time.Now())
	switch {
	case wait > paceAhead:
		l.wakeAfter(ln, wait-paceAhead)
		return 0
	case ln.pace.rate == 0:
		return math.MaxInt
	}
	return max(1, int(ln.pace.tokens+pacedShare*ln.pace.rate*paceAhead.Seconds()))
}

func (l *lanes) wakeAfter(ln *lane, wait time.Duration) {
	switch p := ln.pace; {
	case wait <= 0 || wait > never/2 || l.stopped:
	case p.timer == nil:
		p.timer = time.AfterFunc(wait, func() { l.wake(ln) })
	default:
		p.timer.Reset(wait)
	}
}

func (l *lanes) wake(ln *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enlist(ln)
	if ln.backlog {
		eventstore.Signal(l.claim)
	}
}

// backOff takes in what the receiver asked for. A pause is not cut short by what it
// answered to other calls.
func (l *lanes) backOff(id domain.WebhookID, asked domain.Backoff) {
	if asked.For <= 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	ln, now := l.lane(id), time.Now()
	p, until := l.paceOf(ln), now.Add(asked.For)
	switch paused := p.calls == 0 && now.Before(p.until); {
	case asked.Calls > 0 && !paused:
		p.calls, p.until = asked.Calls, until
	case asked.Calls == 0 && !(paused && until.Before(p.until)):
		p.calls, p.until = 0, until
		ln.successes = 0 // it begins gently again
	}
	l.wakeAfter(ln, p.until.Sub(now))
}

// unpause ends what the webhook's receiver asked for.
func (l *lanes) unpause(id domain.WebhookID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ln := l.byID[id]; ln != nil {
		l.resume(ln)
	}
}

func (l *lanes) resume(ln *lane) {
	if ln.pace != nil {
		ln.pace.until = time.Time{}
		l.wakeAfter(ln, time.Nanosecond)
	}
}

// waitingStrays removes what waits in lanes that start nothing soon.
func (l *lanes) waitingStrays() (out []*delivery) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ln := range l.paced {
		if len(ln.waiting) > 0 && ln.pace.wait(time.Now()) > patientFor {
			out = append(out, l.empty(ln)...)
			ln.stock()
		}
	}
	if len(out) > 0 {
		eventstore.Signal(l.claim)
	}
	return out
}

// unowned lists limited lanes with a backlog whose calls this node may ask for.
func (l *lanes) unowned() (webhooks [][16]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for id, ln := range l.paced {
		if l.heed(ln); !ln.backlog || !ln.pace.limited() || !ln.pace.since.IsZero() || now.Before(ln.pace.denied) {
			continue
		}
		if w, _ := l.webhooks.Webhook(id); w.Active && len(webhooks) < maxLanesAClaim {
			webhooks = append(webhooks, id)
			ln.pace.denied = now.Add(pacedPoll)
			l.wakeAfter(ln, pacedPoll) // to ask again
		}
	}
	return webhooks
}

// idleTerms ends the terms of lanes that were not used lately, and returns them.
func (l *lanes) idleTerms() (webhooks [][16]byte, since []time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for id, ln := range l.paced {
		l.heed(ln)
		p := ln.pace
		idle := ln.inFlight+len(ln.waiting)+l.tentativeOf(ln).claims == 0 && !ln.backlog && now.Sub(p.used) >= pacedIdle
		switch {
		case !idle || now.Before(p.until):
		case !p.limited():
			ln.pace = nil
			delete(l.paced, id)
		case !p.since.IsZero():
			if p.fill(now); p.rate == 0 || p.tokens >= p.burst() {
				webhooks, since = append(webhooks, id), append(since, p.since)
				p.since = time.Time{}
			}
		}
	}
	return webhooks, since
}

// acquireSQL takes lanes that no living node has, and of which none has deliveries of the
// time when they had no limit. The columns of the queue are asked for by key, node by node.
const acquireSQL = `
INSERT INTO medilab.paced AS p (webhook_id, node, since)
SELECT wanted.id, $2, clock_timestamp() FROM unnest($1::uuid[]) AS wanted (id)
WHERE NOT EXISTS (SELECT FROM medilab.nodes AS n WHERE n.id <> $2 AND n.lease_until > clock_timestamp()
	AND (SELECT true FROM medilab.pending AS q WHERE q.node = n.id AND q.webhook_id = wanted.id LIMIT 1))
ORDER BY wanted.id
ON CONFLICT (webhook_id) DO UPDATE SET node = excluded.node, since = excluded.since
WHERE p.node = excluded.node OR NOT EXISTS (SELECT FROM medilab.nodes AS n WHERE n.id = p.node AND n.lease_until > clock_timestamp())
RETURNING p.webhook_id, p.since, p.xmax = 0`

// acquirePaced asks for the calls of limited webhooks whose deliveries wait. It reports
// whether it got any.
func (s *session) acquirePaced(ctx context.Context) (acquired bool, err error) {
	webhooks := s.lanes.unowned()
	if len(webhooks) == 0 {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	s.terms.Lock()
	defer s.terms.Unlock()
	rows, _ := s.pool.Query(ctx, acquireSQL, webhooks, s.node.ID)
	terms, err := pgx.CollectRows(rows, pgx.RowToStructByPos[term])
	if err != nil {
		return false, fmt.Errorf("acquire limited webhooks: %w", err)
	}
	s.lanes.begin(terms)
	return len(terms) > 0, nil
}

// term is the time in which one node makes the calls of a webhook.
type term struct {
	Webhook domain.WebhookID
	Since   time.Time
	Fresh   bool // no node had it just before
}

// begin starts this node's terms.
func (l *lanes) begin(terms []term) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range terms {
		ln := l.lane(t.Webhook)
		l.paceOf(ln).begin(t.Since, t.Fresh, time.Now())
		ln.stock()
		l.enlist(ln)
	}
}

// keepPace returns to the table what cannot start soon, and releases idle lanes, until
// ctx ends.
func (s *session) keepPace(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.lanes.strays:
			s.putBack(s.lanes.waitingStrays)
		case <-time.After(s.log.Pace(pacedPoll)):
			if err := s.releasePaced(ctx); err != nil && ctx.Err() == nil {
				s.logger.Warn("idle limited webhooks not given up; this node goes on with them", "error", err)
			}
		}
	}
}

func (s *session) releasePaced(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, putBackTimeout)
	defer cancel()
	s.terms.Lock()
	defer s.terms.Unlock()
	webhooks, since := s.lanes.idleTerms()
	if len(webhooks) == 0 {
		return nil
	}
	_, err := s.pool.Exec(ctx, `DELETE FROM medilab.paced AS p USING unnest($1::uuid[], $2::timestamptz[]) AS term (id, since)
		WHERE p.webhook_id = term.id AND p.since = term.since AND p.node = $3 AND p.webhook_id = ANY($1)`, webhooks, since, s.node.ID)
	return eventstore.Doing("release limited webhooks", err)
}
