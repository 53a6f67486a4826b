package http

import (
	"fmt"
	"net/http"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/filter"
	"github.com/medilab/webhooks/projections"
)

// draft is what a webhook that is not created yet would have: see backtest.
var draft = object[backtestRequest]{name: "BacktestDraft", checked: true, limit: maxManagementBody, fields: append([]field[backtestRequest]{
	proposed[0].must(),
	asked("newest", jsonWhole, func(b *backtestRequest) *domain.Asked[int] { return &b.newest }, schema{
		"minimum": 1, "maximum": maxNewest, "description": "look only at so many of the newest events of these types, and list each with why it does not match",
	}),
}, proposed[1:]...)}

const (
	maxNewest = 200
	// newestLooked bounds the events among which those of the types are looked for.
	newestLooked = 1000
)

// draftView is a backtest of a webhook that does not exist.
type draftView struct {
	projections.Backtest
	Events []draftVerdict `json:"events,omitempty"` // the newest, if asked for
}

// draftVerdict is whether one event matches, and else why not.
type draftVerdict struct {
	EventID    domain.EventID `json:"event_id"`
	EventType  string         `json:"event_type"`
	OccurredAt moment         `json:"occurred_at"`
	Matched    bool           `json:"matched"`
	failedCondition
}

// backtestDraft tells what a webhook with these events and filters would have got.
func (s *Server) backtestDraft(x *request, r *http.Request) error {
	var in backtestRequest
	rules := func() []domain.FieldError {
		refused := append(s.specRules(r.Context(), &in.spec, false)(), domain.CheckRange(in.from, in.to)...)
		if !in.spec.Events.Given {
			refused = append(refused, domain.FieldError{Field: "events", Message: "is required"})
		}
		if n := in.newest; n.Given && !n.Null && (n.Value < 1 || n.Value > maxNewest) {
			refused = append(refused, domain.FieldError{Field: "newest", Message: fmt.Sprintf("must be from 1 to %d", maxNewest)})
		}
		return refused
	}
	if err := draft.read(x, r, &in, rules); err != nil {
		return err
	}
	if x.payloads != nil && x.payloads.withhold && in.spec.Filters.Given {
		return domain.Forbidden("the token needs the scope " + string(domain.ScopePayloadsRead) + " as well") // what matches tells of values
	}
	proposed, err := domain.NewMatcher(in.spec.Events.Value, in.spec.Filters.Value)
	if err != nil {
		return err
	}
	if in.newest.Value > 0 {
		return x.respond(s.matchNewest(x, r, proposed, in))
	}
	return s.runBacktest(x, r, projections.BacktestSpec{Events: proposed, From: in.from, To: in.to})
}

// matchNewest matches the newest events of the types, as many as are asked for.
func (s *Server) matchNewest(x *request, r *http.Request, proposed domain.Matcher, in backtestRequest) (*draftView, error) {
	const page = 50
	view := &draftView{Backtest: projections.Backtest{Samples: []projections.BacktestSample{}}, Events: []draftVerdict{}}
	task := x.limiter.Task()
	defer task.End()
	f := projections.EventFilter{From: in.from, To: in.to, Limit: page}
	for looked, bytes := 0, 0; looked < newestLooked && bytes < maxListBytes; looked += page {
		events, err := s.events(r.Context(), f, false)
		if err != nil {
			return nil, err
		}
		for i := range events.Items {
			e := &events.Items[i]
			if len(view.Events) == in.newest.Value {
				return view, nil
			}
			if e.IsGone() || !proposed.Subscribes(domain.EventType(e.Type)) {
				continue
			}
			if err := task.Spend(r.Context(), len(e.Data)); err != nil {
				return nil, err
			}
			bytes += len(e.Data)
			view.add(e, proposed.Explain(filter.Parse(e.Data)))
		}
		if f.Cursor = events.NextCursor; f.Cursor == 0 {
			break
		}
	}
	return view, nil
}

func (v *draftView) add(e *projections.Event, verdict filter.Verdict) {
	one := draftVerdict{EventID: e.ID, EventType: e.Type, OccurredAt: moment(e.OccurredAt), Matched: verdict.Matched}
	v.Considered++
	if verdict.Matched {
		v.Matched, v.Gained = v.Matched+1, v.Gained+1
	} else {
		one.failedCondition = conditionOf(verdict)
	}
	v.Events = append(v.Events, one)
}
