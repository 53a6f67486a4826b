package saga

import (
	"math"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// At any rate, calls that start as soon as they may keep to the contract: in any T seconds
// rate x T + max(1, rate) at most. And over ten seconds they come within 5 % of the rate.
func TestPaceKeepsTheRate(t *testing.T) {
	for _, rate := range []float64{0.01, 0.3, 0.99, 1, 1.01, 1.9, 2, 5, 33.3, 400, 10_000} {
		began := time.Unix(1_800_000_000, 0)
		p := &pace{}
		p.limit(0, rate, began)
		p.begin(began, true, began)
		const most = 400_000
		var calls []time.Time
		length := max(40, 5/rate)
		for now := began; now.Sub(began).Seconds() < length && len(calls) < most; {
			if wait := p.wait(now); wait > 0 {
				now = now.Add(wait)
				continue
			}
			p.start()
			calls = append(calls, now)
		}
		burst := max(1, rate)
		first := 0.0 // the least of i - rate*t of calls before: the window that began there is the fullest
		for i, at := range calls {
			passed := rate * at.Sub(began).Seconds()
			first = min(first, float64(i)-passed)
			if n := float64(i) + 1 - passed - first; n > burst+1e-6 {
				t.Fatalf("rate %v: call %d makes %v more than its windows allow", rate, i, n-burst)
			}
		}
		if rate < 1 || len(calls) == most {
			continue
		}
		inTen := 0
		for _, at := range calls {
			if since := at.Sub(began).Seconds(); since >= 20 && since < 30 {
				inTen++
			}
		}
		if want := 10 * rate; math.Abs(float64(inTen)-want) > max(1, 0.05*want) {
			t.Errorf("rate %v: %d calls in ten seconds", rate, inTen)
		}
	}
}

// A term that follows another begins with nothing in hand.
func TestPaceOfALaneThatAnotherNodeHad(t *testing.T) {
	now := time.Now()
	for fresh, want := range map[bool]bool{true: true, false: false} {
		p := &pace{}
		p.limit(0, 0.5, now)
		if p.wait(now) != never {
			t.Fatal("a call may start that is another node's")
		}
		if p.begin(now, fresh, now); (p.wait(now) == 0) != want {
			t.Errorf("fresh %v: a call may start in %v", fresh, p.wait(now))
		}
	}
}

func startAll(l *lanes) (started []*delivery) {
	for d := l.next(); d != nil; d = l.next() {
		started = append(started, d)
	}
	return started
}

// A receiver that nobody has tried gets few calls at once, and twice as many after each
// round of successes. What fails does not open it.
func TestCallsBeginGently(t *testing.T) {
	l := newLanes(512)
	l.add(deliveriesTo(domain.WebhookID(uuid.New()), 400))
	round := startAll(l)
	if len(round) != firstCalls {
		t.Fatalf("%d calls to a receiver that nobody has tried", len(round))
	}
	for _, d := range round {
		l.called(d, domain.Call{Status: 500, Outcome: "http_status"})
	}
	round = startAll(l)
	for want := firstCalls; want <= 64; want *= 2 {
		if len(round) != want {
			t.Fatalf("%d calls at once, want %d", len(round), want)
		}
		for _, d := range round {
			l.called(d, domain.Call{Status: 200, Outcome: domain.OutcomeSuccess})
		}
		round = startAll(l)
	}
}

// What a receiver asks for slows its lane, and no other. Its deliveries go back to the
// table, and it is called again when the time is over, gently.
func TestReceiverSlowsItsLane(t *testing.T) {
	l := newLanes(64)
	slow, other := domain.WebhookID(uuid.New()), domain.WebhookID(uuid.New())
	l.add(deliveriesTo(slow, 20))
	began := startAll(l)
	l.add(deliveriesTo(other, 5))
	l.backOff(slow, domain.Backoff{For: time.Minute})
	for _, d := range began[:4] {
		l.called(d, domain.Call{Status: 429})
	}
	l.backOff(slow, domain.Backoff{Calls: 3, For: time.Second}) // what it answered to an earlier call
	if got := startAll(l); len(got) != 5 || got[0].webhook != other {
		t.Fatalf("%d calls start, and 5 of the other lane should", len(got))
	}
	select {
	case <-l.strays:
	default:
		t.Fatal("what waits is not said to")
	}
	if got := l.waitingStrays(); len(got) != 12 || l.room(l.lane(slow)) != 0 || !l.lane(slow).backlog {
		t.Fatalf("%d go back to the table, with room for %d", len(got), l.room(l.lane(slow)))
	}
	l.lane(slow).pace.until = time.Now()
	l.wake(l.lane(slow))
	select {
	case <-l.claim:
	default:
		t.Fatal("nothing is claimed when the time is over")
	}
	l.add(deliveriesTo(slow, 20))
	if got := startAll(l); len(got) != firstCalls-4 {
		t.Fatalf("%d calls start at once, with 4 in flight", len(got))
	}
	l.backOff(other, domain.Backoff{Calls: 2, For: time.Minute})
	l.add(deliveriesTo(other, 5))
	if got := startAll(l); len(got) != 0 {
		t.Fatalf("%d calls start, with more in flight than the receiver takes", len(got))
	}
	l.unpause(other)
	if got := startAll(l); len(got) != firstCalls-5 {
		t.Fatalf("%d calls start when that is over", len(got))
	}
}

type webhookLimits struct {
	webhook domain.Webhook
	at      eventstore.Position
}

func (w *webhookLimits) Configuration() eventstore.Position { return w.at }

func (w *webhookLimits) Webhook(domain.WebhookID) (domain.Webhook, bool) { return w.webhook, true }

// A limited lane is called in a term of this node alone, which ends with the limits, or
// when the lane has been idle.
func TestTermsOfALane(t *testing.T) {
	l := newLanes(64)
	id := domain.WebhookID(uuid.New())
	of := &webhookLimits{at: 1, webhook: domain.Webhook{WebhookSettings: domain.WebhookSettings{Active: true, URL: "http://a.test/", MaxConcurrent: 2}}}
	l.webhooks = of
	l.found([]domain.WebhookID{id})
	if webhooks, _ := l.wanted(100); len(webhooks) != 0 {
		t.Fatal("a lane is claimed without a term")
	}
	if got := l.unowned(); len(got) != 1 {
		t.Fatal("no term is asked for")
	}
	if l.begin([]term{{Webhook: id, Since: time.Now(), Fresh: true}}); len(l.unowned()) != 0 {
		t.Fatal("a term is asked for twice")
	}
	if webhooks, _ := l.wanted(100); len(webhooks) != 1 {
		t.Fatal("nothing is claimed")
	}
	l.add(deliveriesTo(id, 10))
	begun := startAll(l)
	if len(begun) != 2 {
		t.Fatalf("%d calls at once", len(begun))
	}
	of.webhook.MaxConcurrent, of.at = 1, 2
	l.called(begun[0], domain.Call{Status: 200, Outcome: domain.OutcomeSuccess})
	if got := startAll(l); len(got) != 0 {
		t.Fatalf("%d calls start beside one", len(got))
	}
	of.webhook.MaxConcurrent, of.at = 0, 3
	if got := startAll(l); len(got) != firstCalls {
		t.Fatalf("%d calls start without a limit", len(got))
	}
	of.webhook.MaxConcurrent, of.at = 20, 4
	l.called(begun[1], domain.Call{Status: 200, Outcome: domain.OutcomeSuccess})
	if got := startAll(l); len(got) != 0 {
		t.Fatalf("%d calls start without a new term", len(got))
	}

	idle := newLanes(64)
	idle.webhooks = of
	idle.found([]domain.WebhookID{id})
	idle.begin([]term{{Webhook: id, Since: time.Now(), Fresh: true}})
	idle.wanted(100)
	ln := idle.lane(id)
	if idle.drained(id); len(first(idle.idleTerms())) != 0 {
		t.Fatal("a lane is given up that was used just now")
	}
	ln.pace.used = time.Now().Add(-pacedIdle)
	if len(first(idle.idleTerms())) != 1 || !ln.pace.since.IsZero() {
		t.Fatal("an idle lane is kept")
	}
}

func first[A, B any](a A, _ B) A { return a }
