package http

import (
	"testing"
	"time"

	"github.com/medilab/webhooks/projections"
)

// The ring holds a bounded part of the log, and says what it holds no more.
func TestRingIsBounded(t *testing.T) {
	r := &ring{moved: make(chan struct{})}
	if p, dropped, _ := r.next(0); p != nil || dropped {
		t.Errorf("an empty ring has %v, %t", p, dropped)
	}
	r.start(10)
	const pages = 5
	for n := range projections.Position(pages) {
		_, _, moved := r.next(10 + 2*n)
		r.add(&page{last: 12 + 2*n, weight: ringWeight / 2})
		select {
		case <-moved:
		default:
			t.Error("a page was added, and who waits for it is not told")
		}
	}
	for at, want := range map[projections.Position]projections.Position{10: 0, 15: 0, 16: 18, 17: 18, 18: 20, 19: 20, 20: 0, 30: 0} {
		p, dropped, _ := r.next(at)
		if dropped != (at < 16) || (p != nil) != (want != 0) || p != nil && p.last != want {
			t.Errorf("after %d it has %+v, dropped %t", at, p, dropped)
		}
	}
	r.add(&page{last: 21, weight: 3 * ringWeight}) // one page is always there
	if p, _, _ := r.next(20); p == nil || len(r.pages) != 1 {
		t.Errorf("%d pages", len(r.pages))
	}
}

// A client that was live and fell behind the ring is disconnected; one that resumes is not.
func TestSlowStreamEnds(t *testing.T) {
	s := NewServer(unserved)
	r := &ring{moved: make(chan struct{})}
	r.start(0)
	r.add(&page{last: 1, items: map[streamKind][]streamItem{}})
	later := time.Now().Add(time.Hour) // neither is its token looked at, nor is it kept alive
	c := streamClient{server: s, x: &request{}, checked: later, sent: later}
	if more, err := c.next(t.Context(), r); !more || err != nil || !c.live || c.at != 1 {
		t.Fatalf("it got %t, %v, and is at %d", more, err, c.at)
	}
	for n := range projections.Position(3) {
		r.add(&page{last: 2 + n, weight: ringWeight})
	}
	if more, err := c.next(t.Context(), r); more || err != nil {
		t.Errorf("it goes on: %t, %v", more, err)
	}
}

// Nobody listening costs nothing: the log is read while there are streams.
func TestLiveEndsWithTheLastStream(t *testing.T) {
	l := &live{ring: &ring{}, streams: 0}
	stopped := 0
	l.stop = func() { stopped++ }
	first, leaveFirst := l.join()
	second, leaveSecond := l.join()
	if first != second {
		t.Error("two streams do not share a ring")
	}
	if leaveFirst(); stopped != 0 {
		t.Error("the reading stopped under a stream")
	}
	if leaveSecond(); stopped != 1 || l.ring != nil {
		t.Error("the reading goes on for nobody")
	}
}
