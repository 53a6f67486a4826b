package projections

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// allCalls returns the calls that the log holds, the newest first.
func (b *bench) allCalls() (calls []Call) {
	b.t.Helper()
	err := b.log.Each(b.ctx, 0, eventstore.Filter{}, func(e eventstore.Event) error {
		if call, ok := newCall(&e); ok {
			calls = append(calls, call)
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	slices.Reverse(calls)
	return calls
}

// listedCalls returns the positions of a whole list, which is read page by page.
func (b *bench) listedCalls(f CallFilter) (listed []eventstore.Position) {
	b.t.Helper()
	for f.Limit = 7; ; {
		page, err := b.Calls(b.ctx, f)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, c := range page.Items {
			listed = append(listed, c.Position)
		}
		if f.Cursor = page.NextCursor; f.Cursor == 0 {
			return listed
		}
		if len(page.Items) != f.Limit {
			b.t.Fatalf("a page of %d has %d and a cursor", f.Limit, len(page.Items))
		}
	}
}

// TestCallFiltersAgreeWithTheLog compares lists by random filters with what the log holds.
func TestCallFiltersAgreeWithTheLog(t *testing.T) {
	b := newBench(t)
	h := newHistory(b, rand.Uint64())
	for range 400 {
		h.step()
	}
	b.fill()
	all := b.allCalls()
	batches := map[domain.DeliveryID]domain.DeliveryID{} // of members
	members := map[domain.DeliveryID][]domain.EventID{}  // of batches
	for _, d := range h.deliveries {
		for _, m := range d.Members {
			batches[m.DeliveryID] = d.id
			members[d.id] = append(members[d.id], m.EventID)
		}
	}
	matched := 0
	for range 300 {
		of := all[h.rand.IntN(len(all))]
		f := CallFilter{}
		if h.rand.IntN(2) == 0 {
			f.Webhook = of.WebhookID
		}
		if h.rand.IntN(3) == 0 {
			f.Status = of.Status
		}
		if h.rand.IntN(3) == 0 {
			f.EventType = of.EventType
		}
		if h.rand.IntN(3) == 0 && of.ResponseStatus != nil {
			f.Answer = StatusRange{*of.ResponseStatus, *of.ResponseStatus}
			if h.rand.IntN(2) == 0 {
				f.Answer = StatusRange{*of.ResponseStatus / 100 * 100, *of.ResponseStatus/100*100 + 99}
			}
		}
		if h.rand.IntN(4) == 0 {
			f.Event = of.EventID
		}
		if h.rand.IntN(4) == 0 {
			f.Delivery = of.DeliveryID
		}
		if h.rand.IntN(4) == 0 {
			f.From = of.CreatedAt
		} else if h.rand.IntN(4) == 0 {
			f.To = of.CreatedAt
		}
		var want []eventstore.Position
		for _, c := range all {
			if (f.Webhook == domain.WebhookID{} || f.Webhook == c.WebhookID) && (f.Status == "" || f.Status == c.Status) &&
				(f.EventType == "" || f.EventType == c.EventType) &&
				(f.Answer == StatusRange{} || c.ResponseStatus != nil && *c.ResponseStatus >= f.Answer.From && *c.ResponseStatus <= f.Answer.To) &&
				(f.Event == domain.EventID{} || f.Event == c.EventID || slices.Contains(members[c.DeliveryID], f.Event)) &&
				(f.Delivery == domain.DeliveryID{} || f.Delivery == c.DeliveryID || batches[f.Delivery] == c.DeliveryID) &&
				!c.CreatedAt.Before(f.From) && (f.To.IsZero() || c.CreatedAt.Before(f.To)) {
				want = append(want, c.Position)
			}
		}
		matched += len(want)
		if got := b.listedCalls(f); !slices.Equal(got, want) {
			t.Fatalf("%+v lists %v, not %v", f, got, want)
		}
	}
	if matched == 0 {
		t.Error("no filter let a call through")
	}
}

// TestCallsOfACorrelation lists what one correlation id caused, with other filters and
// without.
func TestCallsOfACorrelation(t *testing.T) {
	b := newBench(t)
	w, other := b.register(1), b.register(2)
	var want, failed []eventstore.Position
	for n := range 60 {
		correlation := []string{"", "run-1", "run-\"2\""}[n%3]
		event := b.trigger("patient.created", correlation, w, other)
		webhook := []domain.WebhookID{w, other}[n%2]
		call := attempt(event, "patient.created", webhook, 1, 200, domain.OutcomeSuccess)
		var change domain.Change = domain.DeliverySucceeded{Call: call}
		if n%4 == 0 {
			call.Outcome, call.Status = "http_error", 503
			change = domain.DeliveryAttemptFailed{Call: call, GaveUp: domain.GaveUpRetriesExhausted}
		}
		appended, err := b.log.Append(b.ctx, eventstore.Unit{Writes: []eventstore.Write{{Stream: domain.DeliveryOf(event, webhook).Stream(),
			Events:   []eventstore.NewEvent{{Type: change.ChangeType(), Data: domain.AppendJSON(nil, change), Value: change}},
			Metadata: eventstore.Metadata{Actor: "test", CorrelationID: correlation}}}})
		if err != nil {
			t.Fatal(err)
		}
		b.head = appended.First
		if n%3 == 2 {
			want = append(want, b.head)
			if n%4 == 0 {
				failed = append(failed, b.head)
			}
		}
	}
	b.fill()
	slices.Reverse(want)
	slices.Reverse(failed)
	if got := b.listedCalls(CallFilter{CorrelationID: "run-\"2\""}); !slices.Equal(got, want) {
		t.Errorf("listed are %v, not %v", got, want)
	}
	if got := b.listedCalls(CallFilter{CorrelationID: "run-\"2\"", Status: CallFailed}); !slices.Equal(got, failed) {
		t.Errorf("listed as failed are %v, not %v", got, failed)
	}
	if got := b.listedCalls(CallFilter{CorrelationID: "nobody's", Event: domain.EventID(uuid.New())}); got != nil {
		t.Errorf("listed for nobody are %v", got)
	}
}

// TestUnknownStatusesShareLists: a receiver that answers anything does not make a list for
// each, and each can be asked for.
func TestUnknownStatusesShareLists(t *testing.T) {
	kinds := map[int32]bool{}
	for status := range 1000 {
		kinds[callKind(domain.Call{EventType: "patient.created", Status: status})] = true
		from, to := StatusRange{status, status}.listed()
		if of := listedStatus(status); of < from || of > to {
			t.Fatalf("%d is listed as %d, and looked for in %d to %d", status, of, from, to)
		}
		from, to = StatusRange{status / 100 * 100, status/100*100 + 99}.listed()
		if of := listedStatus(status); of < from || of > to {
			t.Fatalf("%d is listed as %d, and its class is looked for in %d to %d", status, of, from, to)
		}
	}
	if len(kinds) > 610 {
		t.Errorf("there are %d lists", len(kinds))
	}
}
