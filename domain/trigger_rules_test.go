package domain

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestCheckTrigger(t *testing.T) {
	fine := TriggerSpec{EventType: "patient.created", EventData: json.RawMessage(`{}`), Source: strings.Repeat("й", 500), CorrelationID: "c"}
	if got := CheckTrigger(BuiltinCatalog(), "", fine); got != nil {
		t.Errorf("got %v", got)
	}
	for _, c := range []struct {
		name   string
		spec   TriggerSpec
		fields string
	}{
		{"nothing", TriggerSpec{}, "e.event_type e.event_data"},
		{"unknown type", TriggerSpec{EventType: "patient.create", EventData: fine.EventData}, "e.event_type"},
		{"the service's own type", TriggerSpec{EventType: AlertRaised, EventData: fine.EventData}, "e.event_type"},
		{"no object", TriggerSpec{EventType: fine.EventType, EventData: json.RawMessage(`[]`)}, "e.event_data"},
		{"null", TriggerSpec{EventType: fine.EventType, EventData: json.RawMessage(`null`)}, "e.event_data"},
		{"texts", TriggerSpec{EventType: fine.EventType, EventData: fine.EventData, Source: "\x00", CorrelationID: strings.Repeat("c", 501)}, "e.source e.correlation_id"},
	} {
		var fields []string
		for _, f := range CheckTrigger(BuiltinCatalog(), "e.", c.spec) {
			fields = append(fields, f.Field)
		}
		if got := strings.Join(fields, " "); got != c.fields {
			t.Errorf("%s: got %q, want %q", c.name, got, c.fields)
		}
	}
}
