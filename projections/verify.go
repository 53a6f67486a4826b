package projections

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"

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

// Queue is the queue of deliveries that have not ended.
type Queue interface {
	// Verify reports what contradicts the log, and returns how many deliveries the
	// queue holds.
	Verify(ctx context.Context, tx pgx.Tx, report func(stream, text string)) (int64, error)
}

// Verify checks the log and what was made of it, which it makes again of the pages that the check of
// the log reads. It reports what is wrong and goes on; the error is that checking failed. It works
// while the system serves, in constant memory.
func (p *Projections) Verify(ctx context.Context, queue Queue, report func(Problem), progress Progress) error {
	if progress == nil {
		progress = func(_, _ Position) {}
	}
	var failed error
	checked := false
	check := func(yield func(page []eventstore.Event)) {
		checked, failed = true, p.log.VerifyEach(ctx, reported(report), progress, yield)
	}
	err := p.verifyModels(ctx, queue, report, func(s *shadow, to Position) (err error) {
		check(func(page []eventstore.Event) {
			if err == nil {
				err = s.follow(ctx, page, to)
			}
		})
		if err == nil { // what the check did not come to
			err = s.fill(ctx, to, func(_, _ Position) {})
		}
		return err
	})
	if !checked { // what one finds counts if the other fails
		check(func([]eventstore.Event) {})
	}
	return errors.Join(failed, err)
}

// VerifyBeside checks what was made of the log while another check looks at that, such as at a copy of it. It
// reads the log itself. Progress is that of both.
func (p *Projections) VerifyBeside(ctx context.Context, log func(context.Context, Progress) error, queue Queue, report func(Problem), progress Progress) error {
	var moving sync.Mutex
	var ofLog, ofModels struct{ done, total eventstore.Position }
	half := func(own, other *struct{ done, total eventstore.Position }) Progress {
		return func(done, total eventstore.Position) {
			moving.Lock()
			defer moving.Unlock()
			own.done, own.total = done, total
			progress(own.done+other.done, own.total+cmp.Or(other.total, total))
		}
	}
	var failed error
	var checking sync.WaitGroup // what one finds counts if the other fails
	checking.Go(func() { failed = log(ctx, half(&ofLog, &ofModels)) })
	err := p.verifyModels(ctx, queue, report, func(s *shadow, to Position) error { return s.fill(ctx, to, half(&ofModels, &ofLog)) })
	checking.Wait()
	return errors.Join(failed, err)
}

// VerifyLog checks the log, by reading alone; see eventstore.Log.Verify.
func (p *Projections) VerifyLog(ctx context.Context, report func(Problem), progress Progress) error {
	return p.log.Verify(ctx, reported(report), progress)
}

func reported(report func(Problem)) func(eventstore.Damage) {
	return func(d eventstore.Damage) {
		report(Problem{Kind: ProblemKind(d.Flaw), Position: d.Position, Stream: d.Stream, Text: d.Text})
	}
}

// verifyModels checks that every read model equals its rebuild, by shadow tables that rebuild fills up to
// the position, then that the queue holds what is pending. The error is a *domain.Error of KindConflict when
// a rebuild is under way.
func (p *Projections) verifyModels(ctx context.Context, queue Queue, report func(Problem), rebuild func(s *shadow, to Position) error) error {
	err := p.exclusively(ctx, func(conn *pgxpool.Conn) error {
		err := p.compareModels(ctx, conn, report, rebuild)
		if err != nil {
			err = fmt.Errorf("check the read models: %w", err)
		}
		return errors.Join(err, dropShadows(context.WithoutCancel(ctx), conn))
	})
	if err != nil {
		return err
	}
	return doing("check the queue", p.verifyQueue(ctx, queue, report))
}

// verifyQueue checks at one moment that every delivery in the queue is pending by its
// stream, and that there are as many as the log has pending: so they are the same.
func (p *Projections) verifyQueue(ctx context.Context, queue Queue, report func(Problem)) error {
	return p.snapshot(ctx, func(tx pgx.Tx) error {
		queued, err := queue.Verify(ctx, tx, func(stream, text string) {
			report(Problem{Kind: ProblemQueue, Stream: stream, Text: text})
		})
		if err != nil {
			return err
		}
		pending, err := pendingDeliveries(ctx, tx)
		if err != nil {
			return err
		}
		if queued != pending {
			report(Problem{Kind: ProblemQueue, Text: fmt.Sprintf("queued deliveries: %d, pending by the log: %d", queued, pending)})
		}
		return nil
	})
}

// compareModels takes checksums of the read models at one moment, fills shadow
// tables up to the same position, and compares. Lists that are known to be older than
// an archive are a *domain.Error of KindConflict.
func (p *Projections) compareModels(ctx context.Context, conn *pgxpool.Conn, report func(Problem), rebuild func(s *shadow, to Position) error) error {
	if err := p.verifyTotals(ctx, report); err != nil {
		return err
	}
	s, err := p.newShadow(ctx, conn, checkTables, models)
	if err != nil {
		return err
	}
	behind, err := p.log.ListsBehind(ctx)
	if err == nil && behind {
		err = domain.Conflict("an archive command has not rebuilt the lists of the log yet: wait for it, or run it again if it was interrupted")
	}
	if err != nil {
		return err
	}
	live, position, err := p.checksums(ctx, Tables{}, s.names)
	if err != nil {
		return err
	}
	err = rebuild(s, position)
	if gap, ok := errors.AsType[*eventstore.GapError](err); ok {
		report(Problem{Kind: ProblemReadModel, Position: gap.Position, Text: "the read models were not compared: the log has a gap"})
		return nil
	}
	if err == nil {
		err = s.checkArchived(ctx)
	}
	if err != nil {
		return err
	}
	rebuilt, _, err := p.checksums(ctx, checkTables, s.names)
	if err != nil {
		return err
	}
	for _, table := range s.names {
		if live[table] != rebuilt[table] {
			report(Problem{Kind: ProblemReadModel, Text: fmt.Sprintf("medilab.%s holds %d rows that are not the %d that the log makes of it up to %d: rebuild it",
				table, live[table].rows, rebuilt[table].rows, position)})
		}
	}
	return nil
}

// checksum is equal for tables that hold the same rows, in any order.
type checksum struct {
	rows int64
	sum  string
}

// checksums returns those of the tables, and the position of the read models, all
// at one moment.
func (p *Projections) checksums(ctx context.Context, tables Tables, names []string) (sums map[string]checksum, position eventstore.Position, err error) {
	sums = map[string]checksum{}
	err = p.snapshot(ctx, func(tx pgx.Tx) error {
		if position, err = positionIn(ctx, tx); err != nil {
			return err
		}
		for _, name := range names {
			var c checksum
			err := tx.QueryRow(ctx, tables.SQL(`
				SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text FROM {`+name+`} AS t`)).Scan(&c.rows, &c.sum)
			if err != nil {
				return err
			}
			sums[name] = c
		}
		return nil
	})
	return sums, position, err
}
