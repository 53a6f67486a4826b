package http

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
)

// outgoing describes every call that a receiver can get. The schemas of bodies stand where
// they are used: oapi-codegen drops components that no path refers to.
func outgoing(catalog domain.Catalog) schema {
	calls := schema{}
	for _, f := range forms {
		calls[f.name] = f.call(f.examples(catalog.Clinic()[:2])) // the AsyncAPI document has all
	}
	return calls
}

// form is a form of bodies.
type form struct {
	name, operation, summary, media string

	version domain.PayloadVersion
	body    schema
	batch   bool // of several events
}

var forms = []form{
	{"event", "EventV1", "An event, as a webhook with payload_version 1 gets it", "application/json", domain.PayloadV1, eventV1, false},
	{"eventV2", "EventV2", "An event, as a webhook with payload_version 2 gets it", "application/json", domain.PayloadV2, eventV2, false},
	{"cloudEvent", "CloudEvent", "An event, as a webhook with payload_version cloudevents gets it", "application/cloudevents+json", domain.PayloadCloudEvents, cloudEvent, false},
	{"batch", "EventBatch", "Several events, as a webhook with batch gets them", "application/json", domain.PayloadV1, batchV1, true},
	{"cloudEvents", "CloudEventBatch", "Several events, as a webhook with batch and payload_version cloudevents gets them", "application/cloudevents-batch+json", domain.PayloadCloudEvents, cloudEvents, true},
}

// examples are bodies with the examples of the types, by type, or one of several.
func (f form) examples(types []domain.EventTypeInfo) map[string]json.RawMessage {
	found, together := map[string]json.RawMessage{}, sampleBatch
	for _, info := range types {
		if info.Example == nil {
			continue
		}
		one := sample
		one.EventType, one.EventData = info.Type, info.Example
		found[string(info.Type)] = domain.AppendPayload(nil, f.version, one)
		if len(together.Events) < 2 {
			together.Events = append(together.Events, one.PayloadEvent)
		}
	}
	if f.batch {
		return map[string]json.RawMessage{string(domain.BatchEventType): domain.AppendPayload(nil, f.version, together)}
	}
	return found
}

// The ids and times of examples.
var (
	sample = domain.Payload{
		PayloadEvent: domain.PayloadEvent{EventID: uuid.MustParse("0190a1b2-0000-7000-8000-000000000001"), CorrelationID: "case-7", Source: "clinic",
			OccurredAt: time.Date(2024, 1, 15, 10, 30, 0, 0, time.UTC)},
		WebhookID: uuid.MustParse("550e8400-e29b-41d4-a716-446655440000"), DeliveryID: uuid.MustParse("0190a1b2-0000-7000-8000-000000000002"),
		Timestamp: time.Date(2024, 1, 15, 10, 30, 5, 0, time.UTC), Attempt: 1,
	}
	sampleBatch = domain.Payload{WebhookID: sample.WebhookID, DeliveryID: sample.DeliveryID, Timestamp: sample.Timestamp, Attempt: 1}
)

func (f form) call(examples map[string]json.RawMessage) schema {
	shown := schema{}
	for name, body := range examples {
		shown[name] = schema{"value": body}
	}
	parameters := make([]schema, len(outgoingHeaders))
	for i, h := range outgoingHeaders {
		parameters[i] = merged(h.headerParam.describe(), schema{"required": h.always})
	}
	return schema{"post": schema{
		"operationId": "receive" + f.operation, "tags": []string{tagReceivers}, "summary": f.summary,
		"description": "Answer with a status from 200 to 299; anything else is tried again. The same delivery id may come twice.",
		"security":    []schema{},
		"parameters":  parameters,
		"requestBody": schema{"required": true, "content": schema{f.media: schema{"schema": f.body, "examples": shown}}},
		"responses": schema{
			strconv.Itoa(http.StatusOK): schema{"description": "The delivery is done."},
			"4XX":                       schema{"description": "It is tried again later."},
		},
	}}
}

// outgoingHeaders are those that this service sets; always: without a secret too.
var outgoingHeaders = []struct {
	headerParam
	always bool
}{
	{headerParam{"User-Agent", "`" + domain.UserAgent + "`"}, true},
	{headerParam{"X-Webhook-Event", "the event's type; `batch` for several events"}, true},
	{headerParam{"X-Webhook-ID", "the webhook"}, true},
	{headerParam{"X-Webhook-Attempt", "the attempt's number, from 1"}, true},
	{headerParam{"X-Webhook-Event-ID", "the event; absent for several events"}, false},
	{headerParam{"X-Webhook-Delivery-ID", "the same for every attempt: what to dedupe on"}, true},
	{headerParam{"X-Webhook-Payload-Version", "the webhook's payload_version"}, true},
	{headerParam{"X-Webhook-Sequence", "the delivery's number, from 1 without gaps, of a webhook with sequence; several events have theirs in the body"}, false},
	{headerParam{"X-Webhook-Replay", "the replay or bulk retry that sends it; absent for live events"}, false},
	{headerParam{domain.HeaderTraceparent, "the trace in which the event was triggered (W3C Trace Context); of several events, if all have the same"}, false},
	{headerParam{domain.HeaderTracestate, "the tracestate of that trace"}, false},
	{headerParam{domain.HeaderSignature, "`sha256=` and the HMAC-SHA256 of the body's bytes in hexadecimal, by the webhook's secret"}, false},
	{headerParam{domain.HeaderSignaturePrevious, "the same by the secret before, while a rotation's overlap lasts"}, false},
	{headerParam{domain.HeaderStandardID, "the delivery's id (Standard Webhooks)"}, false},
	{headerParam{domain.HeaderStandardTimestamp, "when the attempt was made, in seconds since 1970 (Standard Webhooks)"}, false},
	{headerParam{domain.HeaderStandardSignature, "signatures separated by spaces (Standard Webhooks)"}, false},
}

// The schemas of bodies (domain.AppendPayload writes them).
var (
	jsonObject = schema{"type": "object", "additionalProperties": true}
	textSchema = schema{"type": "string"}
	uuidSchema = schema{"type": "string", "format": "uuid"}
	timeSchema = schema{"type": "string", "format": "date-time"}
	textOrNull = schema{"type": []string{"string", "null"}}

	attemptFields = schema{"webhook_id": uuidSchema, "timestamp": timeSchema, "attempt": schema{"type": "integer", "minimum": 1}}
	eventFields   = schema{"event_type": textSchema, "event_data": jsonObject}

	eventV1 = bodyOf(merged(attemptFields, eventFields), nil)
	eventV2 = bodyOf(merged(merged(attemptFields, eventFields), schema{
		"event_id": uuidSchema, "delivery_id": uuidSchema, "correlation_id": textOrNull, "source": textOrNull,
		"occurred_at": timeSchema, "payload_version": enum(domain.PayloadV2),
	}), schema{"replay_id": uuidSchema})
	batchV1 = bodyOf(merged(attemptFields, schema{
		"batch":  schema{"type": "boolean", "enum": []bool{true}},
		"events": schema{"type": "array", "items": bodyOf(merged(eventFields, schema{"event_id": uuidSchema}), schema{"sequence": schema{"type": "integer", "minimum": 1}})},
	}), nil)
	cloudEvent = bodyOf(schema{
		"specversion": enum("1.0"), "id": uuidSchema, "source": schema{"type": "string", "format": "uri-reference"}, "type": textSchema, "time": timeSchema,
		"datacontenttype": enum("application/json"), "deliveryid": uuidSchema, "webhookid": uuidSchema, "attempt": schema{"type": "integer", "minimum": 1},
		"data": jsonObject,
	}, schema{"correlationid": textSchema, "sequence": schema{"type": "string", "description": "the number of the delivery"}})
	cloudEvents = schema{"type": "array", "items": cloudEvent}
)

// bodyOf is an object of required fields, and optional ones.
func bodyOf(required, optional schema) schema {
	all := merged(required, optional)
	return schema{"type": "object", "required": slices.Sorted(maps.Keys(required)), "properties": all}
}
