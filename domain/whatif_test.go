package domain

import (
	"fmt"
	"testing"
	"time"
)

// What would have become of a delivery, as "state attempts seconds": the end counts from its
// first attempt.
func TestWhatIf(t *testing.T) {
	start := time.Date(2024, 1, 15, 10, 0, 0, 0, time.UTC)
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	// calls of statuses, each a second long; a negative one took its seconds to time out.
	past := func(n int, seconds float64, status int, next float64) PastCall {
		c := PastCall{StartedAt: at(seconds), Duration: time.Second, Attempt: n, Status: status, Outcome: "http_status"}
		if status == 200 {
			c.Outcome = OutcomeSuccess
		}
		if next > 0 {
			c.Next = at(next)
		}
		return c
	}
	slow := past(1, 0, 200, 0)
	slow.Duration = 20 * time.Second
	throttled := past(1, 0, 503, 0)
	throttled.RetryAfter = time.Hour
	other := func(seconds float64, status int) PastCall { return past(1, seconds, status, 0) }
	down := CallHistory{past(1, 0, 500, 61), past(2, 61, 500, 0)} // one retry after a minute, given up
	for _, c := range []struct {
		name   string
		own    CallHistory
		others CallHistory
		policy RetryPolicy
		now    float64
		want   string
		was    string
	}{
		{"as it was", down, nil, RetryPolicy{1, 60, 0}, 1e6, "failed 2 62", "failed 2 62"},
		{"as it was, whatever others got then", down, CallHistory{other(61.4, 200), other(60.9, 200)}, RetryPolicy{1, 60, 0}, 1e6, "failed 2 62", "failed 2 62"},
		{"one more, when it was up", down, CallHistory{other(150, 500), other(200, 200)}, RetryPolicy{2, 60, 0}, 1e6, "delivered 3 183", "failed 2 62"},
		{"one more, when it was down", down, CallHistory{other(150, 200), other(185, 500)}, RetryPolicy{2, 60, 0}, 1e6, "failed 3 183", "failed 2 62"},
		{"none recorded near", down, nil, RetryPolicy{3, 60, 0}, 1e6, "failed 4 424", "failed 2 62"},
		{"due after now", down, CallHistory{other(200, 200)}, RetryPolicy{2, 60, 0}, 100, "pending 2", "failed 2 62"},
		{"no retries", CallHistory{past(1, 0, 500, 61), past(2, 61, 200, 0)}, nil, RetryPolicy{0, 60, 0}, 1e6, "failed 1 1", "delivered 2 62"},
		{"sooner", CallHistory{past(1, 0, 500, 61), past(2, 61, 200, 0)}, CallHistory{other(9, 200)}, RetryPolicy{1, 10, 0}, 1e6, "delivered 2 12", "delivered 2 62"},
		{"too soon", CallHistory{past(1, 0, 500, 61), past(2, 61, 200, 0)}, CallHistory{other(9, 500)}, RetryPolicy{1, 10, 0}, 1e6, "failed 2 12", "delivered 2 62"},
		{"the event itself is refused", CallHistory{past(1, 0, 422, 61), past(2, 61, 422, 0)}, CallHistory{other(180, 200), other(181, 200)}, RetryPolicy{2, 60, 0}, 1e6, "failed 3 183", "failed 2 62"},
		{"gone", CallHistory{past(1, 0, 410, 0)}, CallHistory{other(61, 200)}, RetryPolicy{3, 60, 0}, 1e6, "failed 1 1", "failed 1 1"},
		{"a shorter timeout", CallHistory{slow}, CallHistory{other(60, 500)}, RetryPolicy{0, 60, 10}, 1e6, "failed 1 10", "delivered 1 20"},
		{"a longer timeout", CallHistory{slow}, nil, RetryPolicy{0, 60, 30}, 1e6, "delivered 1 20", "delivered 1 20"},
		{"told to wait", CallHistory{throttled}, CallHistory{other(70, 500), other(3600, 200)}, RetryPolicy{1, 60, 0}, 1e6, "delivered 2 3602", "failed 1 1"},
		{"retried by hand since", append(CallHistory{past(3, 5000, 200, 0)}, down...), nil, RetryPolicy{1, 60, 0}, 1e6, "failed 2 62", "failed 2 62"},
		{"held up while inactive", CallHistory{past(1, 0, 500, 61), past(2, 5000, 200, 0)}, CallHistory{other(61, 500)}, RetryPolicy{1, 60, 0}, 1e6, "delivered 2 5001", "delivered 2 5001"},
		{"not ended", CallHistory{past(1, 0, 500, 61)}, nil, RetryPolicy{0, 60, 0}, 1e6, "failed 1 1", "pending 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.own.Sort()
			all := append(append(CallHistory{}, c.others...), c.own...)
			all.Sort()
			show := func(end WhatIfEnd) string {
				if end.At.IsZero() {
					return fmt.Sprintf("%s %d", end.State, end.Attempts)
				}
				return fmt.Sprintf("%s %d %.0f", end.State, end.Attempts, end.At.Sub(start).Seconds())
			}
			// Jitter adds up to 4 % to a wait: this delivery has nearly none.
			if got := show(all.WhatIf(steady(t), c.own, c.policy, at(c.now))); got != c.want {
				t.Errorf("would be %s, want %s", got, c.want)
			}
			if got := show(c.own.RecordedEnd()); got != c.was {
				t.Errorf("was %s, want %s", got, c.was)
			}
		})
	}
}

func TestNearestCall(t *testing.T) {
	start := time.Date(2024, 1, 15, 10, 0, 0, 0, time.UTC)
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	h := CallHistory{{StartedAt: at(10)}, {StartedAt: at(20)}, {StartedAt: at(40)}}
	for seconds, want := range map[int]int{0: 10, 10: 10, 15: 10, 16: 20, 20: 20, 30: 20, 31: 40, 90: 40} {
		if got := h.nearest(at(seconds)).StartedAt; got != at(want) {
			t.Errorf("nearest to %d is %v, want %d", seconds, got.Sub(start), want)
		}
	}
}

// steady returns a delivery whose first four attempts have next to no jitter.
func steady(t *testing.T) (id DeliveryID) {
	t.Helper()
	for n := range 1 << 24 {
		id[0], id[1], id[2] = byte(n), byte(n>>8), byte(n>>16)
		jitter := time.Duration(0)
		for attempt := 1; attempt <= 3; attempt++ {
			jitter += NextAttemptDelay(time.Minute, attempt+1, jitterOf(id, attempt)) - NextAttemptDelay(time.Minute, attempt+1, 0).Truncate(time.Minute)
		}
		if jitter < time.Second/3 {
			return id
		}
	}
	t.Fatal("none is steady")
	return id
}

func TestWhatIfCounts(t *testing.T) {
	now := time.Date(2024, 1, 15, 10, 0, 0, 0, time.UTC)
	end := func(state DeliveryState, seconds int) WhatIfEnd {
		return WhatIfEnd{State: state, At: now.Add(time.Duration(seconds) * time.Second), Attempts: 2}
	}
	var got WhatIf
	for range 3 {
		got.Add(end(DeliveryFailed, 5), end(DeliveryDelivered, 9), WhatIfSample{EventType: "gained"}, 2)
		got.Add(end(DeliveryDelivered, 5), end(DeliveryFailed, 9), WhatIfSample{EventType: "lost"}, 2)
		got.Add(end(DeliveryFailed, 5), WhatIfEnd{State: DeliveryPending, Attempts: 3}, WhatIfSample{EventType: "pending"}, 2)
		got.Add(end(DeliveryDelivered, 5), end(DeliveryDelivered, 3), WhatIfSample{}, 2)
		got.Add(end(DeliveryDelivered, 5), end(DeliveryDelivered, 9), WhatIfSample{}, 2)
		got.Add(end(DeliveryDelivered, 5), end(DeliveryDelivered, 6), WhatIfSample{}, 2)
		got.Add(end(DeliveryFailed, 5), end(DeliveryFailed, 9), WhatIfSample{}, 2)
	}
	if len(got.Samples) != 6 || got.Samples[2].EndedAtInstead != nil || !got.Samples[0].EndedAtInstead.Equal(now.Add(9*time.Second)) {
		t.Errorf("samples: %+v", got.Samples)
	}
	got.Samples = nil
	if want := (WhatIf{Considered: 21, Delivered: 12, Failed: 9, DeliveredInstead: 3, FailedInstead: 3, PendingInstead: 3, Sooner: 3, Later: 3, Calls: 42, CallsInstead: 45}); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
