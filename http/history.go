package http

import (
	"bytes"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

func (s *Server) historyOperations() []operation {
	return []operation{{
		method: "GET", path: "/webhooks/{webhook}/history", id: "webhookHistory", summary: "Every change: who, when, what was and became", scope: domain.ScopeWebhooksRead, orScope: domain.ScopeAuditRead,
		query: []queryParam{limit, cursor}, answer: listOf[changeView], serve: s.ofWebhook(s.listHistory),
	}}
}

// changeView is one change: who, when, and what was and became.
type changeView struct {
	Version   int64             `json:"version"`
	Type      string            `json:"type"`
	At        moment            `json:"at"`
	Actor     string            `json:"actor"`
	Reason    string            `json:"reason,omitempty"` // of a deactivation by the system
	RequestID string            `json:"request_id,omitempty"`
	Position  int64             `json:"position"`
	Changes   []FieldChangeView `json:"changes"`
}

// FieldChangeView is what a field was and became.
type FieldChangeView struct {
	Field  string          `json:"field"`
	Was    json.RawMessage `json:"was"`
	Became json.RawMessage `json:"became"`
}

// listHistory lists the changes of a webhook, newest first.
func (s *Server) listHistory(x *request, r *http.Request, w domain.Webhook) error {
	history, err := s.queries.History(r.Context(), w.ID)
	if err != nil {
		return err
	}
	l := x.list(r.Context(), nil)
	defer l.task.End()
	var last, next projections.Cursor
	for _, entry := range slices.Backward(history) {
		if entry.Version >= cursor.of(x).Below() {
			continue
		}
		if l.isFull(limit.of(x)) {
			next = last
			break
		}
		const passes = 4 // each state is encoded and read again
		if err := l.spend(passes * (len(entry.Before.Filters) + len(entry.After.Filters))); err != nil {
			return err
		}
		l.add(changeView{
			Version: entry.Version, Type: entry.Type, At: moment(entry.At), Actor: entry.Actor, Reason: reasonOf(entry), RequestID: entry.RequestID,
			Position: int64(entry.Position), Changes: changesOf(entry),
		})
		last = projections.Cursor(entry.Version)
	}
	return l.respond(x, next)
}

// reasonOf returns why the system deactivated the webhook, if the change is that.
func reasonOf(e projections.HistoryEntry) string {
	if e.Type == (domain.WebhookDeactivated{}).ChangeType() {
		return string(e.After.Deactivated)
	}
	return ""
}

// changesOf compares two states of a webhook field by field, as callers see them. A
// registration has every field. Of a secret only is said that it changed, and nothing when
// it was encrypted again.
func changesOf(e projections.HistoryEntry) []FieldChangeView {
	changes := []FieldChangeView{}
	if e.Type == (domain.WebhookResealed{}).ChangeType() {
		return changes
	}
	add := func(field string, was, became any, differ bool) {
		if differ {
			changes = append(changes, FieldChangeView{field, encode(was), encode(became)})
		}
	}
	registered := e.Before.Version == 0
	was, became := members(viewOf(e.Before)), members(viewOf(e.After))
	if registered {
		was = nil
	}
	for _, f := range webhookFields {
		if f.name != "headers" && f.name != "secret" && f.name != "auth" {
			add(f.name, was[f.name], became[f.name], registered || !bytes.Equal(was[f.name], became[f.name]))
		}
	}
	add("headers", viewOf(e.Before).Headers, viewOf(e.After).Headers, !slices.Equal(e.Before.Headers, e.After.Headers))
	add("auth", viewOf(e.Before).Auth, viewOf(e.After).Auth, !reflect.DeepEqual(e.Before.Auth, e.After.Auth))
	add("secret", masked(e.Before.Secret), masked(e.After.Secret), e.Before.Secret != e.After.Secret)
	add("deleted", e.Before.Deleted, e.After.Deleted, e.Before.Deleted != e.After.Deleted)
	return changes
}

// members returns the members of v's JSON object.
func members(v any) (m answered) {
	if err := json.Unmarshal(encode(v), &m); err != nil {
		panic(err) // it is ours
	}
	return m
}

func masked(s domain.Sealed) any {
	if s == "" {
		return nil
	}
	return domain.Masked
}
