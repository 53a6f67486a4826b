package domain

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain/envelope"
	"github.com/medilab/webhooks/domain/strictjson"
)

// PayloadVersion is the format of the bodies that a webhook asked for (contract section 3).
type PayloadVersion string

// The formats.
const (
	PayloadV1          PayloadVersion = "1"           // exactly the guide's body
	PayloadV2          PayloadVersion = "2"           // the guide's body and what it leaves out
	PayloadCloudEvents PayloadVersion = "cloudevents" // CloudEvents 1.0, structured mode; batches in batched mode
)

// Known reports whether v is one of the formats.
func (v PayloadVersion) Known() bool {
	return v == PayloadV1 || v == PayloadV2 || v == PayloadCloudEvents
}

// Payload holds what a body and its headers say about one attempt. EventData goes out
// byte for byte; everything else is put into JSON here.
type Payload struct {
	PayloadEvent                // unless it is a batch
	Events       []PayloadEvent // of a batch; nil: it is none
	WebhookID    uuid.UUID
	DeliveryID   uuid.UUID
	Timestamp    time.Time // when this attempt is made
	Attempt      int       // from 1
	ReplayID     ReplayID  // zero: no replay asked for it
}

// PayloadEvent is an event as a body holds it, alone or in a batch.
type PayloadEvent struct {
	EventType     EventType
	EventData     []byte // the JSON object as it was accepted
	EventID       uuid.UUID
	CorrelationID string        // empty: none
	Source        string        // empty: none
	OccurredAt    time.Time     // when the event was emitted
	Sequence      int64         // 0: none
	Keys          envelope.Keys // of EventData; see Content
	Trace                       // zero: none
}

// Sent returns the event as a body holds it, which was recorded at the time.
func (c EventTriggered) Sent(id EventID, acceptedAt time.Time, sequence int64) PayloadEvent {
	return PayloadEvent{
		EventType: EventType(c.EventType), EventData: c.EventData, EventID: uuid.UUID(id), CorrelationID: c.CorrelationID, Source: c.Source,
		OccurredAt: c.Occurred(acceptedAt), Sequence: sequence, Keys: c.Keys, Trace: c.Trace,
	}
}

// Times in bodies are RFC 3339 in UTC: the attempt's to the second, as the guide prints
// it, and the event's to the millisecond.
const (
	secondsOnly = 0 // digits of the fraction
	millis      = 3
)

// AppendPayload appends the body of one attempt in format v; of a batch, an array of
// CloudEvents, or version 1 bodies, with common fields once. An unknown format is written as
// version 1.
func AppendPayload(dst []byte, v PayloadVersion, p Payload) []byte {
	switch {
	case p.Events != nil && v == PayloadCloudEvents:
		return appendCloudEvents(dst, p)
	case p.Events != nil:
		return appendBatch(dst, p)
	case v == PayloadCloudEvents:
		return appendCloudEvent(dst, p)
	}
	dst = appendMember(dst, `{"event_type":`, string(p.EventType))
	dst = append(append(dst, `,"event_data":`...), p.EventData...)
	dst = appendAttempt(dst, p.WebhookID, p.Timestamp, p.Attempt)
	if v == PayloadV2 {
		dst = appendID(dst, `,"event_id":`, p.EventID)
		dst = appendID(dst, `,"delivery_id":`, p.DeliveryID)
		dst = appendOptional(dst, `,"correlation_id":`, p.CorrelationID)
		dst = appendOptional(dst, `,"source":`, p.Source)
		dst = appendTime(dst, `,"occurred_at":`, p.OccurredAt, millis)
		if p.ReplayID != (ReplayID{}) {
			dst = appendID(dst, `,"replay_id":`, uuid.UUID(p.ReplayID))
		}
		dst = append(dst, `,"payload_version":"2"`...)
	}
	return append(dst, '}')
}

// BatchVersion returns the version of the bodies of batches: CloudEvents have a batched
// mode, and all others are version 1.
func (v PayloadVersion) BatchVersion() PayloadVersion {
	if v == PayloadCloudEvents {
		return v
	}
	return PayloadV1
}

func appendBatch(dst []byte, p Payload) []byte {
	dst = append(dst, `{"batch":true,"events":[`...)
	for i, e := range p.Events {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendMember(dst, `{"event_type":`, string(e.EventType))
		dst = append(append(dst, `,"event_data":`...), e.EventData...)
		dst = appendID(dst, `,"event_id":`, e.EventID)
		if e.Sequence != 0 {
			dst = strconv.AppendInt(append(dst, `,"sequence":`...), e.Sequence, 10)
		}
		dst = append(dst, '}')
	}
	dst = append(dst, ']')
	return append(appendAttempt(dst, p.WebhookID, p.Timestamp, p.Attempt), '}')
}

// appendCloudEvents writes the JSON batch format. The attempt and the delivery are the
// batch's.
func appendCloudEvents(dst []byte, p Payload) []byte {
	for i, e := range p.Events {
		separator := byte(',')
		if i == 0 {
			separator = '['
		}
		p.PayloadEvent = e
		dst = appendCloudEvent(append(dst, separator), p)
	}
	return append(dst, ']')
}

// appendCloudEvent writes the CloudEvents 1.0 JSON format. The event is the same on every
// attempt and for every webhook (id and source say so); what is the attempt's own are
// extension attributes, whose names that standard wants lower-case alphanumeric.
func appendCloudEvent(dst []byte, p Payload) []byte {
	dst = append(dst, `{"specversion":"1.0"`...)
	dst = appendID(dst, `,"id":`, p.EventID)
	dst = appendMember(dst, `,"source":`, cloudEventSource(p.Source))
	dst = appendMember(dst, `,"type":`, string(p.EventType))
	dst = appendTime(dst, `,"time":`, p.OccurredAt, millis)
	dst = append(dst, `,"datacontenttype":"application/json"`...)
	dst = appendID(dst, `,"deliveryid":`, p.DeliveryID)
	dst = appendID(dst, `,"webhookid":`, p.WebhookID)
	dst = strconv.AppendInt(append(dst, `,"attempt":`...), int64(p.Attempt), 10)
	if p.Sequence != 0 { // a string, by CloudEvents' extension of this name
		dst = append(strconv.AppendInt(append(dst, `,"sequence":"`...), p.Sequence, 10), '"')
	}
	if id := cloudEventString(p.CorrelationID); id != "" {
		dst = appendMember(dst, `,"correlationid":`, id)
	}
	return append(append(append(dst, `,"data":`...), p.EventData...), '}')
}

const cloudEventSourceRoot = "/medilab"

// cloudEventSource makes the source a non-empty URI-reference, which CloudEvents asks
// for: one that is a URI-reference goes as it is, any other is escaped below /medilab.
func cloudEventSource(source string) string {
	switch {
	case source == "":
		return cloudEventSourceRoot
	case isURIReference(source):
		return source
	}
	return cloudEventSourceRoot + "/" + url.PathEscape(source)
}

// isURIReference is stricter than url.Parse, which takes spaces and letters beyond ASCII.
func isURIReference(s string) bool {
	_, err := url.Parse(s)
	return err == nil && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("\"<>\\^`{|}", r) })
}

// cloudEventString replaces the control characters that a CloudEvents string cannot hold.
func cloudEventString(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r <= 0x9f {
			return '\uFFFD'
		}
		return r
	}, s)
}

func appendAttempt(dst []byte, webhook uuid.UUID, at time.Time, attempt int) []byte {
	dst = appendID(dst, `,"webhook_id":`, webhook)
	dst = appendTime(dst, `,"timestamp":`, at, secondsOnly)
	return strconv.AppendInt(append(dst, `,"attempt":`...), int64(attempt), 10)
}

func appendMember(dst []byte, name, value string) []byte {
	return strictjson.AppendString(append(dst, name...), value)
}

func appendOptional(dst []byte, name, value string) []byte {
	if value == "" {
		return append(append(dst, name...), "null"...)
	}
	return appendMember(dst, name, value)
}

func appendID(dst []byte, name string, id uuid.UUID) []byte {
	dst = append(append(dst, name...), '"')
	return append(appendUUID(dst, id), '"')
}

// appendUUID writes the usual form of an id without the string that id.String makes.
func appendUUID(dst []byte, id uuid.UUID) []byte {
	for i, b := range id {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			dst = append(dst, '-')
		}
		dst = append(dst, hexDigits[b>>4], hexDigits[b&15])
	}
	return dst
}

const hexDigits = "0123456789abcdef"

// appendStoredTime appends the time with the microseconds that Postgres keeps, in the
// fewest digits.
func appendStoredTime(dst []byte, at time.Time) []byte {
	dst = append(dst, '"')
	return append(at.UTC().Truncate(time.Microsecond).AppendFormat(dst, time.RFC3339Nano), '"')
}

func appendTime(dst []byte, name string, at time.Time, digits int) []byte {
	dst = append(append(dst, name...), '"')
	return append(strictjson.AppendTime(dst, at, digits), '"')
}
