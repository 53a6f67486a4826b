package domain

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestCheckTriggered(t *testing.T) {
	large := json.RawMessage(`{"a":"` + strings.Repeat("x", MaxEventBytes) + `"}`)
	for name, c := range map[string]struct {
		event EventTriggered
		kind  Kind
		field string // "": accepted
	}{
		"accepted":         {EventTriggered{EventType: "patient.created", EventData: json.RawMessage(" \n{}")}, 0, ""},
		"labels":           {EventTriggered{EventType: "patient.created", EventData: json.RawMessage("{}"), Source: strings.Repeat("я", 500), CorrelationID: "семья\u200d 7"}, 0, ""},
		"no type":          {EventTriggered{EventData: json.RawMessage("{}")}, KindInvalid, "event_type"},
		"unknown type":     {EventTriggered{EventType: "patient.made", EventData: json.RawMessage("{}")}, KindInvalid, "event_type"},
		"our own type":     {EventTriggered{EventType: "webhook.alert_raised", EventData: json.RawMessage("{}")}, KindInvalid, "event_type"},
		"no data":          {EventTriggered{EventType: "patient.created"}, KindInvalid, "event_data"},
		"an array":         {EventTriggered{EventType: "patient.created", EventData: json.RawMessage("[{}]")}, KindInvalid, "event_data"},
		"null":             {EventTriggered{EventType: "patient.created", EventData: json.RawMessage("null")}, KindInvalid, "event_data"},
		"long source":      {EventTriggered{EventType: "patient.created", EventData: json.RawMessage("{}"), Source: strings.Repeat("x", 501)}, KindInvalid, "source"},
		"broken text":      {EventTriggered{EventType: "patient.created", EventData: json.RawMessage("{}"), CorrelationID: "\xff"}, KindInvalid, "correlation_id"},
		"NUL":              {EventTriggered{EventType: "patient.created", EventData: json.RawMessage("{}"), CorrelationID: "a\x00"}, KindInvalid, "correlation_id"},
		"a line break":     {EventTriggered{EventType: "patient.created", EventData: json.RawMessage("{}"), CorrelationID: "a\n"}, KindInvalid, "correlation_id"},
		"an escape":        {EventTriggered{EventType: "patient.created", EventData: json.RawMessage("{}"), Source: "\x1b[2J"}, KindInvalid, "source"},
		"more than 10 MB":  {EventTriggered{EventType: "patient.created", EventData: large}, KindTooLarge, "large"},
		"wrong everywhere": {EventTriggered{EventData: large}, KindInvalid, "event_type"},
	} {
		t.Run(name, func(t *testing.T) {
			err := BuiltinCatalog().CheckTriggered(c.event)
			if c.field == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, c.kind) {
				t.Fatalf("error %v; want kind %v", err, c.kind)
			}
			if fields := FieldsOf(err); c.kind == KindInvalid && (len(fields) != 1 || fields[0].Field != c.field) {
				t.Errorf("refused fields %v; want %s", fields, c.field)
			}
		})
	}
}
