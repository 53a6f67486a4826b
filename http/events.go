package http

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/strictjson"
)

const triggerPath = "/webhooks/events/trigger"

// FastPaths are the paths of frequent requests (fastpath.Config.Paths).
var FastPaths = []string{apiRoot + triggerPath, apiRoot + triggerPath + "/batch"}

func (s *Server) eventOperations() []operation {
	idempotent := []headerParam{idempotencyKey, traceparent, tracestate}
	return []operation{{
		method: "POST", path: triggerPath, id: "triggerEvent", summary: "Trigger an event; answered once it is durable", scope: domain.ScopeEventsWrite,
		header: idempotent, body: newEvent, status: http.StatusAccepted, answer: answerOf[commands.Accepted], conflicts: true,
		light: true, unbounded: true, serve: s.triggerEvent,
	}, {
		method: "POST", path: triggerPath + "/batch", id: "triggerEvents", summary: "Trigger up to 1000 events, all or none", scope: domain.ScopeEventsWrite,
		header: idempotent, body: newEvents, status: http.StatusAccepted, answer: answerOf[acceptedListView], conflicts: true,
		unbounded: true, serve: s.triggerEvents,
	}, {
		method: "GET", path: "/webhooks/events/types", id: "listEventTypes", summary: "The catalogue of event types", scope: anyToken,
		query: []queryParam{atMost, cursor}, answer: listOf[eventTypeView], serve: s.listEventTypes,
	}}
}

// newEvent is a request to trigger an event. The event's data is the body's own bytes.
var newEvent = object[commands.NewEvent]{name: "NewEvent", what: "an event", limit: maxEventBody, fields: []field[commands.NewEvent]{
	plain("event_type", jsonText, func(e *commands.NewEvent) *string { return &e.Event.EventType }, nil).must(),
	plain("event_data", jsonRaw, func(e *commands.NewEvent) *json.RawMessage { return &e.Event.EventData },
		schema{"description": "what happened; delivered byte for byte as it came"}).must(),
	plain("source", jsonText, func(e *commands.NewEvent) *string { return &e.Event.Source },
		schema{"maxLength": domain.MaxLabel, "description": "who says so"}),
	plain("correlation_id", jsonText, func(e *commands.NewEvent) *string { return &e.Event.CorrelationID },
		schema{"maxLength": domain.MaxLabel, "description": "your own id of the matter, to look events up by"}),
	plain("event_id", jsonEventID, func(e *commands.NewEvent) *domain.EventID { return &e.ID },
		schema{"description": "makes the event accepted once from this caller: the same id with the same content answers as the first time, with another content it is 409; if another caller has the id, the answer names another one"}),
	plain("occurred_at", jsonTime, func(e *commands.NewEvent) *time.Time { return &e.Event.OccurredAt },
		schema{"description": "when it happened, not in the future; left out: now"}),
	plain("deliver", jsonNot, func(e *commands.NewEvent) *bool { return &e.Event.Imported },
		schema{"description": "true if left out; false: it is recorded and sent to nobody; a replay can send it"}),
	plain("traceparent", jsonText, func(e *commands.NewEvent) *string { return &e.Event.Traceparent },
		schema{"description": "instead of the request's header traceparent"}),
	plain("tracestate", jsonText, func(e *commands.NewEvent) *string { return &e.Event.Tracestate },
		schema{"description": "of the event's own traceparent"}),
}}

// ReadEvent reads the JSON of a request to trigger an event into event, which holds the
// defaults of fields that are left out. Wrong fields, and those that rules returns, are
// Invalid, but for the field extra, which an event does not have; "" is none. The event's
// data is part of line.
func ReadEvent(line []byte, extra string, rules func(domain.EventTriggered) []domain.FieldError, event *commands.NewEvent) error {
	if err := domain.CheckJSON(line); err != nil {
		return err
	}
	refused, err := newEvent.parse(line, event)
	if err != nil {
		return err
	}
	refused = slices.DeleteFunc(refused, func(f domain.FieldError) bool { return f.Field == extra })
	return domain.CheckFields(withRules(refused, rules(event.Event)))
}

// ReadMessage is ReadEvent for a broker's message. Its event_id may be any text unless withID, and
// the rules are left to the command, which may find that the event was accepted before.
func ReadMessage(body []byte, withID bool, event *commands.NewEvent) error {
	extra := "event_id"
	if withID {
		extra = ""
	}
	return ReadEvent(body, extra, func(domain.EventTriggered) []domain.FieldError { return nil }, event)
}

// describeEventTypes adds the types of the catalogue, which is this server's own, and their
// examples to the operation that triggers one.
func (s *Server) describeEventTypes(d *describer, trigger schema) {
	types, examples := []domain.EventType{}, schema{}
	for _, info := range s.commands.Catalog.Clinic() {
		types = append(types, info.Type)
		if info.Example != nil {
			examples[string(info.Type)] = schema{"summary": info.EN, "value": schema{"event_type": info.Type, "event_data": info.Example}}
		}
	}
	trigger["requestBody"].(schema)["content"].(schema)["application/json"].(schema)["examples"] = examples
	d.components[newEvent.name]["properties"].(schema)["event_type"] = enum(types...)
}

// newEvents is a request to trigger a batch of events, each read as a newEvent.
var newEvents = object[json.RawMessage]{name: "NewEvents", checked: true, limit: maxEventBody, fields: []field[json.RawMessage]{
	field[json.RawMessage]{name: "events", schema: schema{"type": "array", "minItems": 1, "maxItems": commands.MaxBatch, "items": reference(newEvent.name)}, read: func(to *json.RawMessage, raw []byte) faults {
		if raw[0] != '[' {
			return fault("must be a list of events")
		}
		*to = raw
		return nil
	}}.must(),
}}

// triggerEvent runs for every event of the clinic: it encodes by hand and copies the body
// once.
func (s *Server) triggerEvent(x *request, r *http.Request) error {
	var event commands.NewEvent
	rules := func() []domain.FieldError { return s.commands.EventFields(event.Event) }
	if err := newEvent.read(x, r, &event, rules); err != nil {
		return err
	}
	key, err := readIdempotencyKey(r)
	if err != nil {
		return err
	}
	event.Event.Trace = event.Event.Trace.Or(x.trace(r))
	accepted, err := s.commands.TriggerEvent(r.Context(), x.caller, event, key)
	if err != nil {
		return err
	}
	return x.respondJSON(appendAccepted(make([]byte, 0, 160), accepted))
}

// triggerEvents accepts all events of a batch or none.
func (s *Server) triggerEvents(x *request, r *http.Request) error {
	var list json.RawMessage
	rules := func() []domain.FieldError {
		if list == nil {
			return []domain.FieldError{{Field: "events", Message: "is required"}}
		}
		return nil
	}
	if err := newEvents.read(x, r, &list, rules); err != nil {
		return err
	}
	events, err := s.readBatch(list)
	if err != nil {
		return err
	}
	key, err := readIdempotencyKey(r)
	if err != nil {
		return err
	}
	trace := x.trace(r)
	for i := range events {
		events[i].Event.Trace = events[i].Event.Trace.Or(trace)
	}
	accepted, err := s.commands.TriggerBatch(r.Context(), x.caller, events, key)
	if err != nil {
		return err
	}
	answer := appendItems(make([]byte, 0, 32+160*len(accepted)), accepted, appendAccepted)
	return x.respondJSON(append(answer, "]}"...))
}

// readBatch leaves the rules to the command, which may find that it has carried out the request
// before. If an event cannot be read, all that is wrong with the others is named as well.
func (s *Server) readBatch(list []byte) ([]commands.NewEvent, error) {
	unread := false
	var refused []domain.FieldError
	var events []commands.NewEvent
	err := domain.ArrayElements(list, func(i int, raw []byte) error {
		if i >= commands.MaxBatch {
			return domain.Invalid("events", fmt.Sprintf("must have at most %d events", commands.MaxBatch))
		}
		if raw[0] != '{' {
			unread = true
			refused = append(refused, domain.FieldError{Field: fmt.Sprintf("events[%d]", i), Message: mustBeObject})
			return nil
		}
		var event commands.NewEvent
		wrong, err := newEvent.parse(raw, &event)
		unread = unread || wrong != nil
		if rules := s.commands.EventFields(event.Event); len(wrong)+len(rules) > 0 {
			refused = append(refused, commands.InBatch(i, withRules(wrong, rules))...)
		}
		events = append(events, event)
		return err
	})
	if err != nil || !unread {
		return events, err
	}
	return nil, domain.CheckFields(refused)
}

// readIdempotencyKey returns the caller's key, or "" if there is none.
func readIdempotencyKey(r *http.Request) (string, error) {
	const longest = 255
	keys := r.Header[idempotencyKey.name]
	if len(keys) == 0 {
		return "", nil
	}
	if len(keys) > 1 || keys[0] == "" || len(keys[0]) > longest {
		return "", domain.Invalid(idempotencyKey.name, fmt.Sprintf("must be one header of 1 to %d bytes", longest))
	}
	return keys[0], nil
}

// readTrace returns the trace of the request, if it is in one. An invalid one is ignored, as
// W3C Trace Context wants.
func readTrace(r *http.Request) domain.Trace {
	values := r.Header["Traceparent"]
	if len(values) != 1 {
		return domain.Trace{}
	}
	return domain.NewTrace(values[0], strings.Join(r.Header["Tracestate"], ","))
}

type acceptedListView struct {
	Items []commands.Accepted `json:"items"`
}

// appendAccepted encodes a by its tags.
func appendAccepted(dst []byte, a commands.Accepted) []byte {
	dst = append(appendID(append(dst, `{"event_id":`...), a.EventID), `,"event_type":`...)
	dst = strictjson.AppendString(dst, string(a.EventType))
	return append(appendMoment(append(dst, `,"accepted_at":`...), a.AcceptedAt), '}')
}

// eventTypeView is a type of the catalogue.
type eventTypeView struct {
	Type        domain.EventType `json:"type"`
	Group       string           `json:"group"`
	Description descriptionView  `json:"description"`
	Triggerable bool             `json:"triggerable"` // false: only the service itself makes it
	Example     json.RawMessage  `json:"example" schema:"object null"`
	Schema      json.RawMessage  `json:"schema" schema:"object null"`
	Enforce     bool             `json:"enforce"` // event data that break the schema are refused
}

type descriptionView struct {
	RU string `json:"ru"`
	EN string `json:"en"`
}

// listEventTypes lists the catalogue: the clinic's types, then the service's own.
func (s *Server) listEventTypes(x *request, _ *http.Request) error {
	catalog := s.commands.Catalog
	items := make([]eventTypeView, 0, 32)
	for _, info := range append(catalog.Clinic(), catalog.System()...) {
		items = append(items, eventTypeView{
			Type: info.Type, Group: info.Group, Description: descriptionView{RU: info.RU, EN: info.EN}, Triggerable: !info.Type.IsSystem(),
			Example: info.Example, Schema: info.Schema, Enforce: info.Enforce,
		})
	}
	return x.respond(pageOf(items, x), nil)
}
