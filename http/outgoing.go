package http

import (
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/medilab/webhooks/domain"
)

// outgoing describes every call that a receiver can get. The schemas of bodies stand where
// they are used: oapi-codegen drops components that no path refers to.
func outgoing() schema {
	return schema{
		"event":       outgoingCall("EventV1", "An event, as a webhook with payload_version 1 gets it", "application/json", eventV1),
		"eventV2":     outgoingCall("EventV2", "An event, as a webhook with payload_version 2 gets it", "application/json", eventV2),
		"cloudEvent":  outgoingCall("CloudEvent", "An event, as a webhook with payload_version cloudevents gets it", "application/cloudevents+json", cloudEvent),
		"batch":       outgoingCall("EventBatch", "Several events, as a webhook with batch gets them", "application/json", batchV1),
		"cloudEvents": outgoingCall("CloudEventBatch", "Several events, as a webhook with batch and payload_version cloudevents gets them", "application/cloudevents-batch+json", cloudEvents),
	}
}

func outgoingCall(name, summary, media string, body schema) schema {
	parameters := make([]schema, len(outgoingHeaders))
	for i, h := range outgoingHeaders {
		parameters[i] = merged(h.headerParam.describe(), schema{"required": h.always})
	}
	return schema{"post": schema{
		"operationId": "receive" + name, "tags": []string{tagReceivers}, "summary": summary,
		"description": "Answer with a status from 200 to 299; anything else is tried again. The same delivery id may come twice.",
		"security":    []schema{},
		"parameters":  parameters,
		"requestBody": schema{"required": true, "content": schema{media: schema{"schema": body}}},
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
	{headerParam{"X-Webhook-Event", "the event's type; `batch` for several events"}, true},
	{headerParam{"X-Webhook-ID", "the webhook"}, true},
	{headerParam{"X-Webhook-Attempt", "the attempt's number, from 1"}, true},
	{headerParam{"X-Webhook-Event-ID", "the event; absent for several events"}, false},
	{headerParam{"X-Webhook-Delivery-ID", "the same for every attempt: what to dedupe on"}, true},
	{headerParam{"X-Webhook-Payload-Version", "the webhook's payload_version"}, true},
	{headerParam{"X-Webhook-Replay", "the replay or bulk retry that sends it; absent for live events"}, false},
	{headerParam{domain.HeaderTraceparent, "the trace in which the event was triggered (W3C Trace Context); of several events, if all have the same"}, false},
	{headerParam{domain.HeaderSignature, "`sha256=` and the HMAC-SHA256 of the body's bytes in hexadecimal, by the webhook's secret"}, false},
	{headerParam{domain.HeaderSignaturePrevious, "the same by the secret before, while a rotation's overlap lasts"}, false},
	{headerParam{domain.HeaderStandardID, "the delivery's id (Standard Webhooks)"}, false},
	{headerParam{domain.HeaderStandardTimestamp, "when the attempt was made, in seconds since 1970 (Standard Webhooks)"}, false},
	{headerParam{domain.HeaderStandardSignature, "signatures separated by spaces (Standard Webhooks)"}, false},
}

// The schemas of bodies (domain.AppendPayload and AppendBatchPayload write them).
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
		"events": schema{"type": "array", "items": bodyOf(merged(eventFields, schema{"event_id": uuidSchema}), nil)},
	}), nil)
	cloudEvent = bodyOf(schema{
		"specversion": enum("1.0"), "id": uuidSchema, "source": schema{"type": "string", "format": "uri-reference"}, "type": textSchema, "time": timeSchema,
		"datacontenttype": enum("application/json"), "deliveryid": uuidSchema, "webhookid": uuidSchema, "attempt": schema{"type": "integer", "minimum": 1},
		"data": jsonObject,
	}, schema{"correlationid": textSchema})
	cloudEvents = schema{"type": "array", "items": cloudEvent}
)

// bodyOf is an object of required fields, and optional ones.
func bodyOf(required, optional schema) schema {
	all := merged(required, optional)
	return schema{"type": "object", "required": slices.Sorted(maps.Keys(required)), "properties": all}
}
