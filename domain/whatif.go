package domain

import (
	"cmp"
	"slices"
	"sort"
	"time"
)

// What another retry policy would have done to the deliveries of a webhook is told from the
// calls that the log recorded, on a virtual clock:
//
//   - a delivery begins with its recorded first attempt, and each further one is decided by
//     DecideOutcome under the proposed policy;
//   - an attempt that falls on a recorded one of the same delivery gets its answer;
//   - any other gets the answer that the receiver gave nearest in time to any delivery, the
//     earlier one of two that are as near; of a delivery whose event the receiver refused
//     (refusesEvent), only its own answers count;
//   - a call that took longer than a proposed timeout has failed by then. A longer timeout
//     changes nothing: what would have come is not known;
//   - an attempt that is due after now is not made: the delivery is still pending.

// RetryPolicy is a proposal for the retries of a webhook.
type RetryPolicy struct {
	MaxRetries int
	RetryDelay int // seconds
	Timeout    int // seconds; 0: as it was
}

// RetryPolicy returns the policy that the request proposes for the webhook, nil if it has
// none of its fields.
func (s WebhookSpec) RetryPolicy(w Webhook) *RetryPolicy {
	if !s.MaxRetries.Given && !s.RetryDelay.Given && !s.Timeout.Given {
		return nil
	}
	proposed := func(asked Asked[int], was, byDefault int) int {
		if asked.Given {
			return asked.or(byDefault)
		}
		return was
	}
	return &RetryPolicy{
		MaxRetries: proposed(s.MaxRetries, w.MaxRetries, MaxRetriesRange.Default),
		RetryDelay: proposed(s.RetryDelay, w.RetryDelay, RetryDelayRange.Default),
		Timeout:    proposed(s.Timeout, 0, TimeoutRange.Default),
	}
}

// PastCall is a recorded call of a webhook: how the receiver answered then.
type PastCall struct {
	StartedAt  time.Time
	Duration   time.Duration
	Attempt    int
	Outcome    Outcome
	Status     int
	RetryAfter time.Duration // that the receiver asked for
	Next       time.Time     // when the next attempt was due; zero: none
}

// refusesEvent reports whether the answer is about the event itself, so that another attempt
// gets the same, whenever it is made.
func (c *PastCall) refusesEvent() bool {
	return slices.Contains([]int{400, 409, 413, 415, 422}, c.Status)
}

// CallHistory is the calls of a webhook, in the order in which they began.
type CallHistory []PastCall

// Sort brings calls into their order.
func (h CallHistory) Sort() {
	slices.SortStableFunc(h, func(a, b PastCall) int { return a.StartedAt.Compare(b.StartedAt) })
}

// nearest returns the call that began nearest to the time.
func (h CallHistory) nearest(at time.Time) *PastCall {
	after := sort.Search(len(h), func(i int) bool { return !h[i].StartedAt.Before(at) })
	if after == len(h) || after > 0 && at.Sub(h[after-1].StartedAt) <= h[after].StartedAt.Sub(at) {
		after--
	}
	return &h[after]
}

// WhatIfEnd is how a delivery ended, or would have.
type WhatIfEnd struct {
	State    DeliveryState // pending: it had not ended by then
	At       time.Time     // of the end; zero while pending
	Attempts int
}

// RecordedEnd returns how the delivery of the calls ended when it was first tried: what
// somebody asked for after its end is not the policy's doing.
func (h CallHistory) RecordedEnd() WhatIfEnd {
	for i := range h {
		c := &h[i]
		end := WhatIfEnd{At: c.StartedAt.Add(c.Duration), Attempts: i + 1}
		switch {
		case c.Outcome == OutcomeSuccess:
			end.State = DeliveryDelivered
			return end
		case c.Next.IsZero():
			end.State = DeliveryFailed
			return end
		}
	}
	return WhatIfEnd{State: DeliveryPending, Attempts: len(h)}
}

// WhatIf returns how the delivery of the calls own, of which there is one, would have ended
// by now under the policy; h is all calls of its webhook.
func (h CallHistory) WhatIf(id DeliveryID, own CallHistory, policy RetryPolicy, now time.Time) WhatIfEnd {
	const same = time.Second // a recorded attempt starts a little after it is due
	if slices.ContainsFunc(own, func(c PastCall) bool { return c.refusesEvent() }) {
		h = own
	}
	w := Webhook{WebhookSettings: WebhookSettings{MaxRetries: policy.MaxRetries, RetryDelay: policy.RetryDelay}}
	at, answer, recorded := own[0].StartedAt, &own[0], 0 // recorded: its place in own; -1: none
	number := own[0].Attempt
	for retries := 0; ; retries++ {
		call, took, wait := answer.heard(at, number, policy)
		end := WhatIfEnd{At: at.Add(took), Attempts: retries + 1}
		failed, isFailed := DecideOutcome(id, retries, w, call, end.At, wait).(DeliveryAttemptFailed)
		switch {
		case !isFailed:
			end.State = DeliveryDelivered
			return end
		case failed.GaveUp != "":
			end.State = DeliveryFailed
			return end
		}
		at, number = failed.NextAttemptAt, number+1
		if recorded >= 0 && recorded+1 < len(own) && at.Sub(own[recorded].Next).Abs() <= same {
			recorded++
			answer, at, number = &own[recorded], own[recorded].StartedAt, own[recorded].Attempt
			continue
		}
		if recorded = -1; at.After(now) {
			return WhatIfEnd{State: DeliveryPending, Attempts: retries + 1}
		}
		answer = h.nearest(at)
	}
}

// heard returns the answer as an attempt at another time gets it, how long that takes, and
// how long the receiver then wants to be left alone.
func (c *PastCall) heard(at time.Time, number int, policy RetryPolicy) (Call, time.Duration, time.Duration) {
	call := Call{Attempt: number, StartedAt: at, Outcome: c.Outcome, Status: c.Status}
	if limit := time.Duration(policy.Timeout) * time.Second; limit > 0 && c.Duration > limit {
		call.Outcome, call.Status = OutcomeTimeout, 0
		return call, limit, 0
	}
	return call, c.Duration, c.RetryAfter
}

// WhatIf is what a retry policy would have changed.
type WhatIf struct {
	Considered       int            `json:"considered"`        // deliveries that began in the range and ended
	Delivered        int            `json:"delivered"`         // of them, as it was
	Failed           int            `json:"failed"`            // as it was
	DeliveredInstead int            `json:"delivered_instead"` // failed, and would have been delivered
	FailedInstead    int            `json:"failed_instead"`    // were delivered, and would have failed
	PendingInstead   int            `json:"pending_instead"`   // would not have ended by now
	Sooner           int            `json:"sooner"`            // delivered either way, by more than a second
	Later            int            `json:"later"`
	Calls            int            `json:"calls"` // that it took, and would have taken
	CallsInstead     int            `json:"calls_instead"`
	Samples          []WhatIfSample `json:"samples"` // of what would have ended otherwise
}

// WhatIfSample is a delivery that would have ended otherwise.
type WhatIfSample struct {
	DeliveryID      DeliveryID    `json:"delivery_id"`
	EventID         EventID       `json:"event_id"`
	EventType       string        `json:"event_type"`
	State           DeliveryState `json:"state"`
	EndedAt         time.Time     `json:"ended_at"`
	Attempts        int           `json:"attempts"`
	StateInstead    DeliveryState `json:"state_instead"`
	EndedAtInstead  *time.Time    `json:"ended_at_instead"` // null: not by now
	AttemptsInstead int           `json:"attempts_instead"`
}

// Add counts a delivery that ended as it was, and would have ended otherwise or not. The
// first samples of a kind stand for all, so many of them.
func (w *WhatIf) Add(was, instead WhatIfEnd, sample WhatIfSample, samples int) {
	const moment = time.Second
	w.Considered++
	w.Calls, w.CallsInstead = w.Calls+was.Attempts, w.CallsInstead+instead.Attempts
	if was.State == DeliveryDelivered {
		w.Delivered++
	} else {
		w.Failed++
	}
	count := 0
	switch sooner := was.At.Sub(instead.At); {
	case instead.State == DeliveryPending:
		w.PendingInstead++
		count = w.PendingInstead
	case instead.State == was.State:
		if was.State == DeliveryDelivered && sooner.Abs() > moment {
			w.Sooner += max(0, cmp.Compare(sooner, 0))
			w.Later += max(0, cmp.Compare(0, sooner))
		}
		return
	case instead.State == DeliveryDelivered:
		w.DeliveredInstead++
		count = w.DeliveredInstead
	default:
		w.FailedInstead++
		count = w.FailedInstead
	}
	if count <= samples {
		sample.State, sample.EndedAt, sample.Attempts = was.State, was.At.UTC(), was.Attempts
		sample.StateInstead, sample.AttemptsInstead = instead.State, instead.Attempts
		if !instead.At.IsZero() {
			sample.EndedAtInstead = &instead.At
		}
		w.Samples = append(w.Samples, sample)
	}
}
