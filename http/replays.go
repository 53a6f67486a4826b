package http

import (
	"net/http"
	"strconv"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

func (s *Server) replayOperations() []operation {
	show := ofWebhookByID("replay", s.getReplay)
	operations := []operation{{
		method: "POST", path: "/webhooks/backtest", id: "backtestDraft", summary: "Try events and filters of a webhook that does not exist on recorded history, or on its newest events; sends nothing; `Accept: application/x-ndjson` as below", scope: domain.ScopeWebhooksRead,
		body: draft, answer: answerOf[draftView], unbounded: true, payloads: true, private: "filters", large: true, reads: true, serve: s.backtestDraft,
	}, {
		method: "POST", path: "/webhooks/{webhook}/backtest", id: "backtestWebhook", summary: "Try other events, filters or retries on recorded history; sends nothing; `Accept: application/x-ndjson` adds lines of progress before it", scope: domain.ScopeWebhooksRead,
		body: backtest, answer: answerOf[projections.Backtest], unbounded: true, payloads: true, reads: true, serve: s.ofWebhook(s.backtestWebhook),
	}, {
		method: "POST", path: "/webhooks/{webhook}/replay", id: "replayWebhook", summary: "Send history again to this webhook alone, as a job", scope: domain.ScopeReplaysWrite,
		body: replay, status: http.StatusAccepted, answer: answerOf[replayStartedView], unbounded: true, serve: s.ofWebhook(s.replayWebhook),
	}, {
		method: "POST", path: "/webhooks/deliveries/retry", id: "retryDeliveries", summary: "Retry all deliveries that failed, as a job", scope: domain.ScopeReplaysWrite,
		body: retry, status: http.StatusAccepted, answer: answerOf[replayStartedView], unbounded: true, serve: s.retryDeliveries,
	}, {
		method: "GET", path: "/webhooks/replays", id: "listReplays", summary: "Replays and retries, newest first", scope: domain.ScopeWebhooksRead,
		query: []queryParam{limit, cursor}, answer: listOf[projections.Replay], serve: ofNoWebhook(s.listReplays),
	}, {
		method: "GET", path: "/webhooks/{webhook}/replays", id: "listWebhookReplays", summary: "Replays and retries of a webhook, newest first", scope: domain.ScopeWebhooksRead,
		query: []queryParam{limit, cursor}, answer: listOf[projections.Replay], serve: s.ofWebhook(s.listReplays),
	}, {
		method: "GET", path: "/webhooks/replays/{replay}", id: "getReplay", summary: "The progress of a replay", scope: domain.ScopeWebhooksRead,
		answer: answerOf[projections.Replay], serve: ofNoWebhook(show),
	}, {
		method: "GET", path: "/webhooks/{webhook}/replays/{replay}", id: "getWebhookReplay", summary: "The progress of a replay of a webhook", scope: domain.ScopeWebhooksRead,
		answer: answerOf[projections.Replay], serve: s.ofWebhook(show),
	}}
	for _, c := range []struct {
		name, summary string
		decide        func(domain.Replay) ([]domain.Change, error)
	}{
		{"pause", "Let a replay ask for nothing more until it is resumed", domain.Replay.Pause},
		{"resume", "Let a paused replay go on", domain.Replay.Resume},
		{"cancel", "End a replay; what of it waits is cancelled, or of a retry failed as before", domain.Replay.Cancel},
	} {
		change := s.changeReplay(c.decide)
		operations = append(operations, operation{
			method: "POST", path: "/webhooks/replays/{replay}/" + c.name, id: c.name + "Replay", summary: c.summary, scope: domain.ScopeReplaysWrite,
			answer: answerOf[projections.Replay], conflicts: true, serve: ofNoWebhook(change),
		}, operation{
			method: "POST", path: "/webhooks/{webhook}/replays/{replay}/" + c.name, id: c.name + "WebhookReplay", summary: c.summary, scope: domain.ScopeReplaysWrite,
			answer: answerOf[projections.Replay], conflicts: true, serve: s.ofWebhook(change),
		})
	}
	return operations
}

// ofNoWebhook serves what is of one webhook for all of them: then the webhook is zero.
func ofNoWebhook(serve webhookHandler) handler {
	return func(x *request, r *http.Request) error { return serve(x, r, domain.Webhook{}) }
}

type replayRequest struct {
	domain.ReplaySpec
	state   string
	webhook string
	dryRun  bool
}

var replay = object[replayRequest]{name: "Replay", limit: maxManagementBody, fields: append([]field[replayRequest]{
	plain("from", jsonTime, func(p *replayRequest) *time.Time { return &p.From }, schema{"description": "accepted at or after"}).must(),
	plain("to", jsonTime, func(p *replayRequest) *time.Time { return &p.To }, schema{"description": "accepted before"}).must(),
	plain("only_failed", jsonBool, func(p *replayRequest) *bool { return &p.OnlyFailed },
		schema{"description": "only deliveries that failed for good"}),
}, replayFields...)}

var retry = object[replayRequest]{name: "Retry", limit: maxManagementBody, fields: append([]field[replayRequest]{
	plain("state", jsonText, func(p *replayRequest) *string { return &p.state }, schema{"enum": []domain.DeliveryState{domain.DeliveryFailed}}).must(),
	plain("webhook", jsonName, func(p *replayRequest) *string { return &p.webhook }, schema{"description": "the webhook's UUID or its short number; left out: all"}),
	plain("from", jsonTime, func(p *replayRequest) *time.Time { return &p.From }, schema{"description": "of events that occurred at or after"}),
	plain("to", jsonTime, func(p *replayRequest) *time.Time { return &p.To }, schema{"description": "of events that occurred before"}),
	plain("response_status", jsonText, func(p *replayRequest) *string { return &p.ResponseStatus },
		schema{"description": "of the last attempt: 404, or 5xx for a class"}),
}, replayFields...)}

// replayFields are those of replays and retries.
var replayFields = []field[replayRequest]{
	plain("event_types", jsonTexts, func(p *replayRequest) *[]string { return &p.EventTypes },
		schema{"description": "types, groups or *; left out: all"}),
	plain("rate", jsonRate, func(p *replayRequest) **float64 { return &p.Rate },
		schema{"minimum": 0.01, "maximum": 10000, "description": "deliveries a second; left out: as the receiver takes them"}),
	plain("dry_run", jsonBool, func(p *replayRequest) *bool { return &p.dryRun }, schema{"description": "only count"}),
}

// jsonRate is a number that may be left out.
var jsonRate = jsonType[*float64]{jsonNumber.schema, func(raw []byte) (*float64, faults) {
	rate, wrong := readNumber(raw)
	return &rate, wrong
}}

// jsonName is a text, or a short number.
var jsonName = jsonType[string]{schema{"type": "string"}, func(raw []byte) (string, faults) {
	text, ok := domain.JSONText(raw)
	if !ok {
		n, wrong := readWhole(raw)
		return strconv.Itoa(n), wrong
	}
	if text == "" { // a variable that was not set, say: it must not stand for all webhooks
		return "", fault(namesNoWebhook)
	}
	return text, nil
}}

const namesNoWebhook = "is not the id or number of a webhook"

type replayStartedView struct {
	ReplayID *domain.ReplayID `json:"replay_id"` // null: only counted
	Matched  *int             `json:"matched"`   // null: it is being counted
}

func (s *Server) replayWebhook(x *request, r *http.Request, w domain.Webhook) error {
	return s.startReplay(x, r, replay, func(in *replayRequest) []domain.FieldError {
		in.Kind, in.WebhookID = domain.KindReplay, w.ID
		return nil
	})
}

func (s *Server) retryDeliveries(x *request, r *http.Request) error {
	return s.startReplay(x, r, retry, func(in *replayRequest) (refused []domain.FieldError) {
		in.Kind = domain.KindRetry
		if in.state != string(domain.DeliveryFailed) {
			refused = append(refused, domain.FieldError{Field: "state", Message: "must be failed"})
		}
		if in.webhook == "" {
			return refused
		}
		w, err := s.namedWebhook(r.Context(), in.webhook)
		if err != nil || w.Deleted {
			refused = append(refused, domain.FieldError{Field: "webhook", Message: namesNoWebhook})
		}
		in.WebhookID = w.ID
		return refused
	})
}

// startReplay starts what the body asks for, which complete takes in, or counts it.
func (s *Server) startReplay(x *request, r *http.Request, body object[replayRequest], complete func(*replayRequest) []domain.FieldError) error {
	catalog, err := s.pastCatalog(r.Context())
	if err != nil {
		return err
	}
	var in replayRequest
	body.checked = true
	rules := func() []domain.FieldError {
		return append(complete(&in), domain.FieldsOf(domain.CheckReplay(catalog, in.ReplaySpec))...)
	}
	if err := body.read(x, r, &in, rules); err != nil {
		return err
	}
	if in.dryRun {
		if err := x.acquire(s.logReads); err != nil {
			return err
		}
		matched, err := s.commands.CountReplay(r.Context(), catalog, in.ReplaySpec)
		return x.respond(replayStartedView{Matched: &matched}, err)
	}
	id, err := s.commands.StartReplay(r.Context(), x.caller, catalog, in.ReplaySpec)
	if err != nil {
		return err
	}
	of := "/webhooks/replays/"
	if in.Kind == domain.KindReplay {
		of = "/webhooks/" + in.WebhookID.String() + "/replays/"
	}
	x.Header().Set("Location", apiRoot+of+id.String())
	return x.respond(replayStartedView{ReplayID: &id}, nil)
}

func (s *Server) listReplays(x *request, r *http.Request, w domain.Webhook) error {
	return x.respond(s.queries.Replays(r.Context(), w.ID, limit.of(x), cursor.of(x)))
}

func (s *Server) getReplay(x *request, r *http.Request, w domain.Webhook, id domain.ReplayID) error {
	return x.respond(s.queries.Replay(r.Context(), w.ID, id))
}

// changeReplay asks something of a replay and answers with it as it is then.
func (s *Server) changeReplay(decide func(domain.Replay) ([]domain.Change, error)) webhookHandler {
	return ofWebhookByID("replay", func(x *request, r *http.Request, w domain.Webhook, id domain.ReplayID) error {
		if err := s.commands.ChangeReplay(r.Context(), x.caller, w.ID, id, decide); err != nil {
			return err
		}
		return s.getReplay(x, r, w, id)
	})
}
