package http

import (
	"net/http"
	"strconv"
	"strings"
)

func (s *Server) descriptionOperations() []operation {
	return []operation{{
		method: "GET", path: "/openapi.json", id: "openAPI", summary: "This document", scope: public,
		answer: func(*describer) schema { return schema{"type": "object"} }, serve: s.getDescription,
	}}
}

func (s *Server) getDescription(x *request, _ *http.Request) error {
	return x.respondJSON(s.description)
}

// describe returns the OpenAPI 3.1 document of the operations.
func (s *Server) describe() schema {
	d := newDescriber()
	paths := map[string]schema{}
	for _, o := range s.operations {
		if paths[o.path] == nil {
			paths[o.path] = schema{}
		}
		paths[o.path][strings.ToLower(o.method)] = o.describe(d)
	}
	s.describeEventTypes(d)
	return schema{
		"openapi": "3.1.0",
		"info": schema{
			"title": "MediLab Webhooks", "version": "1",
			"description": "Each path works with and without its trailing slash. Times are RFC 3339 in UTC. Unknown fields and parameters are refused.",
		},
		"servers":  []schema{{"url": "/"}},
		"security": []schema{{"token": []string{}}},
		"paths":    paths,
		"webhooks": outgoing,
		"components": schema{
			"schemas":         d.components,
			"securitySchemes": schema{"token": schema{"type": "http", "scheme": "bearer", "description": "made by `medilab-webhooks token create`"}},
		},
	}
}

func (o *operation) describe(d *describer) schema {
	description := "A token with the scope `" + string(o.scope) + "`."
	switch o.scope {
	case anyToken:
		description = "Any valid token."
	case public:
		description = "No token."
	}
	described := schema{"operationId": o.id, "summary": o.summary, "description": description, "responses": o.responses(d)}
	if o.scope == public {
		described["security"] = []schema{}
	}
	if parameters := o.parameters(); len(parameters) > 0 {
		described["parameters"] = parameters
	}
	if o.body != nil {
		name, optional := o.body.describe(d)
		described["requestBody"] = schema{"required": !optional, "content": schema{"application/json": schema{"schema": reference(name)}}}
	}
	return described
}

func (o *operation) responses(d *describer) schema {
	success := schema{"description": o.summary}
	if o.answer != nil {
		media := o.media
		if media == "" {
			media = "application/json"
		}
		success["content"] = schema{media: schema{"schema": o.answer(d)}}
	}
	responses := schema{strconv.Itoa(o.status): success}
	for status, possible := range map[int]bool{
		http.StatusBadRequest:            o.body != nil,
		http.StatusUnauthorized:          o.scope != public,
		http.StatusForbidden:             o.scope != public,
		http.StatusNotFound:              o.path != o.pattern,
		http.StatusConflict:              o.conflicts,
		http.StatusPreconditionFailed:    len(o.header) > 0 && o.header[0] == ifMatch,
		http.StatusRequestEntityTooLarge: o.body != nil,
		http.StatusUnsupportedMediaType:  o.body != nil,
		http.StatusUnprocessableEntity:   o.body != nil || o.readsQuery(),
		http.StatusTooManyRequests:       o.scope != public,
		http.StatusServiceUnavailable:    o.path != alivePath,
	} {
		if possible {
			responses[strconv.Itoa(status)] = schema{
				"description": http.StatusText(status), "content": schema{"application/problem+json": schema{"schema": reference("Problem")}},
			}
		}
	}
	return responses
}

// parameters describes what is in the path, the query and the headers.
func (o *operation) parameters() []schema {
	var list []schema
	for _, match := range pathVariable.FindAllStringSubmatch(o.path, -1) {
		list = append(list, schema{"name": match[1], "in": "path", "required": true, "description": pathVariables[match[1]].text, "schema": schema{"type": "string"}})
	}
	for _, p := range o.query {
		name, text, s := p.described()
		list = append(list, schema{"name": name, "in": "query", "description": text, "schema": s})
	}
	for _, h := range o.header {
		list = append(list, h.describe())
	}
	return list
}

func (h headerParam) describe() schema {
	return schema{"name": h.name, "in": "header", "description": h.text, "schema": schema{"type": "string"}}
}

var problemSchema = schema{
	"type": "object", "required": []string{"type", "title", "status"}, "description": "RFC 9457",
	"properties": schema{
		"type": schema{"type": "string"}, "title": schema{"type": "string"}, "status": schema{"type": "integer"}, "detail": schema{"type": "string"},
		"request_id": schema{"type": "string"},
		"errors": schema{"type": "array", "items": schema{
			"type": "object", "required": []string{"field", "message"}, "properties": schema{
				"field": schema{"type": "string"}, "message": schema{"type": "string"},
				"path": schema{"type": "string", "description": "where in the field, such as filters.amount.$gt; left out when it is all of it"},
			},
		}},
	},
}

// outgoing describes what receivers get.
var outgoing = schema{"event": schema{"post": schema{
	"summary":     "An event, as a webhook with payload_version 1 gets it",
	"description": "Answer with a status from 200 to 299; anything else is tried again. The same delivery id may come twice.",
	"security":    []schema{},
	"parameters": []schema{
		headerParam{"X-Webhook-Event", "the event's type"}.describe(),
		headerParam{"X-Webhook-ID", "the webhook"}.describe(),
		headerParam{"X-Webhook-Attempt", "from 1"}.describe(),
		headerParam{"X-Webhook-Event-ID", "the event"}.describe(),
		headerParam{"X-Webhook-Delivery-ID", "the same for every attempt: what to dedupe on"}.describe(),
		headerParam{"X-Webhook-Payload-Version", "of the body"}.describe(),
		headerParam{"X-Webhook-Signature", "sha256= and the hex HMAC-SHA256 of the body, with a secret"}.describe(),
	},
	"requestBody": schema{"required": true, "content": schema{"application/json": schema{"schema": schema{
		"type": "object", "required": []string{"event_type", "event_data", "webhook_id", "timestamp", "attempt"},
		"properties": schema{
			"event_type": schema{"type": "string"}, "event_data": schema{"type": "object"}, "webhook_id": schema{"type": "string", "format": "uuid"},
			"timestamp": schema{"type": "string", "format": "date-time"}, "attempt": schema{"type": "integer", "minimum": 1},
		},
	}}}},
	"responses": schema{"200": schema{"description": "it was taken"}},
}}}
