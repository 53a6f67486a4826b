package http

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

var (
	callStatus = choiceParam("status", "how the call ended", "", projections.CallSuccess, projections.CallFailed)
	// callType is what calls are listed under: a type of the catalogue, or batch.
	callType = param[domain.EventType]{name: eventType.name, text: eventType.text, schema: eventType.schema, parse: func(value string, catalog domain.Catalog) (domain.EventType, string) {
		if value == string(domain.BatchEventType) {
			return domain.BatchEventType, ""
		}
		return parseEventType(value, catalog)
	}}
	whose          = textParam("webhook", "a webhook's UUID or its short number")
	ofEvent        = idParam[domain.EventID]("event_id", "an event, also one that went in a batch")
	ofDelivery     = idParam[domain.DeliveryID]("delivery_id", "a delivery, also one that went in a batch")
	responseStatus = param[projections.StatusRange]{name: "response_status", text: "the answer's status, as 404, or its class, as 5xx",
		schema: schema{"type": "string", "pattern": "^[1-5]([0-9]{2}|[xX]{2})$"}, parse: parseStatusRange}
	callFilters = []queryParam{callStatus, callType, responseStatus, ofEvent, ofDelivery, correlationID, from, to, limit, cursor}
)

func parseStatusRange(value string, _ domain.Catalog) (r projections.StatusRange, problem string) {
	statuses, ok := domain.ParseStatuses(value)
	if !ok {
		return r, "must be a status, as 404, or a class, as 5xx"
	}
	return projections.StatusRange(statuses), ""
}

// ofAsked is a handler that gets the webhook that the parameter names, deleted or not; without, the
// zero one, which stands for any.
func (s *Server) ofAsked(by param[string], serve webhookHandler) handler {
	return func(x *request, r *http.Request) (err error) {
		var w domain.Webhook
		if name := by.of(x); name != "" {
			w, err = s.namedWebhook(r.Context(), name)
		}
		switch {
		case errors.Is(err, domain.KindNotFound):
			return domain.Invalid(by.name, "names no webhook")
		case err != nil:
			return err
		}
		return serve(x, r, w)
	}
}

func (s *Server) callOperations() []operation {
	return []operation{{
		method: "GET", path: "/webhooks/{webhook}/calls", id: "listCalls", summary: "The call log of a webhook, newest first", scope: domain.ScopeWebhooksRead,
		query: callFilters, answer: listOf[projections.Call], serve: s.ofWebhook(s.listCalls),
	}, {
		method: "GET", path: "/webhooks/calls", id: "listAllCalls", summary: "The call log of all webhooks, newest first", scope: domain.ScopeWebhooksRead,
		query: append([]queryParam{whose}, callFilters...), answer: listOf[projections.Call], serve: s.ofAsked(whose, s.listCalls),
	}, {
		method: "GET", path: "/webhooks/{webhook}/calls/{call}", id: "getCall", summary: "All of one call: what was sent and answered", scope: domain.ScopeWebhooksRead,
		answer: answerOf[callDetailsView], payloads: true, serve: s.ofWebhook(ofWebhookByID("call", s.getCall)),
	}}
}

func (s *Server) listCalls(x *request, r *http.Request, w domain.Webhook) error {
	f := projections.CallFilter{
		Webhook: w.ID, Status: callStatus.of(x), EventType: string(callType.of(x)), Answer: responseStatus.of(x), Event: ofEvent.of(x),
		Delivery: ofDelivery.of(x), CorrelationID: correlationID.of(x), From: from.of(x), To: to.of(x), Limit: limit.of(x), Cursor: cursor.of(x),
	}
	return s.respondShared(x, r, func(ctx context.Context) ([]byte, error) {
		page, err := query(ctx, s, func(ctx context.Context, q *projections.Projections) (projections.Page[projections.Call], error) {
			return q.Calls(ctx, f)
		})
		return append(appendPage(nil, page, appendCall), '\n'), err
	})
}

func (s *Server) getCall(x *request, r *http.Request, w domain.Webhook, id domain.CallID) error {
	return s.answer(x, r, func(ctx context.Context, q *projections.Projections) (any, error) {
		return s.callDetails(ctx, q, w.ID, id)
	})
}

// callDetailsView is a call with all that is known of it.
type callDetailsView struct {
	projections.Call
	Method            string               `json:"method"`
	RequestHeaders    map[string]string    `json:"request_headers"` // the webhook's own are masked
	Payload           *string              `json:"payload"`         // the exact bytes; null if nothing was sent, or it is unknown when
	ResponseHeaders   map[string]string    `json:"response_headers"`
	ResponseBody      *string              `json:"response_body"` // null: no answer
	ResponseBytes     []byte               `json:"response_body_base64,omitempty"`
	ResponseTruncated bool                 `json:"response_truncated"`
	EventIDs          []domain.EventID     `json:"event_ids,omitempty"` // of a batch
	CorrelationID     string               `json:"correlation_id,omitempty"`
	Position          projections.Position `json:"position"` // in the log
}

// callDetails reads a call from the log. What was sent is not kept: it is composed again,
// to the byte, from the event, the webhook as it was, and the time.
func (s *Server) callDetails(ctx context.Context, q *projections.Projections, webhook domain.WebhookID, id domain.CallID) (callDetailsView, error) {
	call, err := q.Call(ctx, webhook, id)
	if err != nil {
		return callDetailsView{}, err
	}
	v := callDetailsView{
		Call: call, Method: http.MethodPost, RequestHeaders: map[string]string{}, ResponseHeaders: map[string]string{},
		ResponseTruncated: call.Record.Truncated, CorrelationID: call.CorrelationID, Position: call.Position,
	}
	for _, h := range call.Record.Header {
		v.ResponseHeaders[h.Name] = strings.TrimPrefix(v.ResponseHeaders[h.Name]+", "+h.Value, ", ")
	}
	if call.Record.Status != 0 && !call.IsGone() {
		text, more := commands.AnswerText(call.Record.Header, call.Record.Body)
		v.ResponseBody, v.ResponseTruncated = &text, v.ResponseTruncated || more
		if text != string(call.Record.Body) {
			v.ResponseBytes = call.Record.Body
		}
	}
	if call.IsGone() || call.Record.StartedAt.IsZero() || !call.Record.Outcome.WasSent() {
		return v, nil // a crash cut it off, so it is unknown when it was made; or it was not
	}
	return v, s.addSent(ctx, q, &v)
}

// attemptOf returns the attempt that a call was, or no event or batch in it: then nothing was sent,
// or what was is gone.
func (s *Server) attemptOf(ctx context.Context, q *projections.Projections, v *callDetailsView) (attempt commands.Attempt, err error) {
	record := v.Record
	w, err := q.WebhookVersion(ctx, record.WebhookID, record.WebhookVersion)
	if err != nil {
		return attempt, err
	}
	w.PayloadVersion = record.PayloadVersion
	attempt = commands.Attempt{
		Webhook: w, Delivery: v.DeliveryID, Number: record.Attempt, EventID: record.EventID, Sequence: record.Sequence, Replay: record.ReplayID,
		Fields: domain.NewSelection(w.Fields),
	}
	switch {
	case record.EventType == string(domain.BatchEventType):
		if attempt.Batch, attempt.LeftOut, err = commands.BatchEvents(ctx, s.commands.Log, v.DeliveryID, false); err != nil {
			return attempt, fmt.Errorf("show a batch: %w", err)
		}
		attempt.Batch = slices.DeleteFunc(attempt.Batch, func(e domain.PayloadEvent) bool { return !record.Sent(domain.EventID(e.EventID)) })
		for i := range attempt.Batch {
			v.EventIDs = append(v.EventIDs, domain.EventID(attempt.Batch[i].EventID))
		}
		return attempt, nil
	case v.Test:
		attempt.Event, attempt.OccurredAt = commands.TestEvent(record.EventID, domain.EventType(record.EventType), v.TestData)
		return attempt, nil
	}
	event, err := q.Event(ctx, record.EventID)
	if errors.Is(err, domain.KindNotFound) {
		return attempt, nil // it could not be read when it was to be sent either: nothing was
	}
	if v.Gone = event.Gone; err != nil || event.IsGone() {
		return attempt, err // of a call that is in clear
	}
	attempt.OccurredAt = event.OccurredAt
	attempt.Event = domain.EventTriggered{EventType: event.Type, Source: event.Source, EventData: event.Data, Trace: event.Trace()}
	if event.CorrelationID != nil {
		attempt.Event.CorrelationID = *event.CorrelationID
	}
	return attempt, nil
}

// addSent adds what was sent.
func (s *Server) addSent(ctx context.Context, q *projections.Projections, v *callDetailsView) error {
	attempt, err := s.attemptOf(ctx, q, v)
	if err != nil || attempt.Batch == nil && attempt.Event.EventType == "" {
		return err
	}
	record, w := v.Record, attempt.Webhook
	signer, err := s.commands.Attempter.Signer(w, record.StartedAt)
	if err != nil {
		s.logger.Warn("a call is shown without its signature", "call_id", v.ID.String(), "error", err)
	}
	body, header := commands.Compose(attempt, record.StartedAt, signer)
	if v.Test && w.Batch != nil { // older versions sent the event alone
		batched, itsHeader := commands.Compose(attempt.InBatch(), record.StartedAt, signer)
		if sum := sha256.Sum256(batched); bytes.Equal(sum[:], record.BodyHash) {
			body, header = batched, itsHeader
		}
	}
	payload := string(body)
	v.Payload = &payload
	own := slices.ContainsFunc(w.Headers, func(h domain.SealedHeader) bool { return domain.Header{Name: h.Name}.NamesTrace() })
	for _, h := range header {
		if !own || !h.NamesTrace() {
			v.RequestHeaders[h.Name] = h.Value
		}
	}
	for _, h := range w.Headers {
		v.RequestHeaders[h.Name] = domain.Masked
	}
	if w.Auth != nil && w.Auth.Type == domain.AuthOAuth2 {
		v.RequestHeaders[domain.HeaderAuthorization] = domain.Masked
	}
	return nil
}
