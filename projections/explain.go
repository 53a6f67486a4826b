package projections

import (
	"context"
	"fmt"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/filter"
)

// Verdict says what became of an event for one webhook.
type Verdict string

// The verdicts. The first four are states of a delivery.
const (
	VerdictDelivered     Verdict = "delivered"
	VerdictPending       Verdict = "pending"
	VerdictFailed        Verdict = "failed"
	VerdictCancelled     Verdict = "cancelled"
	VerdictNotSubscribed Verdict = "type_not_subscribed"
	VerdictInactive      Verdict = "inactive"
	VerdictFiltered      Verdict = "filtered"
)

// Explained is the verdict for one webhook, as it was when the event was accepted.
type Explained struct {
	Webhook  domain.Webhook
	Verdict  Verdict
	Filter   filter.Verdict // of VerdictFiltered: which condition did not hold
	Delivery *Delivery      // nil: it did not match, or is not dispatched yet
}

// Explain returns the verdict for every webhook that existed when the event was
// accepted, by number, or a *domain.Error of KindNotFound. It matches the event
// against the configuration of that time.
func (p *Projections) Explain(ctx context.Context, id domain.EventID) (Event, []Explained, error) {
	event, dispatched, err := p.event(ctx, id)
	if err != nil {
		return Event{}, nil, err
	}
	deliveries := map[domain.WebhookID]*Delivery{}
	known, err := p.replayedTo(ctx, id, dispatched)
	if err != nil {
		return Event{}, nil, err
	}
	list, err := p.deliveries(ctx, event, known)
	if err != nil {
		return Event{}, nil, err
	}
	for i := range list {
		deliveries[list[i].WebhookID] = &list[i]
	}
	wanted := map[domain.WebhookID]bool{}
	for _, d := range dispatched {
		wanted[d.WebhookID] = true
	}
	configuration, err := p.log.ConfigurationUpTo(ctx, event.Position)
	if err != nil {
		return Event{}, nil, fmt.Errorf("explain an event: %w", err)
	}
	draft := domain.NewRegistry().Draft()
	for i := range configuration {
		e := &configuration[i]
		decode(e)
		kind, stream, err := domain.ParseStream(e.Stream)
		if change, ok := e.Value.(domain.Change); ok && err == nil && kind == "webhook" {
			draft.Apply(domain.WebhookID(stream), change, e.RecordedAt)
		}
	}
	var explained []Explained
	for _, x := range draft.Registry().Explain(domain.EventType(event.Type), event.Data) {
		one := Explained{Webhook: x.Webhook}
		// A matching webhook may have got the event by a replay before an older version
		// had decided it: event.dispatched then leaves that delivery out.
		if wanted[x.Webhook.ID] || x.Subscribed && x.Active && x.Filter.Matched {
			one.Delivery = deliveries[x.Webhook.ID]
		}
		switch {
		case one.Delivery != nil:
			one.Verdict = Verdict(one.Delivery.State)
		case !x.Subscribed:
			one.Verdict = VerdictNotSubscribed
		case !x.Active:
			one.Verdict = VerdictInactive
		case !x.Filter.Matched:
			one.Verdict, one.Filter = VerdictFiltered, x.Filter
		default:
			one.Verdict = VerdictPending // it matched: an older version left it undecided
		}
		explained = append(explained, one)
	}
	return event, explained, nil
}
