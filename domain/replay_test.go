package domain

import (
	"encoding/json"
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
