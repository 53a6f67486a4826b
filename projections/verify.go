package projections

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Problem is one thing that a check found wrong.
type Problem struct {
	Kind     ProblemKind         `json:"kind"`
	Position eventstore.Position `json:"position,omitempty"`
	Stream   string              `json:"stream,omitempty"`
	Text     string              `json:"text"`
}

// ProblemKind says what is wrong. It is a closed set.
type ProblemKind string

// What a check can find, besides the log's own flaws (see eventstore.Flaw).
const (
	ProblemReadModel ProblemKind = "read_model" // it is not what the log makes of it
	ProblemQueue     ProblemKind = "queue"      // it is not what the log says is pending
)

// Verify checks the log (see eventstore.Log.Verify), then that every read model
// is what the log makes of it, then that the queue holds what is pending. It
// reports what is wrong and goes on; the error is that the checking failed: a
// *domain.Error of KindConflict when a rebuild is under way. It works while the
// system serves, in constant memory.
func (p *Projections) Verify(ctx context.Context, report func(Problem), progress Progress) error {
	if progress == nil {
		progress = func(eventstore.Position, eventstore.Position) {}
	}
	// Each pass over the log is half of the work.
	first := func(done, total eventstore.Position) { progress(done, 2*total) }
	second := func(done, total eventstore.Position) { progress(total+done, 2*total) }
	err := p.log.Verify(ctx, func(d eventstore.Damage) {
		report(Problem{Kind: ProblemKind(d.Flaw), Position: d.Position, Stream: d.Stream, Text: d.Text})
	}, first)
	if err != nil {
		return err
	}
	if err := p.exclusively(ctx, func(conn *pgxpool.Conn) error { return p.verifyModels(ctx, conn, report, second) }); err != nil {
		return err
	}
	return p.verifyQueue(ctx, report)
}

// checksum is a table's content in short: two with the same content have the
// same, whatever the order of rows.
type checksum struct {
	rows int64
	sum  string
}

// verifyModels takes the checksums of the read models at one moment, fills
// copies up to the same place, and compares.
func (p *Projections) verifyModels(ctx context.Context, conn *pgxpool.Conn, report func(Problem), progress Progress) (err error) {
	work, err := p.startFilling(ctx, conn, checked, models)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, work.copies.drop(context.WithoutCancel(ctx), conn)) }()

	live, position, err := p.checksums(ctx, Tables{}, work.copies.names)
	if err != nil {
		return err
	}
	err = p.log.Scan(ctx, 0, position, p.pace.page, func(page []eventstore.Event) error {
		if err := work.page(ctx, page); err != nil {
			return err
		}
		progress(work.position, position)
		return nil
	})
	var gap *eventstore.GapError
	if errors.As(err, &gap) {
		report(Problem{Kind: ProblemReadModel, Position: gap.Position, Text: "the read models were not compared: the log has a gap"})
		return nil
	}
	if err != nil {
		return err
	}
	made, _, err := p.checksums(ctx, checked, work.copies.names)
	if err != nil {
		return err
	}
	for _, table := range work.copies.names {
		if live[table] != made[table] {
			report(Problem{Kind: ProblemReadModel, Text: fmt.Sprintf("medilab.%s holds %d rows that are not the %d that the log makes of it up to %d: rebuild it",
				table, live[table].rows, made[table].rows, position)})
		}
	}
	return nil
}

// checksums gives those of the tables at one moment, and the place in the log
// of the read models then.
func (p *Projections) checksums(ctx context.Context, tables Tables, names []string) (map[string]checksum, eventstore.Position, error) {
	tx, err := p.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, 0, fmt.Errorf("check the read models: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // read only: nothing to undo
	var position eventstore.Position
	err = tx.QueryRow(ctx, `SELECT coalesce((SELECT position FROM medilab.readers WHERE name = $1), 0)`, readerName).Scan(&position)
	if err != nil {
		return nil, 0, fmt.Errorf("check the read models: %w", err)
	}
	sums := map[string]checksum{}
	for _, name := range names {
		var c checksum
		err := tx.QueryRow(ctx, tables.SQL(`
			SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text FROM {`+name+`} AS t`)).Scan(&c.rows, &c.sum)
		if err != nil {
			return nil, 0, fmt.Errorf("check the read model in %s: %w", name, err)
		}
		sums[name] = c
	}
	return sums, position, nil
}

// verifyQueue checks at one moment that every delivery in the queue is pending
// by its stream, and that there are as many as the log has pending: so they are
// the same.
func (p *Projections) verifyQueue(ctx context.Context, report func(Problem)) error {
	tx, err := p.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return fmt.Errorf("check the queue: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // read only: nothing to undo
	queued, err := verifyQueued(ctx, tx, report)
	if err != nil {
		return fmt.Errorf("check the queue: %w", err)
	}
	waiting, err := verifyWaiting(ctx, tx, report)
	if err != nil {
		return fmt.Errorf("check what waits for batches: %w", err)
	}
	queued += waiting
	pending, err := pendingByLog(ctx, tx)
	if err != nil {
		return fmt.Errorf("check the queue: %w", err)
	}
	if queued != pending {
		report(Problem{Kind: ProblemQueue, Text: fmt.Sprintf("%d deliveries are queued, and %d are pending by the log", queued, pending)})
	}
	return nil
}

// verifyQueued goes through the queue and gives its length.
func verifyQueued(ctx context.Context, tx pgx.Tx, report func(Problem)) (total int64, err error) {
	const page = 1000
	after := uuid.Nil
	for {
		rows, err := tx.Query(ctx, `
			SELECT q.delivery_id, q.version, coalesce(e.version, 0), coalesce(e.type, ''),
				coalesce(position(convert_to('"gave_up":"', 'UTF8') IN e.data) > 0, false)
			FROM (SELECT * FROM medilab.queue WHERE delivery_id > $1 ORDER BY delivery_id LIMIT $2) AS q
			LEFT JOIN LATERAL (SELECT version, type, CASE WHEN type = 'delivery.attempt_failed' THEN data END AS data FROM medilab.events
				WHERE stream = 'delivery-' || q.delivery_id ORDER BY version DESC LIMIT 1) AS e ON true
			ORDER BY q.delivery_id`, after, page)
		if err != nil {
			return 0, err
		}
		n := 0
		var queuedVersion, version int64
		var last string
		var gaveUp bool
		_, err = pgx.ForEachRow(rows, []any{&after, &queuedVersion, &version, &last, &gaveUp}, func() error {
			n++
			stream := domain.DeliveryID(after).Stream()
			switch {
			case queuedVersion != version:
				report(Problem{Kind: ProblemQueue, Stream: stream, Text: fmt.Sprintf("the queue has version %d of %s, and the log version %d", queuedVersion, stream, version)})
			case last == domain.DeliverySucceeded{}.ChangeType(), last == domain.DeliveryCancelled{}.ChangeType(), gaveUp:
				report(Problem{Kind: ProblemQueue, Stream: stream, Text: "the queue has " + stream + ", which ended"})
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
		total += int64(n)
		if n < page {
			return total, nil
		}
	}
}

// verifyWaiting goes through what waits for batches and gives how much it is.
func verifyWaiting(ctx context.Context, tx pgx.Tx, report func(Problem)) (total int64, err error) {
	rows, err := tx.Query(ctx, `
		SELECT m.delivery_id, coalesce(e.version, 0) FROM medilab.batch_members AS m
		LEFT JOIN LATERAL (SELECT version FROM medilab.events WHERE stream = 'delivery-' || m.delivery_id LIMIT 1) AS e ON true
		ORDER BY m.delivery_id`)
	if err != nil {
		return 0, err
	}
	var id uuid.UUID
	var version int64
	_, err = pgx.ForEachRow(rows, []any{&id, &version}, func() error {
		total++
		if stream := domain.DeliveryID(id).Stream(); version > 0 {
			report(Problem{Kind: ProblemQueue, Stream: stream, Text: stream + " waits for a batch, and by the log it does no more"})
		}
		return nil
	})
	return total, err
}

// pendingByLog is how many deliveries are pending by the statistics and what the
// log holds beyond them.
func pendingByLog(ctx context.Context, tx pgx.Tx) (int64, error) {
	var position eventstore.Position
	var encoded []byte
	err := tx.QueryRow(ctx, `
		SELECT coalesce((SELECT position FROM medilab.readers WHERE name = $1), 0),
			(SELECT tally FROM medilab.stats WHERE webhook = '00000000-0000-0000-0000-000000000000')`, readerName).
		Scan(&position, &encoded)
	if err != nil {
		return 0, err
	}
	sum := &tally{}
	if encoded != nil {
		if sum, err = decodeTally(encoded); err != nil {
			return 0, err
		}
	}
	pending := sum.pending
	for {
		events, err := eventsOf(ctx, tx, position)
		if err != nil || len(events) == 0 {
			return pending, err
		}
		position = events[len(events)-1].Position
		good, _ := sift(events)
		before, err := retriedStates(ctx, tx, good)
		if err != nil {
			return 0, err
		}
		sums := sumsOf{byKey: map[statsKey]*tally{}}
		for i := range good {
			sums.count(&good[i], before)
		}
		for _, t := range sums.byKey {
			pending += t.pending
		}
	}
}

// eventsOf reads a page of what concerns deliveries.
func eventsOf(ctx context.Context, tx pgx.Tx, after eventstore.Position) ([]eventstore.Event, error) {
	rows, err := tx.Query(ctx, `
		SELECT position, stream, version, type, data, recorded_at FROM medilab.events
		WHERE position > $1 AND (stream LIKE 'delivery-%' OR type IN ('event.triggered', 'event.dispatched')) ORDER BY position LIMIT 1000`, after)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (e eventstore.Event, err error) {
		err = row.Scan(&e.Position, &e.Stream, &e.Version, &e.Type, &e.Data, &e.RecordedAt)
		return e, err
	})
}
