package http

import (
	"encoding/json"
	"math"
	"net/http"
	"reflect"
	"slices"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

// handleWebhookHistory lists the changes of a webhook, newest first, deleted
// webhooks' too.
func (s *Server) handleWebhookHistory(x *exchange, r *http.Request) error {
	q := readQuery(r)
	limit, before := q.limit(), q.cursor()
	if err := q.done(); err != nil {
		return err
	}
	w, err := s.anyWebhookInPath(r)
	if err != nil {
		return err
	}
	history, err := s.queries.History(r.Context(), w.ID)
	if err != nil {
		return err
	}
	if before == 0 {
		before = math.MaxInt64
	}
	items, next := []historyView{}, ""
	for _, entry := range slices.Backward(history) {
		if entry.Version >= before {
			continue
		}
		if len(items) == limit {
			next = newCursor(items[limit-1].Version)
			break
		}
		items = append(items, historyOf(entry))
	}
	return x.answer(http.StatusOK, newPage(items, next))
}

// historyView is one change: who, when, and what was and became.
type historyView struct {
	Version   int64        `json:"version"`
	Type      string       `json:"type"`
	At        moment       `json:"at"`
	Actor     string       `json:"actor"`
	RequestID string       `json:"request_id,omitempty"`
	Position  int64        `json:"position"`
	Changes   []changeView `json:"changes"`
}

type changeView struct {
	Field  string          `json:"field"`
	Was    json.RawMessage `json:"was"`
	Became json.RawMessage `json:"became"`
}

func historyOf(e projections.HistoryEntry) historyView {
	return historyView{
		Version: e.Version, Type: e.Type, At: moment(e.At), Actor: e.Actor, RequestID: e.RequestID,
		Position: int64(e.Position), Changes: changesOf(e),
	}
}

// changesOf is empty when the same secrets were only sealed anew.
func changesOf(e projections.HistoryEntry) []changeView {
	if e.Type == (domain.WebhookResealed{}).ChangeType() {
		return []changeView{}
	}
	return changesBetween(e.Before, e.After)
}

// changesBetween compares two states of a webhook field by field, as callers see
// them. Of a secret that changed it tells only that it did.
func changesBetween(was, became domain.Webhook) []changeView {
	changes := []changeView{}
	add := func(field string, was, became any, differ bool) {
		if differ {
			changes = append(changes, changeView{field, raw(was), raw(became)})
		}
	}
	before, after := viewOf(was), viewOf(became)
	fields := []struct {
		name        string
		was, became any
	}{
		{"name", before.Name, after.Name}, {"description", before.Description, after.Description}, {"url", before.URL, after.URL},
		{"events", before.Events, after.Events}, {"max_retries", before.MaxRetries, after.MaxRetries},
		{"retry_delay", before.RetryDelay, after.RetryDelay}, {"timeout", before.Timeout, after.Timeout},
		{"filters", before.Filters, after.Filters}, {"batch", before.Batch, after.Batch},
		{"payload_version", before.PayloadVersion, after.PayloadVersion}, {"is_active", before.IsActive, after.IsActive},
	}
	for _, f := range fields {
		if was.Version == 0 { // before it was registered it was nothing
			f.was = nil
		}
		add(f.name, f.was, f.became, !reflect.DeepEqual(f.was, f.became))
	}
	add("headers", before.Headers, after.Headers, !slices.Equal(was.Headers, became.Headers))
	add("secret", masked(was.Secret), masked(became.Secret), was.Secret != became.Secret)
	add("deleted", was.Deleted, became.Deleted, was.Deleted != became.Deleted)
	return changes
}

func masked(s domain.Sealed) any {
	if s == "" {
		return nil
	}
	return domain.Masked
}

func raw(v any) json.RawMessage { return encode(v) }
