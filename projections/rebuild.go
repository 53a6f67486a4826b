package projections

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/eventstore/failpoint"
)

// A rebuild fills new tables beside the old ones from the beginning of the log,
// in pages of transactions of its own, while the old ones serve and grow. When
// it is near the place where they are, it takes the lock on that place, does the
// rest, and swaps the tables, in one transaction: nobody sees a read model that
// is missing, behind, or twice what it should be. It works from any process.

// rebuildLock lets one rebuild or check at a time fill copies ("rebuild" as bytes).
const rebuildLock int64 = 0x72656275696c64

// The lock's halves, as pg_locks shows them.
const rebuildLockHigh, rebuildLockLow = rebuildLock >> 32, rebuildLock & 0xffffffff

var (
	rebuilt = Tables{suffix: "_next"}
	checked = Tables{suffix: "_check"}
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

// Rebuild fills the named read models anew from the log; no names: all of them.
// Another rebuild under way is a *domain.Error of KindConflict, an unknown name
// one of KindInvalid. What a crash or an error leaves behind, the next one clears.
func (p *Projections) Rebuild(ctx context.Context, names []string, progress Progress) error {
	chosen, err := choose(names)
	if err != nil {
		return err
	}
	if progress == nil {
		progress = func(eventstore.Position, eventstore.Position) {}
	}
	return p.exclusively(ctx, func(conn *pgxpool.Conn) error {
		work, err := p.startFilling(ctx, conn, rebuilt, chosen)
		if err != nil {
			return err
		}
		err = work.rebuild(ctx, progress)
		if err != nil {
			err = errors.Join(err, work.abandon(context.WithoutCancel(ctx)))
		}
		return err
	})
}

func choose(names []string) ([]Model, error) {
	if len(names) == 0 {
		return models, nil
	}
	var chosen []Model
	for _, m := range models {
		if slices.Contains(names, m.Name) {
			chosen = append(chosen, m)
		}
	}
	for _, name := range names {
		if !slices.ContainsFunc(chosen, func(m Model) bool { return m.Name == name }) {
			return nil, domain.Invalid("name", "must be one of "+strings.Join(Names(), ", "))
		}
	}
	return chosen, nil
}

// exclusively does the work on a connection that holds the lock for it.
func (p *Projections) exclusively(ctx context.Context, work func(*pgxpool.Conn) error) (err error) {
	conn, err := p.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	defer conn.Release()
	var free bool
	if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, rebuildLock).Scan(&free); err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	if !free {
		return domain.Conflict("read models are being rebuilt or checked already: wait for that to end")
	}
	defer func() {
		_, unlock := conn.Exec(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1)`, rebuildLock)
		err = errors.Join(err, unlock)
	}()
	return work(conn)
}

// filling is a set of copies on its way through the log.
type filling struct {
	*Projections
	conn     *pgxpool.Conn
	models   []Model
	names    []string // of the models that are being rebuilt
	copies   *copies
	applier  *applier
	position eventstore.Position
}

// startFilling makes empty copies of the models' tables, in place of any that
// were left behind.
func (p *Projections) startFilling(ctx context.Context, conn *pgxpool.Conn, tables Tables, chosen []Model) (*filling, error) {
	f := &filling{Projections: p, conn: conn, models: chosen}
	var names []string
	for _, m := range chosen {
		if tables == rebuilt {
			f.names = append(f.names, m.Name)
		}
		names = append(names, m.Tables...)
	}
	parked := Tables{}
	if len(chosen) == len(models) || tables == checked {
		parked = tables
		names = append(names, "parked")
	}
	f.applier = newApplier(chosen, tables, parked)
	if err := dropLeftovers(ctx, conn); err != nil {
		return nil, err
	}
	_, err := conn.Exec(ctx, `UPDATE medilab.read_models SET building = NULL WHERE building IS NOT NULL`)
	if err != nil {
		return nil, fmt.Errorf("rebuild: %w", err)
	}
	f.copies, err = makeCopies(ctx, conn, tables, names)
	return f, err
}

// dropLeftovers clears what a rebuild or a check left that did not come to its end.
func dropLeftovers(ctx context.Context, conn *pgxpool.Conn) error {
	names := []string{"parked"}
	for _, m := range models {
		names = append(names, m.Tables...)
	}
	for _, tables := range []Tables{rebuilt, checked} {
		if err := (&copies{tables: tables, names: names}).drop(ctx, conn); err != nil {
			return err
		}
	}
	return nil
}

// rebuild fills the copies and swaps them in.
func (f *filling) rebuild(ctx context.Context, progress Progress) error {
	if err := f.note(ctx); err != nil {
		return err
	}
	if err := f.catchUp(ctx, progress); err != nil {
		return err
	}
	failpoint.Pass(failpoint.InRebuild)
	if err := f.copies.finish(ctx, f.conn); err != nil {
		return err
	}
	const tries = 20
	for try := 1; ; try++ {
		// What came while the planner was told, or since the last try.
		if err := f.catchUp(ctx, progress); err != nil {
			return err
		}
		err := f.finally(ctx)
		var refused *pgconn.PgError
		if err == nil {
			progress(f.position, f.position)
		}
		if err == nil || try == tries || !errors.As(err, &refused) || refused.Code != lockNotAvailable {
			return err
		}
	}
}

const lockNotAvailable = "55P03"

// catchUp fills the copies until they are near where the read models are, or
// until these move on as fast as it follows: the last transaction ends the chase.
func (f *filling) catchUp(ctx context.Context, progress Progress) error {
	const rounds = 20
	for range rounds {
		target, err := f.Position(ctx)
		if err != nil {
			return err
		}
		progress(f.position, target)
		if target-f.position <= f.pace.near {
			return nil
		}
		err = f.log.Scan(ctx, f.position, target, f.pace.page, func(page []eventstore.Event) error {
			if err := f.page(ctx, page); err != nil {
				return err
			}
			progress(f.position, target)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// page applies one page in a transaction of its own. It need not be durable at
// once: after a crash all is done again.
func (f *filling) page(ctx context.Context, page []eventstore.Event) error {
	tx, err := f.conn.Begin(ctx)
	if err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // after a commit there is nothing to undo
	if _, err := tx.Exec(ctx, `SET LOCAL synchronous_commit = off`); err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	if err := f.applier.apply(ctx, tx, page); err != nil {
		return err
	}
	last := page[len(page)-1].Position
	if _, err := tx.Exec(ctx, `UPDATE medilab.read_models SET building = $2 WHERE name = ANY($1)`, f.names, last); err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	f.position = last
	return nil
}

// finally holds the read models at their place, brings the copies exactly there
// and swaps them in.
func (f *filling) finally(ctx context.Context) error {
	tx, err := f.conn.Begin(ctx)
	if err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // after a commit there is nothing to undo
	// A page that is being applied ends before the lock is ours. Who reads for
	// long makes us try again, rather than everybody wait behind us.
	if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '3s'`); err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	var position eventstore.Position
	err = tx.QueryRow(ctx, `SELECT position FROM medilab.readers WHERE name = $1 FOR UPDATE`, readerName).Scan(&position)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("rebuild: %w", err)
	}
	err = f.log.Scan(ctx, f.position, position, f.pace.page, func(page []eventstore.Event) error {
		return f.applier.apply(ctx, tx, page)
	})
	if err != nil {
		return err
	}
	if err := f.copies.swap(ctx, tx); err != nil {
		return err
	}
	for _, m := range f.models {
		_, err := tx.Exec(ctx, `UPDATE medilab.read_models SET shape = $2, building = NULL WHERE name = $1`, m.Name, m.Shape)
		if err != nil {
			return fmt.Errorf("rebuild: %w", err)
		}
	}
	if err := tx.Commit(ctx); err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	f.position = position
	return nil
}

// note says that the rebuild is under way, for those who ask for the list.
func (f *filling) note(ctx context.Context) error {
	_, err := f.conn.Exec(ctx, `
		INSERT INTO medilab.read_models (name, shape, building) SELECT name, 0, 0 FROM unnest($1::text[]) AS name
		ON CONFLICT (name) DO UPDATE SET building = 0`, f.names)
	if err != nil {
		return fmt.Errorf("rebuild: %w", err)
	}
	return nil
}

// abandon clears what was filled.
func (f *filling) abandon(ctx context.Context) error {
	const brief = 10 * time.Second
	ctx, cancel := context.WithTimeout(ctx, brief)
	defer cancel()
	err := f.copies.drop(ctx, f.conn)
	if _, noted := f.conn.Exec(ctx, `UPDATE medilab.read_models SET building = NULL WHERE name = ANY($1)`, f.names); noted != nil {
		err = errors.Join(err, fmt.Errorf("rebuild: %w", noted))
	}
	return err
}

// Status says where a read model stands.
type Status struct {
	Name string `json:"name"`
	Lag
	Rebuilding bool                 `json:"rebuilding"`
	Rebuilt    *eventstore.Position `json:"rebuilt_position"` // how far the rebuild under way has come
	Outdated   bool                 `json:"outdated"`         // filled by another version: rebuild it
}

// List says where every read model stands.
func (p *Projections) List(ctx context.Context) ([]Status, error) {
	lag, err := p.Lag(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := p.pool.Query(ctx, `
		SELECT name, shape, CASE WHEN working THEN building END FROM medilab.read_models CROSS JOIN (
			SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted
				AND classid::bigint = $1 AND objid::bigint = $2
				AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS working) AS w`,
		rebuildLockHigh, rebuildLockLow)
	if err != nil {
		return nil, fmt.Errorf("list the read models: %w", err)
	}
	shapes, building := map[string]int{}, map[string]*eventstore.Position{}
	var name string
	var shape int
	var at *int64
	_, err = pgx.ForEachRow(rows, []any{&name, &shape, &at}, func() error {
		shapes[name] = shape
		if at != nil {
			position := eventstore.Position(*at)
			building[name] = &position
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the read models: %w", err)
	}
	list := make([]Status, len(models))
	for i, m := range models {
		list[i] = Status{Name: m.Name, Lag: lag, Rebuilding: building[m.Name] != nil, Rebuilt: building[m.Name],
			Outdated: lag.Position > 0 && shapes[m.Name] != m.Shape}
	}
	return list, nil
}

// Outdated names the read models that an older version filled, or that are new
// and hold nothing of what the log had before them: Rebuild mends both.
func (p *Projections) Outdated(ctx context.Context) ([]string, error) {
	list, err := p.List(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range list {
		if s.Outdated {
			names = append(names, s.Name)
		}
	}
	return names, nil
}

// RebuildOutdated rebuilds what an older version filled, beside what serves, in
// the time after an upgrade, until nothing is left or ctx ends. While another node
// does so it waits: that one may die.
func (p *Projections) RebuildOutdated(ctx context.Context, _ *eventstore.Node) {
	told := false
	for wait := leastRebuildPause; ; wait = min(2*wait, mostRebuildPause) {
		names, err := p.Outdated(ctx)
		if err == nil && len(names) == 0 {
			return
		}
		if err == nil {
			p.logger.Info("read models of another version are being rebuilt", "names", names)
			err = p.Rebuild(ctx, names, nil)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil, errors.Is(err, domain.KindConflict):
			wait = leastRebuildPause
		case !told: // once: it may go on for long
			p.logger.Error("read models of another version are not rebuilt, trying again until they are", "names", names, "error", err)
			told = true
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// Tries to rebuild come after leastRebuildPause at first, and after
// mostRebuildPause in the end: each goes through the whole log.
const leastRebuildPause, mostRebuildPause = time.Second, 5 * time.Minute

// noteShapes records, before the first page is ever applied, what shape the
// tables are filled in.
func (p *Projections) noteShapes(ctx context.Context) error {
	for _, m := range models {
		_, err := p.pool.Exec(ctx, `
			INSERT INTO medilab.read_models (name, shape)
			SELECT $1, $2 WHERE NOT EXISTS (SELECT FROM medilab.readers WHERE name = $3 AND position > 0)
			ON CONFLICT (name) DO NOTHING`, m.Name, m.Shape, readerName)
		if err != nil {
			return fmt.Errorf("note the shape of %s: %w", m.Name, err)
		}
	}
	return nil
}
