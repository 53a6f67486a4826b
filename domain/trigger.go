package domain

import (
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/medilab/webhooks/domain/strictjson"
)

// MaxEventBytes is the guide's 10 MB: the most that a request's body or an event's data has.
const MaxEventBytes = 10 << 20

// MaxLabel bounds source and correlation_id, in characters: they are looked up by an index.
const MaxLabel = 500

// NilUUID is why the nil UUID is no id of an event: who sends it has forgotten to make one.
const NilUUID = "must not be the nil UUID"

// CheckTriggered reports whether the event can be accepted: a known type, an object of at
// most MaxEventBytes, labels that can be looked up. It takes for granted that event_data
// has passed CheckJSON.
func (c Catalog) CheckTriggered(e EventTriggered) error {
	if err := CheckFields(c.TriggeredFields(e)); err != nil {
		return err
	}
	if len(e.EventData) > MaxEventBytes {
		return TooLarge("event_data has more than 10 MB")
	}
	return nil
}

// TriggeredFields names every field that keeps the event from being accepted.
func (c Catalog) TriggeredFields(e EventTriggered) []FieldError {
	begin := strictjson.SkipSpace(e.EventData, 0)
	object := begin < len(e.EventData) && e.EventData[begin] == '{'
	source, correlation := labelProblem(e.Source), labelProblem(e.CorrelationID)
	traced := e.Traceparent == "" || ValidTraceparent(e.Traceparent)
	if object && source == "" && correlation == "" && traced && c.Known(EventType(e.EventType)) {
		return nil
	}
	refused := c.CheckEventType(EventType(e.EventType))
	switch {
	case begin == len(e.EventData):
		refused = append(refused, FieldError{Field: "event_data", Message: "is required"})
	case !object:
		refused = append(refused, FieldError{Field: "event_data", Message: "must be a JSON object"})
	}
	if source != "" {
		refused = append(refused, FieldError{Field: "source", Message: source})
	}
	if correlation != "" {
		refused = append(refused, FieldError{Field: "correlation_id", Message: correlation})
	}
	if !traced {
		refused = append(refused, FieldError{Field: "traceparent", Message: "must be a traceparent of W3C Trace Context"})
	}
	return refused
}

// CheckOccurred returns what is wrong with the time at which an event occurred; zero is
// none. Clocks may differ a little.
func CheckOccurred(at, now time.Time) []FieldError {
	const drift = 5 * time.Second
	if at.After(now.Add(drift)) {
		return []FieldError{{Field: "occurred_at", Message: "must not be in the future"}}
	}
	return nil
}

// labelProblem says why a text cannot be a label; "" when it can.
func labelProblem(text string) string {
	if len(text) > MaxLabel && utf8.RuneCountInString(text) > MaxLabel {
		return fmt.Sprintf("must have at most %d characters", MaxLabel)
	}
	return textProblem(text)
}
