package saga

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
)

func deliveriesTo(webhook domain.WebhookID, n int) []*delivery {
	out := make([]*delivery, n)
	for i := range out {
		out[i] = &delivery{id: domain.DeliveryID(uuid.New()), webhook: webhook}
	}
	return out
}

// Beside other nodes, what waits for too long is released, and a lane takes no more than
// it starts.
func TestLanesKeepWhatStartsInTime(t *testing.T) {
	const workers = 4
	l := newLanes(workers)
	l.sharing.others = true
	webhook := domain.WebhookID(uuid.New())
	ln := l.lane(webhook)
	l.add(deliveriesTo(webhook, 2*workers))
	under := l.next()
	for l.next() != nil { //nolint:revive // all that can start does
	}
	if got := l.stale(time.Now()); len(got) != 0 {
		t.Fatalf("%d were released at once", len(got))
	}
	soon := time.Now().Add(patientFor)
	if got := l.stale(soon); len(got) != workers || l.waiting != 0 || len(l.claimed) != workers {
		t.Fatalf("%d were released, %d wait, %d are claimed", len(got), l.waiting, len(l.claimed))
	}
	ln.counted = time.Now().Add(-2 * keepFor) // it has started nothing lately
	if node, _ := l.claimNew(domain.Dispatch{Recipient: domain.Recipient{WebhookID: webhook}}, 1); node != 0 || !ln.backlog || l.room(ln) != 0 {
		t.Fatalf("the lane takes more, room %d", l.room(ln))
	}
	drain(l.claim)
	l.called(under, domain.Call{Status: 200})
	select {
	case <-l.claim:
	default:
		t.Fatal("a free place claims nothing")
	}
	if webhooks, rooms := l.wanted(maxRowsAClaim); len(webhooks) != 1 || rooms[0] != 1 {
		t.Fatalf("%d lanes want %v, and one place is free", len(webhooks), rooms)
	}
	ln.starts, ln.counted = 6, time.Now().Add(-keepFor)
	if room := l.room(ln); room != 1+6 {
		t.Fatalf("with 6 starts in that time the lane has room for %d", room)
	}
	l.sharing.others = false
	if room := l.room(ln); room < windowsKept {
		t.Fatalf("alone the lane has room for %d", room)
	}
}

// A lane without a call waits for its turn in memory, but not before others had
// the time to take what it could not start.
func TestLanesLeaveToOthersFirst(t *testing.T) {
	l := newLanes(1)
	l.sharing.others = true
	busy, other := domain.WebhookID(uuid.New()), domain.WebhookID(uuid.New())
	l.add(append(deliveriesTo(busy, 1), deliveriesTo(other, 1)...))
	if l.next() == nil {
		t.Fatal("nothing starts")
	}
	now := time.Now().Add(patientFor)
	if got := l.stale(now); len(got) != 1 {
		t.Fatalf("%d were released", len(got))
	}
	if room := l.room(l.lane(other)); room != 0 {
		t.Fatalf("room %d at once", room)
	}
	l.lane(other).left = time.Now()
	if room := l.room(l.lane(other)); room != 1 {
		t.Fatalf("room %d when others had their time", room)
	}
}

func drain(c chan struct{}) {
	select {
	case <-c:
	default:
	}
}

// However much one lane keeps, others have room.
func TestLanesKeepRoomForOthers(t *testing.T) {
	const workers = 64
	l := newLanes(workers)
	for n := range 10 {
		webhook := domain.WebhookID(uuid.New())
		room := l.room(l.lane(webhook))
		if least := windowsKept * workers >> n; room < least {
			t.Fatalf("lane %d has room for %d, and %d are the least", n, room, least)
		}
		l.add(deliveriesTo(webhook, room))
		if more := l.room(l.lane(webhook)); more != 0 {
			t.Fatalf("lane %d has room for %d more after %d", n, more, room)
		}
	}
}

// What comes due while a claim is under way, which cannot see it, is claimed by the next.
func TestLanesNoteWhatComesDuringAClaim(t *testing.T) {
	l := newLanes(4)
	webhook := domain.WebhookID(uuid.New())
	l.found([]domain.WebhookID{webhook})
	if webhooks, _ := l.wanted(maxRowsAClaim); len(webhooks) != 1 {
		t.Fatal("nothing is claimed")
	}
	l.found([]domain.WebhookID{webhook})
	l.drained(webhook) // by that claim
	if webhooks, _ := l.wanted(maxRowsAClaim); len(webhooks) != 1 {
		t.Fatal("what came meanwhile is forgotten")
	}
	l.drained(webhook)
	if webhooks, _ := l.wanted(maxRowsAClaim); len(webhooks) != 0 {
		t.Fatal("an empty lane is claimed from")
	}
}

// What a replay sends waits behind all that a lane has of live events.
func TestLanesLetLiveEventsGoFirst(t *testing.T) {
	l := newLanes(1)
	webhook := domain.WebhookID(uuid.New())
	replayed, live := deliveriesTo(webhook, 3), deliveriesTo(webhook, 2)
	for _, d := range replayed {
		d.replay = domain.ReplayID(uuid.New())
	}
	l.add(replayed)
	l.add(live)
	for i, want := range []*delivery{live[0], live[1], replayed[0], replayed[1], replayed[2]} {
		got := l.next()
		if got != want {
			t.Fatalf("call %d is another's", i+1)
		}
		l.uncalled(got)
	}
}

// New deliveries of other lines do not wait until what has its turn now is claimed from the table.
func TestTurnsHoldUpNobody(t *testing.T) {
	l := newLanes(4)
	l.node = 7
	webhook := domain.WebhookID(uuid.New())
	claims := func() bool {
		d := domain.Dispatch{Recipient: domain.Recipient{WebhookID: webhook}, DeliveryID: domain.DeliveryID(uuid.New())}
		l.beginClaims()
		node, _ := l.claimNew(d, 1)
		return node == l.node
	}
	l.beginClaims()
	l.endedInLine(webhook)
	if l.lane(webhook).backlog {
		t.Error("a turn is looked for that nobody was given")
	}
	l.turned([][16]byte{webhook})
	l.endedInLine(webhook)
	if !l.lane(webhook).backlog || !claims() {
		t.Error("a turn is not looked for, or others wait for it")
	}
	l.filled(webhook)
	l.turned([][16]byte{webhook})
	l.endedInLine(webhook)
	if claims() {
		t.Error("a new delivery goes before a backlog")
	}
	l.drained(webhook)
	if !claims() {
		t.Error("a new delivery waits for a backlog that is gone")
	}
	// What others may go before is claimed however full the lane is; a backlog waits for half of it.
	ln := l.lane(webhook)
	l.add(deliveriesTo(webhook, l.most(ln)/2+1))
	l.turned([][16]byte{webhook})
	l.endedInLine(webhook)
	if lanes, _ := l.wanted(maxRowsAClaim); len(lanes) != 1 {
		t.Error("a turn waits for as long as new deliveries come")
	}
	l.found([]domain.WebhookID{webhook})
	if lanes, _ := l.wanted(maxRowsAClaim); len(lanes) != 1 || !claims() {
		t.Error("what others queued is not looked for, or new deliveries follow it to the table")
	}
	l.filled(webhook)
	l.found([]domain.WebhookID{webhook})
	if lanes, _ := l.wanted(maxRowsAClaim); len(lanes) != 0 {
		t.Error("a backlog is claimed in small parts")
	}
	if claims() {
		t.Error("a new delivery goes before what waits")
	}
}

// What waits behind others of its line is not called, and not looked for.
func TestBehindOthersOfTheLine(t *testing.T) {
	l := newLanes(4)
	l.node = 7
	event := domain.EventDispatched{EventID: domain.EventID(uuid.New())}
	for range 3 {
		event.Deliveries = append(event.Deliveries, domain.Dispatch{Recipient: domain.Recipient{WebhookID: domain.WebhookID(uuid.New()), Line: 5},
			DeliveryID: domain.DeliveryID(uuid.New())})
	}
	l.beginClaims()
	for _, d := range event.Deliveries {
		l.claimNew(d, 1)
	}
	behind := event.Deliveries[1]
	l.behind([][16]byte{behind.DeliveryID})
	l.dispatched(event, domain.EventTriggered{}, time.Now())
	if l.waiting != 2 || l.has(behind.DeliveryID) || l.lane(behind.WebhookID).backlog {
		t.Errorf("%d are called, that behind another: %v; looked for: %v", l.waiting, l.has(behind.DeliveryID), l.lane(behind.WebhookID).backlog)
	}
	if d := l.next(); d.line != 5 {
		t.Errorf("the delivery is in line %d", d.line)
	}
}

// A row of claims is done when all that share it are, whichever way they went.
func TestClaimIsDoneWithItsLast(t *testing.T) {
	l := newLanes(4)
	l.node = 7
	event := domain.EventDispatched{EventID: domain.EventID(uuid.New())}
	l.beginClaims()
	for range 3 {
		d := domain.Dispatch{Recipient: domain.Recipient{WebhookID: domain.WebhookID(uuid.New())}, DeliveryID: domain.DeliveryID(uuid.New())}
		if node, shared := l.claimNew(d, 1); node != l.node || !shared {
			t.Fatalf("it is claimed for %d, shared: %v", node, shared)
		}
		event.Deliveries = append(event.Deliveries, d)
	}
	l.dispatched(event, domain.EventTriggered{}, time.Now())
	first, all := event.Deliveries[0].DeliveryID, []domain.DeliveryID{}
	for _, d := range event.Deliveries {
		all = append(all, d.DeliveryID)
	}
	ended, late := l.next(), l.next()
	l.settle(ended)
	l.settle(ended)
	l.forget(ended)
	if l.lacks(first, all) {
		t.Error("what has ended is missed in memory")
	}
	l.cancelled(event.Deliveries[2].DeliveryID) // while it waits
	if done := l.takeDone(); len(done) > 0 {
		t.Errorf("%v is done, and one of it is under way", done)
	}
	l.settle(late)
	if done := l.takeDone(); len(done) != 1 || done[0] != first {
		t.Errorf("%v is done, want the claim that its first delivery names", done)
	}
	if len(l.over) != 1 {
		t.Error("nobody is told")
	}
}

// What a claim holds and the node forgot, as its outcome could not be recorded, is found.
func TestClaimLacksWhatIsForgotten(t *testing.T) {
	l := newLanes(4)
	event := domain.EventDispatched{EventID: domain.EventID(uuid.New())}
	var all []domain.DeliveryID
	l.beginClaims()
	for range 2 {
		d := domain.Dispatch{Recipient: domain.Recipient{WebhookID: domain.WebhookID(uuid.New())}, DeliveryID: domain.DeliveryID(uuid.New())}
		l.claimNew(d, 1)
		event.Deliveries, all = append(event.Deliveries, d), append(all, d.DeliveryID)
	}
	l.dispatched(event, domain.EventTriggered{}, time.Now())
	if l.lacks(all[0], all) {
		t.Error("all is in memory, and missed")
	}
	under := l.next()
	l.uncalled(under)
	l.forget(under)
	if !l.lacks(all[0], all) {
		t.Error("what was forgotten is not missed")
	}
	if again := l.unshare(l.stop()); len(again) != 0 || len(l.shared) != 0 {
		t.Errorf("%v are to be separated again", again)
	}
}
