package domain

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// TriggerSpec is an event that a caller asks to trigger, as it was asked. Data
// has passed CheckJSON; nothing else is checked yet.
type TriggerSpec struct {
	EventID       EventID // zero: the service gives one
	EventType     EventType
	EventData     json.RawMessage
	Source        string
	CorrelationID string
}

// maxTriggerText bounds source and correlation_id: they are looked up by an index.
const maxTriggerText = 500 // characters

// CheckTrigger checks an event by the rules of contract section 2: a known type,
// an object for event_data, and texts of at most 500 characters without U+0000.
// Every field at fault is named, with prefix before it (`events[3].`).
func CheckTrigger(catalog Catalog, prefix string, spec TriggerSpec) []FieldError {
	if catalog.Known(spec.EventType) && isObject(spec.EventData) && isTriggerText(spec.Source) && isTriggerText(spec.CorrelationID) {
		return nil
	}
	refused := catalog.CheckEventType(prefix+"event_type", spec.EventType)
	switch {
	case len(spec.EventData) == 0:
		refused = append(refused, FieldError{prefix + "event_data", "is required"})
	case !isObject(spec.EventData):
		refused = append(refused, FieldError{prefix + "event_data", "must be an object"})
	}
	for _, text := range []struct{ field, value string }{{"source", spec.Source}, {"correlation_id", spec.CorrelationID}} {
		if !isTriggerText(text.value) {
			refused = append(refused, FieldError{prefix + text.field, fmt.Sprintf("must be text of at most %d characters without U+0000", maxTriggerText)})
		}
	}
	return refused
}

func isObject(data json.RawMessage) bool { return len(data) > 0 && data[0] == '{' }

func isTriggerText(s string) bool {
	return (len(s) <= maxTriggerText || utf8.RuneCountInString(s) <= maxTriggerText) && strings.IndexByte(s, 0) < 0
}
