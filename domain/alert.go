package domain

import (
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain/strictjson"
)

// An alert says that something about a webhook needs somebody's attention.
//
// Its rules (the guide's "Автоматические Алерты", contract section 5):
//   - of each kind, a webhook has at most one open alert: it is raised once, and
//     resolved when it no longer holds;
//   - inactive: an active webhook had no call for a day, or it was deactivated a
//     day ago; one that asks for the service's own events alone may have none;
//   - low_success_rate: below 90 % of the last hour's calls, of 20 at least;
//   - consecutive_failures: more than 10 calls failed in a row;
//   - timeout: a call ran out its timeout; resolved by one that does not;
//   - given_up: a delivery ran out of retries; resolved when each of those was delivered or
//     cancelled, or a day after the last;
//   - gone: the system deactivated the webhook, as the receiver answered 410; resolved when
//     it is activated;
//   - auto_deactivated: the system deactivated the webhook, as nothing but failures came for
//     as long as it says, of ten calls at least; resolved likewise;
//   - test calls count for nothing, nor do calls that deliver nothing but the service's own
//     events, except that they are calls: an alert never follows from an alert;
//   - an interrupted attempt says nothing about the receiver;
//   - a deleted webhook has no alerts;
//   - node: a live server lacks something of its own, so that deliveries wait; one alert
//     for all servers, about no webhook;
//   - log_lost: the database lost the end of the log; about no webhook, resolved a day
//     later.

// AlertKind says what an alert is about. It is a closed set.
type AlertKind string

// The kinds of alerts.
const (
	AlertInactive            AlertKind = "inactive"
	AlertLowSuccessRate      AlertKind = "low_success_rate"
	AlertConsecutiveFailures AlertKind = "consecutive_failures"
	AlertTimeout             AlertKind = "timeout"
	AlertGivenUp             AlertKind = "given_up"
	AlertGone                AlertKind = AlertKind(DeactivatedGone)
	AlertAutoDeactivated     AlertKind = AlertKind(DeactivatedFailing)
	AlertNode                AlertKind = "node"
	AlertLogLost             AlertKind = "log_lost"
)

// AlertKinds lists them all.
var AlertKinds = []AlertKind{AlertInactive, AlertLowSuccessRate, AlertConsecutiveFailures, AlertTimeout, AlertGivenUp, AlertGone, AlertAutoDeactivated, AlertNode, AlertLogLost}

// AlertKey names what can be alerted of: one kind about one webhook. Its stream
// holds every alert of that kind about it, one after another.
type AlertKey struct {
	Webhook WebhookID // zero for AlertNode and AlertLogLost
	Kind    AlertKind
}

// Stream names the log's stream of the alerts.
func (k AlertKey) Stream() string { return "alert-" + k.derive(0).String() }

// derive makes a UUID of version 8 from the key and a number.
func (k AlertKey) derive(n int64) uuid.UUID {
	return derived(nil, sha256.Sum256(fmt.Appendf(nil, "%s %s %d", k.Webhook, k.Kind, n)))
}

// AlertID names one alert, from its raising to its resolving.
type AlertID uuid.UUID

func (id AlertID) String() string               { return uuid.UUID(id).String() }
func (id AlertID) MarshalText() ([]byte, error) { return uuid.UUID(id).MarshalText() }

// UnmarshalText reads the usual form of an id.
func (id *AlertID) UnmarshalText(b []byte) error { return (*uuid.UUID)(id).UnmarshalText(b) }

// WebhookAlertRaised opens an alert.
type WebhookAlertRaised struct {
	ID        AlertID    `json:"id"`
	WebhookID WebhookID  `json:"webhook_id,omitzero"`
	Kind      AlertKind  `json:"kind"`
	Message   string     `json:"message"`         // in words
	Observed  float64    `json:"observed"`        // percent, calls or seconds, by the kind
	Limit     float64    `json:"limit"`           // that observed is beyond
	Nodes     []NodeLack `json:"nodes,omitempty"` // of AlertNode
	Lost      *LostTail  `json:"lost,omitempty"`  // of AlertLogLost
	Since     int64      `json:"since,omitempty"` // of AlertGivenUp: the position from which deliveries count
	At        int64      `json:"at,omitempty"`    // of AlertTimeout: the position of the call
}

// LostTail is the positions that the log has lost.
type LostTail struct {
	From int64 `json:"from,omitempty"` // 0: not known
	To   int64 `json:"to"`
}

// WebhookAlertResolved closes it.
type WebhookAlertResolved struct {
	ID        AlertID   `json:"id"`
	WebhookID WebhookID `json:"webhook_id,omitzero"`
	Kind      AlertKind `json:"kind"`
	Message   string    `json:"message"`
	Through   int64     `json:"through,omitempty"` // of AlertGivenUp and AlertTimeout: the position up to which it was judged

	Acknowledged bool `json:"acknowledged,omitempty"` // before: nobody is notified
}

// WebhookAlertAcknowledged says that somebody knows of an open alert: it notifies no more.
type WebhookAlertAcknowledged struct {
	ID        AlertID   `json:"id"`
	WebhookID WebhookID `json:"webhook_id,omitzero"`
	Kind      AlertKind `json:"kind"`
}

func (WebhookAlertRaised) ChangeType() string   { return "alert.raised" }
func (WebhookAlertResolved) ChangeType() string { return "alert.resolved" }

func (WebhookAlertAcknowledged) ChangeType() string { return "alert.acknowledged" }

var _ = register(WebhookAlertRaised{}, WebhookAlertResolved{}, WebhookAlertAcknowledged{})

// AlertOf returns which alert the change is about, if it is about one.
func AlertOf(change any) (AlertID, AlertKey, bool) {
	switch c := change.(type) {
	case WebhookAlertRaised:
		return c.ID, AlertKey{c.WebhookID, c.Kind}, true
	case WebhookAlertResolved:
		return c.ID, AlertKey{c.WebhookID, c.Kind}, true
	case WebhookAlertAcknowledged:
		return c.ID, AlertKey{c.WebhookID, c.Kind}, true
	}
	return AlertID{}, AlertKey{}, false
}

// Alert is the state of one kind of alerts about one webhook: the fold of its
// stream.
type Alert struct {
	ID      AlertID // of the last that was raised
	Open    bool
	Lost    LostTail // of AlertLogLost
	Judged  int64    // of AlertGivenUp and AlertTimeout: up to this position, the log has what follows from it
	Version int64

	RaisedAt time.Time // the last

	Acknowledged bool
}

// Evolve returns the alert after a change that the log recorded at the time.
func (a Alert) Evolve(change Change, at time.Time) Alert {
	switch c := change.(type) {
	case WebhookAlertRaised:
		a.ID, a.Open, a.RaisedAt, a.Judged = c.ID, true, at, max(a.Judged, c.Since, c.At)
		if c.Lost != nil {
			a.Lost = *c.Lost
		}
	case WebhookAlertAcknowledged:
		a.Acknowledged = true
	case WebhookAlertResolved:
		a.Open, a.Acknowledged, a.Judged = false, false, max(a.Judged, c.Through)
	}
	a.Version++
	return a
}

// Finding is the condition of one kind of alert at one time.
type Finding struct {
	Kind     AlertKind
	Holds    bool // there is reason for the alert
	Message  string
	Observed float64
	Limit    float64
	Nodes    []NodeLack // of AlertNode
	At       int64      // of AlertGivenUp and AlertTimeout: the position of what it was found by
}

// DecideAlert raises an alert that holds and is not open, resolves one that is open and
// no longer holds, and otherwise returns nil.
func DecideAlert(a Alert, webhook WebhookID, f Finding) Change {
	key := AlertKey{webhook, f.Kind}
	switch {
	case f.Holds && f.At > 0 && f.At <= a.Judged: // decided before
		return nil
	case f.Holds && !a.Open:
		raised := WebhookAlertRaised{ID: AlertID(key.derive(a.Version + 1)), WebhookID: webhook, Kind: f.Kind,
			Message: f.Message, Observed: f.Observed, Limit: f.Limit, Nodes: f.Nodes, Since: f.At}
		if f.Kind == AlertTimeout {
			raised.Since, raised.At = 0, f.At
		}
		return raised
	case !f.Holds && a.Open:
		return WebhookAlertResolved{ID: a.ID, WebhookID: webhook, Kind: f.Kind, Message: f.Message, Through: f.At, Acknowledged: a.Acknowledged}
	}
	return nil
}

// DecideAcknowledge acknowledges the alert of that id, if it is open and nobody has.
func DecideAcknowledge(a Alert, key AlertKey, id AlertID) ([]Change, error) {
	switch {
	case a.ID != id || !a.Open:
		return nil, Conflict("the alert is resolved already: there is nothing to acknowledge")
	case a.Acknowledged:
		return nil, nil
	}
	return []Change{WebhookAlertAcknowledged{ID: id, WebhookID: key.Webhook, Kind: key.Kind}}, nil
}

// DecideLogLost raises an alert of a loss that is not on record yet. When this loss is, as
// another process has noticed it too, the alert is raised again, under its id, only if it
// names less of what was lost.
func DecideLogLost(a Alert, recorded bool, lost LostTail) []Change {
	key := AlertKey{Kind: AlertLogLost}
	raised := WebhookAlertRaised{ID: a.ID, Kind: AlertLogLost, Lost: &lost}
	var changes []Change
	switch {
	case recorded && lost.To <= a.Lost.To:
		return nil
	case recorded:
		lost.From = a.Lost.From
	default:
		if a.Open {
			changes = append(changes, WebhookAlertResolved{ID: a.ID, Kind: AlertLogLost, Message: "the log has lost more", Acknowledged: a.Acknowledged})
		}
		raised.ID = AlertID(key.derive(a.Version + 1))
	}
	raised.Message = "the database lost the end of the log, " + lost.String()
	return append(changes, raised)
}

func (l LostTail) String() string {
	if l.From == 0 {
		return fmt.Sprintf("up to position %d", l.To)
	}
	return fmt.Sprintf("positions %d to %d", l.From, l.To)
}

// AlertEvent returns the event that tells subscribers of an alert raised or resolved.
// The zero webhook stands for none.
func AlertEvent(w Webhook, change Change, at time.Time) EventTriggered {
	notice := struct {
		AlertID       AlertID    `json:"alert_id"`
		Kind          AlertKind  `json:"kind"`
		State         string     `json:"state"`
		WebhookID     *WebhookID `json:"webhook_id"`
		WebhookNumber *int64     `json:"webhook_number"`
		WebhookName   *string    `json:"webhook_name"`
		Message       string     `json:"message"`
		At            string     `json:"at"`
	}{At: string(strictjson.AppendTime(nil, at, millis))}
	if w.ID != (WebhookID{}) {
		notice.WebhookID, notice.WebhookNumber, notice.WebhookName = &w.ID, &w.Number, &w.Name
	}
	eventType := AlertRaised
	switch c := change.(type) {
	case WebhookAlertRaised:
		notice.AlertID, notice.Kind, notice.State, notice.Message = c.ID, c.Kind, "open", c.Message
	case WebhookAlertResolved:
		notice.AlertID, notice.Kind, notice.State, notice.Message = c.ID, c.Kind, "resolved", c.Message
		eventType = AlertResolved
	}
	return EventTriggered{EventType: string(eventType), Source: "system", EventData: EncodeJSON(notice)}
}
