package http

import (
	"net/http"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/medilab/webhooks/commands/outbox"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

func (s *Server) openAPIRoutes() {
	document := encode(s.describe())
	s.api("GET", "/openapi.json", public, func(x *exchange, _ *http.Request) error {
		x.Header()["Content-Type"] = jsonType
		writeBody(x, http.StatusOK, document)
		return nil
	})
}

func (s *Server) catalog() domain.Catalog {
	if s.commands == nil {
		return domain.BuiltinCatalog()
	}
	return s.commands.Catalog
}

// operation describes one method of one path. A test holds the operations to the
// routes, and the answers seen in all tests to their schemas.
type operation struct {
	method, path string // the path as it is routed
	id, summary  string
	scope        domain.Scope
	query        []string // names of parameters
	header       []string
	body         string // a request's schema; "": none
	optional     bool   // the body may be left out
	status       int
	answer       schema // nil: no body
	media        string // "": JSON
	refusals     string // beyond those of a token: statuses
}

// describe gives the OpenAPI 3.1 document of the API.
func (s *Server) describe() schema {
	d := &describing{names: answerNames, components: requests(s.catalog())}
	d.components["Problem"] = schema{
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
	paths := schema{}
	for _, o := range operations(d) {
		path := pathParameter.ReplaceAllString(o.path, "{$1}")
		if paths[path] == nil {
			paths[path] = schema{}
		}
		paths[path].(schema)[strings.ToLower(o.method)] = o.describe()
	}
	return schema{
		"openapi": "3.1.0",
		"info": schema{
			"title": "MediLab Webhooks", "version": "1",
			"description": "Each path works with and without its trailing slash. Times are RFC 3339 in UTC. Unknown fields and parameters are refused.",
		},
		"servers":  []schema{{"url": "/"}},
		"security": []schema{{"token": []string{}}},
		"paths":    paths,
		"webhooks": outgoing(),
		"components": schema{
			"schemas":         d.components,
			"securitySchemes": schema{"token": schema{"type": "http", "scheme": "bearer", "description": "made by `medilab-webhooks token create`"}},
		},
	}
}

// pathParameter matches a variable of a route, {name} or {name:pattern}.
var pathParameter = regexp.MustCompile(`\{(\w+)(?::[^}]*)?\}`)

var answerNames = map[reflect.Type]string{
	reflect.TypeFor[webhookView]():              "Webhook",
	reflect.TypeFor[callView]():                 "CallDetails",
	reflect.TypeFor[testView]():                 "TestCall",
	reflect.TypeFor[deliveryView]():             "DeliveryChange",
	reflect.TypeFor[verdictView]():              "Verdict",
	reflect.TypeFor[historyView]():              "Change",
	reflect.TypeFor[eventTypeView]():            "EventType",
	reflect.TypeFor[acceptedView]():             "Accepted",
	reflect.TypeFor[rotatedView]():              "RotatedSecret",
	reflect.TypeFor[explainView]():              "Explanation",
	reflect.TypeFor[replayView]():               "ReplayStarted",
	reflect.TypeFor[projections.Call]():         "Call",
	reflect.TypeFor[outbox.ParkedEvent]():       "ParkedEvent",
	reflect.TypeFor[projections.Alert]():        "Alert",
	reflect.TypeFor[projections.Event]():        "Event",
	reflect.TypeFor[projections.Delivery]():     "Delivery",
	reflect.TypeFor[projections.Stats]():        "Stats",
	reflect.TypeFor[projections.SystemStats]():  "SystemStats",
	reflect.TypeFor[projections.Backtest]():     "BacktestResult",
	reflect.TypeFor[projections.Replay]():       "ReplayProgress",
	reflect.TypeFor[projections.StatsPart]():    "StatsPart",
	reflect.TypeFor[projections.WebhookShare](): "WebhookShare",
}

// operations is the whole API, in the order of the contract.
func operations(d *describing) []operation {
	const (
		read, write = domain.ScopeWebhooksRead, domain.ScopeWebhooksWrite
		unreadable  = "400 413 415 422"
	)
	webhook, event := apiRoot+webhookPath, apiRoot+eventPath
	return []operation{
		{method: "POST", path: apiRoot + "/webhooks", id: "registerWebhook", summary: "Register a webhook", scope: write, body: "NewWebhook", status: 201, answer: answerOf[webhookView](d), refusals: unreadable},
		{method: "GET", path: apiRoot + "/webhooks", id: "listWebhooks", summary: "List webhooks, newest first", scope: read, query: []string{"status", "event_type", "q", "limit", "cursor"}, status: 200, answer: listOf[webhookView](d), refusals: "422"},
		{method: "GET", path: webhook, id: "getWebhook", summary: "A webhook as it is, or as it was", scope: read, query: []string{"as_of"}, status: 200, answer: answerOf[webhookView](d), refusals: "404 422"},
		{method: "PUT", path: webhook, id: "changeWebhook", summary: "Change the fields given; null clears", scope: write, header: []string{"If-Match"}, body: "WebhookChange", status: 200, answer: answerOf[webhookView](d), refusals: "404 409 412 " + unreadable},
		{method: "PATCH", path: webhook, id: "patchWebhook", summary: "The same as PUT", scope: write, header: []string{"If-Match"}, body: "WebhookChange", status: 200, answer: answerOf[webhookView](d), refusals: "404 409 412 " + unreadable},
		{method: "DELETE", path: webhook, id: "deleteWebhook", summary: "Delete a webhook; pending deliveries are cancelled", scope: write, header: []string{"If-Match"}, status: 204, refusals: "404 409 412"},
		{method: "POST", path: webhook + "/activate", id: "activateWebhook", summary: "Let deliveries go on", scope: write, status: 200, answer: answerOf[webhookView](d), refusals: "404 409"},
		{method: "POST", path: webhook + "/deactivate", id: "deactivateWebhook", summary: "Make deliveries wait", scope: write, status: 200, answer: answerOf[webhookView](d), refusals: "404 409"},
		{method: "POST", path: webhook + "/test", id: "testWebhook", summary: "Make one call at once, whatever the filters", scope: write, body: "Test", status: 200, answer: answerOf[testView](d), refusals: "404 " + unreadable},
		{method: "POST", path: webhook + "/rotate-secret", id: "rotateSecret", summary: "Replace the secret, with an overlap", scope: write, body: "SecretRotation", optional: true, status: 200, answer: answerOf[rotatedView](d), refusals: "404 409 " + unreadable},
		{method: "GET", path: webhook + "/stats", id: "webhookStats", summary: "Statistics of a webhook", scope: read, query: []string{"from", "to", "bucket"}, status: 200, answer: answerOf[projections.Stats](d), refusals: "404 422"},
		{method: "GET", path: apiRoot + "/webhooks/system/stats", id: "systemStats", summary: "Statistics of all webhooks and the system", scope: read, query: []string{"from", "to", "bucket"}, status: 200, answer: answerOf[projections.SystemStats](d), refusals: "422"},
		{method: "GET", path: webhook + "/calls", id: "listCalls", summary: "The call log of a webhook, newest first", scope: read, query: []string{"status", "event_type", "from", "to", "limit", "cursor"}, status: 200, answer: listOf[projections.Call](d), refusals: "404 422"},
		{method: "GET", path: webhook + "/calls/{call}", id: "getCall", summary: "All of one call: what was sent and answered", scope: read, status: 200, answer: answerOf[callView](d), refusals: "404 422"},
		{method: "GET", path: webhook + "/history", id: "webhookHistory", summary: "Every change: who, when, what was and became", scope: read, query: []string{"limit", "cursor"}, status: 200, answer: listOf[historyView](d), refusals: "404 422"},
		{method: "POST", path: webhook + "/backtest", id: "backtestWebhook", summary: "Try other events or filters on recorded history; sends nothing", scope: read, body: "Backtest", optional: true, status: 200, answer: answerOf[projections.Backtest](d), refusals: "404 " + unreadable},
		{method: "POST", path: webhook + "/replay", id: "replayWebhook", summary: "Send history again to this webhook alone", scope: write, body: "Replay", status: 202, answer: answerOf[replayView](d), refusals: "404 409 " + unreadable},
		{method: "GET", path: webhook + "/replays/{replay}", id: "getReplay", summary: "The progress of a replay", scope: read, status: 200, answer: answerOf[projections.Replay](d), refusals: "404 422"},
		{method: "POST", path: apiRoot + "/webhooks/events/trigger", id: "triggerEvent", summary: "Trigger an event; answered once it is durable", scope: domain.ScopeEventsWrite, header: []string{"Idempotency-Key"}, body: "NewEvent", status: 202, answer: answerOf[acceptedView](d), refusals: "409 " + unreadable},
		{method: "POST", path: apiRoot + "/webhooks/events/trigger/batch", id: "triggerEvents", summary: "Trigger up to 1000 events, all or none", scope: domain.ScopeEventsWrite, header: []string{"Idempotency-Key"}, body: "NewEvents", status: 202, answer: answerOf[acceptedListView](d), refusals: "409 " + unreadable},
		{method: "GET", path: apiRoot + "/webhooks/events/types", id: "listEventTypes", summary: "The catalogue of event types", scope: anyToken, query: []string{"limit", "cursor"}, status: 200, answer: listOf[eventTypeView](d), refusals: "422"},
		{method: "GET", path: apiRoot + "/webhooks/events", id: "listEvents", summary: "List events, newest first", scope: read, query: []string{"event_type", "correlation_id", "from", "to", "limit", "cursor"}, status: 200, answer: listOf[projections.Event](d), refusals: "422"},
		{method: "GET", path: apiRoot + "/webhooks/events/parked", id: "listParkedEvents", summary: "Emitted events that cannot be accepted, and why", scope: read, query: []string{"limit", "cursor"}, status: 200, answer: listOf[outbox.ParkedEvent](d), refusals: "422"},
		{method: "POST", path: apiRoot + parkedPath + "/retry", id: "retryParkedEvent", summary: "Accept a parked event after all", scope: domain.ScopeAdmin, status: 202, answer: answerOf[acceptedView](d), refusals: "404 409"},
		{method: "POST", path: apiRoot + parkedPath + "/discard", id: "discardParkedEvent", summary: "Drop a parked event for good", scope: domain.ScopeAdmin, status: 204, refusals: "404"},
		{method: "GET", path: event, id: "getEvent", summary: "One event", scope: read, status: 200, answer: answerOf[projections.Event](d), refusals: "404 422"},
		{method: "GET", path: event + "/deliveries", id: "listDeliveries", summary: "Each delivery of an event", scope: read, query: []string{"limit", "cursor"}, status: 200, answer: listOf[projections.Delivery](d), refusals: "404 422"},
		{method: "GET", path: event + "/explain", id: "explainEvent", summary: "Why each webhook got the event, or did not", scope: read, query: []string{"limit", "cursor"}, status: 200, answer: answerOf[explainView](d), refusals: "404 422"},
		{method: "POST", path: apiRoot + deliveryPath + "/retry", id: "retryDelivery", summary: "Attempt a delivery now", scope: write, status: 202, answer: answerOf[deliveryView](d), refusals: "404 409"},
		{method: "POST", path: apiRoot + deliveryPath + "/cancel", id: "cancelDelivery", summary: "Never attempt a delivery again", scope: write, status: 202, answer: answerOf[deliveryView](d), refusals: "404 409"},
		{method: "GET", path: apiRoot + "/webhooks/alerts", id: "listAlerts", summary: "List alerts, newest first", scope: read, query: []string{"state", "limit", "cursor"}, status: 200, answer: listOf[projections.Alert](d), refusals: "422"},
		{method: "GET", path: apiRoot + "/audit/events", id: "auditEvents", summary: "The log in order, a line of JSON an entry", scope: domain.ScopeAuditRead, query: []string{"after", "stream", "type", "from", "to"}, status: 200, media: "application/x-ndjson", answer: schema{"type": "string"}, refusals: "422"},
		{method: "GET", path: apiRoot + "/openapi.json", id: "openAPI", summary: "This document", scope: public, status: 200, answer: schema{"type": "object"}},
		{method: "GET", path: "/healthz", id: "alive", summary: "Whether the process lives", scope: public, status: 200, answer: answerOf[statusView](d)},
		{method: "GET", path: "/readyz", id: "ready", summary: "Whether it can serve", scope: public, status: 200, answer: answerOf[statusView](d)},
		{method: "GET", path: "/metrics", id: "metrics", summary: "Metrics for Prometheus", scope: public, status: 200, media: "text/plain", answer: schema{"type": "string"}},
	}
}

func (o operation) describe() schema {
	description := "Any valid token."
	switch o.scope {
	case anyToken:
	case public:
		description = "No token."
	default:
		description = "A token with the scope `" + string(o.scope) + "`."
	}
	described := schema{"operationId": o.id, "summary": o.summary, "description": description, "responses": o.responses()}
	if o.scope == public {
		described["security"] = []schema{}
	}
	if parameters := o.parameters(); len(parameters) > 0 {
		described["parameters"] = parameters
	}
	if o.body != "" {
		described["requestBody"] = schema{"required": !o.optional, "content": schema{"application/json": schema{"schema": reference(o.body)}}}
	}
	return described
}

func (o operation) responses() schema {
	answered := schema{"description": o.summary}
	if o.answer != nil {
		media := o.media
		if media == "" {
			media = "application/json"
		}
		answered["content"] = schema{media: schema{"schema": o.answer}}
	}
	responses := schema{strconv.Itoa(o.status): answered}
	refusals := strings.Fields(o.refusals)
	if o.scope != public {
		refusals = append(refusals, "401", "403", "429")
	}
	if o.path != "/healthz" {
		refusals = append(refusals, "503")
	}
	for _, status := range refusals {
		code, err := strconv.Atoi(status)
		if err != nil {
			panic(err)
		}
		responses[status] = schema{
			"description": http.StatusText(code), "content": schema{"application/problem+json": schema{"schema": reference("Problem")}},
		}
	}
	return responses
}

// parameters describes what is in the path, the query and the headers.
func (o operation) parameters() []schema {
	var list []schema
	for _, match := range pathParameter.FindAllStringSubmatch(o.path, -1) {
		list = append(list, schema{"name": match[1], "in": "path", "required": true, "description": pathTexts[match[1]], "schema": schema{"type": "string"}})
	}
	for _, name := range o.query {
		p := queryParameters[name]
		if name == "status" && strings.HasSuffix(o.path, "/calls") {
			p = parameter{"how the call ended", schema{"type": "string", "enum": []string{"success", "failed"}}}
		}
		list = append(list, schema{"name": name, "in": "query", "description": p.text, "schema": p.schema})
	}
	for _, name := range o.header {
		list = append(list, schema{"name": name, "in": "header", "description": headerTexts[name], "schema": schema{"type": "string"}})
	}
	return list
}

var pathTexts = map[string]string{
	"webhook": "the webhook's UUID or its short number", "call": "the call's id", "event": "the event's id",
	"delivery": "the delivery's id", "replay": "the replay's id", "parked": "the parked event's id in their list",
}

var headerTexts = map[string]string{
	"If-Match":        "the ETag of the version to change; another version is 412",
	"Idempotency-Key": "makes the request accepted once: the same key and body answer as the first time, the same key with another body is 409",
}

type parameter struct {
	text   string
	schema schema
}

var timeSchema = schema{"type": "string", "format": "date-time"}

var queryParameters = map[string]parameter{
	"status":         {"which webhooks", schema{"type": "string", "enum": []string{"all", "active", "inactive"}, "default": "all"}},
	"event_type":     {"a type of the catalogue", schema{"type": "string"}},
	"correlation_id": {"the caller's own id", schema{"type": "string"}},
	"q":              {"text in the name, description or url", schema{"type": "string"}},
	"limit":          {"items of a page", schema{"type": "integer", "minimum": 1, "maximum": maxLimit, "default": defaultLimit}},
	"cursor":         {"next_cursor of the page before", schema{"type": "string"}},
	"state":          {"which alerts", schema{"type": "string", "enum": []string{"all", "open", "resolved"}, "default": "all"}},
	"as_of":          {"the time at which the webhook was as answered", timeSchema},
	"from":           {"at or after", timeSchema},
	"to":             {"before", timeSchema},
	"bucket":         {"adds a series in parts of this width", schema{"type": "string", "enum": []string{"hour", "day"}}},
	"after":          {"the position of the last line that is known already", schema{"type": "integer", "minimum": 0}},
	"stream":         {"entries of one stream, such as webhook-<uuid>", schema{"type": "string"}},
	"type":           {"entries of one type, or of a group (webhook.*)", schema{"type": "string"}},
}

// outgoing describes what receivers get.
func outgoing() schema {
	header := func(name, text string) schema {
		return schema{"name": name, "in": "header", "description": text, "schema": schema{"type": "string"}}
	}
	body := schema{
		"type": "object", "required": []string{"event_type", "event_data", "webhook_id", "timestamp", "attempt"},
		"properties": schema{
			"event_type": schema{"type": "string"}, "event_data": schema{"type": "object"}, "webhook_id": schema{"type": "string", "format": "uuid"},
			"timestamp": timeSchema, "attempt": schema{"type": "integer", "minimum": 1},
		},
	}
	return schema{"event": schema{"post": schema{
		"summary":     "An event, as a webhook with payload_version 1 gets it",
		"description": "Answer with a status from 200 to 299; anything else is tried again. The same delivery id may come twice.",
		"security":    []schema{},
		"parameters": []schema{
			header("X-Webhook-Event", "the event's type"), header("X-Webhook-ID", "the webhook"), header("X-Webhook-Attempt", "from 1"),
			header("X-Webhook-Event-ID", "the event"), header("X-Webhook-Delivery-ID", "the same for every attempt: what to dedupe on"),
			header("X-Webhook-Payload-Version", "of the body"), header("X-Webhook-Signature", "sha256= and the hex HMAC-SHA256 of the body, with a secret"),
		},
		"requestBody": schema{"required": true, "content": schema{"application/json": schema{"schema": body}}},
		"responses":   schema{"200": schema{"description": "it was taken"}},
	}}}
}
