package projections

import (
	"cmp"
	"context"
	"crypto/md5"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/envelope"
	"github.com/medilab/webhooks/eventstore"
)

// planNode is a node of a plan that was carried out.
type planNode struct {
	Type  string     `json:"Node Type"`
	Table string     `json:"Relation Name"`
	Rows  float64    `json:"Actual Rows"`
	Loops float64    `json:"Actual Loops"`
	Drop  float64    `json:"Rows Removed by Filter"`
	Plans []planNode `json:"Plans"`
}

// cost returns how many rows the plan went through, and the tables that it read whole.
func (n planNode) cost() (rows float64, whole []string) {
	rows = (n.Rows + n.Drop) * n.Loops
	if n.Type == "Seq Scan" && n.Table != "webhooks" {
		whole = append(whole, n.Table)
	}
	for _, below := range n.Plans {
		more, tables := below.cost()
		rows, whole = rows+more, append(whole, tables...)
	}
	return rows, whole
}

// TestListsAreFlat: a page costs what it holds, in lists of a hundred thousand.
func TestListsAreFlat(t *testing.T) {
	b := newBench(t)
	for n := range 4 {
		b.register(n + 1)
	}
	b.fill()
	// Of webhook 1 nearly all, of the others some, far back too. 20 types, 3 answers.
	_, err := b.pool.Exec(b.ctx, `
		INSERT INTO medilab.undelivered (ordinal, webhook, kind)
		SELECT n::bigint << 22 | w, w, (n % 3) << 29 | (n % 20 + 1) << 10 | (array[404, 500, 503])[n % 3 + 1]
		FROM generate_series(1, 100000) AS n CROSS JOIN LATERAL (SELECT CASE WHEN n % 1000 = 0 OR n < 500 THEN 2 ELSE 1 END AS w) AS w;
		INSERT INTO medilab.calls (webhook, kind, block, places)
		SELECT w, n % 20 << 11 | s << 1 | (s = 200)::int, n, '\x0102030405060708'
		FROM generate_series(1, 20000) AS n CROSS JOIN LATERAL (VALUES (0), (1 + (n % 1000 = 0)::int)) AS w (w)
		CROSS JOIN LATERAL (SELECT CASE WHEN n % 50 = 0 THEN 503 ELSE 200 END AS s) AS s;
		INSERT INTO medilab.called (correlation, position) SELECT CASE WHEN n % 100 = 0 THEN 7 ELSE 8 END, n FROM generate_series(1, 100000) AS n;
		ANALYZE medilab.undelivered, medilab.calls, medilab.called`)
	if err != nil {
		t.Fatal(err)
	}
	w, none := domain.WebhookID(webhookID(2)), domain.WebhookID{}
	const limit = 51
	for _, state := range append(undeliveredStates[:], "") {
		for n := range 12 {
			f := DeliveryFilter{State: state, Webhook: []domain.WebhookID{none, w}[n%2], EventType: []string{"", "patient.created"}[n/2%2],
				Answer: []StatusRange{{}, {404, 404}, {500, 599}}[n/4]}
			for _, below := range []ordinal{math.MaxInt64, ordinalAt(50_000, 0), ordinalAt(300, 0)} {
				sql, args := f.undeliveredQuery(0, below, limit)
				b.flat(sql, args)
			}
		}
	}
	first, last := kindsOf(domain.DeliveryPending)
	b.flat(oldestRetriedSQL, []any{first, last, []int64{}})
	b.flat(oldestRetriedSQL, []any{first, last, []int64{2}})
	for _, f := range []CallFilter{
		{}, {Webhook: w}, {Status: CallFailed}, {Status: CallFailed, Webhook: w}, {EventType: "patient.created"}, {Answer: StatusRange{503, 503}},
		{Answer: StatusRange{500, 599}, Webhook: w}, {Status: CallFailed, EventType: "patient.created"}, {CorrelationID: "run-1"},
	} {
		for _, below := range []int64{math.MaxInt64, 10_000 << blockBits, 300 << blockBits} {
			f.Limit = limit - 1
			sql, args := f.query(0, below)
			b.flat(sql, args)
		}
	}
	// Webhook 2 is named by one event in a block of the log, and in few blocks.
	_, err = b.pool.Exec(b.ctx, `
		INSERT INTO medilab.events (position, stream, version, type, data, metadata, recorded_at)
		SELECT 1000000 + n, 'event-' || gen_random_uuid(), 1, 'event.triggered',
			convert_to('{"event_type":"patient.created","recipients":[' || CASE WHEN n % 10000 = 0 THEN $1 ELSE '' END || '],"event_data":{}}', 'UTF8'), '{}', now()
		FROM generate_series(1, 100000) AS n`, w.String())
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.pool.Exec(b.ctx, `
		INSERT INTO medilab.reached (webhook, block) SELECT 2, 1000000 + n * 10000 >> 10 FROM generate_series(1, 10) AS n
		UNION ALL SELECT 1, n FROM generate_series(1, 10000) AS n;
		ANALYZE medilab.reached, medilab.events`)
	if err != nil {
		t.Fatal(err)
	}
	sql, args := DeliveryFilter{Webhook: w}.eventsQuery(0, math.MaxInt64, limit)
	b.flat(sql, args)
	if found := column[int64](b, sql, args...); len(found) != 10 || !slices.IsSortedFunc(found, func(a, b int64) int { return cmp.Compare(b, a) }) {
		t.Errorf("found %v", found)
	}
	streams := []string{domain.DeliveryID(uuid.New()).Stream()}
	b.flat(attemptedSQL, []any{0, int64(math.MaxInt64), streams, limit})
}

// TestSubjectsAreFlat: one of a hundred thousand subjects is found by its key, and so are its keys.
func TestSubjectsAreFlat(t *testing.T) {
	b := newBench(t)
	_, err := b.pool.Exec(b.ctx, `
		INSERT INTO medilab.data_keys (owner, number, until, wrapped) SELECT md5(n::text)::uuid, n, 4000000000, '\x00' FROM generate_series(1, 100000) AS n;
		ANALYZE medilab.data_keys`)
	if err != nil {
		t.Fatal(err)
	}
	var positions []Position
	for at := range Position(100_000) {
		positions = append(positions, at+1)
	}
	ownerOf := func(at Position) envelope.Owner { return md5.Sum(fmt.Append(nil, at/2)) }
	b.tell(ownerOf, positions...)
	for _, sql := range []string{oldestOfSubject, newestOfSubject} {
		owner := ownerOf(70_000)
		b.flat(sql, []any{owner[:], int64(math.MaxInt64), 0, 500})
	}
	b.flat(`SELECT FROM medilab.data_keys WHERE owner = ANY($1)`, []any{[]uuid.UUID{uuid.UUID(ownerOf(0))}})
}

// tell notes which subject the events at the positions tell of.
func (b *bench) tell(owner func(at Position) envelope.Owner, positions ...Position) {
	b.t.Helper()
	lists := positionLists{}
	for _, at := range positions {
		lists.addSubject(owner(at), at)
	}
	for _, s := range newListTable(Tables{}, "subject_places", false, subjectBits).statements(lists, positions[0]) {
		if _, err := b.pool.Exec(b.ctx, s.SQL, s.Args...); err != nil {
			b.t.Fatal(err)
		}
	}
	if _, err := b.pool.Exec(b.ctx, `ANALYZE medilab.subject_places`); err != nil {
		b.t.Fatal(err)
	}
}

// statements keeps those that a connection is asked for.
type statements struct {
	sql  []string
	args [][]any
}

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, q pgx.TraceQueryStartData) context.Context {
	if strings.Contains(q.SQL, "medilab.") && !strings.Contains(q.SQL, "medilab.log_head") { // which has one row
		s.sql, s.args = append(s.sql, q.SQL), append(s.args, q.Args)
	}
	return ctx
}

// A batch that failed and was retried at another URL was sent to each as what it was then.
func TestDisclosuresOfARetriedBatch(t *testing.T) {
	b := newBench(t)
	b.serve()
	w := b.register(1)
	id := b.trigger("patient.created", "", w)
	position, owner := b.head-1, envelope.Owner(uuid.New())
	member := domain.DeliveryOf(id, w)
	batch := domain.BatchOf(member)
	call := attempt(id, string(domain.BatchEventType), w, 1, 500, "http_status")
	again := attempt(id, string(domain.BatchEventType), w, 2, 200, domain.OutcomeSuccess)
	again.URL = "https://mended.example/"
	b.append(batch.Stream(), domain.DeliveryBatched{WebhookID: w, Members: []domain.BatchMember{{EventID: id, DeliveryID: member}}})
	b.append(member.Stream(), domain.DeliveryJoinedBatch{EventID: id, WebhookID: w, BatchID: batch})
	b.append(batch.Stream(), domain.DeliveryAttemptFailed{Call: call, GaveUp: domain.GaveUpRetriesExhausted})
	b.replay(uuid.NewString(), batch.Stream(), domain.DeliveryRetryRequested{EventID: id, WebhookID: w, Attempt: 2})
	b.append(batch.Stream(), domain.DeliverySucceeded{Call: again})
	b.settle()
	b.tell(func(Position) envelope.Owner { return owner }, position)
	page, err := b.Disclosures(b.ctx, owner, 10, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range page.Items {
		got = append(got, string(d.Kind)+" "+d.URL)
	}
	slices.Sort(got)
	if want := []string{"dispatch " + call.URL, "replay " + again.URL}; !slices.Equal(got, want) {
		t.Errorf("disclosed by %v, want %v", got, want)
	}
}

func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TestDisclosuresAreFlat: a page of disclosures takes as many statements as another, however
// many events and webhooks it has, and each finds what it reads by keys.
func TestDisclosuresAreFlat(t *testing.T) {
	b := newBench(t)
	b.serve()
	hooks := []domain.WebhookID{b.register(1), b.register(2), b.register(4)}
	var events []Position
	for range 40 {
		id := b.trigger("patient.created", "", hooks...)
		events = append(events, b.head-1)
		for _, w := range hooks {
			b.append(domain.DeliveryOf(id, w).Stream(), domain.DeliverySucceeded{Call: attempt(id, "patient.created", w, 1, 200, domain.OutcomeSuccess)})
		}
	}
	b.settle()
	owner := envelope.Owner(uuid.New())
	var positions []Position
	for at := range Position(20_000) {
		positions = append(positions, at+1)
	}
	b.tell(func(at Position) envelope.Owner {
		if slices.Contains(events, at) {
			return owner
		}
		return envelope.Owner(uuid.New())
	}, positions...)
	_, err := b.pool.Exec(b.ctx, `
		INSERT INTO medilab.events (position, stream, version, type, data, metadata, recorded_at)
		SELECT -n, k || '-' || gen_random_uuid(), 1, 'event.triggered', '{}', '{}', now() FROM generate_series(1, 20000) AS n, (VALUES ('event'), ('delivery')) AS k (k) WHERE n % 2 = (k = 'event')::int;
		ANALYZE medilab.events`)
	if err != nil {
		t.Fatal(err)
	}
	models, asked := b.traced()
	for _, test := range []struct {
		name string
		page func(limit int) (Disclosures, error)
	}{
		{"of a subject", func(limit int) (Disclosures, error) {
			return models.Disclosures(b.ctx, owner, limit, 0)
		}},
		{"to a webhook", func(limit int) (Disclosures, error) {
			return models.DisclosuresTo(b.ctx, hooks[0], time.Time{}, time.Time{}, limit, 0)
		}},
	} {
		var counts []int
		for _, limit := range []int{3, 30} {
			*asked = statements{}
			page, err := test.page(limit)
			if err != nil || len(page.Items) != limit || page.NextCursor == 0 {
				t.Fatalf("%s: %d of %d: %v", test.name, len(page.Items), limit, err)
			}
			counts = append(counts, len(asked.sql))
		}
		if counts[0] != counts[1] {
			t.Errorf("%s: a page of 3 takes %d statements, one of 30 takes %d", test.name, counts[0], counts[1])
		}
		for i, sql := range asked.sql {
			if rows := b.flat(sql, asked.args[i]); rows > 1500 { // 30 events and 90 deliveries, each seen by some nodes
				t.Errorf("%s: goes through %.0f rows:\n%s", test.name, rows, sql)
			}
		}
	}
}

// Explain reads the log of each delivery once, in as many statements for many webhooks as for few.
func TestExplainIsFlat(t *testing.T) {
	b := newBench(t)
	var counts []int
	var hooks []domain.WebhookID
	for _, many := range []int{3, 30} {
		for len(hooks) < many {
			hooks = append(hooks, b.register(len(hooks)+1))
		}
		id := b.trigger("patient.created", "", hooks...)
		for _, w := range hooks {
			b.append(domain.DeliveryOf(id, w).Stream(), domain.DeliverySucceeded{Call: attempt(id, "patient.created", w, 1, 200, domain.OutcomeSuccess)})
		}
		models, asked := b.traced()
		if _, all, err := models.Explain(b.ctx, id); err != nil || len(all) < many {
			t.Fatalf("%d explained: %v", len(all), err)
		}
		counts = append(counts, len(asked.sql))
		read := 0
		for _, args := range asked.args {
			if streams, ok := args[0].([]string); ok && len(streams) >= many {
				read++
			}
		}
		if read != 1 {
			t.Errorf("the deliveries to %d webhooks are read %d times", many, read)
		}
	}
	if counts[0] != counts[1] {
		t.Errorf("3 webhooks take %d statements, 30 take %d", counts[0], counts[1])
	}
}

// traced returns the models, whose statements are noted.
func (b *bench) traced() (*Projections, *statements) {
	b.t.Helper()
	asked := &statements{}
	config := b.pool.Config()
	config.ConnConfig.Tracer = asked
	pool, err := pgxpool.NewWithConfig(b.ctx, config)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(pool.Close)
	log := eventstore.Open(eventstore.Config{Pool: pool, Codec: codec})
	b.t.Cleanup(log.Close)
	return New(pool, log, nil), asked
}

// flat fails the test when the query reads a table whole, or many more rows than a page of
// each kind. It returns how many.
func (b *bench) flat(sql string, args []any) float64 {
	b.t.Helper()
	var text []byte
	if err := b.pool.QueryRow(b.ctx, `EXPLAIN (ANALYZE, FORMAT JSON) `+sql, args...).Scan(&text); err != nil {
		b.t.Fatal(err)
	}
	var plans []struct{ Plan planNode }
	if err := json.Unmarshal(text, &plans); err != nil {
		b.t.Fatal(err)
	}
	const most = 40_000 // 60 kinds of 51 rows, each seen by some nodes
	rows, whole := plans[0].Plan.cost()
	if rows > most || len(whole) > 0 {
		b.t.Errorf("%v: goes through %.0f rows, and all of %v:\n%s", args, rows, whole, sql)
	}
	return rows
}
