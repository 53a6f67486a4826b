package projections

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// TestListsDoNotDependOnPages: whatever pages a log is read in, the rows are the
// same, and only those of a page's first block can be there before.
func TestListsDoNotDependOnPages(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	whole, table := positionLists{}, positionLists{}
	page := positionLists{}
	first := eventstore.Position(0)
	keep := func() {
		webhooks, kinds, blocks, places, grown := page.rows(int64(first >> blockBits))
		for i := range blocks {
			key := listKey{webhooks[i], kinds[i], blocks[i]}
			if i >= grown && table[key] != nil {
				t.Fatalf("%+v is there already", key)
			}
			table[key] = append(table[key], places[i]...)
		}
		page, first = positionLists{}, 0
	}
	for at := eventstore.Position(1); at < 5000; at++ {
		if first == 0 {
			first = at
		}
		if webhook, kind := int32(r.IntN(3)), int32(r.IntN(2)); webhook > 0 {
			whole.add(webhook, kind, at)
			page.add(webhook, kind, at)
		}
		if r.IntN(200) == 0 {
			keep()
		}
	}
	if first != 0 {
		keep()
	}
	if len(table) != len(whole) {
		t.Errorf("%d rows, not %d", len(table), len(whole))
	}
	for key, places := range whole {
		if !slices.Equal(table[key], places) {
			t.Errorf("%+v holds %v, not %v", key, table[key], places)
		}
	}
}

// TestListsGoOverBlocks lists what lies in several blocks of the log, whole and part
// by part, and between any two places.
func TestListsGoOverBlocks(t *testing.T) {
	b := newBench(t)
	b.register(1)
	b.register(2)
	types := []string{"patient.created", "visit.completed"}
	var wantEvents, correlated, wantCalls, failed []eventstore.Position
	for n := range 700 {
		correlation := ""
		if n%5 == 0 {
			correlation = "c"
		}
		w := webhookID(1 + n%2)
		event := b.trigger(types[n/2%2], correlation, w)
		triggered := b.head - 1 // its dispatch follows
		wantEvents = append(wantEvents, triggered)
		if correlation != "" {
			correlated = append(correlated, triggered)
		}
		call := attempt(event, types[n/2%2], w, 1, 200, domain.OutcomeSuccess)
		var change domain.Change = domain.DeliverySucceeded{Call: call}
		if n%3 == 0 {
			call.Status, call.Outcome = 503, "http_error"
			change = domain.DeliveryAttemptFailed{Call: call, GaveUp: domain.GaveUpRetriesExhausted}
		}
		b.append(domain.DeliveryOf(event, w).Stream(), change)
		if n%2 == 0 {
			wantCalls = append(wantCalls, b.head)
			if n%3 == 0 {
				failed = append(failed, b.head)
			}
		}
	}
	b.fill()
	times := map[eventstore.Position]time.Time{}
	all, err := b.log.Read(b.ctx, 0, int(b.head))
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		times[all[i].Position] = all[i].RecordedAt
	}
	if blocks := b.head >> blockBits; blocks < 4 {
		t.Fatalf("the log has %d blocks only", blocks)
	}
	for name, list := range map[string]struct {
		want []eventstore.Position
		page pageOf
	}{
		"events": {wantEvents, b.eventsPage(EventFilter{})}, "correlated": {correlated, b.eventsPage(EventFilter{CorrelationID: "c"})},
		"calls": {wantCalls, b.callsPage(CallFilter{Webhook: webhookID(1)})}, "failed": {failed, b.callsPage(CallFilter{Webhook: webhookID(1), Status: CallFailed})},
	} {
		for _, limit := range []int{1, 7, 100, 1000} {
			if limit == 1 && len(list.want) > 200 {
				continue // one after the other, of fewer
			}
			var got []eventstore.Position
			for cursor := Cursor(0); ; {
				part, next := list.page(limit, cursor, time.Time{}, time.Time{})
				if got = append(got, part...); next == 0 {
					break
				}
				cursor = next
			}
			want := slices.Clone(list.want)
			slices.Reverse(want)
			if !slices.Equal(got, want) {
				t.Errorf("%s by %d are %d, not %d", name, limit, len(got), len(want))
			}
		}
		for range 20 {
			low := rand.IntN(len(list.want))
			high := low + rand.IntN(len(list.want)-low)
			from, to := times[list.want[low]], times[list.want[high]]
			if low%2 == 0 {
				from = from.Add(time.Microsecond) // right behind one of them
			}
			var want []eventstore.Position
			for _, at := range list.want {
				if when := times[at]; !when.Before(from) && when.Before(to) {
					want = append(want, at)
				}
			}
			slices.Reverse(want)
			if got, _ := list.page(1000, 0, from, to); !slices.Equal(got, want) {
				t.Errorf("%s between %d and %d are %d, not %d", name, list.want[low], list.want[high], len(got), len(want))
			}
		}
	}
}

type pageOf func(limit int, cursor Cursor, from, to time.Time) ([]eventstore.Position, Cursor)

func (b *bench) eventsPage(f EventFilter) pageOf {
	return func(limit int, cursor Cursor, from, to time.Time) (positions []eventstore.Position, next Cursor) {
		f.Limit, f.Cursor, f.From, f.To = limit, cursor, from, to
		page, err := b.Events(b.ctx, f)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, e := range page.Items {
			positions = append(positions, e.Position)
		}
		return positions, page.NextCursor
	}
}

func (b *bench) callsPage(f CallFilter) pageOf {
	return func(limit int, cursor Cursor, from, to time.Time) (positions []eventstore.Position, next Cursor) {
		f.Limit, f.Cursor, f.From, f.To = limit, cursor, from, to
		page, err := b.Calls(b.ctx, f)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, c := range page.Items {
			positions = append(positions, c.Position)
		}
		return positions, page.NextCursor
	}
}

// TestFormerListsAreConverted: what the migration makes of the former tables is what a
// rebuild makes of the log.
func TestFormerListsAreConverted(t *testing.T) {
	b := newBench(t)
	h := newHistory(b, 11)
	b.register(1)
	h.webhooks = append(h.webhooks, webhookID(1))
	for range 600 {
		h.step()
	}
	b.fill()
	before := b.verify()
	b.tamper(`
		CREATE TABLE medilab.calls_former (position bigint NOT NULL, webhook integer NOT NULL, kind integer NOT NULL, PRIMARY KEY (webhook, kind, position));
		INSERT INTO medilab.calls_former SELECT block << 8 | get_byte(places, n), webhook, kind FROM medilab.calls, generate_series(0, length(places) - 1) AS n;
		CREATE TABLE medilab.triggered_former (position bigint NOT NULL, kind integer NOT NULL, correlation integer, PRIMARY KEY (kind, position));
		INSERT INTO medilab.triggered_former SELECT t.position, t.kind, c.correlation FROM (
			SELECT block << 8 | get_byte(places, n) AS position, kind FROM medilab.triggered, generate_series(0, length(places) - 1) AS n
		) AS t LEFT JOIN medilab.correlated AS c ON c.position = t.position;
		DROP TABLE medilab.calls; DROP TABLE medilab.triggered; DROP TABLE medilab.correlated;
		ALTER TABLE medilab.calls_former RENAME TO calls; ALTER TABLE medilab.triggered_former RENAME TO triggered;
		UPDATE medilab.read_models SET shape = 1 WHERE name IN ('calls', 'events')`)
	b.migrate("0012_places.sql")
	if after := b.verify(); after != before {
		t.Errorf("found:\n%s\nnot:\n%s", after, before)
	}
	if names, err := b.Outdated(b.ctx); err != nil || !slices.Equal(names, []string{"calls", "events"}) { // which other migrations changed since
		t.Errorf("%v are outdated, %v", names, err)
	}
}
