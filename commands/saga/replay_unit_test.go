package saga

import (
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
)

// Replays that cannot go on, or wait for receivers that fail, keep no newer one from its
// turn; and while there is place for all, none has to leave.
func TestReplaysTakeTurns(t *testing.T) {
	r := newReplayer(&session{}, nil)
	now := time.Unix(1_800_000_000, 0)
	var unfinished []domain.ReplayID
	request := func(n int) {
		for range n {
			unfinished = append(unfinished, domain.ReplayID(uuid.Must(uuid.NewV7())))
		}
	}
	runs := func(id domain.ReplayID) bool { return r.jobs[id] != nil }
	leaving := func() (out []domain.ReplayID) {
		for id, job := range r.jobs {
			select {
			case <-job.leave:
				out = append(out, id)
			default:
			}
		}
		return out
	}
	begin := func(want int) {
		t.Helper()
		if got := len(r.begin(unfinished, now)); got != want {
			t.Fatalf("%d replays begin, want %d", got, want)
		}
	}

	request(mostJobs)
	begin(mostJobs)
	now = now.Add(time.Hour)
	begin(0)
	if left := leaving(); len(left) != 0 {
		t.Errorf("%d leave for nobody", len(left))
	}

	request(3)
	begin(0)
	if left := leaving(); len(left) != 3 {
		t.Fatalf("%d leave for 3", len(left))
	}
	begin(0) // nobody else leaves before they have
	left := leaving()
	if len(left) != 3 {
		t.Fatalf("%d leave for 3, asked again", len(left))
	}
	for _, id := range left {
		delete(r.jobs, id)
	}
	begin(3)
	if !runs(unfinished[mostJobs]) || !runs(unfinished[mostJobs+2]) || runs(left[0]) {
		t.Error("those that never ran do not begin first")
	}
	now = now.Add(turn)
	begin(0) // for the three that left, three others leave
	again := leaving()
	if len(again) != 3 || slices.ContainsFunc(unfinished[mostJobs:], func(id domain.ReplayID) bool { return slices.Contains(again, id) }) {
		t.Errorf("%d leave, not those that began longest ago", len(again))
	}

	// All that run end at once, as they fail: a new one is the first to begin.
	clear(r.jobs)
	request(1)
	now = now.Add(time.Second)
	begin(mostJobs)
	if !runs(unfinished[len(unfinished)-1]) || !runs(left[0]) {
		t.Error("failing replays keep a new one from its turn")
	}
}
