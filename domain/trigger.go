package domain

import (
	"bytes"
	"fmt"
	"unicode/utf8"
)

// MaxEventBytes is the guide's 10 MB: the most that a request's body or an event's data has.
const MaxEventBytes = 10 << 20

// maxLabel bounds source and correlation_id, in characters.
const maxLabel = 1000

// CheckTriggered reports whether the event can be accepted: a known type, an object of at
// most MaxEventBytes, labels of a sane length. It takes for granted that event_data has
// passed CheckJSON.
func (c Catalog) CheckTriggered(e EventTriggered) error {
	refused := c.CheckEventType("event_type", EventType(e.EventType))
	switch data := bytes.TrimLeft(e.EventData, jsonSpace); {
	case len(data) == 0:
		refused = append(refused, FieldError{"event_data", "is required"})
	case data[0] != '{':
		refused = append(refused, FieldError{"event_data", "must be a JSON object"})
	}
	for _, label := range []struct{ field, text string }{{"source", e.Source}, {"correlation_id", e.CorrelationID}} {
		if !utf8.ValidString(label.text) {
			refused = append(refused, FieldError{label.field, "must be valid UTF-8"})
		} else if utf8.RuneCountInString(label.text) > maxLabel {
			refused = append(refused, FieldError{label.field, fmt.Sprintf("must have at most %d characters", maxLabel)})
		}
	}
	if err := CheckFields(refused); err != nil {
		return err
	}
	if len(e.EventData) > MaxEventBytes {
		return TooLarge("event_data has more than 10 MB")
	}
	return nil
}

// jsonSpace is what RFC 8259 allows around a value.
const jsonSpace = " \t\r\n"
