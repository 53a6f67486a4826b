package http

import (
	"cmp"
	"net/http"
	"strconv"
	"strings"

	"github.com/medilab/webhooks/domain"
)

func (s *Server) descriptionOperations() []operation {
	return []operation{{
		method: "GET", path: "/openapi.json", id: "openAPI", summary: "This document", scope: public,
		answer: anObject, serve: func(x *request, _ *http.Request) error { return x.respondJSON(s.description) },
	}, {
		method: "GET", path: "/asyncapi.json", id: "asyncAPI", summary: "What receivers get, as AsyncAPI 3", scope: public,
		answer: anObject, serve: func(x *request, _ *http.Request) error { return x.respondJSON(s.messages()) },
	}}
}

// The groups of operations.
const (
	tagEvents     = "Events"
	tagDeliveries = "Deliveries"
	tagOversight  = "Oversight"
	tagWebhooks   = "Webhooks"
	tagServer     = "Server"
	tagReceivers  = "Receivers"
)

var tags = []schema{
	{"name": tagEvents, "description": "Trigger events, look them up, and ask who got them and why."},
	{"name": tagDeliveries, "description": "Deliveries and the calls that were made for them."},
	{"name": tagOversight, "description": "Alerts, statistics and the log."},
	{"name": tagWebhooks, "description": "Webhooks: who gets which events, and how."},
	{"name": tagServer, "description": "This document, and the health of the process."},
	{"name": tagReceivers, "description": "What is sent to the URL of a webhook."},
}

// describe returns the OpenAPI 3.1 document of the operations.
func (s *Server) describe() schema {
	d := &describer{components: map[string]schema{"Problem": problemSchema}, sources: map[string]any{}}
	paths := map[string]schema{}
	for _, o := range s.operations {
		if paths[o.path] == nil {
			paths[o.path] = schema{}
		}
		paths[o.path][strings.ToLower(o.method)] = o.describe(d)
	}
	s.describeEventTypes(d, paths[apiRoot+triggerPath]["post"].(schema))
	return schema{
		"openapi": "3.1.0",
		"info": schema{
			"title": "MediLab Webhooks", "version": "1",
			"description": "Each path works with and without its trailing slash. Times are RFC 3339 in UTC. Unknown fields are refused, and unknown parameters of a GET. What an answer says in words (title, detail, message, error, reason) is in Russian if Accept-Language prefers it, else in English.",
			"contact":     schema{"name": "The administrators of this installation"},
			"license":     schema{"name": "Proprietary", "identifier": "LicenseRef-MediLab"},
		},
		"servers":  []schema{{"url": "/"}},
		"tags":     tags,
		"security": []schema{{"bearerToken": []string{}}, {"sessionCookie": []string{}}},
		"paths":    paths,
		"webhooks": outgoing(s.commands.Catalog),
		"components": schema{
			"schemas": d.components,
			"securitySchemes": schema{
				"bearerToken":   schema{"type": "http", "scheme": "bearer", "description": "made by `medilab-webhooks token create`"},
				"sessionCookie": schema{"type": "apiKey", "in": "cookie", "name": sessionCookie, "description": "of a browser that signed in; requests that change something need the header " + ownRequest.name + ", and may have " + sessionActor.name + ": " + sessionActor.text},
			},
		},
	}
}

func (o *operation) describe(d *describer) schema {
	described := schema{"operationId": o.id, "tags": []string{o.tag}, "summary": o.summary, "description": o.whoMay(), "responses": o.responses(d)}
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

// whoMay describes the token that a request needs.
func (o *operation) whoMay() string {
	text := "A token with the scope `" + string(o.scope) + "`"
	switch {
	case o.scope == public:
		return "No token."
	case o.scope == anyToken:
		text = "Any valid token"
	case o.alsoScope != "":
		text = "A token with the scopes `" + string(o.scope) + "` and `" + string(o.alsoScope) + "`"
	case o.orScope != "":
		text += " or `" + string(o.orScope) + "`"
	}
	text += "."
	if o.payloads && o.alsoScope != domain.ScopePayloadsRead {
		text += " Without `payloads:read`, what events hold and receivers answered is null, and marked by `redacted`"
		if o.private != "" {
			text += ", and a request with `" + o.private + "` is 403"
		}
		text += "."
	}
	return text
}

func (o *operation) responses(d *describer) schema {
	success := schema{"description": o.summary}
	if o.answer != nil {
		success["content"] = schema{cmp.Or(o.media, "application/json"): schema{"schema": o.answer(d)}}
	}
	responses := schema{strconv.Itoa(o.status): success}
	for status, possible := range map[int]bool{
		http.StatusBadRequest:            true,
		http.StatusUnauthorized:          o.scope != public || o.identifies,
		http.StatusForbidden:             o.scope != public || o.identifies,
		http.StatusNotFound:              o.path != o.pattern,
		http.StatusConflict:              o.conflicts,
		http.StatusGone:                  o.goes,
		http.StatusPreconditionFailed:    len(o.header) > 0 && o.header[0] == ifMatch,
		http.StatusRequestEntityTooLarge: o.method != http.MethodGet,
		http.StatusUnsupportedMediaType:  o.method != http.MethodGet,
		http.StatusUnprocessableEntity:   o.method != http.MethodGet || o.scope != public,
		http.StatusTooManyRequests:       o.scope != public || o.identifies,
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
		"request_id":  schema{"type": "string"},
		"archived_to": schema{"type": "integer", "description": "the last position of the log that is archived, if that is why it is not there"},
		"errors": schema{"type": "array", "items": schema{
			"type": "object", "required": []string{"field", "message"}, "properties": schema{
				"field": schema{"type": "string"}, "message": schema{"type": "string"},
				"path": schema{"type": "string", "description": "where in the field, such as filters.amount.$gt; left out when it is all of it"},
			},
		}},
	},
}
