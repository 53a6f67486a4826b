package projections

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// BenchmarkApply applies pages of 333 events and their deliveries to all read
// models, and says what a delivery costs and how much it makes them grow. What
// others run at the same time makes it longer, but not what it takes of a
// processor, here (go-µs) and in Postgres (pg-µs).
func BenchmarkApply(b *testing.B) {
	for _, webhooks := range []int{1, 1000, 10_000} {
		b.Run(fmt.Sprintf("webhooks=%d", webhooks), func(b *testing.B) {
			bench := newBench(b)
			for n := range webhooks {
				bench.register(n + 1)
			}
			live := newApplier(models, Tables{}, Tables{})
			position, delivered := eventstore.Position(1<<20), 0
			conn, err := bench.pool.Acquire(bench.ctx)
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Release()
			here, there := time.Duration(0), -backendTime(conn)
			b.ResetTimer()
			for b.Loop() {
				b.StopTimer()
				page := deliveredPage(position, webhooks)
				position += eventstore.Position(len(page))
				delivered += pageDeliveries
				b.StartTimer()
				here -= ownTime()
				tx, err := conn.Begin(bench.ctx)
				if err != nil {
					b.Fatal(err)
				}
				if err := live.apply(bench.ctx, tx, page); err != nil {
					b.Fatal(err)
				}
				if err := tx.Commit(bench.ctx); err != nil {
					b.Fatal(err)
				}
				here += ownTime()
			}
			b.StopTimer()
			there += backendTime(conn)
			var bytes int64
			err = bench.pool.QueryRow(bench.ctx, `SELECT sum(pg_total_relation_size('medilab.' || t)) FROM unnest($1::text[]) AS t`,
				[]string{"calls", "triggered", "stats", "stats_hours"}).Scan(&bytes)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(delivered), "µs/delivery")
			b.ReportMetric(float64(here.Microseconds())/float64(delivered), "go-µs/delivery")
			b.ReportMetric(float64(there.Microseconds())/float64(delivered), "pg-µs/delivery")
			b.ReportMetric(float64(bytes)/float64(delivered), "B/delivery")
		})
	}
}

// ownTime is what this process has had of the processors.
func ownTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// backendTime is what the connection's process in Postgres has had of them; 0
// where the system does not tell.
func backendTime(conn *pgxpool.Conn) (ran time.Duration) {
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", conn.Conn().PgConn().PID())); err == nil {
		fmt.Sscan(string(stat), (*int64)(&ran)) //nolint:errcheck // then it is 0
	}
	return ran
}

const pageDeliveries = 333

// deliveredPage is a page of events, each dispatched to one webhook and
// delivered, as a busy system's log has them.
func deliveredPage(after eventstore.Position, webhooks int) []eventstore.Event {
	types := []string{"patient.created", "patient.updated", "visit.completed"}
	now := time.Unix(1_800_000_000, 0).Add(time.Duration(after) * 100 * time.Microsecond).UTC()
	page := make([]eventstore.Event, 0, 2*pageDeliveries)
	add := func(stream string, version int64, value domain.Change) {
		page = append(page, eventstore.Event{Position: after + eventstore.Position(len(page)) + 1, Stream: stream, Version: version,
			Type: value.ChangeType(), RecordedAt: now, Value: value})
	}
	for i := range pageDeliveries {
		n := int(after) + i
		webhook := webhookID(n%webhooks + 1)
		event := domain.EventID(uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, n)))
		delivery := domain.DeliveryOf(event, webhook)
		eventType := types[i%len(types)]
		add(event.Stream(), 1, domain.EventTriggered{EventType: eventType, EventData: json.RawMessage(`{}`),
			Recipients: []domain.Recipient{{WebhookID: webhook, WebhookVersion: 1}}})
		call := attempt(event, eventType, webhook, 1, 200, domain.OutcomeSuccess)
		call.Duration = int64(300 + i*i%5000)
		add(delivery.Stream(), 1, domain.DeliverySucceeded{Call: call})
	}
	return page
}

// BenchmarkRebuild says how many events a second a rebuild of all goes through.
func BenchmarkRebuild(b *testing.B) {
	const pages = 150
	bench := newBench(b)
	bench.pace = usualPace
	bench.register(1)
	data := []byte(`{"patient":"` + strings.Repeat("x", 480) + `"}`)
	for n := range pages {
		var unit eventstore.Unit
		for _, e := range deliveredPage(eventstore.Position(n*1000), 1) {
			if triggered, ok := e.Value.(domain.EventTriggered); ok {
				triggered.EventData = data
				e.Value = triggered
			}
			if succeeded, ok := e.Value.(domain.DeliverySucceeded); ok {
				succeeded.Header = []domain.HeaderField{{Name: "Content-Type", Value: "application/json"}, {Name: "Date", Value: "Mon, 23 Nov 2026 17:48:05 GMT"}}
				succeeded.Body = []byte(`{"ok":true}`)
				e.Value = succeeded
			}
			unit.Writes = append(unit.Writes, eventstore.Write{Stream: e.Stream, Expected: e.Version - 1,
				Events: []eventstore.NewEvent{{Type: e.Type, Data: domain.AppendJSON(nil, e.Value.(domain.Change))}}})
		}
		appended, err := bench.log.Append(bench.ctx, unit)
		if err != nil {
			b.Fatal(err)
		}
		bench.head = appended.First + eventstore.Position(len(unit.Writes)) - 1
	}
	bench.fill()
	for b.Loop() {
		if err := bench.Rebuild(bench.ctx, nil, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*float64(bench.head)/b.Elapsed().Seconds(), "events/s")
}
