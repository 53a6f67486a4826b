package saga

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// tellGivenUp tells of the deliveries that the page ends without success, each once, and
// resolves alerts about others that it ends well.
func (a *Alerts) tellGivenUp(ctx context.Context, page eventstore.Page) error {
	var told []eventstore.Write
	ended := false
	for i := range page.Events {
		e := &page.Events[i]
		ended = ended || a.endsGivenUp(e)
		failed, ok := e.Value.(domain.DeliveryAttemptFailed)
		if !ok || failed.GaveUp == "" {
			continue
		}
		lost, err := a.eventsOf(ctx, domain.DeliveryID(streamID(e.Stream)), failed.Call)
		if err != nil {
			return err
		}
		for _, l := range lost {
			event, triggered := domain.GivenUpEvent(l.id, l.call, e.RecordedAt)
			metadata := eventstore.Metadata{Actor: ActorAlerts, CausationID: l.call.EventID.String()}
			told = append(told, commands.Write(event.Stream(), 0, metadata, triggered))
		}
		w, ok := a.Directory.Webhook(failed.WebhookID)
		if ok && w.Exists() && len(lost) > 0 && failed.GaveUp == domain.GaveUpRetriesExhausted {
			if err := a.decide(ctx, w, []domain.Finding{domain.FindGivenUp(failed.Call, int64(e.Position))}); err != nil {
				return err
			}
		}
	}
	if err := a.tell(ctx, page.Last(), told); err != nil || !ended {
		return err
	}
	const patience = time.Second // the next scan resolves them too
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if a.Basis.WaitFor(wait, page.Last()) != nil {
		return ctx.Err()
	}
	return a.judgeGivenUp(ctx)
}

// endsGivenUp reports whether the event may end a delivery that an open alert counts.
func (a *Alerts) endsGivenUp(e *eventstore.Event) bool {
	var webhook domain.WebhookID
	switch c := e.Value.(type) {
	case domain.DeliverySucceeded:
		if c.Attempt == 1 && c.ReplayID == (domain.ReplayID{}) {
			return false
		}
		webhook = c.WebhookID
	case domain.DeliveryCancelled:
		webhook = c.WebhookID
	}
	return a.state.open[domain.AlertKey{Webhook: webhook, Kind: domain.AlertGivenUp}]
}

// lostEvent is an event of the clinic on its way to one webhook, and its last call.
type lostEvent struct {
	id   domain.DeliveryID
	call domain.Call
}

// eventsOf returns the clinic's events that the delivery stands for: of a batch, those of
// its members. A batch that cannot be read stands for itself.
func (a *Alerts) eventsOf(ctx context.Context, id domain.DeliveryID, call domain.Call) (lost []lostEvent, err error) {
	switch {
	case call.IsSystem():
		return nil, nil
	case call.EventType != string(domain.BatchEventType):
		return []lostEvent{{id, call}}, nil
	}
	members, _, err := commands.BatchEvents(ctx, a.Log, id, false)
	if errors.Is(err, commands.ErrUnreadable) {
		return []lostEvent{{id, call}}, nil
	}
	for _, m := range members {
		if !m.EventType.IsSystem() && call.Sent(domain.EventID(m.EventID)) {
			call.EventID, call.EventType = domain.EventID(m.EventID), string(m.EventType)
			lost = append(lost, lostEvent{domain.DeliveryOf(call.EventID, call.WebhookID), call})
		}
	}
	return lost, err
}

// tell appends the events that are not in the log yet, if there is a webhook that asks for
// them at the position.
func (a *Alerts) tell(ctx context.Context, at eventstore.Position, events []eventstore.Write) error {
	if len(events) == 0 {
		return nil
	}
	if a.Directory.Position() < at {
		if err := a.Directory.CatchUp(ctx); err != nil {
			return err
		}
	}
	if !a.Directory.Wanted(domain.DeliveryGivenUp) {
		return nil
	}
	const together = 100
	for part := range slices.Chunk(events, together) {
		again := false
		_, err := a.Directory.Execute(ctx, func(ctx context.Context) (eventstore.Unit, error) {
			if !again {
				again = true
				return eventstore.Unit{Writes: part}, nil
			}
			rest, err := notBegun(ctx, a.Log, part, func(w eventstore.Write) string { return w.Stream })
			return eventstore.Unit{Writes: rest}, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// notBegun leaves out those of which the log has the stream.
func notBegun[T any](ctx context.Context, log *eventstore.Log, all []T, stream func(T) string) ([]T, error) {
	streams := make([]string, len(all))
	for i, one := range all {
		streams[i] = stream(one)
	}
	begun, err := log.LoadFirst(ctx, streams)
	known := map[string]bool{}
	for _, e := range begun {
		known[e.Stream] = true
	}
	return slices.DeleteFunc(slices.Clone(all), func(one T) bool { return known[stream(one)] }), err
}

// judgeGivenUp resolves the open alerts whose deliveries have ended, or are old.
func (a *Alerts) judgeGivenUp(ctx context.Context) error {
	none := true
	for key := range a.state.open {
		none = none && key.Kind != domain.AlertGivenUp
	}
	if none {
		return nil
	}
	at, last, err := a.Basis.GivenUp(ctx)
	if err != nil || at < a.state.position { // it may lack what raised an alert
		return err
	}
	now := a.Log.Clock().Now()
	for id, when := range last {
		w, ok := a.Directory.Webhook(id)
		finding := domain.JudgeGivenUp(when, now, int64(at))
		if !ok || finding.Holds {
			continue
		}
		if err := a.decide(ctx, w, []domain.Finding{finding}); err != nil {
			return err
		}
	}
	return nil
}
