package saga

import (
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/migrations/testdb"
)

// A release and an append that ends the first of the same line give the turn one after the other:
// the line neither stands still nor has two turns.
func TestReleaseDuringAnAppendKeepsTheTurn(t *testing.T) {
	pool, err := pgxpool.New(t.Context(), testdb.New(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	webhook, event, ended, released := uuid.New(), uuid.New(), uuid.New(), uuid.New()
	for position, row := range map[int]struct {
		id   uuid.UUID
		node any
	}{1: {ended, 0}, 2: {released, nil}} {
		if _, err := pool.Exec(t.Context(), `INSERT INTO medilab.queue (delivery_id, webhook_id, event_id, size, attempt, retries, version, due_at, line, position, node)
			VALUES ($1, $2, $3, 1, 1, 0, 0, now(), 5, $4, $5)`, row.id, webhook, event, position, row.node); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	err = pgx.BeginFunc(t.Context(), pool, func(append pgx.Tx) error {
		o := orderedRows{}
		o.touch(ended, true)
		if _, err := append.Exec(t.Context(), `SELECT FROM medilab.log_head FOR UPDATE`); err != nil {
			return err
		}
		for _, s := range o.turns([][16]byte{ended}) {
			if _, err := append.Exec(t.Context(), s.SQL, s.Args...); err != nil {
				return err
			}
		}
		if _, err := append.Exec(t.Context(), `DELETE FROM medilab.queue WHERE delivery_id = $1`, ended); err != nil {
			return err
		}
		go func() { done <- giveTurns(t.Context(), pool, []*delivery{{id: domain.DeliveryID(released), line: 5}}) }()
		harness.Until(t, "the release waits for the append", func() (waits bool) {
			err := pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waits)
			return err == nil && waits
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	var turns int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM medilab.queue WHERE node IS DISTINCT FROM 0`).Scan(&turns); err != nil || turns != 1 {
		t.Errorf("%d have the turn: %v", turns, err)
	}
}
