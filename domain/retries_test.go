package domain

import (
	"testing"
	"time"

	"github.com/google/uuid"
)

// The most retries that the guide allows, played from the first attempt to the end: each wait
// is the guide's table, never shorter, at most 5 % longer, at most 24 hours.
func TestTenRetries(t *testing.T) {
	const day = 24 * time.Hour
	doubling := func(first time.Duration) (waits []time.Duration) {
		for range 10 {
			waits = append(waits, first)
			first *= 2
		}
		return waits
	}
	for _, c := range []struct {
		retryDelay int
		waits      []time.Duration
	}{
		{1, doubling(time.Second)},
		{60, doubling(time.Minute)}, // the guide's: 60, 120, 240 ... 30720 s
		{1000, []time.Duration{1000 * time.Second, 2000 * time.Second, 4000 * time.Second, 8000 * time.Second, 16_000 * time.Second, 32_000 * time.Second, 64_000 * time.Second, day, day, day}},
		{3600, []time.Duration{time.Hour, 2 * time.Hour, 4 * time.Hour, 8 * time.Hour, 16 * time.Hour, day, day, day, day, day}},
		{86400, []time.Duration{day, day, day, day, day, day, day, day, day, day}},
	} {
		for seed := range 50 {
			id := DeliveryID(uuid.NewSHA1(uuid.Nil, []byte{byte(seed)}))
			w := Webhook{WebhookSettings: WebhookSettings{MaxRetries: 10, RetryDelay: c.retryDelay}}
			var d Delivery
			at := time.Date(2024, 1, 15, 10, 30, 0, 0, time.UTC)
			for attempt := 1; attempt <= 11; attempt++ {
				if d.State != "" && d.State != DeliveryPending {
					t.Fatalf("before attempt %d it is %s", attempt, d.State)
				}
				end := at.Add(7 * time.Second) // how long a call takes does not count
				change := DecideOutcome(id, d.Retries, w, Call{Attempt: attempt, Outcome: "http_status", Status: 500}, end, 0)
				failed, ok := change.(DeliveryAttemptFailed)
				if !ok {
					t.Fatalf("attempt %d is decided as %+v", attempt, change)
				}
				d = d.Evolve(failed, end)
				if attempt == 11 {
					if failed.GaveUp != GaveUpRetriesExhausted || !failed.NextAttemptAt.IsZero() || d.State != DeliveryFailed || d.Attempts != 11 {
						t.Errorf("after ten retries: %+v, %+v", failed, d)
					}
					continue
				}
				wait, want := failed.NextAttemptAt.Sub(end), c.waits[attempt-1]
				if failed.GaveUp != "" || wait < want || wait > min(want+want/20, day) {
					t.Errorf("retry_delay %d: attempt %d follows after %v, want %v and at most 5 %% more", c.retryDelay, attempt+1, wait, want)
				}
				at = failed.NextAttemptAt
			}
		}
	}
}

// What neither uses up a retry nor counts as one, and what starts the count anew.
func TestRetriesAreCounted(t *testing.T) {
	id := DeliveryID(uuid.NewSHA1(uuid.Nil, []byte("delivery")))
	at := time.Date(2024, 1, 15, 10, 30, 0, 0, time.UTC)
	w := Webhook{WebhookSettings: WebhookSettings{MaxRetries: 2, RetryDelay: 100}, Version: 1}
	var d Delivery
	fail := func(status int, retryAfter time.Duration) DeliveryAttemptFailed {
		t.Helper()
		failed, ok := DecideOutcome(id, d.Retries, w, Call{Attempt: d.Attempts + 1, Outcome: "http_status", Status: status}, at, retryAfter).(DeliveryAttemptFailed)
		if !ok {
			t.Fatal("a failed call is no failure")
		}
		d = d.Evolve(failed, at)
		return failed
	}
	within := func(f DeliveryAttemptFailed, want time.Duration) {
		t.Helper()
		if wait := f.NextAttemptAt.Sub(at); wait < want || wait > want+want/20 {
			t.Errorf("attempt %d follows after %v, want %v", f.Attempt+1, wait, want)
		}
	}
	within(fail(500, 0), 100*time.Second)
	if again := DecideOutcome(id, 0, w, Call{Attempt: 1, Status: 500}, at.Add(1), 0).(DeliveryAttemptFailed).NextAttemptAt; again.Nanosecond()%1000 != 0 {
		t.Errorf("the log would not keep %v", again)
	}
	d = d.Evolve(DecideInterruption(EventID{}, "visit.created", w, d.Attempts+1, "the process ended"), at)
	if d.Retries != 1 || d.Attempts != 2 {
		t.Errorf("after an interruption: %+v", d)
	}
	within(fail(503, time.Second), 200*time.Second) // it shortens nothing
	if f := fail(503, time.Hour); f.GaveUp != GaveUpRetriesExhausted || d.Attempts != 4 {
		t.Errorf("after two retries: %+v, %+v", f, d)
	}
	again, err := DecideRetry(d, w, EventID{}, 10)
	if err != nil {
		t.Fatal(err)
	}
	d = d.Evolve(again, at)
	within(fail(429, time.Hour), time.Hour) // asked for, the count begins anew
	within(fail(429, 0), 200*time.Second)
	if f := fail(410, 0); f.GaveUp != GaveUpGone {
		t.Errorf("after 410: %+v", f)
	}
	if ok := DecideOutcome(id, 0, w, Call{Attempt: 1, Outcome: OutcomeSuccess, Status: 204}, at, 0); d.Evolve(ok, at).State != DeliveryDelivered {
		t.Errorf("a success is %+v", ok)
	}
}

// What is asked for after a cancelled attempt leaves out its number if that may be under way.
func TestNumberAfterACancelledAttempt(t *testing.T) {
	failed := DeliveryAttemptFailed{Call: Call{Attempt: 1}, NextAttemptAt: goldenTime.Add(time.Minute)}
	cancelled, takenBack := DeliveryCancelled{Reason: CancelRequested}, DeliveryRetryCancelled{}
	waiting, waitingBack := DeliveryCancelled{Reason: CancelRequested, Waiting: true}, DeliveryRetryCancelled{Waiting: true}
	late := DeliveryOutcomeLate{Call: Call{Attempt: 2}}
	for name, c := range map[string]struct {
		after   time.Duration
		changes []Change
		want    int
	}{
		"due at once":            {0, []Change{cancelled}, 2},
		"waiting for others":     {0, []Change{waiting}, 1},
		"due, and with no node":  {time.Minute, []Change{failed, waiting}, 2},
		"waiting for the retry":  {0, []Change{failed, cancelled}, 2},
		"due for the retry":      {time.Minute, []Change{failed, cancelled}, 3},
		"which ended since":      {time.Minute, []Change{failed, cancelled, late}, 3},
		"given up":               {time.Minute, []Change{DeliveryAttemptFailed{Call: Call{Attempt: 1}, GaveUp: GaveUpGone}, DeliveryCancelled{Was: DeliveryFailed}}, 2},
		"taken back":             {time.Minute, []Change{failed, takenBack}, 3},
		"back from no node":      {time.Minute, []Change{failed, waitingBack}, 2},
		"cancelled, then waits":  {0, []Change{cancelled, DeliveryRetryRequested{Attempt: 2}, waiting}, 2},
		"taken back before":      {0, []Change{failed, takenBack}, 2},
		"cancelled twice":        {0, []Change{cancelled, DeliveryRetryRequested{Attempt: 2}, cancelled}, 3},
		"interrupted, then late": {time.Minute, []Change{failed, DeliveryInterrupted{Attempt: 2}, late, cancelled}, 4},
	} {
		d := Delivery{}
		for _, change := range c.changes {
			d = d.Evolve(change, goldenTime.Add(c.after))
		}
		if got := d.NextAttempt(); got != c.want {
			t.Errorf("%s: the next attempt is %d, want %d", name, got, c.want)
		}
	}
}
