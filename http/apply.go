package http

import (
	"fmt"
	"net/http"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

func (s *Server) applyOperations() []operation {
	return []operation{{
		method: "POST", path: "/webhooks/apply", id: "applyWebhooks", scope: domain.ScopeWebhooksWrite, large: true,
		summary: "Make the webhooks those of a list, which are matched by their names: all of it or nothing",
		body:    application, answer: answerOf[ApplicationView], conflicts: true, serve: s.applyWebhooks,
	}}
}

// maxApplied is how many webhooks one request may apply.
const maxApplied = 1000

var application = object[commands.Application]{name: "WebhookList", limit: maxEventBody, fields: []field[commands.Application]{
	plain("webhooks", jsonWebhooks, func(a *commands.Application) *[]domain.WebhookSpec { return &a.Webhooks }, schema{
		"maxItems": maxApplied, "description": "each is changed or made to be as it stands here: fields that are left out get their defaults, but is_active and masked header values stay",
	}).must(),
	plain("prune", jsonBool, func(a *commands.Application) *bool { return &a.Prune }, schema{"description": "delete the webhooks that the list lacks"}),
	plain("dry_run", jsonBool, func(a *commands.Application) *bool { return &a.DryRun }, schema{"description": "change nothing, only answer what would change"}),
}}

var jsonWebhooks = jsonType[[]domain.WebhookSpec]{
	schema{"type": "array", "items": reference(newWebhook.name)},
	func(raw []byte) (list []domain.WebhookSpec, wrong faults) {
		list = []domain.WebhookSpec{}
		err := domain.ArrayElements(raw, func(i int, raw []byte) error {
			spec, refused := wholeWebhook(raw)
			list, wrong = append(list, spec), append(wrong, refused.within(fmt.Sprintf("[%d]", i))...)
			return nil
		})
		switch {
		case err != nil:
			return nil, fault("must be a list of webhooks")
		case len(list) > maxApplied:
			return nil, fault(fmt.Sprintf("must be at most %d", maxApplied))
		}
		return list, wrong
	},
}

// wholeWebhook reads a webhook of which fields that are left out are their defaults, as null is.
func wholeWebhook(raw []byte) (spec domain.WebhookSpec, wrong faults) {
	given := map[string]bool{}
	var refused faults
	err := domain.ObjectFields(raw, func(key string, raw []byte) error {
		given[key] = true
		refused = append(refused, newWebhook.parseField(&spec, key, raw)...)
		return nil
	})
	if err != nil {
		return spec, fault(mustBeObject)
	}
	for _, f := range newWebhook.fields {
		_, notNull := f.schema["type"].(string)
		switch {
		case given[f.name]:
		case f.required:
			refused = append(refused, domain.FieldError{Field: f.name, Message: "is required"})
		case !notNull:
			f.read(&spec, []byte("null"))
		}
	}
	return spec, refused.within(".")
}

// ApplicationView says what was changed, or would be.
type ApplicationView struct {
	DryRun    bool          `json:"dry_run"`
	Changed   []AppliedView `json:"changed"`
	Unchanged int           `json:"unchanged"` // of the list
}

// AppliedView is what became, or would, of one webhook.
type AppliedView struct {
	Action    string            `json:"action"`     // create, change or delete
	WebhookID *domain.WebhookID `json:"webhook_id"` // null: it is not made yet
	Number    *int64            `json:"number"`     // likewise
	Name      string            `json:"name"`
	Changes   []FieldChangeView `json:"changes"` // as in the history; none when it is deleted
}

func (s *Server) applyWebhooks(x *request, r *http.Request) error {
	var asked commands.Application
	rules := func() []domain.FieldError {
		return domain.FieldsOf(s.commands.CheckApplication(r.Context(), asked.Webhooks))
	}
	if err := application.read(x, r, &asked, rules); err != nil {
		return err
	}
	changed, err := s.commands.ApplyWebhooks(r.Context(), x.caller, asked)
	view := ApplicationView{DryRun: asked.DryRun, Changed: []AppliedView{}, Unchanged: len(asked.Webhooks)}
	for _, a := range changed {
		one := appliedOf(a)
		if one.Action != "delete" {
			view.Unchanged--
		}
		view.Changed = append(view.Changed, one)
	}
	return x.respond(view, err)
}

func appliedOf(a commands.AppliedWebhook) AppliedView {
	view := AppliedView{Action: "change", Name: a.After.Name, Changes: []FieldChangeView{}}
	if a.After.Number > 0 {
		view.WebhookID, view.Number = &a.After.ID, &a.After.Number
	}
	switch {
	case a.After.Deleted:
		view.Action = "delete"
		return view
	case a.Before.Version == 0:
		view.Action = "create"
	}
	view.Changes = changesOf(projections.HistoryEntry{Before: a.Before, After: a.After})
	return view
}

// WebhookFields are the names of the fields of a webhook that callers set, in order.
func WebhookFields() (names []string) {
	for _, f := range webhookFields {
		names = append(names, f.name)
	}
	return names
}
