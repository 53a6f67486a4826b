package http

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/gorilla/mux"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

func (s *Server) callRoutes() {
	s.api("GET", webhookPath+"/calls", domain.ScopeWebhooksRead, s.handleCallList)
	s.api("GET", webhookPath+"/calls/{call:[0-9A-Fa-f-]+}", domain.ScopeWebhooksRead, s.handleCallGet)
}

func (s *Server) handleCallList(x *exchange, r *http.Request) error {
	q := readQuery(r)
	f := projections.CallFilter{
		Status:    projections.CallStatus(q.choice("status", "", string(projections.CallSuccess), string(projections.CallFailed))),
		EventType: s.callType(q),
		From:      q.time("from"), To: q.time("to"), Limit: q.limit(), Cursor: q.text("cursor"),
	}
	if err := q.done(); err != nil {
		return err
	}
	w, err := s.anyWebhookInPath(r)
	if err != nil {
		return err
	}
	f.Webhook = w.ID
	list, err := s.queries.Calls(r.Context(), f)
	if err != nil {
		return err
	}
	return x.answer(http.StatusOK, newPage(list.Items, list.NextCursor))
}

// callType gives what calls are listed under: a type of the catalogue, or batch.
func (s *Server) callType(q *query) string {
	if q.text("event_type") == string(domain.BatchEventType) {
		return string(domain.BatchEventType)
	}
	return string(q.eventType(s.commands.Catalog))
}

func (s *Server) handleCallGet(x *exchange, r *http.Request) error {
	if err := readQuery(r).done(); err != nil {
		return err
	}
	w, err := s.anyWebhookInPath(r)
	if err != nil {
		return err
	}
	id, ok := parseUUID(mux.Vars(r)["call"])
	if !ok {
		return domain.NotFound("call")
	}
	call, err := s.callDetails(r.Context(), w.ID, domain.CallID(id))
	if err != nil {
		return err
	}
	return x.answer(http.StatusOK, call)
}

// callView is a call with all that is known of it.
type callView struct {
	projections.Call
	Method            string            `json:"method"`
	RequestHeaders    map[string]string `json:"request_headers"` // the webhook's own are masked
	Payload           *string           `json:"payload"`         // the exact bytes; null when nothing was sent, or nobody knows when
	ResponseHeaders   map[string]string `json:"response_headers"`
	ResponseBody      *string           `json:"response_body"` // null: no answer
	ResponseBytes     []byte            `json:"response_body_base64,omitempty"`
	ResponseTruncated bool              `json:"response_truncated"`
}

// callDetails reads a call from the log. What was sent is not kept: it is made
// anew, to the byte, from the event, the webhook as it was, and the time.
func (s *Server) callDetails(ctx context.Context, webhook domain.WebhookID, id domain.CallID) (callView, error) {
	call, err := s.queries.Call(ctx, webhook, id)
	if err != nil {
		return callView{}, err
	}
	v := callView{
		Call: call, Method: http.MethodPost, RequestHeaders: map[string]string{}, ResponseHeaders: map[string]string{},
		ResponseTruncated: call.Record.Truncated,
	}
	for _, h := range call.Record.Header {
		v.ResponseHeaders[h.Name] = joined(v.ResponseHeaders[h.Name], h.Value)
	}
	if call.Record.Status != 0 {
		text := strings.ToValidUTF8(string(call.Record.Body), "\uFFFD")
		v.ResponseBody = &text
		if !utf8.Valid(call.Record.Body) {
			v.ResponseBytes = call.Record.Body
		}
	}
	if call.Record.StartedAt.IsZero() {
		return v, nil // a crash cut it off: when it was made is not known
	}
	return v, s.sent(ctx, &v)
}

// sent fills in what was sent.
func (s *Server) sent(ctx context.Context, v *callView) error {
	record := v.Record
	w, err := s.queries.WebhookVersion(ctx, record.WebhookID, record.WebhookVersion)
	if err != nil {
		return err
	}
	w.PayloadVersion = record.PayloadVersion
	attempt := commands.Attempt{Webhook: w, Delivery: v.DeliveryID, Number: record.Attempt, EventID: record.EventID}
	if record.EventType == string(domain.BatchEventType) {
		if attempt.Batch, err = commands.BatchEvents(ctx, s.commands.Log, v.DeliveryID); err != nil {
			return fmt.Errorf("show a batch: %w", err)
		}
	} else if v.Test {
		attempt.Event, attempt.OccurredAt = commands.TestEvent(record.EventID, domain.EventType(record.EventType), v.TestData)
	} else {
		event, err := s.queries.Event(ctx, record.EventID)
		if errors.Is(err, domain.KindNotFound) {
			return nil // it could not be read when it was to be sent either: nothing was
		}
		if err != nil {
			return err
		}
		attempt.OccurredAt = event.AcceptedAt
		attempt.Event = domain.EventTriggered{EventType: event.Type, Source: event.Source, EventData: event.Data}
		if event.CorrelationID != nil {
			attempt.Event.CorrelationID = *event.CorrelationID
		}
	}
	signer, err := s.commands.Attempter.Signer(w, record.StartedAt)
	if err != nil {
		s.logger.Warn("a call is shown without its signature", "call_id", v.ID.String(), "error", err)
	}
	body, header := commands.Compose(attempt, record.StartedAt, signer)
	payload := string(body)
	v.Payload = &payload
	for _, h := range header {
		v.RequestHeaders[h.Name] = h.Value
	}
	for _, h := range w.Headers {
		v.RequestHeaders[h.Name] = domain.Masked
	}
	return nil
}

func joined(before, value string) string {
	if before == "" {
		return value
	}
	return before + ", " + value
}
