package domain

import (
	"strings"
	"testing"
	"time"
)

func TestAlertRules(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 30, 0, time.UTC)
	active := Webhook{WebhookSettings: WebhookSettings{ID: goldenWebhook, Active: true, Timeout: 30, Events: []string{"patient.*"}}, Version: 1, ActiveChanged: start}
	inactive := active
	inactive.Active = false
	listener := active
	listener.Events = []string{"webhook.*", "webhook.alert_raised"}
	deleted := active
	deleted.Deleted = true
	calls := func(after time.Duration, outcomes ...Outcome) CallFigures {
		var f CallFigures
		for _, o := range outcomes {
			f.Count(o, false, start.Add(after))
		}
		return f
	}
	many := func(f CallFigures, n int, o Outcome) CallFigures {
		for range n {
			f.Count(o, false, f.LastCallAt)
		}
		return f
	}
	own := calls(0)
	for range 30 {
		own.Count(OutcomeTimeout, true, start)
	}
	for _, test := range []struct {
		name    string
		webhook Webhook
		figures CallFigures
		after   time.Duration
		want    []AlertKind
	}{
		{"new", active, CallFigures{}, time.Hour, nil},
		{"no call for a day", active, CallFigures{}, 24 * time.Hour, []AlertKind{AlertInactive}},
		{"nearly a day", active, CallFigures{}, 24*time.Hour - time.Second, nil},
		{"a call in between", active, calls(time.Hour, OutcomeSuccess), 24 * time.Hour, nil},
		{"a day after the call", active, calls(time.Hour, OutcomeSuccess), 25 * time.Hour, []AlertKind{AlertInactive}},
		{"deactivated a day ago", inactive, calls(time.Hour, OutcomeSuccess), 24 * time.Hour, []AlertKind{AlertInactive}},
		{"it waits for alerts alone", listener, CallFigures{}, 48 * time.Hour, nil},
		{"deleted", deleted, calls(0, OutcomeTimeout), 48 * time.Hour, nil},
		{"ten in a row", active, many(calls(0, "http_error"), 9, "http_error"), 0, nil},
		{"eleven in a row", active, many(calls(0, "http_error"), 10, "http_error"), 0, []AlertKind{AlertConsecutiveFailures}},
		{"interrupted ones say nothing", active, many(calls(0, "http_error"), 10, OutcomeInterrupted), 0, nil},
		{"calls that deliver alerts say nothing", active, own, 0, nil},
		{"19 of 20", active, many(calls(0, "http_error"), 19, OutcomeSuccess), 0, nil},
		{"18 of 20", active, many(calls(0, "http_error", "http_error"), 18, OutcomeSuccess), 0, nil},
		{"17 of 20", active, many(calls(0, "a", "b", "c"), 17, OutcomeSuccess), 0, []AlertKind{AlertLowSuccessRate}},
		{"16 of 19", active, many(calls(0, "a", "b", "c"), 16, OutcomeSuccess), 0, nil},
		{"17 of 20, an hour ago", active, many(calls(0, "a", "b", "c"), 17, OutcomeSuccess), 62 * time.Minute, nil},
		{"a timeout", active, calls(0, OutcomeSuccess, OutcomeTimeout), 0, []AlertKind{AlertTimeout}},
		{"a timeout, then none", active, calls(0, OutcomeTimeout, "http_error"), 0, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, f := range DefaultAlertRules.Judge(test.webhook, test.figures, start.Add(test.after)) {
				want := false
				for _, kind := range test.want {
					want = want || kind == f.Kind
				}
				if f.Holds != want || f.Message == "" {
					t.Errorf("%+v", f)
				}
				if f.Holds && f.Kind != AlertInactive && test.figures.Spotless() {
					t.Errorf("%+v of figures without a spot", f)
				}
			}
		})
	}
}

// What resolves an alert is named as far as it is known: no call that was not made, none that did not succeed.
func TestResolvedAlertsSayWhy(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 30, 0, time.UTC)
	active := Webhook{WebhookSettings: WebhookSettings{ID: goldenWebhook, Active: true, Events: []string{"patient.*"}}, Version: 1, ActiveChanged: start}
	inactive := active
	inactive.Active = false
	figures := func(outcomes ...Outcome) (f CallFigures) {
		for _, o := range outcomes {
			f.Count(o, false, start.Add(time.Hour))
		}
		return f
	}
	for _, test := range []struct {
		kind    AlertKind
		webhook Webhook
		figures CallFigures
		want    string
	}{
		{AlertInactive, active, CallFigures{}, "it was activated within the last 24h0m0s"},
		{AlertInactive, inactive, figures(OutcomeSuccess), "it was deactivated within the last 24h0m0s"},
		{AlertInactive, active, figures("http_error"), "a call was made within the last 24h0m0s"},
		{AlertConsecutiveFailures, active, figures("http_error", OutcomeSuccess), "a call succeeded"},
		{AlertConsecutiveFailures, active, figures("http_error", "http_error"), "2 calls failed in a row; up to 10 are no alert"},
	} {
		for _, f := range DefaultAlertRules.Judge(test.webhook, test.figures, start.Add(2*time.Hour)) {
			if f.Kind == test.kind && (f.Holds || f.Message != test.want) {
				t.Errorf("%s: %q, want %q", test.kind, f.Message, test.want)
			}
		}
	}
}

// Calls of older versions counted batches of alerts: what they raised is resolved.
func TestCallsOfAlertsAloneAreNotJudged(t *testing.T) {
	w := Webhook{WebhookSettings: WebhookSettings{ID: goldenWebhook, Active: true, Events: []string{"webhook.*"}}, Version: 1}
	for _, f := range DefaultAlertRules.JudgeCall(w, CallFigures{Failures: 99, TimedOut: true}) {
		if f.Holds || f.Message != "it waits for alerts alone" {
			t.Errorf("%s: %+v", f.Kind, f)
		}
	}
}

// What has a spot keeps it for as long as a window may reach back, whatever follows.
func TestSpotsFade(t *testing.T) {
	start := time.Date(2026, 3, 1, 12, 0, 30, 0, time.UTC)
	var f CallFigures
	count := func(after time.Duration, o Outcome, spotless bool) {
		t.Helper()
		f.Count(o, false, start.Add(after))
		if f.Spotless() != spotless {
			t.Errorf("%s after %s: %+v", o, after, f)
		}
	}
	count(0, OutcomeSuccess, true)
	count(time.Minute, OutcomeInterrupted, true)
	count(time.Minute, OutcomeTimeout, false)
	count(2*time.Minute, OutcomeSuccess, false)
	count(time.Minute+AlertWindowMost, OutcomeSuccess, false)
	count(2*time.Minute+AlertWindowMost, OutcomeSuccess, true)
}

func TestAnAlertIsRaisedOnceAndResolvedOnce(t *testing.T) {
	var a Alert
	seen := map[AlertID]bool{}
	for range 3 {
		raised, ok := DecideAlert(a, goldenWebhook, Finding{Kind: AlertTimeout, Holds: true}).(WebhookAlertRaised)
		if !ok || seen[raised.ID] {
			t.Fatalf("raised %+v", raised)
		}
		seen[raised.ID] = true
		a = a.Evolve(raised, time.Time{})
		if again := DecideAlert(a, goldenWebhook, Finding{Kind: AlertTimeout, Holds: true}); again != nil {
			t.Errorf("raised again: %+v", again)
		}
		resolved, ok := DecideAlert(a, goldenWebhook, Finding{Kind: AlertTimeout}).(WebhookAlertResolved)
		if !ok || resolved.ID != raised.ID {
			t.Fatalf("resolved %+v", resolved)
		}
		a = a.Evolve(resolved, time.Time{})
		if again := DecideAlert(a, goldenWebhook, Finding{Kind: AlertTimeout}); again != nil {
			t.Errorf("resolved again: %+v", again)
		}
	}
}

// A webhook is deactivated by ten failures or more, of which the first is as long ago as it
// allows, and so is its activation; figures that are added up say the same.
func TestDeactivatesBy(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	fails := func(f *CallFigures, n int, at time.Time) {
		for range n {
			f.Count("http_error", false, at)
		}
	}
	w := Webhook{WebhookSettings: WebhookSettings{Active: true, AutoDeactivateAfter: 3600}}
	var whole, early, late CallFigures
	whole.Count(OutcomeSuccess, false, start.Add(-time.Hour))
	early.Count(OutcomeSuccess, false, start.Add(-time.Hour))
	fails(&whole, 9, start)
	fails(&early, 9, start)
	if whole.DeactivatesBy(w, start.Add(time.Hour)) {
		t.Error("by nine failures")
	}
	end := start.Add(time.Hour)
	fails(&whole, 1, end)
	fails(&late, 1, end)
	early.Add(late)
	for name, f := range map[string]CallFigures{"whole": whole, "added": early} {
		if !f.FailingSince.Equal(start) || !f.DeactivatesBy(w, end) || f.DeactivatesBy(w, end.Add(-time.Second)) {
			t.Errorf("%s: %+v", name, f)
		}
		never, activated := w, w
		never.AutoDeactivateAfter, activated.ActiveChanged = 0, start.Add(time.Minute)
		if f.DeactivatesBy(never, end) || f.DeactivatesBy(activated, end) || !f.DeactivatesBy(activated, end.Add(time.Minute)) {
			t.Errorf("%s: deactivates what it must not", name)
		}
		f.Count(OutcomeSuccess, false, end)
		if f.DeactivatesBy(w, end) || !f.FailingSince.IsZero() {
			t.Errorf("%s: after a success", name)
		}
	}
}

// The time of an alert has as many digits as others that receivers get.
func TestTimeOfAnAlertEvent(t *testing.T) {
	at := time.Date(2026, 3, 1, 13, 0, 0, 250_999_000, time.FixedZone("", 3600))
	if data := string(AlertEvent(Webhook{}, WebhookAlertRaised{}, at).EventData); !strings.HasSuffix(data, `"at":"2026-03-01T12:00:00.250Z"}`) {
		t.Errorf("got %s", data)
	}
}
