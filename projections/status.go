package projections

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Lag says how far the read models are behind the log.
type Lag struct {
	Position   eventstore.Position `json:"position"`
	Head       eventstore.Position `json:"head"`
	LagEvents  int64               `json:"lag_events"`
	LagSeconds float64             `json:"lag_seconds"` // age of the oldest event that is not applied
}

// Lag returns how far the read models are behind the log.
func (p *Projections) Lag(ctx context.Context) (Lag, error) {
	var lag Lag
	err := p.pool.QueryRow(ctx, `
		SELECT r.position, h.position, h.position - r.position,
			coalesce(greatest(extract(epoch FROM clock_timestamp() -
				(SELECT e.recorded_at FROM medilab.events AS e WHERE e.position = r.position + 1)), 0), 0)::float8
		FROM medilab.log_head AS h
		CROSS JOIN (SELECT coalesce((SELECT position FROM medilab.readers WHERE name = $1), 0) AS position) AS r`, readerName,
	).Scan(&lag.Position, &lag.Head, &lag.LagEvents, &lag.LagSeconds)
	return lag, doing("read the projections' lag", err)
}

// Status is the state of a read model.
type Status struct {
	Name string `json:"name"`
	Lag
	Rebuilding bool                 `json:"rebuilding"`
	Rebuilt    *eventstore.Position `json:"rebuilt_position"` // how far the rebuild under way has come
	Outdated   bool                 `json:"outdated"`         // filled by another version: rebuild it
}

// List returns the state of every read model.
func (p *Projections) List(ctx context.Context) ([]Status, error) {
	lag, err := p.Lag(ctx)
	if err != nil {
		return nil, err
	}
	type stored struct {
		Name     string
		Version  int
		Building *eventstore.Position
	}
	// The note of a rebuild counts while its process holds the lock, which pg_locks
	// shows in halves.
	rows, _ := p.pool.Query(ctx, `
		SELECT name, shape, CASE WHEN working THEN building END FROM medilab.read_models CROSS JOIN (
			SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted
				AND (classid::bigint << 32 | objid::bigint) = $1
				AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS working) AS w`,
		rebuildLock)
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[stored])
	if err != nil {
		return nil, fmt.Errorf("list the read models: %w", err)
	}
	known := map[string]stored{}
	for _, s := range all {
		known[s.Name] = s
	}
	list := make([]Status, len(models))
	for i, m := range models {
		s := known[m.Name]
		list[i] = Status{Name: m.Name, Lag: lag, Rebuilding: s.Building != nil, Rebuilt: s.Building,
			Outdated: lag.Position > 0 && s.Version != m.SchemaVersion}
	}
	return list, nil
}

// Outdated names the read models that another version filled, and new ones that
// lack what the log held before them. Rebuild mends both.
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

// RebuildOutdated rebuilds outdated read models, as after an upgrade, until ctx ends. Only the
// node that keeps the read models does so: while versions run side by side, the newest keeps
// them, and an older one that takes over makes them its own.
func (p *Projections) RebuildOutdated(ctx context.Context, node *eventstore.Node) {
	const leastPause, mostPause = 15 * time.Second, 5 * time.Minute // each try goes through the whole log
	logged := false
	for pause := leastPause; ; {
		var names []string
		_, owner, err := p.log.AcquireLease(ctx, node, readerName, eventstore.LeaseTime)
		if owner {
			names, err = p.Outdated(ctx)
		}
		if len(names) > 0 {
			p.logger.Info("read models of another version are being rebuilt", "names", names)
			err = p.Rebuild(ctx, names, nil)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil, errors.Is(err, domain.KindConflict):
			pause, logged = leastPause, false
		case len(names) > 0:
			pause = min(2*pause, mostPause)
			if !logged { // once: it may go on for long
				p.logger.Error("read models of another version are not rebuilt, trying again until they are", "names", names, "error", err)
				logged = true
			}
		}
		if eventstore.Sleep(ctx, pause) != nil {
			return
		}
	}
}

// noteSchemaVersions records, before the first page is ever applied, which version
// of each read model its tables hold.
func (p *Projections) noteSchemaVersions(ctx context.Context) error {
	_, err := p.pool.Exec(ctx, `
		INSERT INTO medilab.read_models (name, shape) SELECT * FROM unnest($1::text[], $2::int[])
		WHERE NOT EXISTS (SELECT FROM medilab.readers WHERE name = $3 AND position > 0)
		ON CONFLICT (name) DO NOTHING`, append(versionsOf(models), readerName)...)
	return doing("note the schema versions of the read models", err)
}
