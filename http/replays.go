package http

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

func (s *Server) replayOperations() []operation {
	return []operation{{
		method: "POST", path: "/webhooks/{webhook}/backtest", id: "backtestWebhook", summary: "Try other events or filters on recorded history; sends nothing", scope: domain.ScopeWebhooksRead,
		body: backtest, answer: answerOf[projections.Backtest], unbounded: true, payloads: true, serve: s.ofWebhook(s.backtestWebhook),
	}, {
		method: "POST", path: "/webhooks/{webhook}/replay", id: "replayWebhook", summary: "Send history again to this webhook alone", scope: domain.ScopeWebhooksWrite,
		body: replay, status: http.StatusAccepted, answer: answerOf[replayStartedView], conflicts: true, unbounded: true, serve: s.ofWebhook(s.replayWebhook),
	}, {
		method: "GET", path: "/webhooks/{webhook}/replays/{replay}", id: "getReplay", summary: "The progress of a replay", scope: domain.ScopeWebhooksRead,
		answer: answerOf[projections.Replay], serve: s.ofWebhook(s.getReplay),
	}}
}

type backtestRequest struct {
	spec     domain.WebhookSpec // events and filters of it
	from, to time.Time
}

var backtest = object[backtestRequest]{name: "Backtest", optional: true, checked: true, limit: maxManagementBody, fields: []field[backtestRequest]{
	asked("events", jsonTexts, func(b *backtestRequest) *domain.Asked[[]string] { return &b.spec.Events }, eventsSchema).notNull(),
	asked("filters", jsonFilters, func(b *backtestRequest) *domain.Asked[json.RawMessage] { return &b.spec.Filters }, filtersSchema),
	plain("from", jsonTime, func(b *backtestRequest) *time.Time { return &b.from }, schema{"description": "of the history to look through; left out: from its beginning"}),
	plain("to", jsonTime, func(b *backtestRequest) *time.Time { return &b.to }, schema{"description": "left out: to its end"}),
}}

// backtestWebhook compares what the caller proposes with what was sent to the webhook, over
// recorded history. What is left out stays as the webhook has it; null clears.
func (s *Server) backtestWebhook(x *request, r *http.Request, w domain.Webhook) error {
	var in backtestRequest
	rules := func() []domain.FieldError {
		return append(s.specRules(r.Context(), &in.spec, false)(), domain.CheckRange(in.from, in.to)...)
	}
	if err := backtest.read(x, r, &in, rules); err != nil {
		return err
	}
	events, filters := w.Events, w.Filters
	if in.spec.Events.Given {
		events = in.spec.Events.Value
	}
	if in.spec.Filters.Given {
		filters = in.spec.Filters.Value
	}
	proposed, err := domain.NewMatcher(events, filters)
	if err != nil {
		return err
	}
	release, err := s.logReads.acquire(x.caller.Actor, readingLog)
	if err != nil {
		return err
	}
	defer release()
	return x.respond(s.queries.Backtest(r.Context(), w.ID, proposed, in.from, in.to))
}

type replayRequest struct {
	domain.ReplaySpec
	dryRun bool
}

var replay = object[replayRequest]{name: "Replay", limit: maxManagementBody, fields: []field[replayRequest]{
	plain("from", jsonTime, func(p *replayRequest) *time.Time { return &p.From }, schema{"description": "accepted at or after"}).must(),
	plain("to", jsonTime, func(p *replayRequest) *time.Time { return &p.To }, schema{"description": "accepted before"}).must(),
	plain("event_types", jsonTexts, func(p *replayRequest) *[]string { return &p.EventTypes },
		schema{"description": "types, groups or *; left out: all that the webhook asks for"}),
	plain("only_failed", jsonBool, func(p *replayRequest) *bool { return &p.OnlyFailed },
		schema{"description": "only deliveries that failed for good"}),
	plain("dry_run", jsonBool, func(p *replayRequest) *bool { return &p.dryRun }, schema{"description": "only count"}),
}}

type replayStartedView struct {
	ReplayID *domain.ReplayID `json:"replay_id"` // null: only counted
	Matched  int              `json:"matched"`
}

func (s *Server) replayWebhook(x *request, r *http.Request, w domain.Webhook) error {
	var in replayRequest
	catalog, err := s.pastCatalog(r.Context())
	if err != nil {
		return err
	}
	rules := func() []domain.FieldError {
		return domain.FieldsOf(domain.CheckReplay(catalog, in.ReplaySpec))
	}
	if err := replay.read(x, r, &in, rules); err != nil {
		return err
	}
	release, err := s.logReads.acquire(x.caller.Actor, readingLog)
	if err != nil {
		return err
	}
	defer release()
	id, matched, err := s.commands.ReplayEvents(r.Context(), x.caller, catalog, w.ID, in.ReplaySpec, in.dryRun)
	if err != nil {
		return err
	}
	view := replayStartedView{Matched: matched}
	if !in.dryRun {
		view.ReplayID = &id
		x.Header().Set("Location", apiRoot+"/webhooks/"+w.ID.String()+"/replays/"+id.String())
	}
	return x.respond(view, nil)
}

func (s *Server) getReplay(x *request, r *http.Request, w domain.Webhook) error {
	id, err := pathID[domain.ReplayID](r, "replay")
	if err != nil {
		return err
	}
	return x.respond(s.queries.Replay(r.Context(), w.ID, id))
}
