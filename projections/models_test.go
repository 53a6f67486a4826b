package projections

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

func TestCallsAreListedAndFiltered(t *testing.T) {
	b := newBench(t)
	b.serve()
	w, other := b.register(1), b.register(2)
	created := b.trigger("patient.created", "", w, other)
	updated := b.trigger("patient.updated", "", w)
	d1, d2 := domain.DeliveryOf(created, w), domain.DeliveryOf(updated, w)
	next := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
	b.append(d1.Stream(), domain.DeliveryAttemptFailed{Call: attempt(created, "patient.created", w, 1, 500, "http_error"), NextAttemptAt: next})
	b.append(d2.Stream(), domain.DeliverySucceeded{Call: attempt(updated, "patient.updated", w, 1, 200, domain.OutcomeSuccess)})
	b.append(d1.Stream(), domain.DeliveryInterrupted{EventID: created, EventType: "patient.created", WebhookID: w, Attempt: 2, URL: "https://h.example/in", Reason: "the node died"})
	middle := b.at
	b.append(d1.Stream(), domain.DeliverySucceeded{Call: attempt(created, "patient.created", w, 3, 204, domain.OutcomeSuccess)})
	test := domain.DeliveryOf(created, other)
	b.append(test.Stream(), domain.DeliveryTested{Call: attempt(created, "patient.created", w, 1, 0, "timeout"), EventData: []byte(`{}`)})
	b.append(domain.DeliveryOf(updated, other).Stream(), domain.DeliverySucceeded{Call: attempt(updated, "patient.updated", other, 1, 200, domain.OutcomeSuccess)})
	b.settle()

	type row struct {
		event   domain.EventID
		attempt int
		status  CallStatus
	}
	all := []row{{created, 1, CallFailed}, {created, 3, CallSuccess}, {created, 2, CallFailed}, {updated, 1, CallSuccess}, {created, 1, CallFailed}}
	for _, test := range []struct {
		name   string
		filter CallFilter
		want   []row
	}{
		{"all", CallFilter{}, all},
		{"failed", CallFilter{Status: CallFailed}, []row{all[0], all[2], all[4]}},
		{"success", CallFilter{Status: CallSuccess}, []row{all[1], all[3]}},
		{"a type", CallFilter{EventType: "patient.updated"}, []row{all[3]}},
		{"a type and a status", CallFilter{EventType: "patient.updated", Status: CallFailed}, nil},
		{"from", CallFilter{From: middle}, all[:3]},
		{"to", CallFilter{To: middle}, all[3:]},
		{"none", CallFilter{From: time.Now().Add(time.Hour)}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, limit := range []int{1, 2, 100} {
				var got []row
				f := test.filter
				f.Webhook, f.Limit = w, limit
				for {
					page, err := b.Calls(b.ctx, f)
					if err != nil {
						t.Fatal(err)
					}
					if len(page.Items) > limit {
						t.Fatalf("%d items of %d", len(page.Items), limit)
					}
					for _, c := range page.Items {
						got = append(got, row{c.EventID, c.Attempt, c.Status})
					}
					if page.NextCursor == 0 {
						break
					}
					f.Cursor = page.NextCursor
				}
				if !slices.Equal(got, test.want) {
					t.Errorf("by %d: got %v, want %v", limit, got, test.want)
				}
			}
		})
	}

	page, err := b.Calls(b.ctx, CallFilter{Webhook: w, Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	tested, interrupted, failed := page.Items[0], page.Items[2], page.Items[4]
	if !tested.Test || tested.ResponseStatus != nil || *tested.Error != "it said timeout" || string(tested.TestData) != "{}" {
		t.Errorf("the test call is %+v", tested)
	}
	if interrupted.DurationMS != nil || interrupted.Outcome != domain.OutcomeInterrupted || *interrupted.Error != "the node died" {
		t.Errorf("the interrupted call is %+v", interrupted)
	}
	if *failed.ResponseStatus != 500 || !failed.NextAttemptAt.Equal(next) || *failed.DurationMS != 1 || failed.DeliveryID != d1 {
		t.Errorf("the failed call is %+v", failed)
	}
	one, err := b.Call(b.ctx, w, failed.ID)
	if err != nil || one.Position != failed.Position || one.Record.Status != 500 {
		t.Errorf("the call by its id is %+v, %v", one, err)
	}
	if _, err := b.Call(b.ctx, other, failed.ID); !errors.Is(err, domain.KindNotFound) {
		t.Errorf("another webhook's call gives %v", err)
	}
	if _, err := b.Call(b.ctx, w, domain.CallAt(d1, 1<<40)); !errors.Is(err, domain.KindNotFound) {
		t.Errorf("a call of the future gives %v", err)
	}
}

// column returns the one column of the query's rows.
func column[T any](b *bench, sql string, args ...any) []T {
	b.t.Helper()
	rows, err := b.pool.Query(b.ctx, sql, args...)
	if err != nil {
		b.t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		b.t.Fatal(err)
	}
	return list
}

func TestEventsAndTheirDeliveries(t *testing.T) {
	b := newBench(t)
	b.serve()
	w, other := b.register(1), b.register(2)
	one := b.trigger("patient.created", "run-1", w, other)
	two := b.trigger("patient.updated", "run-1")
	three := b.trigger("patient.created", "")
	d := domain.DeliveryOf(one, w)
	b.append(d.Stream(), domain.DeliveryAttemptFailed{Call: attempt(one, "patient.created", w, 1, 410, "http_error"), GaveUp: domain.GaveUpGone})
	b.settle()

	for _, test := range []struct {
		name   string
		filter EventFilter
		want   []domain.EventID
	}{
		{"all", EventFilter{}, []domain.EventID{three, two, one}},
		{"a type", EventFilter{EventType: "patient.created"}, []domain.EventID{three, one}},
		{"a correlation", EventFilter{CorrelationID: "run-1"}, []domain.EventID{two, one}},
		{"both", EventFilter{CorrelationID: "run-1", EventType: "patient.created"}, []domain.EventID{one}},
		{"neither", EventFilter{CorrelationID: "run-2"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.filter.Limit = 1
			var got []domain.EventID
			for {
				page, err := b.Events(b.ctx, test.filter)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range page.Items {
					got = append(got, e.ID)
				}
				if test.filter.Cursor = page.NextCursor; page.NextCursor == 0 {
					break
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
	page, err := b.Deliveries(b.ctx, one, 1, 0)
	if err != nil || len(page.Items) != 1 || page.NextCursor == 0 {
		t.Fatalf("deliveries: %+v, %v", page, err)
	}
	if got := page.Items[0]; got.State != domain.DeliveryFailed || got.Attempts != 1 || *got.ResponseStatus != 410 || *got.Reason != "gone" || got.NextAttemptAt != nil {
		t.Errorf("the failed delivery is %+v", got)
	}
	page, err = b.Deliveries(b.ctx, one, 1, page.NextCursor)
	if err != nil || len(page.Items) != 1 || page.NextCursor != 0 || page.Items[0].State != domain.DeliveryPending || page.Items[0].NextAttemptAt == nil {
		t.Errorf("the second page is %+v, %v", page, err)
	}
	if page, err = b.Deliveries(b.ctx, three, 1, 0); err != nil || len(page.Items) != 0 {
		t.Errorf("an event for nobody: %+v, %v", page, err)
	}
	if _, err := b.Deliveries(b.ctx, domain.EventID(w), 1, 0); !errors.Is(err, domain.KindNotFound) {
		t.Errorf("no event gives %v", err)
	}
}

func TestMembersStandAsTheirBatch(t *testing.T) {
	b := newBench(t)
	b.serve()
	w := b.register(3, "patient.created")
	one, two := b.trigger("patient.created", "", w), b.trigger("patient.created", "", w)
	batch, batched, joined := domain.FormBatch(w, []domain.Waiting{
		{BatchMember: domain.BatchMember{EventID: one, DeliveryID: domain.DeliveryOf(one, w)}},
		{BatchMember: domain.BatchMember{EventID: two, DeliveryID: domain.DeliveryOf(two, w)}},
	})
	stands := func(event domain.EventID, want domain.DeliveryState, attempts int) {
		t.Helper()
		b.settle()
		page, err := b.Deliveries(b.ctx, event, 10, 0)
		if err != nil {
			t.Fatal(err)
		}
		d := page.Items[0]
		if d.State != want || d.Attempts != attempts || d.ID != domain.DeliveryOf(event, w) || d.EventID != event ||
			d.BatchID == nil || *d.BatchID != batch || (want == domain.DeliveryPending) != (d.NextAttemptAt != nil) {
			t.Errorf("the delivery is %+v", d)
		}
		_, explained, err := b.Explain(b.ctx, event)
		if err != nil || explained[0].Verdict != Verdict(want) {
			t.Errorf("explained as %+v, %v", explained, err)
		}
	}
	counted := func(want [3]int64) {
		t.Helper()
		s, err := b.Stats(b.ctx, w, StatsFilter{})
		if err != nil {
			t.Fatal(err)
		}
		if got := [3]int64{s.PendingDeliveries, s.Delivered, s.TotalCalls}; got != want {
			t.Errorf("pending, delivered and calls are %v, want %v", got, want)
		}
	}
	b.append(domain.DeliveryOf(one, w).Stream(), joined[0])
	b.append(domain.DeliveryOf(two, w).Stream(), joined[1])
	b.append(batch.Stream(), batched)
	stands(one, domain.DeliveryPending, 0)
	counted([3]int64{1, 0, 0})
	call := attempt(one, string(domain.BatchEventType), w, 1, 200, domain.OutcomeSuccess)
	b.append(batch.Stream(), domain.DeliverySucceeded{Call: call})
	stands(one, domain.DeliveryDelivered, 1)
	stands(two, domain.DeliveryDelivered, 1)
	counted([3]int64{0, 1, 1})
	calls, err := b.Calls(b.ctx, CallFilter{Webhook: w, EventType: string(domain.BatchEventType), Limit: 10})
	if err != nil || len(calls.Items) != 1 || calls.Items[0].DeliveryID != batch || calls.Items[0].EventID != one {
		t.Errorf("calls: %+v, %v", calls, err)
	}
	// A replay sends one of them by itself.
	b.append(domain.DeliveryOf(two, w).Stream(), domain.DeliveryRetryRequested{EventID: two, WebhookID: w, Attempt: 1})
	b.settle()
	counted([3]int64{1, 1, 1})
}

// A member that a replay could not send is no longer given up once its batch is over, however the log is cut
// into pages; the others are until they arrive.
func TestMemberLeftInAReplayedBatch(t *testing.T) {
	for _, together := range []bool{true, false} {
		b := newBench(t)
		w := b.register(3, "patient.created")
		var waiting []domain.Waiting
		for _, correlation := range []string{ofErased, "", ""} {
			event := b.trigger("patient.created", correlation, w)
			waiting = append(waiting, domain.Waiting{BatchMember: domain.BatchMember{EventID: event, DeliveryID: domain.DeliveryOf(event, w)}})
		}
		if !together {
			b.serve()
		}
		add := func(id domain.DeliveryID, change domain.Change) {
			if b.append(id.Stream(), change); !together {
				b.settle()
			}
		}
		batch, batched, joined := domain.FormBatch(w, waiting)
		for i, m := range waiting {
			add(m.DeliveryID, joined[i])
		}
		add(batch, batched)
		first := waiting[0].EventID
		add(batch, domain.DeliveryAttemptFailed{Call: attempt(first, string(domain.BatchEventType), w, 1, 500, "http_status"), GaveUp: domain.GaveUpRetriesExhausted})
		for _, m := range waiting[1:] {
			add(m.DeliveryID, domain.DeliveryRetryRequested{EventID: m.EventID, WebhookID: w, Attempt: 1, BatchID: batch})
		}
		add(batch, domain.DeliveryCancelled{EventID: first, WebhookID: w, Reason: domain.CancelReplayed, Was: domain.DeliveryFailed})
		call := attempt(waiting[1].EventID, "patient.created", w, 1, 200, domain.OutcomeSuccess)
		call.ReplayID = domain.ReplayID{1}
		add(waiting[1].DeliveryID, domain.DeliverySucceeded{Call: call})
		if together {
			b.fill()
		}
		var left []domain.DeliveryID
		rows, _ := b.pool.Query(b.ctx, `SELECT delivery FROM medilab.given_up`)
		left, err := pgx.CollectRows(rows, pgx.RowTo[domain.DeliveryID])
		if err != nil || !slices.Equal(left, []domain.DeliveryID{waiting[2].DeliveryID}) {
			t.Errorf("given up are %v, %v, want the last, %s", left, err, waiting[2].DeliveryID)
		}
		for state, want := range map[domain.DeliveryState]int{domain.DeliveryWithdrawn: 0, domain.DeliveryDelivered: 1, domain.DeliveryPending: 2} {
			if got := b.listedDeliveries(DeliveryFilter{State: state, Limit: 10}, backlogOf{}); !slices.Equal(got, []domain.DeliveryID{waiting[want].DeliveryID}) {
				t.Errorf("%s are %v, want %s", state, got, waiting[want].DeliveryID)
			}
		}
		if got := b.listedDeliveries(DeliveryFilter{State: domain.DeliveryFailed, Limit: 10}, backlogOf{}); len(got) > 0 {
			t.Errorf("failed are %v", got)
		}
		filled := b.dump()
		if err := b.Rebuild(b.ctx, nil, nil); err != nil {
			t.Fatal(err)
		}
		equalDumps(t, b.dump(), filled)
	}
}

// A replay may end a batch after its members were read: only what is gone shows as cancelled.
func TestMemberReadBeforeAReplayTookIt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	w := b.register(3, "patient.created")
	var waiting []domain.Waiting
	for _, correlation := range []string{ofErased, ""} {
		event := b.trigger("patient.created", correlation, w)
		waiting = append(waiting, domain.Waiting{BatchMember: domain.BatchMember{EventID: event, DeliveryID: domain.DeliveryOf(event, w)}})
	}
	batch, batched, joined := domain.FormBatch(w, waiting)
	for i, m := range waiting {
		b.append(m.DeliveryID.Stream(), joined[i])
	}
	first := waiting[0].EventID
	b.append(batch.Stream(), batched,
		domain.DeliveryAttemptFailed{Call: attempt(first, string(domain.BatchEventType), w, 1, 500, "http_status"), GaveUp: domain.GaveUpRetriesExhausted},
		domain.DeliveryCancelled{EventID: first, WebhookID: w, Reason: domain.CancelReplayed, Was: domain.DeliveryFailed})
	for i, want := range []string{"cancelled subject_erased", "failed "} {
		page, err := b.Deliveries(b.ctx, waiting[i].EventID, 1, 0)
		if err != nil || len(page.Items) != 1 {
			t.Fatal(page.Items, err)
		}
		d, reason := page.Items[0], ""
		if d.Reason != nil {
			reason = *d.Reason
		}
		if got := fmt.Sprintf("%s %s", d.State, reason); got != want {
			t.Errorf("member %d is %q, want %q", i, got, want)
		}
	}
}

// Whatever sent an event is explained: the dispatch, in a batch or not, and each replay,
// to webhooks that did not match or did not exist then too; and what a test sent.
func TestEverythingThatWasSentIsExplained(t *testing.T) {
	b := newBench(t)
	w, other, batching := b.register(1), b.register(2, "visit.created"), b.register(3)
	event := b.trigger("patient.created", "", w, batching)
	late := b.register(4)
	succeed := func(w domain.WebhookID, n int) domain.Change {
		return domain.DeliverySucceeded{Call: attempt(event, "patient.created", w, n, 200, domain.OutcomeSuccess)}
	}
	fail := domain.DeliveryAttemptFailed{Call: attempt(event, "patient.created", w, 1, 500, "http_error"), GaveUp: domain.GaveUpRetriesExhausted}
	of := func(w domain.WebhookID) domain.DeliveryID { return domain.DeliveryOf(event, w) }
	first, second := uuid.Must(uuid.NewV7()).String(), uuid.Must(uuid.NewV7()).String()
	replay := func(by string, w domain.WebhookID) {
		t.Helper()
		b.replay(by, of(w).Stream(), domain.DeliveryRetryRequested{EventID: event, WebhookID: w, Attempt: 1})
	}
	b.append(of(w).Stream(), fail, domain.DeliveryRetryRequested{EventID: event, WebhookID: w}, fail) // a retry is of the dispatch
	batch, batched, joined := domain.FormBatch(batching, []domain.Waiting{{BatchMember: domain.BatchMember{EventID: event, DeliveryID: of(batching)}}})
	b.append(of(batching).Stream(), joined[0])
	b.append(batch.Stream(), batched, succeed(batching, 1))
	for _, id := range []domain.WebhookID{w, batching, other, late} {
		replay(first, id)
	}
	b.append(of(w).Stream(), succeed(w, 3))
	replay(second, w)
	b.append(of(late).Stream(), succeed(late, 1))

	_, explained, err := b.Explain(b.ctx, event)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range explained {
		line := fmt.Sprint(x.Webhook.Number, " ", x.Verdict)
		for _, s := range x.SentBy {
			by := map[string]string{first: "first", second: "second", s.DeliveryID.String(): "itself"}[s.ID.String()]
			if line += fmt.Sprintf(", %s by %s %s", s.Kind, by, s.State); s.DeliveryID != of(x.Webhook.ID) {
				t.Errorf("%s was sent as %s", line, s.DeliveryID)
			}
		}
		got = append(got, line)
	}
	want := []string{
		"1 pending, dispatch by itself failed, replay by first delivered, replay by second pending",
		"2 type_not_subscribed, replay by first pending",
		"3 pending, dispatch by itself delivered, replay by first pending",
		"4 not_registered_yet, replay by first delivered",
	}
	if !slices.Equal(got, want) {
		t.Errorf("explained as\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	tested := domain.EventID(uuid.Must(uuid.NewV7()))
	test := domain.DeliveryOf(tested, w)
	b.append(test.Stream(), domain.DeliveryTested{Call: attempt(tested, "visit.created", w, 1, 500, "http_error"), EventData: []byte(`{}`)})
	_, explained, err = b.Explain(b.ctx, tested)
	if err != nil || len(explained) != 1 || explained[0].Verdict != VerdictFailed ||
		!slices.Equal(explained[0].SentBy, []Sent{{Kind: SentByTest, ID: uuid.UUID(test), DeliveryID: test, State: domain.DeliveryFailed}}) {
		t.Errorf("a test is explained as %+v, %v", explained, err)
	}
}

func TestStatsCountEveryCallAndDelivery(t *testing.T) {
	b := newBench(t)
	b.serve()
	w := b.register(1)
	one := b.trigger("patient.created", "", w)
	two := b.trigger("patient.updated", "", w)
	three := b.trigger("patient.updated", "", w)
	d1, d2, d3 := domain.DeliveryOf(one, w).Stream(), domain.DeliveryOf(two, w).Stream(), domain.DeliveryOf(three, w).Stream()
	fail := func(event domain.EventID, eventType string, n, status int, outcome domain.Outcome, gaveUp domain.GaveUp) domain.Change {
		return domain.DeliveryAttemptFailed{Call: attempt(event, eventType, w, n, status, outcome), GaveUp: gaveUp}
	}
	b.append(d1, domain.DeliverySucceeded{Call: attempt(one, "patient.created", w, 1, 200, domain.OutcomeSuccess)})
	b.append(d2, fail(two, "patient.updated", 1, 500, "http_error", ""))
	began := b.at
	b.append(d2,
		domain.DeliveryInterrupted{EventID: two, EventType: "patient.updated", WebhookID: w, Attempt: 2, Reason: "the node died"},
		fail(two, "patient.updated", 3, 0, domain.OutcomeTimeout, domain.GaveUpRetriesExhausted),
		domain.DeliveryOutcomeLate{Call: attempt(two, "patient.updated", w, 2, 200, domain.OutcomeSuccess)})
	b.append("delivery-"+domain.EventID(w).String(), domain.DeliveryTested{Call: attempt(one, "patient.created", w, 1, 500, "http_error"), EventData: []byte(`{}`)})
	b.settle()

	s, err := b.Stats(b.ctx, w, StatsFilter{})
	if err != nil {
		t.Fatal(err)
	}
	if s.TotalCalls != 4 || s.SuccessfulCalls != 1 || s.FailedCalls != 3 || *s.SuccessRate != 25 || s.Timeouts != 1 || s.Retries != 2 ||
		*s.ConsecutiveFailures != 2 || s.PendingDeliveries != 1 || s.Delivered != 1 || s.Exhausted != 1 || s.Cancelled != 0 {
		t.Errorf("stats are %+v", s)
	}
	if *s.AverageMS < 1.6 || *s.AverageMS > 1.7 || *s.P50MS < 0.9 || *s.P50MS > 1.1 || *s.P99MS > 3.3 {
		t.Errorf("durations are %v, %v, %v", *s.AverageMS, *s.P50MS, *s.P99MS)
	}
	if s.ByStatus["200"] != 1 || s.ByStatus["500"] != 1 || s.ByStatus["timeout"] != 1 || s.ByStatus["interrupted"] != 1 ||
		s.ByEventType["patient.created"] != 1 || s.ByEventType["patient.updated"] != 3 {
		t.Errorf("parts are %v, %v", s.ByStatus, s.ByEventType)
	}
	standings, err := b.Standings(b.ctx)
	if err != nil || s.FailingSince == nil || !s.FailingSince.Equal(began) || !standings[w].FailingSince.Equal(began) {
		t.Errorf("failing since %v, want %v: %v", s.FailingSince, began, err)
	}
	if !s.LastCallAt.Equal(*s.LastFailureAt) || !s.LastSuccessAt.Before(*s.LastCallAt) {
		t.Errorf("last times are %v, %v, %v", s.LastCallAt, s.LastFailureAt, s.LastSuccessAt)
	}

	// Each request takes a delivery back from where it was, and a pending one from nowhere.
	b.append(d1, domain.DeliveryRetryRequested{EventID: one, WebhookID: w}, domain.DeliveryRetryRequested{EventID: one, WebhookID: w})
	b.append(d2, domain.DeliveryRetryRequested{EventID: two, WebhookID: w})
	b.append(d3, domain.DeliveryCancelled{EventID: three, WebhookID: w, Reason: domain.CancelRequested})
	b.settle()
	counts := func() [4]int64 {
		s, err := b.Stats(b.ctx, w, StatsFilter{})
		if err != nil {
			t.Fatal(err)
		}
		return [4]int64{s.PendingDeliveries, s.Delivered, s.Exhausted, s.Cancelled}
	}
	if got := counts(); got != [4]int64{2, 0, 0, 1} {
		t.Errorf("after retries: %v", got)
	}
	middle := b.at
	b.append(d3, domain.DeliveryRetryRequested{EventID: three, WebhookID: w})
	b.append(d1, domain.DeliverySucceeded{Call: attempt(one, "patient.created", w, 2, 200, domain.OutcomeSuccess)})
	b.settle()
	if got := counts(); got != [4]int64{2, 1, 0, 0} {
		t.Errorf("after the cancelled one's retry: %v", got)
	}

	// Statistics up to a time say how things stood then.
	then := StatsFilter{To: middle.Add(time.Microsecond)}
	if s, err := b.Stats(b.ctx, w, then); err != nil || [4]int64{s.PendingDeliveries, s.Delivered, s.Exhausted, s.Cancelled} != [4]int64{2, 0, 0, 1} ||
		*s.ConsecutiveFailures != 2 || s.FailingSince != nil || !s.LastCallAt.Before(middle) {
		t.Errorf("as of before: %+v, %v", s, err)
	}
	if s, err := b.SystemStats(b.ctx, then); err != nil || s.PendingDeliveries != 2 || s.ByWebhook[0].Pending != 2 || s.ByWebhook[0].TotalCalls != 4 || s.ConsecutiveFailures != nil {
		t.Errorf("the system as of before: %+v, %v", s, err)
	}

	system, err := b.SystemStats(b.ctx, StatsFilter{Bucket: BucketHour})
	if err != nil {
		t.Fatal(err)
	}
	if system.TotalCalls != 5 || system.EventsTotal != 3 || system.WebhooksTotal != 1 || system.WebhooksActive != 1 ||
		len(system.ByWebhook) != 1 || system.ByWebhook[0].TotalCalls != 5 || system.ByWebhook[0].Name != "Webhook 1" || system.Projections.LagEvents != 0 {
		t.Errorf("system stats are %+v", system)
	}
	total := int64(0)
	for _, part := range system.Series {
		total += part.TotalCalls
	}
	if total != 5 {
		t.Errorf("the series adds up to %d", total)
	}
	for _, test := range []struct {
		filter StatsFilter
		want   int64
	}{
		{StatsFilter{From: b.at.Add(-2 * time.Hour)}, 5},
		{StatsFilter{From: b.at.Add(-2 * time.Hour), To: b.at.Add(time.Hour), Bucket: BucketDay}, 5},
		{StatsFilter{From: b.at.Add(2 * time.Hour)}, 0},
		{StatsFilter{From: middle}, 1},
		{StatsFilter{To: b.at}, 4},
		{StatsFilter{From: middle, To: b.at, Bucket: BucketHour}, 0},
		{StatsFilter{To: b.at.Add(-2 * time.Hour)}, 0},
	} {
		s, err := b.Stats(b.ctx, w, test.filter)
		if err != nil || s.TotalCalls != test.want || (test.want == 0) != (s.SuccessRate == nil) {
			t.Errorf("%+v: %d calls, %v", test.filter, s.TotalCalls, err)
		}
	}
}

func TestPoisonIsParkedAndBlocksNothing(t *testing.T) {
	b := newBench(t)
	unknown := b.appendEvents("event-"+domain.EventID(webhookID(9)).String(), eventstore.NewEvent{Type: "event.of_the_future", Data: []byte(`{}`)})
	w := b.register(1)
	broken := b.appendEvents("webhook-"+domain.EventID(webhookID(8)).String(), eventstore.NewEvent{Type: "webhook.registered", Data: []byte(`{"number":"three"}`)})
	// It decodes, and no table takes it: its number is another's.
	taken := domain.WebhookRegistered{ID: webhookID(7), Number: 1, Name: "twin", Headers: []domain.SealedHeader{}}
	refused := b.append(webhookID(7).Stream(), taken)
	two := b.register(2)
	b.serve()
	b.settle()
	if got := column[domain.WebhookID](b, `SELECT id FROM medilab.webhooks ORDER BY number DESC`); !slices.Equal(got, []domain.WebhookID{two, w}) {
		t.Errorf("webhooks: %v", got)
	}
	got := column[eventstore.Position](b, `SELECT position FROM medilab.parked ORDER BY position DESC`)
	if !slices.Equal(got, []eventstore.Position{refused, broken, unknown}) {
		t.Errorf("parked: %v", got)
	}
	live := b.dump()
	if err := b.Rebuild(b.ctx, nil, nil); err != nil {
		t.Fatal(err)
	}
	equalDumps(t, b.dump(), live)
}

// Open alerts are found without looking at the others, by any plan.
func TestOpenAlertsAreReadByTheirIndex(t *testing.T) {
	b := newBench(t)
	open, _ := AlertFilter{State: AlertOpen}.query()
	conn, err := b.pool.Acquire(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	_, err = conn.Exec(b.ctx, `
		INSERT INTO medilab.alerts SELECT n, gen_random_uuid(), gen_random_uuid(), 'slow', '{}', now(), CASE WHEN n > 3 THEN now() END FROM generate_series(1, 5000) AS n;
		ANALYZE medilab.alerts; SET plan_cache_mode = force_generic_plan; PREPARE alerts (bigint, bigint) AS `+open)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := conn.Query(b.ctx, `EXPLAIN EXECUTE alerts (9000000000, 51)`, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || !strings.Contains(strings.Join(plan, "\n"), "alerts_position_idx") {
		t.Errorf("%s, %v", strings.Join(plan, "\n"), err)
	}
	for _, state := range []AlertState{"", AlertOpen, AlertResolved} {
		if rows := b.flat(AlertFilter{State: state, Webhook: domain.WebhookID(uuid.New()), Limit: 50, Cursor: 9_000_000}.query()); rows > 0 {
			t.Errorf("the alerts of a webhook that has none are looked for in %.0f", rows)
		}
	}
	page, err := b.Alerts(b.ctx, AlertFilter{State: AlertOpen, Limit: 2})
	if err != nil || len(page.Items) != 2 || page.Items[0].Position != 3 || page.NextCursor != 2 {
		t.Errorf("%+v, %v", page, err)
	}
}

// An older event is explained by the webhooks that are known already, unless they have changed since.
func TestExplainKeepsTheWebhooks(t *testing.T) {
	b := newBench(t)
	b.register(1)
	first := b.trigger("patient.created", "")
	b.register(2)
	second, third := b.trigger("patient.created", ""), b.trigger("patient.created", "")
	explained := func(event domain.EventID) (webhooks int, of *domain.Registry) {
		t.Helper()
		_, all, err := b.Explain(b.ctx, event)
		if err != nil {
			t.Fatal(err)
		}
		return len(all), b.registry.Load().Registry
	}
	_, known := explained(third)
	if n, of := explained(second); n != 2 || of != known {
		t.Errorf("%d webhooks; read again: %t", n, of != known)
	}
	if n, of := explained(first); n != 1 || of == known {
		t.Errorf("%d webhooks; as they were later: %t", n, of == known)
	}
}
