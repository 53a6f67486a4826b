package http

import (
	"fmt"
	"net/http"
	"time"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
)

// eventPath matches an event's id in a path.
const eventPath = "/webhooks/events/{event:[0-9A-Fa-f-]+}"

// FastPaths are those of requests that come by the ten thousand a second (fastpath.Config.Paths).
var FastPaths = []string{apiRoot + triggerPath, apiRoot + triggerPath + "/batch"}

const triggerPath = "/webhooks/events/trigger"

func (s *Server) eventRoutes() {
	s.long("POST", triggerPath, domain.ScopeEventsWrite, s.handleTrigger)
	s.long("POST", triggerPath+"/batch", domain.ScopeEventsWrite, s.handleTriggerBatch)
	s.api("GET", "/webhooks/events/types", anyToken, s.handleEventTypes)
	s.api("GET", "/webhooks/events/parked", domain.ScopeWebhooksRead, s.handleParked)
	s.api("POST", parkedPath+"/retry", domain.ScopeAdmin, s.handleParkedRetry)
	s.api("POST", parkedPath+"/discard", domain.ScopeAdmin, s.handleParkedDiscard)
	s.api("GET", "/webhooks/events", domain.ScopeWebhooksRead, s.handleEventList)
	s.api("GET", eventPath, domain.ScopeWebhooksRead, s.handleEventGet)
	s.api("GET", eventPath+"/deliveries", domain.ScopeWebhooksRead, s.handleEventDeliveries)
	s.api("GET", eventPath+"/explain", domain.ScopeWebhooksRead, s.handleEventExplain)
}

// handleTrigger runs for every event of the clinic: it encodes by hand and copies
// the body once.
func (s *Server) handleTrigger(x *exchange, r *http.Request) error {
	b, err := readJSON(r, maxEventBody)
	if err != nil {
		return err
	}
	defer b.release()
	event, refused, err := readEvent(b.data)
	if err != nil {
		return err
	}
	if refused != nil {
		return domain.InvalidFields(withRules(refused, s.commands.Catalog.TriggeredFields(event.Event)))
	}
	key, err := idempotencyKey(r)
	if err != nil {
		return err
	}
	accepted, err := s.commands.TriggerEvent(r.Context(), x.caller, event, key)
	if err != nil {
		return err
	}
	x.Header()["Content-Type"] = jsonType
	writeBody(x, http.StatusAccepted, appendAccepted(make([]byte, 0, 160), accepted))
	return nil
}

// handleTriggerBatch accepts all of its events or none.
func (s *Server) handleTriggerBatch(x *exchange, r *http.Request) error {
	b, err := readJSON(r, maxEventBody)
	if err != nil {
		return err
	}
	defer b.release()
	events, err := s.readBatch(b.data)
	if err != nil {
		return err
	}
	key, err := idempotencyKey(r)
	if err != nil {
		return err
	}
	accepted, err := s.commands.TriggerBatch(r.Context(), x.caller, events, key)
	if err != nil {
		return err
	}
	answer := append(make([]byte, 0, 32+160*len(accepted)), `{"items":[`...)
	for i, one := range accepted {
		if i > 0 {
			answer = append(answer, ',')
		}
		answer = appendAccepted(answer, one)
	}
	x.Header()["Content-Type"] = jsonType
	writeBody(x, http.StatusAccepted, append(answer, "]}"...))
	return nil
}

func appendAccepted(dst []byte, a commands.Accepted) []byte {
	dst = append(append(append(dst, `{"event_id":"`...), a.EventID.String()...), `","event_type":`...)
	dst = domain.AppendJSONString(dst, string(a.EventType))
	return append(appendMoment(append(dst, `,"accepted_at":`...), a.AcceptedAt), '}')
}

// acceptedView is what appendAccepted writes.
type acceptedView struct {
	EventID    domain.EventID `json:"event_id"`
	EventType  string         `json:"event_type"`
	AcceptedAt time.Time      `json:"accepted_at"`
}

// acceptedListView is the answer to a batch.
type acceptedListView struct {
	Items []acceptedView `json:"items"`
}

// readEvent takes a request to trigger an event apart. The event's data is the
// body's own bytes. Values of a wrong type are in refused.
func readEvent(data []byte) (event commands.NewEvent, refused []domain.FieldError, err error) {
	err = domain.ObjectFields(data, func(key string, raw []byte) error {
		message := ""
		switch key {
		case "event_type":
			message = text(&event.Event.EventType)(raw)
		case "event_data":
			event.Event.EventData = raw
		case "source":
			message = text(&event.Event.Source)(raw)
		case "correlation_id":
			message = text(&event.Event.CorrelationID)(raw)
		case "event_id":
			message = readEventID(&event.ID, raw)
		default:
			message = "is not a field of this request"
		}
		if message != "" {
			refused = append(refused, domain.FieldError{Field: shown(key), Message: message})
		}
		return nil
	})
	return event, refused, err
}

func readEventID(to *domain.EventID, raw []byte) string {
	if isNull(raw) {
		return ""
	}
	text, ok := domain.JSONText(raw)
	id, isUUID := parseUUID(text)
	if !ok || !isUUID {
		return mustBeUUID
	}
	*to = domain.EventID(id)
	return ""
}

func (s *Server) readBatch(data []byte) ([]commands.NewEvent, error) {
	var list []byte
	refused, err := fields{"events": func(raw []byte) string { list = raw; return "" }}.read(data)
	if err != nil {
		return nil, err
	}
	switch {
	case list == nil:
		refused = append(refused, domain.FieldError{Field: "events", Message: "is required"})
	case list[0] != '[':
		refused = append(refused, domain.FieldError{Field: "events", Message: "must be a list of events"})
	}
	if len(refused) > 0 {
		return nil, domain.InvalidFields(refused)
	}
	var events []commands.NewEvent
	err = domain.ArrayElements(list, func(i int, raw []byte) error {
		if i >= commands.MaxBatch {
			return domain.Invalid("events", fmt.Sprintf("must have at most %d events", commands.MaxBatch))
		}
		if raw[0] != '{' {
			refused = append(refused, domain.FieldError{Field: fmt.Sprintf("events[%d]", i), Message: mustBeObject})
			return nil
		}
		event, unread, err := readEvent(raw)
		if unread != nil {
			unread = withRules(unread, s.commands.Catalog.TriggeredFields(event.Event))
			refused = append(refused, commands.InBatch(i, unread)...)
		}
		events = append(events, event)
		return err
	})
	if err != nil {
		return nil, err
	}
	return events, domain.CheckFields(refused)
}

const maxIdempotencyKey = 255

// idempotencyKey gives the caller's key; "" when there is none.
func idempotencyKey(r *http.Request) (string, error) {
	keys := r.Header["Idempotency-Key"]
	if len(keys) == 0 {
		return "", nil
	}
	if len(keys) > 1 || keys[0] == "" || len(keys[0]) > maxIdempotencyKey {
		return "", domain.Invalid("Idempotency-Key", fmt.Sprintf("must be one header of 1 to %d bytes", maxIdempotencyKey))
	}
	return keys[0], nil
}

// handleEventTypes lists the catalogue: the clinic's types, then the service's own.
func (s *Server) handleEventTypes(x *exchange, r *http.Request) error {
	q := readQuery(r)
	part := q.part()
	if err := q.done(); err != nil {
		return err
	}
	catalog := s.commands.Catalog
	items := make([]eventTypeView, 0, 32)
	for _, info := range append(catalog.Clinic(), catalog.System()...) {
		items = append(items, eventTypeView{
			Type: info.Type, Group: info.Group, Description: description{RU: info.RU, EN: info.EN},
			Triggerable: !info.Type.IsSystem(),
		})
	}
	return x.answer(http.StatusOK, partOf(items, part))
}

type eventTypeView struct {
	Type        domain.EventType `json:"type"`
	Group       string           `json:"group"`
	Description description      `json:"description"`
	// Triggerable tells the clinic's types from the service's own, which only the
	// service makes.
	Triggerable bool `json:"triggerable"`
}

type description struct {
	RU string `json:"ru"`
	EN string `json:"en"`
}
