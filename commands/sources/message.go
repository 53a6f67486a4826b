package sources

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/strictjson"
)

// ReadFunc reads the body of a request to trigger an event into an event, but for its
// event_id unless withID. What cannot be read is a *domain.Error; rules are not checked.
type ReadFunc func(body []byte, withID bool, event *commands.NewEvent) error

// eventIDs is the namespace of the ids of events whose message has an id that is no UUID.
var eventIDs = uuid.MustParse("c3b6c8c0-7f0e-5f5b-9d52-0e1a4b0d7a11")

// cloudEvent is a CloudEvent 1.0 in structured mode, as far as an event has it.
type cloudEvent struct {
	SpecVersion   string          `json:"specversion"`
	ID            string          `json:"id"`
	Source        string          `json:"source"`
	Type          string          `json:"type"`
	Time          string          `json:"time"`
	Data          json.RawMessage `json:"data"`
	CorrelationID string          `json:"correlationid"`
	domain.Trace
}

// eventOf returns the event that a message of the source has, or as much of it as can be
// read with what is wrong with it.
func (s Source) eventOf(m *message.Message, read ReadFunc) (commands.NewEvent, error) {
	event, id, err := s.readMessage(m, read)
	if id == "" {
		id = m.UUID
	}
	event.Event.Trace = event.Event.Trace.Or(domain.NewTrace(m.Metadata.Get("traceparent"), m.Metadata.Get("tracestate")))
	if event.ID == (domain.EventID{}) && id != "" {
		event.ID = s.eventID(id)
	}
	return event, err
}

// readMessage returns the event and the message's own id. If only the event's data cannot be
// read, it returns the rest: the data can be mended.
func (s Source) readMessage(m *message.Message, read ReadFunc) (event commands.NewEvent, id string, err error) {
	ce, binary := binaryMode(m)
	refused := domain.CheckJSON(m.Payload)
	if refused == nil {
		return ce.readPayload(m.Payload, binary, read)
	}
	rest := []byte("{}")
	if !binary {
		rest = withoutData(m.Payload)
	}
	if domain.CheckJSON(rest) != nil {
		return ce.event(nil), ce.identity(), refused
	}
	event, id, _ = ce.readPayload(rest, binary, read)
	event.Event.EventData = nil
	return event, id, refused
}

// withoutData returns the object with an empty one in the place of the event's data; nil if it
// is not certain where that ends.
func withoutData(object []byte) (rest []byte) {
	begin := strictjson.SkipSpace(object, 0)
	if !json.Valid(object) || object[begin] != '{' {
		return nil
	}
	end := 0
	for m := range strictjson.Members(object, begin) {
		if key := string(m.Key()); key == "event_data" || key == "data" {
			rest = append(append(rest, object[end:m.Off]...), "{}"...)
			end = m.End
		}
	}
	return append(rest, object[end:]...)
}

// readPayload reads the payload of a message, which is the CloudEvent's data if it is binary.
func (c cloudEvent) readPayload(payload []byte, binary bool, read ReadFunc) (event commands.NewEvent, id string, err error) {
	if binary {
		c.Data = payload
	} else {
		err = json.Unmarshal(payload, &c)
	}
	var mistyped *json.UnmarshalTypeError
	switch {
	case c.SpecVersion == "":
	case errors.As(err, &mistyped):
		return c.event(c.Data), c.identity(), domain.Invalid(strings.TrimPrefix(mistyped.Field, "Trace."), "must be text")
	default:
		event, err := c.readAs(read)
		return event, c.identity(), err
	}
	var body struct {
		ID   json.RawMessage `json:"event_id"`
		Type string          `json:"event_type"`
	}
	_ = json.Unmarshal(payload, &body) // what it cannot read, read refuses
	event.Event.EventType = body.Type  // for people, should it be refused
	id, isText := domain.JSONText(body.ID)
	if !isText && string(body.ID) != "null" {
		id = string(body.ID) // which read refuses
	}
	_, noUUID := uuid.Parse(id)
	err = read(payload, !isText || noUUID == nil, &event)
	return event, id, err
}

// eventID returns the UUID that the text is, or the one that stands for it here.
func (s Source) eventID(text string) domain.EventID {
	if id, err := uuid.Parse(text); err == nil && id != uuid.Nil {
		return domain.EventID(id)
	}
	return domain.EventID(uuid.NewSHA1(eventIDs, []byte(s.Name+"\x00"+text)))
}

// binaryMode returns the CloudEvent that the message's headers tell of, if they do: its
// payload is the data.
func binaryMode(m *message.Message) (ce cloudEvent, ok bool) {
	attributes := map[string]*string{
		"specversion": &ce.SpecVersion, "id": &ce.ID, "source": &ce.Source, "type": &ce.Type, "time": &ce.Time,
		"correlationid": &ce.CorrelationID, "traceparent": &ce.Traceparent, "tracestate": &ce.Tracestate,
	}
	for key, value := range m.Metadata {
		if attribute := attributes[attributeOf(key)]; attribute != nil {
			*attribute = value
		}
	}
	return ce, ce.SpecVersion != ""
}

// attributeOf returns the name of the CloudEvents attribute in a header of NATS (ce-), Kafka
// (ce_) or AMQP (cloudEvents: or cloudEvents_); "": it has none.
func attributeOf(header string) string {
	for _, prefix := range []string{"ce-", "ce_", "cloudevents:", "cloudevents_"} {
		if name, ok := strings.CutPrefix(strings.ToLower(header), prefix); ok {
			return name
		}
	}
	return ""
}

// identity returns what no two CloudEvents share: the id, with the CloudEvent's source unless
// it is a UUID.
func (c cloudEvent) identity() string {
	if _, err := uuid.Parse(c.ID); err == nil || c.ID == "" {
		return c.ID
	}
	return c.Source + "\x00" + c.ID
}

func (c cloudEvent) event(data []byte) commands.NewEvent {
	return commands.NewEvent{Event: domain.EventTriggered{
		EventType: c.Type, EventData: data, Source: c.Source, CorrelationID: c.CorrelationID, Trace: c.Trace,
	}}
}

// readAs returns the event. It goes through the body of a request to trigger it, so that the
// same rules hold.
func (c cloudEvent) readAs(read ReadFunc) (commands.NewEvent, error) {
	event := c.event(c.Data)
	if c.SpecVersion != "1.0" {
		return event, domain.Malformed(fmt.Sprintf("specversion %q of CloudEvents is not supported; send 1.0", c.SpecVersion))
	}
	fields := map[string]any{"event_type": c.Type}
	for name, value := range map[string]string{"source": c.Source, "correlation_id": c.CorrelationID, "traceparent": c.Traceparent, "tracestate": c.Tracestate, "occurred_at": c.Time} {
		if value != "" {
			fields[name] = value
		}
	}
	body, err := json.Marshal(fields)
	if err != nil {
		return event, err
	}
	if len(c.Data) > 0 {
		body = append(body[:len(body)-1], `,"event_data":`...)
		body = append(append(body, c.Data...), '}')
	}
	err = read(body, false, &event)
	return event, err
}
