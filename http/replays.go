package http

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/gorilla/mux"

	"github.com/medilab/webhooks/domain"
)

func (s *Server) replayRoutes() {
	s.long("POST", webhookPath+"/backtest", domain.ScopeWebhooksRead, s.handleBacktest)
	s.long("POST", webhookPath+"/replay", domain.ScopeWebhooksWrite, s.handleReplay)
	s.api("GET", webhookPath+"/replays/{replay:[0-9A-Fa-f-]+}", domain.ScopeWebhooksRead, s.handleReplayGet)
}

// handleBacktest compares what the caller proposes with the webhook as it is,
// over recorded history. What is left out stays as it is; null clears.
func (s *Server) handleBacktest(x *exchange, r *http.Request) error {
	w, err := s.webhookInPath(r)
	if err != nil {
		return err
	}
	b, err := readOptionalJSON(r, maxManagementBody)
	if err != nil {
		return err
	}
	defer b.release()
	var spec domain.WebhookSpec
	var from, to time.Time
	refused, err := fields{
		"events":  asked(&spec.Events, readTexts),
		"filters": asked(&spec.Filters, readFilters),
		"from":    readTime(&from),
		"to":      readTime(&to),
	}.read(b.data)
	if err != nil {
		return err
	}
	_, rules := domain.CheckSpec(s.commands.Catalog, spec, false)
	if err := domain.CheckFields(withRules(refused, domain.FieldsOf(rules))); err != nil {
		return err
	}
	events, filters := w.Events, w.Filters
	if spec.Events.Given {
		events = spec.Events.Value
	}
	if spec.Filters.Given {
		filters = spec.Filters.Value
	}
	is, err := domain.NewMatcher(w.Events, w.Filters)
	if err != nil {
		return err
	}
	proposed, err := domain.NewMatcher(events, filters)
	if err != nil {
		return err
	}
	done, err := s.lookThroughLog()
	if err != nil {
		return err
	}
	defer done()
	result, err := s.queries.Backtest(r.Context(), is, proposed, from, to)
	if err != nil {
		return err
	}
	return x.answer(http.StatusOK, result)
}

func (s *Server) handleReplay(x *exchange, r *http.Request) error {
	w, err := s.webhookInPath(r)
	if err != nil {
		return err
	}
	b, err := readJSON(r, maxManagementBody)
	if err != nil {
		return err
	}
	defer b.release()
	var spec domain.ReplaySpec
	var types domain.Asked[[]string]
	var onlyFailed, dry domain.Asked[bool]
	refused, err := fields{
		"from":        readTime(&spec.From),
		"to":          readTime(&spec.To),
		"event_types": asked(&types, readTexts),
		"only_failed": asked(&onlyFailed, readBool),
		"dry_run":     asked(&dry, readBool),
	}.read(b.data)
	if err != nil {
		return err
	}
	spec.EventTypes, spec.OnlyFailed = types.Value, onlyFailed.Value
	if len(refused) > 0 {
		return domain.InvalidFields(withRules(refused, domain.FieldsOf(domain.CheckReplay(s.commands.Catalog, spec))))
	}
	done, err := s.lookThroughLog()
	if err != nil {
		return err
	}
	defer done()
	id, matched, err := s.commands.ReplayEvents(r.Context(), x.caller, w.ID, spec, dry.Value)
	if err != nil {
		return err
	}
	view := replayView{Matched: matched}
	if !dry.Value {
		view.ReplayID = &id
		x.Header().Set("Location", apiRoot+"/webhooks/"+w.ID.String()+"/replays/"+id.String())
	}
	return x.answer(http.StatusAccepted, view)
}

type replayView struct {
	ReplayID *domain.ReplayID `json:"replay_id"` // null: only counted
	Matched  int              `json:"matched"`
}

func (s *Server) handleReplayGet(x *exchange, r *http.Request) error {
	if err := readQuery(r).done(); err != nil {
		return err
	}
	w, err := s.anyWebhookInPath(r)
	if err != nil {
		return err
	}
	id, ok := parseUUID(mux.Vars(r)["replay"])
	if !ok {
		return domain.NotFound("replay")
	}
	replay, err := s.queries.Replay(r.Context(), w.ID, domain.ReplayID(id))
	if err != nil {
		return err
	}
	return x.answer(http.StatusOK, replay)
}

// readTime reads a time in RFC 3339; null is as good as leaving it out.
func readTime(to *time.Time) func([]byte) string {
	return func(raw []byte) string {
		if isNull(raw) {
			return ""
		}
		text, _ := domain.JSONText(json.RawMessage(raw))
		at, ok := parseTime(text)
		if !ok {
			return mustBeTime
		}
		*to = at
		return ""
	}
}
