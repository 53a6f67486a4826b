package projections

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Gauges are the few figures of the whole system that a monitor reads often.
type Gauges struct {
	Successes, Failures int64 // calls
	Pending             int64 // deliveries
	LagSeconds          float64
	Parked              int64 // entries of the log that no read model could take
	OpenAlerts          map[domain.AlertKind]int64
	Jobs                map[domain.ReplayState]int64 // replays and bulk retries that have not ended, by state
}

// Gauges reads them, every kind of alert among them.
func (p *Projections) Gauges(ctx context.Context) (Gauges, error) {
	_, sum, _, err := p.stats(ctx, wholeSystem, StatsFilter{})
	if err != nil {
		return Gauges{}, err
	}
	lag, err := p.Lag(ctx)
	if err != nil {
		return Gauges{}, err
	}
	g := Gauges{Successes: sum.successes, Failures: sum.calls - sum.successes, Pending: sum.pending, LagSeconds: lag.LagSeconds,
		OpenAlerts: map[domain.AlertKind]int64{}}
	for _, kind := range domain.AlertKinds {
		g.OpenAlerts[kind] = 0
	}
	open, err := openAlerts(ctx, p.pool)
	if err != nil {
		return Gauges{}, fmt.Errorf("count the open alerts: %w", err)
	}
	for _, alert := range open {
		g.OpenAlerts[alert.Kind]++
	}
	if err := p.pool.QueryRow(ctx, `SELECT count(*) FROM medilab.parked`).Scan(&g.Parked); err != nil {
		return Gauges{}, fmt.Errorf("count the dead letters: %w", err)
	}
	g.Jobs = map[domain.ReplayState]int64{domain.ReplayStateCounting: 0, domain.ReplayStateRunning: 0, domain.ReplayStatePaused: 0}
	rows, _ := p.pool.Query(ctx, `SELECT state, count(*) FROM medilab.replays WHERE finished_at IS NULL GROUP BY state`)
	var state domain.ReplayState
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&state, &n}, func() error {
		if _, known := g.Jobs[state]; known {
			g.Jobs[state] = n
		}
		return nil
	})
	return g, doing("count the jobs", err)
}

// NodeStatus is a live node.
type NodeStatus = eventstore.NodeStatus

// Nodes returns the live nodes.
func (p *Projections) Nodes(ctx context.Context) ([]NodeStatus, error) {
	nodes, err := eventstore.Nodes(ctx, p.pool)
	for i := range nodes {
		nodes[i].JoinedAt = nodes[i].JoinedAt.UTC()
	}
	return nodes, err
}

// LogEnd is the end of the log.
type LogEnd = eventstore.Anchor

// LogEnd returns the end of the log, which is zero while it is empty.
func (p *Projections) LogEnd(ctx context.Context) (LogEnd, error) {
	end, err := p.log.Anchor(ctx)
	if errors.Is(err, eventstore.ErrEmpty) {
		return LogEnd{}, nil
	}
	return end, err
}
