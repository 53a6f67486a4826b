package domain

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

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
	if count, next := r.Pace(400); count != 4 || !next.Equal(at.Add(100*time.Millisecond)) {
		t.Errorf("at 40 a second, %d at %s", count, next)
	}
	r.Request.Rate = 0
	if count, next := r.Pace(400); count != 400 || !next.IsZero() {
		t.Errorf("without a rate, %d at %s", count, next)
	}
}

func TestReplayKey(t *testing.T) {
	for data, want := range map[string]string{
		`{"patient_id": 7 }`: "7", `{"patient_id":"7"}`: `"7"`, `{"patient_id":null}`: "", `{"patient_id":{"a":1}}`: "", `{}`: "",
	} {
		if got := ReplayKey(Webhook{}, []byte(data)); got != want {
			t.Errorf("%s: the key is %q, want %q", data, got, want)
		}
	}
}

func TestParseStatuses(t *testing.T) {
	for _, c := range []struct {
		text string
		ok   bool
		has  []int
	}{
		{"", true, []int{0, 404, 500}}, {"404", true, []int{404}}, {"5xx", true, []int{500}}, {"xx", false, nil}, {"55xx", false, nil}, {"4", false, nil}, {"0xx", false, nil}, {"-1xx", false, nil}, {"x", false, nil},
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
