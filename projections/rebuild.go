package projections

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/eventstore/failpoint"
)

// pace is how a rebuild goes through the log.
type pace struct {
	page int // events of a transaction
	// near is how many events the last transaction may have to apply while the
	// read models stand still.
	near eventstore.Position
}

var usualPace = pace{page: 10_000, near: 2_000}

// Progress is told how far a long work has come: done of total events.
type Progress func(done, total eventstore.Position)

// Rebuild fills the named read models from the log; no names: all of them. The
// live tables serve and grow meanwhile, and are swapped for the new ones in the
// end. It works from any process.
//
// Another rebuild under way is a *domain.Error of KindConflict, an unknown name
// one of KindInvalid. What a crash leaves behind, the next rebuild clears.
func (p *Projections) Rebuild(ctx context.Context, names []string, progress Progress) error {
	chosen, err := choose(names)
	if err != nil {
		return err
	}
	if progress == nil {
		progress = func(eventstore.Position, eventstore.Position) {}
	}
	return p.exclusively(ctx, func(conn *pgxpool.Conn) error {
		err := p.rebuild(ctx, conn, chosen, progress)
		if err == nil {
			return nil
		}
		const brief = 10 * time.Second
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), brief)
		defer cancel()
		return errors.Join(fmt.Errorf("rebuild: %w", err), dropShadows(ctx, conn))
	})
}

func choose(names []string) ([]Model, error) {
	if len(names) == 0 {
		return models, nil
	}
	for _, name := range names {
		if !slices.Contains(Names(), name) {
			return nil, domain.Invalid("name", "must be one of "+strings.Join(Names(), ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(models), func(m Model) bool { return !slices.Contains(names, m.Name) }), nil
}

// rebuild fills shadow tables and swaps them in.
func (p *Projections) rebuild(ctx context.Context, conn *pgxpool.Conn, chosen []Model, progress Progress) error {
	s, err := p.newShadow(ctx, conn, nextTables, chosen)
	if err != nil {
		return err
	}
	s.models = mapped(chosen, func(m Model) string { return m.Name })
	_, err = conn.Exec(ctx, `
		INSERT INTO medilab.read_models (name, shape, building) SELECT name, 0, 0 FROM unnest($1::text[]) AS name
		ON CONFLICT (name) DO UPDATE SET building = 0`, s.models)
	if err != nil {
		return err
	}
	if err := s.catchUp(ctx, progress); err != nil {
		return err
	}
	failpoint.Pass(failpoint.InRebuild)
	if _, err := conn.Exec(ctx, `ANALYZE `+s.tables.list(s.names)); err != nil {
		return err
	}
	const tries = 20
	for try := 1; ; try++ {
		// What came during ANALYZE, or since the last try.
		if err := s.catchUp(ctx, progress); err != nil {
			return err
		}
		err := s.finish(ctx, chosen)
		if err == nil {
			progress(s.position, s.position)
		}
		if err == nil || try == tries || !eventstore.HasCode(err, lockNotAvailable) {
			return err
		}
	}
}

// catchUp fills the shadow tables until they are near the read models, or these
// move on as fast as it follows: then the last transaction ends the chase.
func (s *shadow) catchUp(ctx context.Context, progress Progress) error {
	const rounds = 20
	for range rounds {
		target, err := s.Position(ctx)
		if err != nil {
			return err
		}
		progress(s.position, target)
		if target-s.position <= s.pace.near {
			return nil
		}
		if err := s.fill(ctx, target, progress); err != nil {
			return err
		}
	}
	return nil
}

// finish holds the read models at their position, fills the shadow tables up to
// it and swaps them in, in one transaction: no query sees a read model missing,
// behind, or with events applied twice.
func (s *shadow) finish(ctx context.Context, chosen []Model) error {
	var position eventstore.Position
	err := inTx(ctx, s.conn, func(tx transaction) error {
		// Rather than let everybody wait behind a long read, try again.
		if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '3s'`); err != nil {
			return err
		}
		err := tx.QueryRow(ctx, `SELECT position FROM medilab.readers WHERE name = $1 FOR UPDATE`, readerName).Scan(&position)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		err = s.log.Scan(ctx, s.position, position, s.pace.page, func(page []eventstore.Event) error {
			return s.applier.apply(ctx, tx, page)
		})
		if err != nil {
			return err
		}
		if len(lists(chosen)) == len(lists(models)) { // before the check: what is recorded after it is another archive's
			if _, err := tx.Exec(ctx, eventstore.ListsRebuilt.SQL, eventstore.ListsRebuilt.Args...); err != nil {
				return err
			}
		}
		if err := s.checkArchived(ctx); err != nil {
			return err
		}
		if err := s.swap(ctx, tx); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE medilab.read_models SET shape = version, building = NULL
			FROM unnest($1::text[], $2::int[]) AS of (model, version) WHERE name = model`, versionsOf(chosen)...)
		return err
	})
	if err == nil {
		s.position = position
	}
	return err
}
