package domain

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"
)

// A delivery that failed for good is told of: each to the subscribers of
// webhook.delivery_given_up, and those that ran out of retries by one alert a webhook. What
// delivers the service's own events is not told of.

// givenUpKept is how long the alert stays open after the last delivery that it counts.
const givenUpKept = 24 * time.Hour

// GivenUpEvent returns the event about a delivery that was given up at the time, after the
// call, and its id, which is the same whenever it is made.
func GivenUpEvent(id DeliveryID, call Call, at time.Time) (EventID, EventTriggered) {
	milliseconds := binary.BigEndian.AppendUint64(nil, uint64(at.UnixMilli()))
	event := derived(milliseconds[2:], sha256.Sum256(fmt.Appendf(nil, "given up %s %d", id, call.Attempt)))
	return EventID(event), EventTriggered{EventType: string(DeliveryGivenUp), Source: "system", EventData: EncodeJSON(struct {
		DeliveryID DeliveryID `json:"delivery_id"`
		WebhookID  WebhookID  `json:"webhook_id"`
		EventID    EventID    `json:"event_id"`
		EventType  string     `json:"event_type"`
		Attempts   int        `json:"attempts"`
		LastError  string     `json:"last_error"`
	}{id, call.WebhookID, call.EventID, call.EventType, call.Attempt, call.Error})}
}

// FindGivenUp returns the finding that a delivery ran out of retries at the position.
func FindGivenUp(call Call, position int64) Finding {
	return Finding{Kind: AlertGivenUp, Holds: true, At: position, Observed: float64(call.Attempt), Limit: float64(call.Attempt),
		Message: fmt.Sprintf("a delivery of %s ran out of retries after %d %s", call.EventType, call.Attempt, Plural(call.Attempt, "attempt", "attempts"))}
}

// JudgeGivenUp returns the finding of the webhook's open alert, as things stand at the
// position: last is when the last of its deliveries was given up that has not been
// delivered or cancelled since; zero: each has.
func JudgeGivenUp(last, now time.Time, position int64) Finding {
	finding := Finding{Kind: AlertGivenUp, At: position, Message: "what was given up was delivered or cancelled"}
	switch {
	case last.IsZero():
	case now.Sub(last) < givenUpKept:
		finding.Holds = true
	default:
		finding.Message = "the last was given up a day ago"
	}
	return finding
}
