package projections

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// placedDelivery is a delivery as the log has it.
type placedDelivery struct {
	domain.Delivery
	id     domain.DeliveryID
	event  eventHead
	number int
	unsent bool // in a batch that was not tried
	again  bool // asked for again after a success, whose answer is not listed any more
}

// allDeliveries folds the whole log, and returns the deliveries in the order of their list.
func (b *bench) allDeliveries() (all []placedDelivery) {
	b.t.Helper()
	events, states := map[domain.EventID]eventHead{}, map[domain.DeliveryID]domain.Delivery{}
	again := map[domain.DeliveryID]bool{}
	numbers := map[domain.WebhookID]int{}
	err := b.log.Each(b.ctx, 0, eventstore.Filter{}, func(e eventstore.Event) error {
		kind, id, err := domain.ParseStream(e.Stream)
		change, ok := e.Value.(domain.Change)
		if err != nil || !ok {
			return err
		}
		if registered, ok := change.(domain.WebhookRegistered); ok {
			numbers[registered.ID] = int(registered.Number)
		}
		if event, ok := newEvent(&e); ok {
			events[event.ID] = eventHead{event.ID, e.Position, event.Type, event.AcceptedAt, event.OccurredAt}
		}
		if d, ok := domain.DispatchOf(domain.EventID(id), change); ok {
			for _, one := range d.Deliveries {
				states[one.DeliveryID] = domain.Delivery{State: domain.DeliveryPending, EventID: d.EventID, WebhookID: one.WebhookID}
			}
		}
		if kind == "delivery" {
			switch change.(type) {
			case domain.DeliverySucceeded:
				again[domain.DeliveryID(id)] = true
			case domain.DeliveryAttemptFailed:
				delete(again, domain.DeliveryID(id))
			}
			states[domain.DeliveryID(id)] = states[domain.DeliveryID(id)].Evolve(change, e.RecordedAt)
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	for id, d := range states {
		one := placedDelivery{Delivery: d, id: id, event: events[d.EventID], number: numbers[d.WebhookID], again: (again[id] || again[d.BatchID]) && d.State != domain.DeliveryDelivered}
		if d.State == domain.DeliveryJoined {
			batch := states[d.BatchID]
			one.Delivery, one.unsent = d.In(batch), batch.Version == 1
		}
		if d.Members == nil {
			all = append(all, one)
		}
	}
	slices.SortFunc(all, func(a, b placedDelivery) int {
		return cmp.Or(cmp.Compare(b.event.position, a.event.position), cmp.Compare(b.number, a.number))
	})
	return all
}

// backlogOf is the queue as it would be.
type backlogOf []placedDelivery

func (all backlogOf) Backlog(_ context.Context, webhook domain.WebhookID, below eventstore.Position, due time.Time, limit int) (list []domain.Delivery, _ error) {
	for _, d := range all {
		if (d.Version == 0 || d.unsent) && d.State == domain.DeliveryPending && d.event.position < below && d.event.acceptedAt.Before(due) &&
			(webhook == domain.WebhookID{} || webhook == d.WebhookID) && len(list) < limit {
			d.NextAttemptAt = d.event.acceptedAt
			list = append(list, d.Delivery)
		}
	}
	return list, nil
}

func (b *bench) listedDeliveries(f DeliveryFilter, queue Backlog) (listed []domain.DeliveryID) {
	b.t.Helper()
	for {
		page, err := b.ListDeliveries(b.ctx, f, queue)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, d := range page.Items {
			listed = append(listed, d.ID)
		}
		if f.Cursor = page.NextCursor; f.Cursor == 0 {
			return listed
		}
		if len(page.Items) > f.Limit {
			b.t.Fatalf("a page of %d has %d", f.Limit, len(page.Items))
		}
	}
}

// TestDeliveriesAgreeWithTheLog compares lists by random filters with what the log holds.
func TestDeliveriesAgreeWithTheLog(t *testing.T) {
	b := newBench(t)
	h := newHistory(b, rand.Uint64())
	for range 300 {
		h.step()
	}
	b.fill()
	all := b.allDeliveries()
	matched := map[domain.DeliveryState]int{}
	again := map[domain.DeliveryID]bool{}
	for _, d := range all {
		again[d.id] = d.again
	}
	for range 150 {
		of := all[h.rand.IntN(len(all))]
		f := DeliveryFilter{Limit: []int{1, 7, 150}[h.rand.IntN(3)]}
		if h.rand.IntN(5) > 0 {
			f.State = of.State
		}
		if h.rand.IntN(2) == 0 {
			f.Webhook = of.WebhookID
		}
		if h.rand.IntN(3) == 0 {
			f.EventType = of.event.eventType
		}
		if h.rand.IntN(3) == 0 && of.LastStatus > 0 {
			f.Answer = StatusRange{of.LastStatus, of.LastStatus}
			if h.rand.IntN(2) == 0 {
				f.Answer = StatusRange{of.LastStatus / 100 * 100, of.LastStatus/100*100 + 99}
			}
		}
		if h.rand.IntN(3) == 0 {
			f.Attempts = 1 + h.rand.IntN(3)
		}
		if h.rand.IntN(4) == 0 {
			f.From = of.event.occurredAt
		} else if h.rand.IntN(4) == 0 {
			f.To = of.event.occurredAt
		}
		var want []domain.DeliveryID
		for _, d := range all {
			status := &d.LastStatus
			if d.LastStatus == 0 {
				status = nil
			}
			if (f.State == "" || f.State == d.State) && (f.Webhook == domain.WebhookID{} || f.Webhook == d.WebhookID) &&
				(f.EventType == "" || f.EventType == d.event.eventType) && f.Answer.has(status) && d.Attempts >= f.Attempts &&
				!d.event.occurredAt.Before(f.From) && (f.To.IsZero() || d.event.occurredAt.Before(f.To)) &&
				!(f.Answer != StatusRange{} && d.again) {
				want = append(want, d.id)
				matched[d.State]++
			}
		}
		got := slices.DeleteFunc(b.listedDeliveries(f, backlogOf(all)), func(id domain.DeliveryID) bool {
			return f.Answer != StatusRange{} && again[id]
		})
		if !slices.Equal(got, want) {
			for _, d := range all {
				if slices.Contains(got, d.id) != slices.Contains(want, d.id) {
					t.Errorf("%v, listed %v: %+v", d.id, slices.Contains(got, d.id), d)
				}
			}
			t.Fatalf("%+v lists %d, not %d", f, len(got), len(want))
		}
	}
	if len(matched) != 4 {
		t.Errorf("the filters let through %v", matched)
	}
}
