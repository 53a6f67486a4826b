package projections

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/medilab/webhooks/domain"
)

func randomCall(r *rand.Rand) *domain.Call {
	return &domain.Call{
		EventType: []string{"patient.created", "visit.completed", "webhook.alert_raised", ""}[r.IntN(4)],
		Attempt:   1 + r.IntN(3), Status: []int{0, 200, 503, 99999, -1}[r.IntN(5)], Duration: r.Int64N(400_000_000) - 10,
		Outcome: []domain.Outcome{domain.OutcomeSuccess, domain.OutcomeTimeout, domain.OutcomeInterrupted, "dns"}[r.IntN(4)],
	}
}

// TestCountersAddUp: however a history is cut into pages, its counters are the same.
func TestCountersAddUp(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	whole, cut, page := &counters{}, &counters{}, &counters{}
	at := time.Unix(1_800_000_000, 0)
	for range 2000 {
		at = at.Add(time.Duration(r.IntN(20_000)) * time.Millisecond)
		call := randomCall(r)
		whole.call(call, at)
		page.call(call, at)
		if r.IntN(10) == 0 {
			cut.add(page)
			page = &counters{}
			if err := cut.ScanBytes(cut.encode()); err != nil {
				t.Fatal(err)
			}
		}
	}
	cut.add(page)
	if !bytes.Equal(whole.encode(), cut.encode()) {
		t.Errorf("whole %+v\n  cut %+v", whole, cut)
	}
	for i := range whole.encode() {
		if new(counters).ScanBytes(whole.encode()[:i]) == nil {
			t.Fatalf("%d bytes of %d decode", i, len(whole.encode()))
		}
	}
}

func TestPercentilesAreWithinABucket(t *testing.T) {
	var h histogram
	for ms := int64(1); ms <= 1000; ms++ {
		h.add(bucketOf(ms*1000), 1)
	}
	for share, want := range map[float64]float64{0: 1, 0.5: 500, 0.95: 950, 0.99: 990, 1: 1000} {
		if got := float64(percentile(h, share)) / 1000; got < want*0.9 || got > want*1.1 {
			t.Errorf("p%v is %v ms, not about %v", share*100, got, want)
		}
	}
	few := histogram{}
	for _, ms := range []int64{1, 2, 1000} {
		few.add(bucketOf(ms*1000), 1)
	}
	for share, want := range map[float64]float64{0: 1, 0.33: 1, 0.5: 2, 0.66: 2, 0.95: 1000, 0.99: 1000} {
		if got := float64(percentile(few, share)) / 1000; got < want*0.9 || got > want*1.1 {
			t.Errorf("of three calls p%v is %v ms, not about %v", share*100, got, want)
		}
	}
	if bucketOf(-1) != 0 || bucketOf(0) != 0 || bucketOf(1<<62) != len(bounds)-1 {
		t.Error("durations beyond the bounds have no bucket")
	}
}
