package domain

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/medilab/webhooks/domain/envelope"
	"github.com/medilab/webhooks/domain/filter"
)

func TestCheckReplay(t *testing.T) {
	from, to := goldenTime, goldenTime.Add(time.Hour)
	for _, c := range []struct {
		spec   ReplaySpec
		fields string
	}{
		{ReplaySpec{From: from, To: to}, ""},
		{ReplaySpec{From: from, To: to, EventTypes: []string{"patient.*", "visit.created"}}, ""},
		{ReplaySpec{}, "from to"},
		{ReplaySpec{From: to, To: from}, "to"},
		{ReplaySpec{From: from, To: from, EventTypes: []string{"patient.none"}}, "to event_types[0]"},
		{ReplaySpec{From: from, To: to, EventTypes: []string{}}, "event_types"},
	} {
		var fields []string
		for _, f := range FieldsOf(CheckReplay(BuiltinCatalog(), c.spec)) {
			fields = append(fields, f.Field)
		}
		if got := strings.Join(fields, " "); got != c.fields {
			t.Errorf("%+v: got %q, want %q", c.spec, got, c.fields)
		}
	}
}

func TestReplayWants(t *testing.T) {
	for _, c := range []struct {
		d           Delivery
		all, failed bool
	}{
		{Delivery{}, true, false},
		{Delivery{Version: 1, State: DeliveryPending}, false, false},
		{Delivery{Version: 1, State: DeliveryDelivered}, true, false},
		{Delivery{Version: 1, State: DeliveryFailed}, true, true},
		{Delivery{Version: 1, State: DeliveryWithdrawn}, true, false},
	} {
		if all, failed := c.d.ReplayWants(false), c.d.ReplayWants(true); all != c.all || failed != c.failed {
			t.Errorf("%+v: got %v and %v", c.d, all, failed)
		}
	}
}

func TestMatcher(t *testing.T) {
	m, err := NewMatcher([]string{"patient.*"}, json.RawMessage(`{"age_min":18}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		eventType EventType
		data      string
		want      bool
	}{{"patient.created", `{"age":18}`, true}, {"patient.created", `{"age":17}`, false}, {"visit.created", `{"age":18}`, false}} {
		if got := m.Match(c.eventType, filter.Parse([]byte(c.data))); got != c.want {
			t.Errorf("%+v: got %v", c, got)
		}
	}
	if all, err := NewMatcher([]string{"*"}, nil); err != nil || !all.Match("visit.created", filter.Parse([]byte(`{}`))) {
		t.Errorf("no filter matches all: %v", err)
	}
}

func TestReplayState(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	requested := ReplayRequested{Kind: KindReplay, Rate: 40}
	for _, c := range []struct {
		changes []Change
		want    ReplayState
		asks    string // of pause, resume and cancel: what is appended, - for nothing, ! if it is refused
	}{
		{[]Change{requested}, ReplayStateCounting, "p-c"},
		{[]Change{requested, ReplayPaused{}}, ReplayStatePaused, "-rc"},
		{[]Change{requested, ReplayPaused{}, ReplayResumed{}, ReplayCounted{Matched: 3}}, ReplayStateRunning, "p-c"},
		{[]Change{requested, ReplayQueued{Count: 2, Matched: 3, Next: 9}}, ReplayStateRunning, "p-c"}, // as it is loaded
		{[]Change{requested, ReplayQueued{Count: 2, Next: 9}}, ReplayStateRunning, "p-c"},             // it is counted meanwhile
		{[]Change{requested, ReplayCounted{}, ReplayCompleted{}}, ReplayStateCompleted, "!!!"},
		{[]Change{requested, ReplayPaused{}, ReplayCancelled{}, ReplayCompleted{}}, ReplayStateCancelled, "!!-"},
		{[]Change{ReplayRequested{Matched: 2, WebhookVersion: 1}}, ReplayStateRunning, "p-c"}, // an earlier release counted first
		{[]Change{ReplayRequested{Matched: 2}}, ReplayStateCompleted, "!!!"},
	} {
		var r Replay
		for _, change := range c.changes {
			r = r.Evolve(change, at)
		}
		asks := ""
		for i, ask := range []func() ([]Change, error){r.Pause, r.Resume, r.Cancel} {
			switch changes, err := ask(); {
			case err != nil:
				asks += "!"
			case changes == nil:
				asks += "-"
			default:
				asks += "prc"[i : i+1]
			}
		}
		if r.State() != c.want || asks != c.asks {
			t.Errorf("%+v is %s and takes %s, want %s and %s", c.changes, r.State(), asks, c.want, c.asks)
		}
	}
	r := Replay{}.Evolve(requested, at).Evolve(ReplayQueued{Count: 4}, at)
	for due, want := range map[time.Time]time.Duration{
		{}:                              100 * time.Millisecond,
		at.Add(-30 * time.Millisecond):  70 * time.Millisecond,
		at.Add(-300 * time.Millisecond): 0, // what waited for the receiver does not follow at once
	} {
		if count, next := r.Pace(400, due); count != 4 || !next.Equal(at.Add(want)) {
			t.Errorf("at 40 a second, due at %s, %d at %s", due, count, next)
		}
	}
	r.Request.Rate = 0
	if count, next := r.Pace(400, at); count != 400 || !next.IsZero() {
		t.Errorf("without a rate, %d at %s", count, next)
	}
}

// What shares a subject, wherever the event names it, is sent in order, and so is what shares a
// value at order_by.
func TestReplayKeys(t *testing.T) {
	of := func(owners ...envelope.Owner) (keys envelope.Keys) {
		for _, owner := range owners {
			keys = append(keys, &envelope.Key{KeyID: envelope.KeyID{Owner: owner}})
		}
		return keys
	}
	ordered := Webhook{WebhookSettings: WebhookSettings{OrderBy: "queue"}}
	for _, c := range []struct {
		w    Webhook
		keys envelope.Keys
		data string
		want []string
	}{
		{Webhook{}, of(envelope.Owner{1}), `{"visit":{"patient":7}}`, []string{"\x01" + strings.Repeat("\x00", 15)}},
		{Webhook{}, of(envelope.Owner{1}, envelope.Owner{2}), `{}`, []string{"\x01" + strings.Repeat("\x00", 15), "\x02" + strings.Repeat("\x00", 15)}},
		{Webhook{}, of(envelope.OfPeriods), `{"patient_id":7}`, nil},
		{Webhook{}, nil, `{"patient_id": 7 }`, []string{"7"}}, // of an older version, in clear
		{Webhook{}, nil, `{"patient_id":null}`, nil}, {Webhook{}, nil, `{"patient_id":{"a":1}}`, nil}, {Webhook{}, nil, `{}`, nil},
		{ordered, of(envelope.Owner{1}), `{"queue":3}`, []string{strconv.FormatInt(int64(ordered.LineOf([]byte(`{"queue":3.0}`))), 36)}},
		{ordered, of(envelope.OfPeriods), `{"queue":null}`, nil},
	} {
		event := EventTriggered{EventData: json.RawMessage(c.data), Content: Content{Keys: c.keys}}
		if got := ReplayKeys(c.w, event); !slices.Equal(got, c.want) {
			t.Errorf("%s of %d subjects: the keys are %q, want %q", c.data, len(c.keys), got, c.want)
		}
	}
}

func TestParseStatuses(t *testing.T) {
	for _, c := range []struct {
		text string
		ok   bool
		has  []int
	}{
		{"", true, []int{0, 404, 500}}, {"404", true, []int{404}}, {"5xx", true, []int{500}}, {"5XX", true, []int{500}}, {"xx", false, nil}, {"55xx", false, nil}, {"4", false, nil}, {"0xx", false, nil}, {"-1xx", false, nil}, {"x", false, nil},
	} {
		statuses, ok := ParseStatuses(c.text)
		var has []int
		for _, status := range []int{0, 404, 500} {
			if ok && statuses.Has(status) {
				has = append(has, status)
			}
		}
		if ok != c.ok || !slices.Equal(has, c.has) {
			t.Errorf("%q: %v, %v", c.text, ok, has)
		}
	}
}
