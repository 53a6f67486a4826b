package http

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/filter"
	"github.com/medilab/webhooks/domain/strictjson"
	"github.com/medilab/webhooks/eventstore/cpulimit"
	"github.com/medilab/webhooks/projections"
)

var correlationID = textParam("correlation_id", "the caller's own id")

// withDeliveries is the choice of a list of events.
var withDeliveries = choiceParam("deliveries", "count: adds how many deliveries each event has, and how up to 20 of them stand", "", "count")

var ofVerdict = choiceParam("verdict", "webhooks with this verdict", "", projections.Verdicts...).mustFill()

func (s *Server) eventQueryOperations() []operation {
	return []operation{{
		method: "GET", path: "/webhooks/events", id: "listEvents", summary: "List events, newest first", scope: domain.ScopeWebhooksRead,
		query: []queryParam{eventType, correlationID, withDeliveries, from, to, limit, cursor}, answer: listOf[projections.Event], payloads: true, serve: s.listEvents,
	}, {
		method: "GET", path: "/webhooks/events/{event}", id: "getEvent", summary: "One event", scope: domain.ScopeWebhooksRead,
		answer: answerOf[projections.Event], payloads: true, serve: byID("event", s.getEvent),
	}, {
		method: "GET", path: "/webhooks/events/{event}/deliveries", id: "listDeliveries", summary: "Each delivery of an event", scope: domain.ScopeWebhooksRead, orScope: domain.ScopeAuditRead,
		query: []queryParam{limit, cursor}, answer: listOf[projections.Delivery], serve: byID("event", s.listDeliveries),
	}, {
		method: "GET", path: "/webhooks/events/{event}/explain", id: "explainEvent", summary: "Why each webhook got the event, or did not", scope: domain.ScopeWebhooksRead, orScope: domain.ScopeAuditRead,
		query: []queryParam{ofVerdict, atMost, cursor}, answer: answerOf[explanationView], large: true, payloads: true, serve: byID("event", s.explainEvent),
	}}
}

func (s *Server) listEvents(x *request, r *http.Request) error {
	f := projections.EventFilter{
		EventType: string(eventType.of(x)), CorrelationID: correlationID.of(x),
		From: from.of(x), To: to.of(x), Limit: limit.of(x), Cursor: cursor.of(x),
	}
	return s.respondShared(x, r, func(ctx context.Context) ([]byte, error) {
		list, err := s.events(ctx, f, withDeliveries.of(x) != "")
		return appendPage(nil, list, appendEvent), err
	})
}

// events lists events, with how many deliveries each has if they are to be counted.
func (s *Server) events(ctx context.Context, f projections.EventFilter, counted bool) (projections.Page[projections.Event], error) {
	return query(ctx, s, func(ctx context.Context, q *projections.Projections) (projections.Page[projections.Event], error) {
		list, err := q.Events(ctx, f)
		if err == nil && counted {
			err = q.CountDeliveries(ctx, list.Items)
		}
		return list, err
	})
}

// appendEvent encodes an event with its data byte for byte as it was accepted, of which
// encoding/json would remove the white space. Its fields are those of projections.Event.
func appendEvent(dst []byte, e projections.Event) []byte {
	dst = appendID(append(dst, `{"event_id":`...), e.ID)
	dst = strictjson.AppendString(append(dst, `,"event_type":`...), e.Type)
	dst = strictjson.AppendString(append(dst, `,"source":`...), e.Source)
	dst = appendOrNull(append(dst, `,"correlation_id":`...), e.CorrelationID, strictjson.AppendString)
	dst = appendOrNull(append(dst, `,"client_event_id":`...), e.ClientEventID, appendID)
	dst = appendData(append(dst, `,"event_data":`...), e)
	dst = appendMoment(append(dst, `,"accepted_at":`...), e.AcceptedAt)
	dst = appendMoment(append(dst, `,"occurred_at":`...), e.OccurredAt)
	dst = appendOrNull(append(dst, `,"traceparent":`...), e.Traceparent, strictjson.AppendString)
	dst = appendOrNull(append(dst, `,"tracestate":`...), e.Tracestate, strictjson.AppendString)
	dst = strconv.AppendBool(append(dst, `,"deliver":`...), e.Deliver)
	dst = appendInt(append(dst, `,"position":`...), e.Position)
	if e.Deliveries != nil {
		dst = append(append(dst, `,"deliveries":`...), bytes.TrimSpace(encode(e.Deliveries))...)
	}
	return append(appendGone(dst, e.Gone), '}')
}

func appendData(dst []byte, e projections.Event) []byte {
	if e.IsGone() || len(e.Data) == 0 { // it is sealed, and no key is here
		return append(dst, "null"...)
	}
	return append(dst, e.Data...)
}

func appendGone(dst []byte, g projections.Gone) []byte {
	switch {
	case g.Erased:
		return append(dst, `,"erased":true`...)
	case g.Expired:
		return append(dst, `,"expired":true`...)
	}
	return dst
}

func (s *Server) getEvent(x *request, r *http.Request, id domain.EventID) error {
	event, err := query(r.Context(), s, func(ctx context.Context, q *projections.Projections) (projections.Event, error) {
		return q.Event(ctx, id)
	})
	if err != nil {
		return err
	}
	return x.respondJSON(appendEvent(nil, event))
}

func (s *Server) listDeliveries(x *request, r *http.Request, id domain.EventID) error {
	return s.respondShared(x, r, func(ctx context.Context) ([]byte, error) {
		page, err := query(ctx, s, func(ctx context.Context, q *projections.Projections) (projections.Page[projections.Delivery], error) {
			return q.Deliveries(ctx, id, limit.of(x), cursor.of(x))
		})
		return s.encodeDeliveries(ctx, page, err)
	})
}

// explanationView has all verdicts on an event, unless it is asked for pages: a webhook
// that is left out would look as if it did not exist.
type explanationView struct {
	explanationHead
	projections.Page[VerdictView]
}

type explanationHead struct {
	EventID   domain.EventID `json:"event_id"`
	EventType string         `json:"event_type"`
	// How many webhooks have each verdict, on this page or not.
	Verdicts map[projections.Verdict]int `json:"verdicts"`
	// When it was emitted, however late it was accepted.
	OccurredAt       moment `json:"occurred_at"`
	projections.Gone        // then filters cannot be asked any more
}

// VerdictView is what became of an event for one webhook.
type VerdictView struct {
	WebhookID      domain.WebhookID    `json:"webhook_id"`
	WebhookNumber  int64               `json:"webhook_number"`
	WebhookName    string              `json:"webhook_name"`
	WebhookVersion int64               `json:"webhook_version"` // at that moment
	Verdict        projections.Verdict `json:"verdict"`
	DeliveryID     *domain.DeliveryID  `json:"delivery_id,omitempty"`
	Attempts       int                 `json:"attempts,omitempty"`
	Outcome        *domain.Outcome     `json:"outcome,omitempty"` // of the last attempt, as are
	ResponseStatus *int                `json:"response_status,omitempty"`
	Error          *string             `json:"error,omitempty"`
	WaitingBehind  *domain.DeliveryID  `json:"waiting_behind"` // of a delivery that waits for another of its key
	SentBy         []projections.Sent  `json:"sent_by"`        // the dispatch, and each replay
	failedCondition
}

// failedCondition is the condition of a filter that did not hold.
type failedCondition struct {
	Field  string          `json:"field,omitempty"`
	Want   json.RawMessage `json:"want,omitempty"`
	Got    json.RawMessage `json:"got,omitempty"`
	Reason string          `json:"reason,omitempty"` // of a delivery: why it has failed or is cancelled, in a word
}

func (s *Server) explainEvent(x *request, r *http.Request, id domain.EventID) error {
	var explained []projections.Explained
	event, err := query(r.Context(), s, func(ctx context.Context, q *projections.Projections) (event projections.Event, err error) {
		event, explained, err = q.Explain(ctx, id)
		return event, err
	})
	if err != nil {
		return err
	}
	verdicts := map[projections.Verdict]int{}
	for _, e := range explained {
		verdicts[e.Verdict]++
	}
	if wanted := ofVerdict.of(x); wanted != "" {
		explained = slices.DeleteFunc(explained, func(e projections.Explained) bool { return e.Verdict != wanted })
	}
	page := pageOf(explained, x)
	var shown []*projections.Delivery
	for _, e := range page.Items {
		if e.Delivery != nil {
			shown = append(shown, e.Delivery)
		}
	}
	if err := s.addWaitingBehind(r.Context(), shown); err != nil {
		return err
	}
	l := x.list(r.Context(), encode(explanationHead{event.ID, event.Type, verdicts, moment(event.OccurredAt), event.Gone}))
	defer l.task.End()
	for i := range page.Items {
		work := 250
		if page.Items[i].Verdict == projections.VerdictFiltered { // its filter says why
			work = cpulimit.Expensive
		}
		if err := l.spend(work); err != nil {
			return err
		}
		l.add(verdictOf(&page.Items[i]))
	}
	return l.respond(x, page.NextCursor)
}

func verdictOf(e *projections.Explained) VerdictView {
	v := VerdictView{
		WebhookID: e.Webhook.ID, WebhookNumber: e.Webhook.Number, WebhookName: e.Webhook.Name,
		WebhookVersion: e.Webhook.Version, Verdict: e.Verdict, SentBy: e.SentBy,
	}
	if e.Delivery != nil {
		v.DeliveryID, v.Attempts, v.WaitingBehind = &e.Delivery.ID, e.Delivery.Attempts, e.Delivery.WaitingBehind
		v.Outcome, v.ResponseStatus, v.Error = e.Delivery.Outcome, e.Delivery.ResponseStatus, e.Delivery.Error
		if e.Delivery.Reason != nil {
			v.Reason = *e.Delivery.Reason
		}
	}
	if e.Verdict == projections.VerdictFiltered {
		v.failedCondition = conditionOf(e.Condition())
	}
	return v
}

func conditionOf(v filter.Verdict) failedCondition {
	return failedCondition{v.Field, jsonOf(v.Want), jsonOf(v.Got), v.Reason}
}

// jsonOf returns a value that may have been cut: as it is, or what is left of it as a
// string. Nothing is null.
func jsonOf(text string) json.RawMessage {
	switch {
	case text == "":
		return json.RawMessage("null")
	case json.Valid([]byte(text)):
		return json.RawMessage(text)
	}
	return strictjson.AppendString(nil, text)
}
