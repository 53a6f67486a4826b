package http

import (
	"encoding/json"
	"net/http"
	"slices"

	"github.com/medilab/webhooks/domain"
)

func (s *Server) testOperations() []operation {
	return []operation{{
		method: "POST", path: "/webhooks/{webhook}/test", id: "testWebhook", summary: "Make one call at once, whatever the filters", scope: domain.ScopeWebhooksWrite,
		body: test, answer: answerOf[testCallView], unbounded: true, payloads: true,
		deleted: true, serve: s.ofWebhook(s.testWebhook),
	}}
}

// jsonWebhook is a webhook's number or UUID.
var jsonWebhook = jsonType[json.RawMessage]{schema{"oneOf": []schema{{"type": "integer"}, {"type": "string"}, {"type": "null"}}}, func(raw []byte) (json.RawMessage, faults) {
	if _, isText := domain.JSONText(raw); isText {
		return raw, nil
	}
	_, wrong := readWhole(raw)
	return raw, wrong
}}

type testRequest struct {
	eventType domain.EventType
	data      json.RawMessage
}

var test = object[testRequest]{name: "Test", optional: true, limit: maxEventBody, fields: []field[testRequest]{
	plain("webhook_id", jsonWebhook, func(*testRequest) *json.RawMessage { return new(json.RawMessage) },
		schema{"description": "may be left out: the webhook is that of the path, also when another is named here, as the guide's example names 1"}),
	plain("event_type", textType[domain.EventType](), func(t *testRequest) *domain.EventType { return &t.eventType }, schema{"description": "a type of the catalogue; left out: the first that the webhook subscribes to"}),
	plain("test_data", jsonRaw, func(t *testRequest) *json.RawMessage { return &t.data },
		schema{"description": "left out: the type's example, if the catalogue has one"}),
}}

// testWebhook makes one call at once and answers with it: as the call log shows it, and
// with the verdict of the webhook's filters.
func (s *Server) testWebhook(x *request, r *http.Request, w domain.Webhook) error {
	var in testRequest
	if err := test.read(x, r, &in, noRules); err != nil {
		return err
	}
	if in.eventType == "" {
		in.eventType = firstType(s.commands.Catalog, w)
	}
	if in.data == nil {
		info, _ := s.commands.Catalog.Find(in.eventType)
		if in.data = info.Example; in.data == nil {
			in.data = json.RawMessage("{}")
		}
	}
	tested, err := s.commands.TestWebhook(r.Context(), x.caller, w.ID, in.eventType, in.data)
	if err != nil {
		return err
	}
	call, err := s.callDetails(r.Context(), s.queries, w.ID, tested.CallID)
	if err != nil {
		return err
	}
	verdict := tested.Verdict
	view := testCallView{callDetailsView: call, WouldMatch: verdict.Matched, Subscribed: verdict.Subscribed, Active: verdict.Active}
	filtered := verdict.Filter()
	if view.Filter.Matched = filtered.Matched; !filtered.Matched {
		view.Filter.failedCondition = conditionOf(filtered)
	}
	return x.respond(view, nil)
}

// firstType returns the first type of the catalogue that the webhook subscribes to.
func firstType(c domain.Catalog, w domain.Webhook) domain.EventType {
	types := append(c.Clinic(), c.System()...)
	i := slices.IndexFunc(types, func(t domain.EventTypeInfo) bool { return subscribes(w, t.Type) })
	return types[max(i, 0)].Type
}

// testCallView is a test call, and how the webhook would have treated a real event.
type testCallView struct {
	callDetailsView
	WouldMatch bool           `json:"would_match"`
	Subscribed bool           `json:"type_subscribed"`
	Active     bool           `json:"active"`
	Filter     testFilterView `json:"filter"`
}

type testFilterView struct {
	Matched bool `json:"matched"`
	failedCondition
}
