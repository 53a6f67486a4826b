package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// dump returns every row of every read model, for comparing.
func (b *bench) dump() map[string][]string {
	b.t.Helper()
	tx, err := b.pool.BeginTx(b.ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	if err != nil {
		b.t.Fatal(err)
	}
	defer tx.Rollback(b.ctx) //nolint:errcheck // read only
	all := map[string][]string{}
	for _, m := range models {
		for _, table := range append(m.Tables, "parked") {
			rows, err := tx.Query(b.ctx, `SELECT t::text FROM medilab.`+table+` AS t ORDER BY 1`)
			if err != nil {
				b.t.Fatal(err)
			}
			if all[table], err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	return all
}

func equalDumps(t *testing.T, got, want map[string][]string) {
	t.Helper()
	for table := range want {
		if !slices.Equal(got[table], want[table]) {
			t.Errorf("%s:\n got %d rows %s\nwant %d rows %s", table, len(got[table]), strings.Join(got[table], "\n     "), len(want[table]), strings.Join(want[table], "\n     "))
		}
	}
}

// history appends random but possible changes.
type history struct {
	*bench
	rand       *rand.Rand
	webhooks   []domain.WebhookID
	deliveries []*randomDelivery
}

type randomDelivery struct {
	id      domain.DeliveryID
	event   domain.EventID
	webhook domain.WebhookID
	domain.Delivery
}

// waits reports whether the delivery waits for others to go with.
func (d *randomDelivery) waits() bool { return d.Version == 0 && wantsBatches(d.webhook) }

func newHistory(b *bench, seed uint64) *history {
	b.t.Logf("seed %d", seed)
	h := &history{bench: b, rand: rand.New(rand.NewPCG(seed, seed))}
	var begin time.Time
	b.occurred = func() time.Time { // at any time so far, or when it is accepted
		if begin.IsZero() {
			begin = b.at
		}
		if h.rand.IntN(3) > 0 {
			return time.Time{}
		}
		return begin.Add(time.Duration(h.rand.Int64N(int64(b.at.Sub(begin)) + 1))).Truncate(time.Microsecond).UTC()
	}
	return h
}

func (h *history) step() {
	types := []string{"patient.created", "patient.updated", "visit.completed", "тип.\"ы\""}
	switch n := h.rand.IntN(20); {
	case len(h.webhooks) == 0 || n == 0 && len(h.webhooks) < 20:
		h.webhooks = append(h.webhooks, h.register(len(h.webhooks)+1, "patient.*", "*"))
	case n < 2:
		name := fmt.Sprintf("Имя <%d>", h.rand.IntN(100))
		h.append(h.webhooks[h.rand.IntN(len(h.webhooks))].Stream(), domain.WebhookChanged{Name: &name})
	case n == 2:
		h.append(h.webhooks[h.rand.IntN(len(h.webhooks))].Stream(), []domain.Change{domain.WebhookDeactivated{}, domain.WebhookActivated{}, domain.WebhookDeleted{}}[h.rand.IntN(3)])
	case n == 3:
		h.appendEvents(fmt.Sprintf("event-%s", domain.EventID(webhookID(h.rand.IntN(1<<16)))), eventstore.NewEvent{Type: "event.unknown", Data: []byte(`{}`)})
	case n == 4:
		h.batch()
	case n < 9 || len(h.deliveries) == 0:
		targets := slices.Clone(h.webhooks)
		h.rand.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
		targets = targets[:h.rand.IntN(len(targets)+1)]
		event := h.trigger(types[h.rand.IntN(len(types))], []string{"", "run-1", "run-2"}[h.rand.IntN(3)], targets...)
		for _, w := range targets {
			h.deliveries = append(h.deliveries, &randomDelivery{id: domain.DeliveryOf(event, w), event: event, webhook: w})
		}
		for _, w := range h.webhooks { // a replay to one that the event was not for
			if !slices.Contains(targets, w) && h.rand.IntN(4) == 0 {
				d := &randomDelivery{id: domain.DeliveryOf(event, w), event: event, webhook: w}
				h.retry(d)
				h.deliveries = append(h.deliveries, d)
				break
			}
		}
	default:
		h.deliver(h.deliveries[h.rand.IntN(len(h.deliveries))], types[0])
	}
}

// batch makes one of what waits for some webhook.
func (h *history) batch() {
	var together []domain.Waiting
	var members []*randomDelivery
	for _, d := range h.deliveries {
		if d.waits() && (len(members) == 0 || d.webhook == members[0].webhook) {
			together = append(together, domain.Waiting{BatchMember: domain.BatchMember{EventID: d.event, DeliveryID: d.id}})
			members = append(members, d)
		}
	}
	if len(members) == 0 {
		return
	}
	id, batched, joined := domain.FormBatch(members[0].webhook, together)
	for i, d := range members {
		h.append(d.id.Stream(), joined[i])
		d.Delivery = d.Evolve(joined[i], h.at)
	}
	h.append(id.Stream(), batched)
	h.deliveries = append(h.deliveries, &randomDelivery{id: id, event: members[0].event, webhook: members[0].webhook,
		Delivery: domain.Delivery{}.Evolve(batched, h.at)})
}

func (h *history) retry(d *randomDelivery) {
	change := domain.DeliveryRetryRequested{EventID: d.event, WebhookID: d.webhook}
	h.append(d.id.Stream(), change)
	d.Delivery = d.Evolve(change, h.at)
}

func (h *history) deliver(d *randomDelivery, eventType string) {
	outcome := []domain.Outcome{domain.OutcomeSuccess, domain.OutcomeTimeout, "http_error", "connection_refused"}[h.rand.IntN(4)]
	call := attempt(d.event, eventType, d.webhook, d.Attempts+1, []int{0, 500, 404}[h.rand.IntN(3)], outcome)
	if outcome == domain.OutcomeSuccess {
		call.Status = 200
	}
	call.Duration = h.rand.Int64N(5_000_000)
	var change domain.Change
	switch {
	case d.waits():
		change = []domain.Change{
			domain.DeliveryRetryRequested{EventID: d.event, WebhookID: d.webhook},
			domain.DeliveryCancelled{EventID: d.event, WebhookID: d.webhook, Reason: domain.CancelRequested},
		}[h.rand.IntN(2)]
	case d.State == domain.DeliveryWithdrawn && h.rand.IntN(2) == 0:
		change = domain.DeliveryOutcomeLate{Call: call, Counts: true}
	case d.State != "" && d.State != domain.DeliveryPending || h.rand.IntN(10) == 0:
		change = domain.DeliveryRetryRequested{EventID: d.event, WebhookID: d.webhook}
	case h.rand.IntN(10) == 0:
		change = domain.DeliveryCancelled{EventID: d.event, WebhookID: d.webhook, Reason: domain.CancelRequested}
	case h.rand.IntN(10) == 0:
		change = domain.DeliveryInterrupted{EventID: d.event, EventType: eventType, WebhookID: d.webhook, Attempt: d.Attempts + 1, Reason: "the node died"}
	case outcome == domain.OutcomeSuccess:
		change = domain.DeliverySucceeded{Call: call}
	default:
		change = domain.DeliveryAttemptFailed{Call: call, GaveUp: []domain.GaveUp{"", domain.GaveUpRetriesExhausted}[h.rand.IntN(2)]}
	}
	h.append(d.id.Stream(), change)
	d.Delivery = d.Evolve(change, h.at)
}

func TestRebuiltEqualsLive(t *testing.T) {
	b := newBench(t)
	b.serve()
	h := newHistory(b, rand.Uint64())
	for range 400 {
		h.step()
	}
	b.settle()
	live := b.dump()
	if len(live["calls"]) == 0 || len(live["parked"]) == 0 {
		t.Fatal("the history lacks calls or poison")
	}

	want := map[domain.DeliveryState]int64{}
	for _, d := range h.deliveries {
		state := d.State
		switch state {
		case "":
			state = domain.DeliveryPending
		case domain.DeliveryJoined:
			continue // its batch is counted
		}
		want[state]++
	}
	s, err := b.SystemStats(b.ctx, StatsFilter{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[domain.DeliveryState]int64{domain.DeliveryPending: s.PendingDeliveries, domain.DeliveryDelivered: s.Delivered,
		domain.DeliveryFailed: s.Exhausted, domain.DeliveryWithdrawn: s.Cancelled}
	for state, n := range want {
		if got[state] != n {
			t.Errorf("%s: counted %d of %d", state, got[state], n)
		}
	}

	for _, names := range [][]string{nil, {"stats"}, {"webhooks", "calls"}} {
		var reported eventstore.Position
		if err := b.Rebuild(b.ctx, names, func(done, _ eventstore.Position) { reported = done }); err != nil {
			t.Fatal(err)
		}
		equalDumps(t, b.dump(), live)
		if reported != b.head {
			t.Errorf("progress reached %d of %d", reported, b.head)
		}
	}
	// What serves goes on with the new tables, which are as the old ones were.
	for range 50 {
		h.step()
	}
	b.settle()
	live = b.dump()
	if err := b.Rebuild(b.ctx, nil, nil); err != nil {
		t.Fatal(err)
	}
	equalDumps(t, b.dump(), live)
	b.noCopiesLeft()
}

// noCopiesLeft checks that only the read models' own tables and indexes are there.
func (b *bench) noCopiesLeft() {
	b.t.Helper()
	rows, err := b.pool.Query(b.ctx, `
		SELECT relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
		WHERE nspname = 'medilab' AND relname ~ '_(next|check)(_|$)'`)
	if err != nil {
		b.t.Fatal(err)
	}
	left, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(left) > 0 {
		b.t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestRebuildWhileServing(t *testing.T) {
	b := newBench(t)
	b.pace = pace{page: 500, near: 100}
	b.serve()
	h := newHistory(b, rand.Uint64())
	for range 100 {
		h.step()
	}
	ctx, cancel := context.WithCancel(b.ctx)
	var wg sync.WaitGroup
	wg.Go(func() { // what reads never fails and never sees less than before
		most := int64(0)
		for ctx.Err() == nil {
			s, err := b.SystemStats(ctx, StatsFilter{})
			if ctx.Err() != nil {
				return
			}
			if err != nil || s.EventsTotal < most {
				t.Errorf("read %d events after %d, %v", s.EventsTotal, most, err)
				return
			}
			most = s.EventsTotal
			if _, err := b.Calls(ctx, CallFilter{Webhook: webhookID(1), Limit: 10}); err != nil && ctx.Err() == nil {
				t.Errorf("calls: %v", err)
				return
			}
		}
	})
	rebuilds := make(chan error, 1)
	go func() {
		for range 3 {
			if err := b.Rebuild(b.ctx, nil, nil); err != nil {
				rebuilds <- err
				return
			}
		}
		rebuilds <- nil
	}()
	var err error
	for running := true; running; {
		select {
		case err = <-rebuilds:
			running = false
		default:
			h.step()
		}
	}
	cancel()
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	b.settle()
	live := b.dump()
	if err := b.Rebuild(b.ctx, nil, nil); err != nil {
		t.Fatal(err)
	}
	equalDumps(t, b.dump(), live)
}

func TestRebuildsExcludeEachOtherAndClearWhatACrashLeft(t *testing.T) {
	b := newBench(t)
	b.serve()
	h := newHistory(b, 1)
	for range 50 {
		h.step()
	}
	b.settle()
	live := b.dump()

	// A rebuild that fails in the middle leaves nothing.
	boom, cancel := context.WithCancelCause(b.ctx)
	err := b.Rebuild(boom, nil, func(done, total eventstore.Position) { cancel(errors.New("stop")) })
	if err == nil {
		t.Fatal("a cancelled rebuild ended well")
	}
	b.noCopiesLeft()

	err = b.exclusively(b.ctx, func(*pgxpool.Conn) error {
		if err := b.Rebuild(b.ctx, nil, nil); !errors.Is(err, domain.KindConflict) {
			t.Errorf("a second rebuild gives %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Rebuild(b.ctx, []string{"nothing"}, nil); !errors.Is(err, domain.KindInvalid) {
		t.Errorf("an unknown name gives %v", err)
	}

	// A process that died left half a table and its note.
	if _, err := b.pool.Exec(b.ctx, `CREATE TABLE medilab.calls_next (block bigint); UPDATE medilab.read_models SET building = 7`); err != nil {
		t.Fatal(err)
	}
	list, err := b.List(b.ctx)
	if err != nil || len(list) != len(models) || list[0].Rebuilding || list[0].Outdated || list[0].LagEvents != 0 || list[0].Position != b.head {
		t.Errorf("the list is %+v, %v", list, err)
	}
	if err := b.Rebuild(b.ctx, []string{"calls"}, func(done, total eventstore.Position) {
		if done == total {
			return // that may be its end
		}
		list, err := b.List(b.ctx)
		if at := slices.IndexFunc(list, func(s Status) bool { return s.Name == "calls" }); err != nil || !list[at].Rebuilding {
			t.Errorf("while it runs the list is %+v, %v", list, err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	equalDumps(t, b.dump(), live)
	b.noCopiesLeft()
}

// join makes a node whose program was made for the schema.
func (b *bench) join(schema int) *eventstore.Node {
	b.t.Helper()
	node, err := eventstore.Join(b.ctx, b.pool, b.log.Clock(), fmt.Sprintf("schema %d", schema), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.pool.Exec(b.ctx, `UPDATE medilab.nodes SET schema_version = $2, lease_until = 'infinity' WHERE id = $1`, node.ID, schema); err != nil {
		b.t.Fatal(err)
	}
	return node
}

// kept fills the read models with a webhook, and leaves them to nobody.
func (b *bench) kept() {
	b.t.Helper()
	stop := b.serve()
	defer stop()
	b.register(1)
	b.settle()
}

// A page that is applied to a read model in another way than its version says, or not at all, makes
// it outdated: for the node of that version too, once it keeps it again.
// A rebuild leaves every role its rights to the read models, and the owner theirs.
func TestRebuildKeepsRights(t *testing.T) {
	b := newBench(t)
	exec := func(sql string) {
		t.Helper()
		if _, err := b.pool.Exec(context.WithoutCancel(b.ctx), sql); err != nil {
			t.Fatal(err)
		}
	}
	suffix := b.pool.Config().ConnConfig.Database
	owner, service, reporting := `"the owner of `+suffix+`"`, "service_of_"+suffix, "reporting_of_"+suffix
	for _, role := range []string{owner, service, reporting} {
		exec(`CREATE ROLE ` + role)
		t.Cleanup(func() {
			exec(`REASSIGN OWNED BY ` + role + ` TO CURRENT_USER; DROP OWNED BY ` + role + `; DROP ROLE ` + role)
		})
	}
	exec(`ALTER TABLE medilab.calls OWNER TO ` + owner)
	exec(`GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA medilab TO ` + service)
	exec(`GRANT SELECT ON medilab.calls, medilab.stats TO ` + reporting + ` WITH GRANT OPTION`)
	exec(`GRANT SELECT (kind, block), UPDATE (kind) ON medilab.triggered TO ` + reporting + `; GRANT SELECT ON medilab.stats_hours TO PUBLIC`)
	exec(`ALTER DEFAULT PRIVILEGES IN SCHEMA medilab GRANT SELECT ON TABLES TO ` + reporting) // not what the tables have
	rights := func() []string {
		t.Helper()
		rows, _ := b.pool.Query(b.ctx, `
			SELECT concat_ws(' ', relname, relowner::regrole, grantee::regrole, privilege_type, is_grantable) FROM pg_class CROSS JOIN LATERAL aclexplode(coalesce(relacl, acldefault('r', relowner)))
				WHERE relnamespace = 'medilab'::regnamespace AND relkind = 'r'
			UNION ALL SELECT concat_ws(' ', relname, attname, grantee::regrole, privilege_type, is_grantable) FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid CROSS JOIN LATERAL aclexplode(attacl)
				WHERE relnamespace = 'medilab'::regnamespace ORDER BY 1`)
		all, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	before := rights()
	if err := b.Rebuild(b.ctx, nil, nil); err != nil {
		t.Fatal(err)
	}
	if after := rights(); !slices.Equal(after, before) {
		t.Errorf("the rights are\n%s\nand were\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
	}
}

func TestPagesOfAnotherVersionMakeOutdated(t *testing.T) {
	b := newBench(t)
	b.kept()
	if _, err := b.pool.Exec(b.ctx, `UPDATE medilab.read_models SET shape = 9999 WHERE name = 'stats';
		INSERT INTO medilab.read_models (name, shape) VALUES ('new', 9999)`); err != nil {
		t.Fatal(err)
	}
	defer b.serve()()
	b.trigger("patient.created", "")
	b.settle()
	rows, _ := b.pool.Query(b.ctx, `SELECT name FROM medilab.read_models WHERE shape = 0 ORDER BY name`)
	if names, err := pgx.CollectRows(rows, pgx.RowTo[string]); err != nil || !slices.Equal(names, []string{"new", "stats"}) {
		t.Errorf("outdated: %v, %v", names, err)
	}
}

// Read models of another shape are rebuilt by the node that keeps them, and only by it: a node
// of a newer schema takes them over, one of an older schema leaves them alone.
func TestAReadModelOfAnotherShapeIsOutdated(t *testing.T) {
	b := newBench(t)
	b.kept()
	older, newer := b.join(eventstore.SchemaVersion-1), b.join(eventstore.SchemaVersion+1)
	own := func(node *eventstore.Node) {
		t.Helper()
		if _, err := b.pool.Exec(b.ctx, `UPDATE medilab.readers SET node = $2 WHERE name = $1`, readerName, node.ID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.pool.Exec(b.ctx, `UPDATE medilab.read_models SET shape = 0 WHERE name = 'stats'`); err != nil {
		t.Fatal(err)
	}
	names, err := b.Outdated(b.ctx)
	if err != nil || !slices.Equal(names, []string{"stats"}) {
		t.Fatalf("outdated: %v, %v", names, err)
	}
	ctx, cancel := context.WithCancel(b.ctx)
	var done sync.WaitGroup
	defer done.Wait()
	defer cancel()
	this := b.join(eventstore.SchemaVersion)
	own(newer)
	if _, owner, err := b.log.AcquireLease(b.ctx, this, readerName, eventstore.LeaseTime); err != nil || owner {
		t.Fatalf("it takes the read models from a node of a newer schema: %t, %v", owner, err)
	}
	own(older)
	done.Go(func() { b.RebuildOutdated(ctx, this) })
	harness.Until(t, "all are rebuilt", func() bool {
		names, err := b.Outdated(b.ctx)
		return err == nil && len(names) == 0
	})
	var keeps int64
	if err := b.pool.QueryRow(b.ctx, `SELECT node FROM medilab.readers WHERE name = $1`, readerName).Scan(&keeps); err != nil || keeps != this.ID {
		t.Errorf("node %d keeps them, not %d, %v", keeps, this.ID, err)
	}
}

// failing fails each page after its statements took effect, a few times.
type failing struct {
	Projection
	mu    sync.Mutex
	times int
	done  chan struct{}
}

func (f *failing) Project(ctx context.Context, db Querier, events []eventstore.Event) ([]eventstore.Statement, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	statements, err := f.Projection.Project(ctx, db, events)
	if f.times == 0 || err != nil {
		return statements, err
	}
	if f.times--; f.times == 0 {
		close(f.done)
	}
	// Not the events' fault: the page must come again, whole.
	return append(statements, eventstore.Statement{SQL: `SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(60)`}), nil
}

func TestAPageThatFailsIsAppliedOnce(t *testing.T) {
	b := newBench(t)
	original := models
	f := &failing{times: 2, done: make(chan struct{})}
	models = append(slices.Clone(models), Model{Name: "failing", SchemaVersion: 1, New: func(t Tables) Projection {
		f.Projection = statsModel.New(Tables{suffix: "_fail"})
		return f
	}})
	defer func() { models = original }()
	for _, table := range statsModel.Tables {
		if _, err := b.pool.Exec(b.ctx, `CREATE TABLE medilab.`+table+`_fail (LIKE medilab.`+table+` INCLUDING ALL)`); err != nil {
			t.Fatal(err)
		}
	}
	h := newHistory(b, 2)
	for range 100 {
		h.step()
	}
	stop := b.serve()
	select {
	case <-f.done:
	case <-time.After(patience):
		t.Fatal("no page failed")
	}
	b.settle()
	stop()
	live := b.dump()
	models = original
	if err := b.Rebuild(b.ctx, nil, nil); err != nil {
		t.Fatal(err)
	}
	equalDumps(t, b.dump(), live)
}
