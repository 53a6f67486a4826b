package domain

import (
	"fmt"
	"slices"
	"time"
)

// AlertRules are the thresholds and windows.
type AlertRules struct {
	InactiveAfter time.Duration
	SuccessRate   float64       // percent; below it is low
	RateWindow    time.Duration // up to AlertWindowMost, to the minute
	RateCalls     int64         // in the window, for the rate to say anything
	Failures      int64         // in a row that are no alert yet
}

// AlertWindowMost is the longest window whose calls are kept by the minute.
const AlertWindowMost = time.Hour

// DefaultAlertRules are those of contract section 5.
var DefaultAlertRules = AlertRules{InactiveAfter: 24 * time.Hour, SuccessRate: 90, RateWindow: time.Hour, RateCalls: 20, Failures: 10}

// CallFigures are what alerts judge a webhook's calls by. The zero value is a
// webhook that was never called.
type CallFigures struct {
	LastCallAt time.Time // zero: never
	Failures   int64     // in a row
	TimedOut   bool      // the last call that was judged ran out its timeout
	Minutes    []CallMinute

	FailingSince time.Time // the first of the failures in a row; zero: there is none
}

// CallMinute counts the calls of one minute since 1970.
type CallMinute struct{ Minute, Calls, Successes int64 }

// Count adds one call, recorded at the time; system says that it sent nothing but the service's own events.
// Not for test calls.
func (f *CallFigures) Count(outcome Outcome, system bool, at time.Time) {
	if at.After(f.LastCallAt) {
		f.LastCallAt = at
	}
	if system || outcome == OutcomeInterrupted {
		return
	}
	m := CallMinute{Minute: at.Unix() / 60, Calls: 1}
	if f.Failures++; f.Failures == 1 {
		f.FailingSince = at
	}
	if outcome == OutcomeSuccess {
		f.Failures, m.Successes, f.FailingSince = 0, 1, time.Time{}
	}
	f.TimedOut = outcome == OutcomeTimeout
	f.addMinute(m)
}

// Add adds figures of later calls, of an hour at most.
func (f *CallFigures) Add(later CallFigures) {
	if later.LastCallAt.After(f.LastCallAt) {
		f.LastCallAt = later.LastCallAt
	}
	if len(later.Minutes) > 0 {
		f.TimedOut = later.TimedOut
	}
	for _, m := range later.Minutes {
		if m.Successes > 0 {
			f.Failures, f.FailingSince = 0, time.Time{}
		}
		f.addMinute(m)
	}
	if f.Failures == 0 {
		f.FailingSince = later.FailingSince
	}
	f.Failures += later.Failures
}

// Spotless reports whether no failed call could still cause an alert.
func (f *CallFigures) Spotless() bool {
	for _, m := range f.Minutes {
		if m.Successes < m.Calls {
			return false
		}
	}
	return f.Failures == 0 && !f.TimedOut
}

func (f *CallFigures) addMinute(m CallMinute) {
	if n := len(f.Minutes); n > 0 && f.Minutes[n-1].Minute >= m.Minute {
		f.Minutes[n-1].Calls += m.Calls
		f.Minutes[n-1].Successes += m.Successes
		return
	}
	f.Minutes = append(f.Minutes, m)
	for f.Minutes[0].Minute < m.Minute-int64(AlertWindowMost/time.Minute) {
		f.Minutes = f.Minutes[1:]
	}
}

// within counts the calls of the window that ends now, whole minutes.
func (f *CallFigures) within(window time.Duration, now time.Time) (calls, successes int64) {
	first := now.Add(-window).Unix() / 60
	for _, m := range f.Minutes {
		if m.Minute >= first {
			calls += m.Calls
			successes += m.Successes
		}
	}
	return calls, successes
}

// Judge returns the finding of every kind of alert about a webhook.
func (r AlertRules) Judge(w Webhook, f CallFigures, now time.Time) []Finding {
	if !w.Exists() {
		var findings []Finding
		for _, kind := range AlertKinds {
			findings = append(findings, Finding{Kind: kind, Message: "the webhook was deleted"})
		}
		return findings
	}
	return append([]Finding{r.inactive(w, f, now), r.lowRate(f, now), deactivated(w, DeactivatedGone), deactivated(w, DeactivatedFailing)}, r.JudgeCall(w, f)...)
}

// JudgeCall returns the findings that depend on single calls, not on time, to be judged
// right after a call.
func (r AlertRules) JudgeCall(w Webhook, f CallFigures) []Finding {
	if onlySystem(w.Events) { // figures of older versions count batches of such events, and nothing resets them
		return []Finding{{Kind: AlertConsecutiveFailures, Message: waitsForAlerts}, {Kind: AlertTimeout, Message: waitsForAlerts}}
	}
	return []Finding{r.failures(f), r.JudgeTimeout(w, f)}
}

// judged returns a finding, in words for either case.
func judged(kind AlertKind, holds bool, observed, limit float64, good, bad string) Finding {
	finding := Finding{Kind: kind, Holds: holds, Observed: observed, Limit: limit, Message: good}
	if holds {
		finding.Message = bad
	}
	return finding
}

// waitsForAlerts says why calls of a webhook whose events are all the service's own are not judged.
const waitsForAlerts = "it waits for alerts alone"

func (r AlertRules) inactive(w Webhook, f CallFigures, now time.Time) Finding {
	since, what, last := w.ActiveChanged, "it has been deactivated", "it was deactivated"
	if w.Active {
		what, last = "no call was made", "it was activated"
		if f.LastCallAt.After(since) {
			since, last = f.LastCallAt, "a call was made"
		}
	}
	idle := now.Sub(since)
	good := fmt.Sprintf("%s within the last %s", last, r.InactiveAfter)
	waits := w.Active && onlySystem(w.Events)
	if waits {
		good = waitsForAlerts
	}
	return judged(AlertInactive, !waits && idle >= r.InactiveAfter, idle.Seconds(), r.InactiveAfter.Seconds(),
		good, fmt.Sprintf("%s for %s", what, idle.Truncate(time.Second)))
}

func deactivated(w Webhook, reason DeactivationReason) Finding {
	bad := "the receiver answered 410 Gone; the webhook was deactivated"
	if reason == DeactivatedFailing {
		bad = fmt.Sprintf("nothing but failures for %d s; the webhook was deactivated", w.AutoDeactivateAfter)
	}
	return judged(AlertKind(reason), w.Deactivated == reason, 0, 0, "the webhook was activated", bad)
}

// leastFailures is how many calls in a row must have failed for a webhook to be deactivated.
const leastFailures = 10

// DeactivatesBy reports whether a call that failed at the time deactivates the webhook: it
// and all before have failed for as long as the webhook allows, since it was activated.
func (f *CallFigures) DeactivatesBy(w Webhook, at time.Time) bool {
	since := f.FailingSince
	if w.ActiveChanged.After(since) {
		since = w.ActiveChanged
	}
	limit := time.Duration(w.AutoDeactivateAfter) * time.Second
	return limit > 0 && w.Active && f.Failures >= leastFailures && at.Sub(since) >= limit
}

func onlySystem(events []string) bool {
	return !slices.ContainsFunc(events, func(s string) bool { return !EventType(s).IsSystem() })
}

func (r AlertRules) lowRate(f CallFigures, now time.Time) Finding {
	calls, successes := f.within(r.RateWindow, now)
	finding := Finding{Kind: AlertLowSuccessRate, Limit: r.SuccessRate, Message: "too few calls to judge by"}
	if calls == 0 {
		return finding
	}
	finding.Observed = 100 * float64(successes) / float64(calls)
	if calls >= max(1, r.RateCalls) {
		finding.Holds = finding.Observed < r.SuccessRate
		finding.Message = fmt.Sprintf("%.1f %% of the last %d %s succeeded", finding.Observed, calls, Plural(calls, "call", "calls"))
	}
	return finding
}

func (r AlertRules) failures(f CallFigures) Finding {
	bad := fmt.Sprintf("%d %s failed in a row", f.Failures, Plural(f.Failures, "call", "calls"))
	good := "a call succeeded"
	if f.Failures > 0 { // fewer than the limit, which was raised
		good = fmt.Sprintf("%s; up to %d are no alert", bad, r.Failures)
	}
	return judged(AlertConsecutiveFailures, f.Failures > r.Failures, float64(f.Failures), float64(r.Failures), good, bad)
}

// JudgeTimeout returns the finding about the last call's timeout.
func (r AlertRules) JudgeTimeout(w Webhook, f CallFigures) Finding {
	return judged(AlertTimeout, f.TimedOut, float64(w.Timeout), float64(w.Timeout),
		"a call ended in time", fmt.Sprintf("a call ran out its timeout of %d s", w.Timeout))
}
