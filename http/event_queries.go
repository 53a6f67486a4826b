package http

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/gorilla/mux"

	"github.com/medilab/webhooks/commands/outbox"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

func (s *Server) handleEventList(x *exchange, r *http.Request) error {
	q := readQuery(r)
	f := projections.EventFilter{
		EventType: string(q.eventType(s.commands.Catalog)), CorrelationID: q.text("correlation_id"),
		From: q.time("from"), To: q.time("to"), Limit: q.limit(), Cursor: q.text("cursor"),
	}
	if err := q.done(); err != nil {
		return err
	}
	list, err := s.queries.Events(r.Context(), f)
	if err != nil {
		return err
	}
	answer := []byte(`{"items":[`)
	for i, event := range list.Items {
		if i > 0 {
			answer = append(answer, ',')
		}
		answer = appendEvent(answer, event)
	}
	answer = append(answer, `],"next_cursor":`...)
	if list.NextCursor == "" {
		answer = append(answer, "null"...)
	} else {
		answer = domain.AppendJSONString(answer, list.NextCursor)
	}
	x.Header()["Content-Type"] = jsonType
	writeBody(x, http.StatusOK, append(answer, '}'))
	return nil
}

// appendEvent writes an event with its data byte for byte as it was accepted,
// which encoding/json would take the white space out of. Its fields are those of
// projections.Event.
func appendEvent(dst []byte, e projections.Event) []byte {
	dst = append(append(append(dst, `{"event_id":"`...), e.ID.String()...), `","event_type":`...)
	dst = domain.AppendJSONString(dst, e.Type)
	dst = domain.AppendJSONString(append(dst, `,"source":`...), e.Source)
	dst = append(dst, `,"correlation_id":`...)
	if e.CorrelationID == nil {
		dst = append(dst, "null"...)
	} else {
		dst = domain.AppendJSONString(dst, *e.CorrelationID)
	}
	dst = append(append(dst, `,"event_data":`...), e.Data...)
	dst = appendMoment(append(dst, `,"accepted_at":`...), e.AcceptedAt)
	return append(strconv.AppendInt(append(dst, `,"position":`...), int64(e.Position), 10), '}')
}

func (s *Server) handleEventGet(x *exchange, r *http.Request) error {
	if err := readQuery(r).done(); err != nil {
		return err
	}
	id, err := eventInPath(r)
	if err != nil {
		return err
	}
	event, err := s.queries.Event(r.Context(), id)
	if err != nil {
		return err
	}
	x.Header()["Content-Type"] = jsonType
	writeBody(x, http.StatusOK, appendEvent(nil, event))
	return nil
}

func (s *Server) handleEventDeliveries(x *exchange, r *http.Request) error {
	q := readQuery(r)
	limit, cursor := q.limit(), q.text("cursor")
	if err := q.done(); err != nil {
		return err
	}
	id, err := eventInPath(r)
	if err != nil {
		return err
	}
	list, err := s.queries.Deliveries(r.Context(), id, limit, cursor)
	if err != nil {
		return err
	}
	return x.answer(http.StatusOK, newPage(list.Items, list.NextCursor))
}

// parkedAtOnce bounds a page of parked events, which come with their data.
const parkedAtOnce = 50

// handleParked lists what the clinic's services emitted and cannot be accepted.
func (s *Server) handleParked(x *exchange, r *http.Request) error {
	q := readQuery(r)
	limit, before := min(q.limit(), parkedAtOnce), q.cursor()
	if err := q.done(); err != nil {
		return err
	}
	list, more, err := outbox.Parked(r.Context(), s.commands.Pool, before, limit)
	if err != nil {
		return err
	}
	next := ""
	if more {
		next = newCursor(list[len(list)-1].ID)
	}
	return x.answer(http.StatusOK, newPage(list, next))
}

// parkedPath matches a parked event's place in a path.
const parkedPath = "/webhooks/events/parked/{parked:[0-9]+}"

func (s *Server) handleParkedRetry(x *exchange, r *http.Request) error {
	id, err := parkedInPath(r)
	if err != nil {
		return err
	}
	accepted, err := outbox.RetryParked(r.Context(), s.commands, x.caller, id)
	if err != nil {
		return err
	}
	x.Header()["Content-Type"] = jsonType
	writeBody(x, http.StatusAccepted, appendAccepted(nil, accepted))
	return nil
}

func (s *Server) handleParkedDiscard(x *exchange, r *http.Request) error {
	id, err := parkedInPath(r)
	if err != nil {
		return err
	}
	if err := outbox.DiscardParked(r.Context(), s.commands, x.caller, id); err != nil {
		return err
	}
	x.WriteHeader(http.StatusNoContent)
	return nil
}

func parkedInPath(r *http.Request) (int64, error) {
	id, err := strconv.ParseInt(mux.Vars(r)["parked"], 10, 64)
	if err != nil {
		return 0, domain.NotFound("parked event") // a number beyond all
	}
	return id, nil
}

// handleEventExplain gives every verdict at once unless it is asked for pages: a
// webhook that is left out would look as if it did not exist.
func (s *Server) handleEventExplain(x *exchange, r *http.Request) error {
	q := readQuery(r)
	part := q.part()
	if err := q.done(); err != nil {
		return err
	}
	id, err := eventInPath(r)
	if err != nil {
		return err
	}
	event, explained, err := s.queries.Explain(r.Context(), id)
	if err != nil {
		return err
	}
	items := make([]verdictView, len(explained))
	for i, one := range explained {
		items[i] = verdictOf(one)
	}
	return x.answer(http.StatusOK, explainView{event.ID, event.Type, partOf(items, part)})
}

// explainView is an event's verdicts, all of them.
type explainView struct {
	EventID   domain.EventID `json:"event_id"`
	EventType string         `json:"event_type"`
	page[verdictView]
}

// verdictView is what became of an event for one webhook.
type verdictView struct {
	WebhookID      domain.WebhookID    `json:"webhook_id"`
	WebhookNumber  int64               `json:"webhook_number"`
	WebhookName    string              `json:"webhook_name"`
	WebhookVersion int64               `json:"webhook_version"` // at that moment
	Verdict        projections.Verdict `json:"verdict"`
	DeliveryID     *domain.DeliveryID  `json:"delivery_id,omitempty"`
	// Of a filter: the condition that did not hold.
	Field  string          `json:"field,omitempty"`
	Want   json.RawMessage `json:"want,omitempty"`
	Got    json.RawMessage `json:"got,omitempty"`
	Reason string          `json:"reason,omitempty"`
}

func verdictOf(e projections.Explained) verdictView {
	v := verdictView{
		WebhookID: e.Webhook.ID, WebhookNumber: e.Webhook.Number, WebhookName: e.Webhook.Name,
		WebhookVersion: e.Webhook.Version, Verdict: e.Verdict,
	}
	if e.Delivery != nil {
		v.DeliveryID = &e.Delivery.ID
	}
	if e.Verdict == projections.VerdictFiltered {
		v.Field, v.Want, v.Got, v.Reason = e.Filter.Field, asJSON(e.Filter.Want), asJSON(e.Filter.Got), e.Filter.Reason
	}
	return v
}

// asJSON gives a value that may have been cut for showing: as it is, or what is
// left of it as a string. Nothing is null.
func asJSON(text string) json.RawMessage {
	switch {
	case text == "":
		return json.RawMessage("null")
	case json.Valid([]byte(text)):
		return json.RawMessage(text)
	}
	return domain.AppendJSONString(nil, text)
}

func eventInPath(r *http.Request) (domain.EventID, error) {
	id, ok := parseUUID(mux.Vars(r)["event"])
	if !ok {
		return domain.EventID{}, domain.NotFound("event")
	}
	return domain.EventID(id), nil
}
