package outbox

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

func TestGapTracker(t *testing.T) {
	var u gapTracker
	u.observe([]int64{1, 2, 4, 7}, 100, 90)
	if want := []gap{{3, 3, 100}, {5, 6, 100}}; u.highWater != 7 || !reflect.DeepEqual(u.gaps, want) {
		t.Fatalf("after the first reading: %+v", u)
	}
	u.observe([]int64{6, 9}, 105, 99)
	if want := []gap{{3, 3, 100}, {5, 5, 100}, {8, 8, 105}}; u.highWater != 9 || !reflect.DeepEqual(u.gaps, want) {
		t.Fatalf("after a late one: %+v", u)
	}
	u.observe([]int64{3}, 106, 100) // a full batch of late ones: nobody looked beyond 3
	if want := []gap{{5, 5, 100}, {8, 8, 105}}; !reflect.DeepEqual(u.gaps, want) {
		t.Fatalf("after a full reading: %+v", u)
	}
	u.observe(nil, 106, 100) // whoever was open when 5 was missed has ended
	if want := []gap{{8, 8, 105}}; !reflect.DeepEqual(u.gaps, want) {
		t.Fatalf("after an empty reading: %+v", u)
	}
	u.observe(nil, 120, 105)
	if u.highWater != 9 || len(u.gaps) != 0 {
		t.Fatalf("at rest: %+v", u)
	}
}

// Whatever the order of commits, the length of transactions and the rollbacks, every number
// that becomes visible is found once.
func TestGapTrackerFindsAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		random := rand.New(rand.NewPCG(seed, 1))
		limit := rapid.IntRange(1, 5).Draw(t, "limit")
		var u gapTracker
		open := map[int64][]int64{}     // transaction id to its numbers
		visible := map[int64]struct{}{} // committed rows that nobody took
		var nextID, nextSeq, committed, found, oldestBefore int64 = 1, 1, 0, 0, 0
		step := func(ending bool) {
			switch what := random.IntN(4); {
			case ending || what == 0: // one commits or rolls back
				for id, seqs := range open {
					delete(open, id)
					if random.IntN(4) > 0 {
						for _, s := range seqs {
							visible[s] = struct{}{}
							committed++
						}
					}
					break
				}
			case what == 1: // one begins
				open[nextID] = nil
				nextID++
			case what == 2: // one emits
				for id := range open {
					open[id] = append(open[id], nextSeq)
					nextSeq++
					break
				}
			}
			// A reading, as the SQL does it.
			var seqs []int64
			for s := int64(1); s < nextSeq && len(seqs) < limit; s++ {
				if _, is := visible[s]; is && u.covers(s) {
					seqs = append(seqs, s)
					delete(visible, s)
					found++
				}
			}
			u.observe(seqs, nextID, oldestBefore)
			oldestBefore = nextID
			for id := range open {
				oldestBefore = min(oldestBefore, id)
			}
		}
		for range 300 {
			step(false)
		}
		for range 600 {
			step(true)
		}
		if found != committed || len(visible) > 0 {
			t.Fatalf("%d were committed and %d found", committed, found)
		}
		if len(u.gaps) > 0 {
			t.Fatalf("nothing is open and %d gaps remain", len(u.gaps))
		}
	})
}

func (t *gapTracker) covers(s int64) bool {
	for _, g := range t.gaps {
		if g.first <= s && s <= g.last {
			return true
		}
	}
	return s > t.highWater
}

func TestGapTrackerIsBounded(t *testing.T) {
	var u gapTracker
	for s := int64(2); s < 100_000; s += 2 {
		u.observe([]int64{s}, s, 0)
	}
	if len(u.gaps) > maxGaps {
		t.Errorf("%d gaps are remembered", len(u.gaps))
	}
	for s := int64(1); s < u.highWater; s += 2 {
		if !u.covers(s) {
			t.Fatalf("%d is forgotten", s)
		}
	}
}
