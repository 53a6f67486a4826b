package projections

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/filter"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/eventstore/cpulimit"
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
	// The event was only recorded (deliver: false); what a replay sent since is in SentBy.
	VerdictImported Verdict = "imported"
	// The webhook did not exist then, and a replay sent it the event.
	VerdictNotRegistered Verdict = "not_registered_yet"
)

// Verdicts are all of them.
var Verdicts = []Verdict{
	VerdictDelivered, VerdictPending, VerdictFailed, VerdictCancelled, VerdictNotSubscribed, VerdictInactive, VerdictFiltered, VerdictImported, VerdictNotRegistered,
}

// Explained is the verdict for one webhook, as it was when the event was accepted.
type Explained struct {
	Webhook  *domain.Webhook
	Verdict  Verdict
	Delivery *Delivery // nil: it did not match, or is not dispatched yet
	SentBy   []Sent    // all that sent it the event, whatever the verdict

	decided domain.Explanation // zero: the webhook did not exist then, or it is a test
	gone    Gone               // the event's data, by which it was decided
}

// Condition returns, of VerdictFiltered, which condition did not hold.
func (e *Explained) Condition() filter.Verdict {
	switch {
	case e.gone.Erased:
		return filter.Verdict{Reason: "event_data is erased: which condition did not hold is not known any more"}
	case e.gone.Expired:
		return filter.Verdict{Reason: "event_data has expired: which condition did not hold is not known any more"}
	}
	return e.decided.Filter()
}

// Explain returns the verdict for every webhook that existed when the event was
// accepted, by number, and for those that a replay sent it to since, or a *domain.Error of
// KindNotFound. It matches the event against the configuration of that time. The event of
// a test call has its webhook alone.
func (p *Projections) Explain(ctx context.Context, id domain.EventID) (Event, []Explained, error) {
	event, dispatched, err := p.event(ctx, id)
	if errors.Is(err, domain.KindNotFound) {
		return p.explainTest(ctx, id, err)
	}
	if err != nil {
		return Event{}, nil, err
	}
	known, err := p.replayedTo(ctx, id, dispatched)
	if err != nil {
		return Event{}, nil, err
	}
	list, err := p.deliveries(ctx, event, known)
	if err != nil {
		return Event{}, nil, err
	}
	deliveries, wanted := map[domain.WebhookID]*Delivery{}, map[domain.WebhookID]bool{}
	for i := range list {
		deliveries[list[i].WebhookID] = &list[i]
	}
	for _, d := range dispatched {
		wanted[d.WebhookID] = true
	}
	explained, err := p.match(ctx, &event, deliveries, wanted)
	if err != nil {
		return Event{}, nil, fmt.Errorf("explain an event: %w", err)
	}
	for i := range list { // in their order
		if deliveries[list[i].WebhookID] == nil {
			continue
		}
		w, err := p.WebhookAsOf(ctx, list[i].WebhookID, math.MaxInt64)
		if err != nil {
			return Event{}, nil, err
		}
		w.Version = 0 // then
		explained = append(explained, Explained{Webhook: &w, Verdict: VerdictNotRegistered, SentBy: list[i].sentBy})
	}
	return event, explained, nil
}

// match matches the event against the webhooks of its time, as an expensive task, and takes
// the deliveries to them out.
func (p *Projections) match(ctx context.Context, event *Event, deliveries map[domain.WebhookID]*Delivery, wanted map[domain.WebhookID]bool) ([]Explained, error) {
	registry, err := p.registryAt(ctx, event.Position)
	if err != nil {
		return nil, err
	}
	task := p.log.Limiter.Task()
	defer task.End()
	if err := task.Spend(ctx, cpulimit.Expensive); err != nil {
		return nil, err
	}
	of := make(map[*domain.Webhook]*Delivery, len(deliveries)) // so that no webhook is looked at for its id
	for id, d := range deliveries {
		of[registry.Find(id)] = d
	}
	explained := make([]Explained, 0, registry.Len())
	for x := range registry.Explain(domain.EventType(event.Type), event.Data) {
		d := of[x.Webhook]
		explained = append(explained, explain(event, x, d, d != nil && wanted[d.WebhookID]))
		if d != nil {
			delete(deliveries, d.WebhookID)
		}
	}
	return explained, nil
}

// explain returns the verdict for a webhook. d is the delivery of the event to it, if there is
// one, and wanted says that the event was dispatched to it.
func explain(event *Event, x domain.Explanation, d *Delivery, wanted bool) Explained {
	one := Explained{Webhook: x.Webhook, SentBy: []Sent{}, decided: x, gone: event.Gone}
	if d != nil {
		one.SentBy = d.sentBy
	}
	switch {
	case !event.Deliver:
		one.Verdict = VerdictImported
	// A matching webhook may have got the event by a replay before an older version
	// had decided it: event.dispatched then leaves that delivery out.
	case d != nil && (wanted || x.Matched):
		one.Verdict, one.Delivery = Verdict(d.State), d
	case !x.Subscribed:
		one.Verdict = VerdictNotSubscribed
	case !x.Active:
		one.Verdict = VerdictInactive
	case x.Matched:
		one.Verdict = VerdictPending // an older version left it undecided
	default:
		one.Verdict = VerdictFiltered
	}
	return one
}

// explainTest explains the event of a test call, which only its call has. The error is
// notFound when there is none.
func (p *Projections) explainTest(ctx context.Context, id domain.EventID, notFound error) (Event, []Explained, error) {
	tests, err := p.begunWith(ctx, id, nil)
	if err != nil {
		return Event{}, nil, err
	}
	for e, tested := range each[domain.DeliveryTested](tests) {
		if tested.EventID != id {
			continue
		}
		w, err := p.WebhookVersion(ctx, tested.WebhookID, tested.WebhookVersion)
		delivery := Delivery{ID: domain.DeliveryOf(id, tested.WebhookID)}
		delivery.show(domain.Delivery{}.Evolve(tested, e.RecordedAt))
		event := Event{ID: id, Type: tested.EventType, Source: "test", Data: tested.EventData, AcceptedAt: e.RecordedAt, OccurredAt: tested.StartedAt, Deliver: true, Position: e.Position, Gone: goneOf(tested.Content)}
		return event, []Explained{{Webhook: &w, Verdict: Verdict(delivery.State), Delivery: &delivery,
			SentBy: []Sent{{Kind: SentByTest, ID: uuid.UUID(delivery.ID), DeliveryID: delivery.ID, State: delivery.State}}}}, err
	}
	return Event{}, nil, notFound
}

// registryAt returns the webhooks as they were at the position. It goes on from those that
// it returned last, if they are not newer.
func (p *Projections) registryAt(ctx context.Context, at eventstore.Position) (*domain.Registry, error) {
	from, generation := p.registry.Load(), p.log.Generation()
	if from != nil && from.generation == generation && from.changed <= at && at <= from.at {
		return from.Registry, nil
	}
	if from == nil || from.at > at || from.generation != generation {
		from = &registryAt{Registry: domain.NewRegistry()}
	}
	configuration, err := p.log.Configuration(ctx, from.at, at)
	if err != nil {
		return nil, err
	}
	task := p.log.Limiter.Task()
	defer task.End()
	// Filters are compiled last: not those that were replaced.
	changed := map[domain.WebhookID]domain.Webhook{}
	for i := range configuration {
		e := &configuration[i]
		if err := task.Spend(ctx, len(e.Data)); err != nil {
			return nil, err
		}
		kind, stream, err := domain.ParseStream(e.Stream)
		change, ok := e.Value.(domain.Change)
		if id := domain.WebhookID(stream); ok && err == nil && kind == "webhook" {
			if _, known := changed[id]; !known {
				changed[id], _ = from.Webhook(id)
			}
			changed[id] = changed[id].Evolve(change, e.RecordedAt)
		}
	}
	draft := from.Draft()
	for id, w := range changed {
		const perByte = 32
		if err := task.Spend(ctx, perByte*len(w.Filters)); err != nil {
			return nil, err
		}
		draft.Set(id, w)
	}
	next := &registryAt{draft.Registry(), at, from.changed, generation}
	if n := len(configuration); n > 0 {
		next.changed = configuration[n-1].Position
	}
	p.registry.Store(next)
	return next.Registry, nil
}

// registryAt is the webhooks as of a position.
type registryAt struct {
	*domain.Registry
	at         eventstore.Position
	changed    eventstore.Position // the last change up to there
	generation int64               // of the log
}
