package projections

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// hoursOfEvents is a log of some webhooks' deliveries over a few hours. Not in
// each hour does something happen to each webhook.
func hoursOfEvents(r *rand.Rand, webhooks int) []eventstore.Event {
	var events []eventstore.Event
	at := time.Unix(1_800_000_000, 0).UTC()
	add := func(stream string, value domain.Change) {
		events = append(events, eventstore.Event{Position: eventstore.Position(len(events) + 1), Stream: stream, Version: 1,
			Type: value.ChangeType(), RecordedAt: at, Value: value})
	}
	for n := range webhooks {
		id := webhookID(n + 1)
		add(id.Stream(), domain.WebhookRegistered{ID: id, Number: int64(n + 1), Events: []string{"*"}, Active: true})
	}
	for n := range 400 {
		at = at.Add(time.Duration(r.IntN(2*60)) * time.Second)
		webhook := webhookID(1 + r.IntN(1+r.IntN(webhooks)))
		event := domain.EventID(uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, n)))
		add(event.Stream(), domain.EventTriggered{EventType: "patient.created", EventData: json.RawMessage(`{}`),
			Recipients: []domain.Recipient{{WebhookID: webhook, WebhookVersion: 1}}})
		call := randomCall(r)
		call.EventID, call.WebhookID = event, webhook
		stream := domain.DeliveryOf(event, webhook).Stream()
		switch {
		case call.Outcome == domain.OutcomeSuccess:
			add(stream, domain.DeliverySucceeded{Call: *call})
		case n%3 == 0:
			add(stream, domain.DeliveryCancelled{EventID: event, WebhookID: webhook, Reason: domain.CancelRequested})
		default:
			add(stream, domain.DeliveryAttemptFailed{Call: *call})
		}
	}
	return events
}

// tallied is what the tables of statistics hold, counted an event at a time:
// counters a webhook and hour, and those of all time.
func tallied(events []eventstore.Event) map[statsKey]*counters {
	sums := map[statsKey]*counters{}
	hour := int32(0)
	for i := range events {
		for key, t := range countPage(events[i:i+1], nil).byKey {
			hour = max(hour, key.hour)
			to := []statsKey{{wholeSystem, hour}, {wholeSystem, allTime}}
			if key.webhook != wholeSystem {
				to = append(to, statsKey{key.webhook, hour}, statsKey{key.webhook, allTime})
			}
			for _, key := range to {
				if sums[key] == nil {
					sums[key] = &counters{}
				}
				sums[key].add(t)
			}
		}
	}
	for key, t := range sums {
		if key.hour != allTime || key.webhook == wholeSystem {
			t.figures = domain.CallFigures{}
		}
		if key.webhook == wholeSystem {
			t.consecutive = 0
		}
	}
	return sums
}

// apply applies the events in pages of that many.
func (b *bench) apply(events []eventstore.Event, size func() int) {
	b.t.Helper()
	live := newApplier(models, Tables{}, Tables{})
	for len(events) > 0 {
		n := min(size(), len(events))
		tx, err := b.pool.Begin(b.ctx)
		if err != nil {
			b.t.Fatal(err)
		}
		if err := live.apply(b.ctx, tx, events[:n]); err != nil {
			b.t.Fatal(err)
		}
		if err := tx.Commit(b.ctx); err != nil {
			b.t.Fatal(err)
		}
		events = events[n:]
	}
}

// stored returns the rows of the statistics, as text, by what they are of.
func (b *bench) stored() map[statsKey]string {
	b.t.Helper()
	rows, err := b.pool.Query(b.ctx, `
		SELECT webhook, -1, calls, tally FROM medilab.stats
		UNION ALL SELECT webhook, latest, latest_calls, latest_tally FROM medilab.stats
		UNION ALL SELECT webhook, hour, calls, tally FROM medilab.stats_hours`)
	if err != nil {
		b.t.Fatal(err)
	}
	all := map[statsKey]string{}
	var key statsKey
	var calls int64
	var encoded []byte
	_, err = pgx.ForEachRow(rows, []any{(*[16]byte)(&key.webhook), &key.hour, &calls, &encoded}, func() error {
		if all[key] != "" {
			b.t.Errorf("hour %d of %s is there twice", key.hour, key.webhook)
		}
		all[key] = fmt.Sprintf("%d %x", calls, encoded)
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return all
}

func encodedTallies(sums map[statsKey]*counters) map[statsKey]string {
	all := map[statsKey]string{}
	for key, t := range sums {
		all[key] = fmt.Sprintf("%d %x", t.calls, t.encode())
	}
	return all
}

func onlyCalls(rows map[statsKey]string) {
	for key, row := range rows {
		rows[key], _, _ = strings.Cut(row, " ")
	}
}

// TestHoursArePutBy: however the log is cut into pages, each hour of a webhook is
// there once, with what happened in it, and so is all time.
func TestHoursArePutBy(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	events := hoursOfEvents(r, 5)
	back := slices.Clone(events)
	for i := 105; i < len(back); i += 6 { // an event and what became of it
		for j := i; j < i+2; j++ {
			back[j].RecordedAt = back[j].RecordedAt.Add(-3 * time.Hour)
		}
	}
	for name, test := range map[string]struct {
		events []eventstore.Event
		size   func() int
		exact  bool // also the last times, which are none when times go back
	}{
		"one page":          {events, func() int { return len(events) }, true},
		"pages of one":      {events, func() int { return 1 }, true},
		"pages of any size": {events, func() int { return 1 + r.IntN(60) }, true},
		"times go back":     {back, func() int { return 1 }, false},
		"and in one page":   {back, func() int { return len(events) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.apply(test.events, test.size)
			want := encodedTallies(tallied(test.events))
			got := b.stored()
			if !test.exact {
				onlyCalls(got)
				onlyCalls(want)
			}
			if !maps.Equal(got, want) {
				t.Errorf("got %v\nwant %v", got, want)
			}
			var late int
			err := b.pool.QueryRow(b.ctx, `SELECT count(*) FROM medilab.stats_hours AS h JOIN medilab.stats AS s USING (webhook) WHERE h.hour >= s.latest`).Scan(&late)
			if err != nil || late > 0 {
				t.Errorf("%d hours are put by that are not over, %v", late, err)
			}
		})
	}
}

// TestFiguresOfARangeAreThoseOfItsHours, put by or not.
func TestFiguresOfARangeAreThoseOfItsHours(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	events := hoursOfEvents(r, 5)
	b := newBench(t)
	b.apply(events, func() int { return 1 + r.IntN(60) })
	sums := tallied(events)
	first, last := hourOf(events[0].RecordedAt), hourOf(events[len(events)-1].RecordedAt)
	for from := first; from <= last; from++ {
		for to := from; to <= last; to++ {
			calls := map[domain.WebhookID]int64{}
			parts := map[domain.WebhookID]int{}
			pending, lastCall := map[domain.WebhookID]int64{}, map[domain.WebhookID]int64{} // at the end
			for key, sum := range sums {
				if key.hour != allTime && key.hour <= to {
					pending[key.webhook] += sum.pending
					lastCall[key.webhook] = max(lastCall[key.webhook], sum.lastCall)
				}
				if key.hour >= from && key.hour <= to {
					calls[key.webhook] += sum.calls
					parts[key.webhook]++
				}
			}
			f := StatsFilter{From: time.Unix(int64(from)*3600, 0), To: time.Unix(int64(to+1)*3600, 0), Bucket: BucketHour}
			system, err := b.SystemStats(b.ctx, f)
			if err != nil {
				t.Fatal(err)
			}
			if system.TotalCalls != calls[wholeSystem] || len(system.Series) != parts[wholeSystem] || system.PendingDeliveries != pending[wholeSystem] || system.ConsecutiveFailures != nil {
				t.Errorf("hours %d to %d: %d calls in %d parts, %d pending", from, to, system.TotalCalls, len(system.Series), system.PendingDeliveries)
			}
			shares := map[domain.WebhookID]int64{wholeSystem: calls[wholeSystem]}
			for _, share := range system.ByWebhook {
				shares[share.WebhookID] = share.TotalCalls
				if want := pending[share.WebhookID]; share.Pending != want {
					t.Errorf("%s: %d pending, not %d", share.WebhookID, share.Pending, want)
				}
			}
			for id, n := range calls {
				if shares[id] != n {
					t.Errorf("hours %d to %d of %s: %d calls among the busiest, not %d", from, to, id, shares[id], n)
				}
				one, err := b.Stats(b.ctx, id, f)
				if err != nil || one.TotalCalls != n || len(one.Series) != parts[id] {
					t.Errorf("hours %d to %d of %s: %d calls in %d parts, not %d in %d, %v", from, to, id, one.TotalCalls, len(one.Series), n, parts[id], err)
				}
				if id != wholeSystem && (one.PendingDeliveries != pending[id] || !reflect.DeepEqual(one.LastCallAt, micros(lastCall[id]))) {
					t.Errorf("up to hour %d of %s: %d pending, last called at %v, not %d at %v", to, id, one.PendingDeliveries, one.LastCallAt, pending[id], micros(lastCall[id]))
				}
			}
		}
	}
}

// TestStatisticsOfAnOlderVersionMoveAsTheyAre: what was counted into a row a
// webhook and hour becomes what a rebuild makes of the log.
func TestStatisticsOfAnOlderVersionMoveAsTheyAre(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 3))
	events := hoursOfEvents(r, 20)
	b := newBench(t)
	b.apply(events, func() int { return 1 + r.IntN(60) })
	want := b.dump()
	if len(want["stats_hours"]) == 0 {
		t.Fatal("no hour is over")
	}
	// The tables as they were before, by migrations 0004 and 0009.
	_, err := b.pool.Exec(b.ctx, `
		DROP TABLE medilab.stats, medilab.stats_hours;
		CREATE TABLE medilab.stats (
			webhook uuid NOT NULL, hour integer NOT NULL, calls bigint NOT NULL, tally bytea NOT NULL, PRIMARY KEY (webhook, hour)
		) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
		CREATE INDEX stats_hour ON medilab.stats (hour, webhook);
		INSERT INTO medilab.read_models (name, shape) VALUES ('stats', 1), ('calls', 1)`)
	if err != nil {
		t.Fatal(err)
	}
	for key, sum := range tallied(events) {
		if _, err := b.pool.Exec(b.ctx, `INSERT INTO medilab.stats VALUES ($1, $2, $3, $4)`, uuid.UUID(key.webhook), key.hour, sum.calls, sum.encode()); err != nil {
			t.Fatal(err)
		}
	}
	b.migrate("0013_latest_hour.sql")
	equalDumps(t, b.dump(), want)
	var shapes string
	if err := b.pool.QueryRow(b.ctx, `SELECT string_agg(name || ' ' || shape, ', ' ORDER BY name) FROM medilab.read_models`).Scan(&shapes); err != nil || shapes != "calls 1, stats 2" {
		t.Errorf("the shapes are %s, %v", shapes, err)
	}
}

// TestRetriedStreamsAreReadByTheirKey: a plan made while the log was empty stays in
// use when it holds millions of events, so it must not go by the position.
func TestRetriedStreamsAreReadByTheirKey(t *testing.T) {
	b := newBench(t)
	conn, err := b.pool.Acquire(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for _, seqscan := range []string{"on", "off"} { // as for a query, and for a page
		_, err := conn.Exec(b.ctx, `SET plan_cache_mode = force_generic_plan; SET enable_seqscan = `+seqscan+`; PREPARE retried AS `+retriedSQL)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := conn.Query(b.ctx, `EXPLAIN EXECUTE retried ('{}', '{}')`, pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		plan := strings.Join(lines, "\n")
		if !strings.Contains(plan, "Index Cond: ((stream = s.stream) AND (version <= s.last))") || strings.Contains(plan, "events_pkey") {
			t.Errorf("with enable_seqscan %s:\n%s", seqscan, plan)
		}
		if _, err := conn.Exec(b.ctx, `DEALLOCATE retried`); err != nil {
			t.Fatal(err)
		}
	}
}
