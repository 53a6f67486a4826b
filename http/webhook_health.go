package http

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

var healthOrder = choiceParam("sort", "urgency: what needs a hand first; the others as their names say, names from A, all else the most or newest first",
	"urgency", "urgency", "name", "number", "failures", "pending", "last_call").mustFill()

func (s *Server) webhookHealthOperations() []operation {
	return []operation{{
		method: "GET", path: "/webhooks/health", id: "webhooksHealth", summary: "Webhooks with how they stand and the calls of their last 24 hours, and totals of all that match", scope: domain.ScopeWebhooksRead,
		query: []queryParam{webhookStatus, eventType, webhookWords, healthOrder, limit, cursor}, answer: answerOf[healthPage], serve: s.listHealth,
	}}
}

// healthView is a webhook with its health.
type healthView struct {
	ID     domain.WebhookID `json:"id"`
	Number int64            `json:"number"`
	Name   string           `json:"name"`
	URL    string           `json:"url"`
	Status string           `json:"status"`
	projections.Standing
	projections.Health

	folded string // the name in lower case
}

type healthPage struct {
	Items      []healthView       `json:"items"`
	NextCursor projections.Cursor `json:"next_cursor"`
	Totals     healthTotals       `json:"totals"`
}

// healthTotals are of all webhooks that match, not of a page.
type healthTotals struct {
	Webhooks int   `json:"webhooks"`
	Active   int   `json:"active"`
	Failing  int   `json:"failing"` // active, and the last call failed
	Pending  int64 `json:"pending_deliveries"`

	OldestSeconds float64 `json:"oldest_waiting_seconds"` // how long the oldest delivery that waits for an active webhook has waited, of all webhooks
}

// listHealth sorts by what is known of all webhooks, and reads the hours of one page only.
// The cursor is how many webhooks there were before: the order changes as calls are made.
func (s *Server) listHealth(x *request, r *http.Request) error {
	if err := s.commands.Directory.CatchUp(r.Context()); err != nil {
		return err
	}
	standings, err := s.queries.Standings(r.Context())
	if err != nil {
		return err
	}
	matching, err := s.healthMatching(r.Context(), x, standings)
	if err != nil {
		return err
	}
	page := healthPage{Items: []healthView{}}
	for _, v := range matching {
		page.Totals.add(v)
	}
	slices.SortStableFunc(matching, healthOrders[healthOrder.of(x)])
	shown := pageOf(matching, x)
	page.NextCursor = shown.NextCursor
	ids := make([]domain.WebhookID, len(shown.Items))
	for i, v := range shown.Items {
		page.Items, ids[i] = append(page.Items, *v), v.ID
	}
	if page.Totals.OldestSeconds, err = s.oldestWaiting(r.Context(), standings); err != nil {
		return err
	}
	health, err := s.queries.HealthOf(r.Context(), ids, time.Now())
	if err != nil {
		return err
	}
	for i := range page.Items {
		page.Items[i].Health = *health[ids[i]]
	}
	return x.respond(page, nil)
}

// oldestWaiting returns for how many seconds the oldest delivery has waited, since its event was
// accepted. Those that wait for a webhook to be activated do not count.
func (s *Server) oldestWaiting(ctx context.Context, standings map[domain.WebhookID]*projections.Standing) (float64, error) {
	age, err := s.commands.Queue.Age(ctx, s.commands.Directory) // what was never tried is due since then
	if err != nil {
		return 0, err
	}
	but := []int64{}
	for id, standing := range standings {
		if w, known := s.commands.Directory.Webhook(id); known && !w.Active && standing.Pending > 0 {
			but = append(but, w.Number)
		}
	}
	retried, err := s.queries.OldestRetried(ctx, but)
	if !retried.IsZero() {
		age = max(age, time.Since(retried))
	}
	return age.Seconds(), err
}

// healthMatching returns the webhooks that are asked for, the newest first.
func (s *Server) healthMatching(ctx context.Context, x *request, standings map[domain.WebhookID]*projections.Standing) ([]*healthView, error) {
	const usual = 500
	task := x.limiter.Task()
	defer task.End()
	matches := askedWebhooks(x)
	var views []*healthView
	for w := range s.commands.Directory.Newest() {
		if err := task.Spend(ctx, usual+len(w.Description)); err != nil {
			return nil, err
		}
		if !matches(w) {
			continue
		}
		v := &healthView{ID: w.ID, Number: w.Number, Name: w.Name, URL: w.URL, Status: statusOf(w), folded: strings.ToLower(w.Name)}
		if standing := standings[w.ID]; standing != nil {
			v.Standing = *standing
		}
		views = append(views, v)
	}
	return views, nil
}

func (t *healthTotals) add(v *healthView) {
	t.Webhooks++
	t.Pending += v.Pending
	if v.Status != "active" {
		return
	}
	t.Active++
	if v.ConsecutiveFailures > 0 {
		t.Failing++
	}
}

// urgency is higher for what needs a hand sooner.
func (v *healthView) urgency() int {
	const many = 10 // failures in a row, see the alert
	switch active := v.Status == "active"; {
	case active && v.ConsecutiveFailures > many:
		return 4
	case active && v.ConsecutiveFailures > 0:
		return 3
	case v.OpenAlerts > 0:
		return 2
	case v.Pending > 0:
		return 1
	}
	return 0
}

var healthOrders = map[string]func(a, b *healthView) int{
	"urgency": func(a, b *healthView) int {
		return cmp.Or(b.urgency()-a.urgency(), cmp.Compare(b.Pending, a.Pending), cmp.Compare(b.ConsecutiveFailures, a.ConsecutiveFailures), newest(b.LastFailureAt, a.LastFailureAt))
	},
	"name":      func(a, b *healthView) int { return cmp.Compare(a.folded, b.folded) },
	"number":    func(a, b *healthView) int { return cmp.Compare(b.Number, a.Number) },
	"failures":  func(a, b *healthView) int { return cmp.Compare(b.ConsecutiveFailures, a.ConsecutiveFailures) },
	"pending":   func(a, b *healthView) int { return cmp.Compare(b.Pending, a.Pending) },
	"last_call": func(a, b *healthView) int { return newest(b.LastCallAt, a.LastCallAt) },
}

// newest compares times, of which nil is before all.
func newest(a, b *time.Time) int {
	return cmp.Compare(unixOf(a), unixOf(b))
}

func unixOf(at *time.Time) int64 {
	if at == nil {
		return 0
	}
	return at.UnixMicro()
}
