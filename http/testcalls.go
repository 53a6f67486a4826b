package http

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/medilab/webhooks/domain"
)

// handleWebhookTest makes one call at once and answers with it: as the call log
// shows it, and with what the webhook's filter would have said.
func (s *Server) handleWebhookTest(x *exchange, r *http.Request) error {
	w, err := s.webhookInPath(r)
	if err != nil {
		return err
	}
	b, err := readJSON(r, maxEventBody)
	if err != nil {
		return err
	}
	defer b.release()
	var eventType domain.EventType
	data := json.RawMessage("{}")
	refused, err := fields{
		"webhook_id": func(raw []byte) string { return checkSameWebhook(w, raw) },
		"event_type": text(&eventType),
		"test_data": func(raw []byte) string {
			if !isNull(raw) {
				data = raw
			}
			return ""
		},
	}.read(b.data)
	if err == nil {
		err = domain.CheckFields(refused)
	}
	if err != nil {
		return err
	}
	tested, err := s.commands.TestWebhook(r.Context(), x.caller, w.ID, eventType, data)
	if err != nil {
		return err
	}
	call, err := s.callDetails(r.Context(), w.ID, tested.CallID)
	if err != nil {
		return err
	}
	verdict := tested.Verdict
	view := testView{callView: call, WouldMatch: verdict.Matched, Subscribed: verdict.Subscribed, Active: verdict.Active}
	view.Filter.Matched = verdict.Filter.Matched
	if !verdict.Filter.Matched {
		view.Filter.Field, view.Filter.Reason = verdict.Filter.Field, verdict.Filter.Reason
		view.Filter.Want, view.Filter.Got = asJSON(verdict.Filter.Want), asJSON(verdict.Filter.Got)
	}
	return x.answer(http.StatusOK, view)
}

// testView is a test call, and what the webhook would have said to a real event.
type testView struct {
	callView
	WouldMatch bool       `json:"would_match"`
	Subscribed bool       `json:"type_subscribed"`
	Active     bool       `json:"active"`
	Filter     filterView `json:"filter"`
}

type filterView struct {
	Matched bool            `json:"matched"`
	Field   string          `json:"field,omitempty"`
	Want    json.RawMessage `json:"want,omitempty"`
	Got     json.RawMessage `json:"got,omitempty"`
	Reason  string          `json:"reason,omitempty"`
}

// checkSameWebhook refuses a body that names another webhook than the path, by
// its number or its UUID.
func checkSameWebhook(w domain.Webhook, raw []byte) string {
	name, isText := domain.JSONText(raw)
	if !isText {
		name = string(raw)
	}
	if isNull(raw) || name == strconv.FormatInt(w.Number, 10) || strings.EqualFold(name, w.ID.String()) {
		return ""
	}
	return "is another webhook than the one in the path"
}
