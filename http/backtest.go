package http

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

type backtestRequest struct {
	spec     domain.WebhookSpec // events, filters and retries of it
	from, to time.Time
	newest   domain.Asked[int] // of a draft
}

// proposed are the fields of what is tried; the events are the first.
var proposed = []field[backtestRequest]{
	asked("events", jsonTexts, func(b *backtestRequest) *domain.Asked[[]string] { return &b.spec.Events }, eventsSchema),
	asked("filters", jsonFilters, func(b *backtestRequest) *domain.Asked[json.RawMessage] { return &b.spec.Filters }, filtersSchema),
	plain("from", jsonTime, func(b *backtestRequest) *time.Time { return &b.from }, schema{"description": "of the history to look through; left out: from its beginning"}),
	plain("to", jsonTime, func(b *backtestRequest) *time.Time { return &b.to }, schema{"description": "left out: to its end"}),
}

var backtest = object[backtestRequest]{name: "Backtest", optional: true, checked: true, limit: maxManagementBody, fields: append([]field[backtestRequest]{
	proposed[0].notNull(),
	asked("max_retries", jsonWhole, func(b *backtestRequest) *domain.Asked[int] { return &b.spec.MaxRetries },
		within(domain.MaxRetriesRange, "to try instead of the webhook's; with it, or one of the next two, the answer has `retries`")),
	asked("retry_delay", jsonWhole, func(b *backtestRequest) *domain.Asked[int] { return &b.spec.RetryDelay },
		within(domain.RetryDelayRange, "seconds, likewise")),
	asked("timeout", jsonWhole, func(b *backtestRequest) *domain.Asked[int] { return &b.spec.Timeout },
		within(domain.TimeoutRange, "seconds, likewise")),
}, proposed[1:]...)}

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
	if x.payloads != nil && x.payloads.withhold && in.spec.Filters.Given { // what matches tells of values
		read := domain.DataRead{What: x.operation.id, Asked: map[string]string{"webhook": w.ID.String()}}
		if err := s.commands.RecordReading(r.Context(), x.caller, read); err != nil {
			return err
		}
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
	return s.runBacktest(x, r, projections.BacktestSpec{Webhook: w.ID, Events: proposed, Retries: in.spec.RetryPolicy(w), From: in.from, To: in.to})
}

// runBacktest looks through the log, one of a few at once. A caller that accepts lines of JSON gets
// lines of progress, a few times a second, and last the result; without that the answer was cut off.
func (s *Server) runBacktest(x *request, r *http.Request, spec projections.BacktestSpec) error {
	if err := x.acquire(s.logReads); err != nil {
		return err
	}
	var out *lineWriter
	if strings.Contains(r.Header.Get("Accept"), ndjson) {
		out = newLineWriter(x)
		spec.Progress = func(at projections.BacktestProgress) error { return out.writeNow(encode(at)) }
	}
	result, err := query(r.Context(), s, func(ctx context.Context, q *projections.Projections) (projections.Backtest, error) {
		return q.Backtest(ctx, spec)
	})
	if err != nil || out == nil {
		return x.respond(result, err)
	}
	line, err := x.payloads.answer(madeOf(encode(result)))
	if err != nil {
		return err
	}
	return out.writeNow(line)
}
