package main

import (
	"context"
	"strconv"
	"time"

	"github.com/medilab/webhooks/eventstore"
)

// paceVacuum sets how often the embedded Postgres looks for tables to vacuum, until ctx
// ends. The queue's rows are short-lived: dead ones must be removed before a claim has to
// step over them, and before the queue grows on disk. An idle server would spend most of
// its time on these looks, as each starts a process.
func (s *server) paceVacuum(ctx context.Context) {
	const busy, idle, look = 2 * time.Second, time.Minute, 5 * time.Second
	for set := time.Duration(0); ctx.Err() == nil; {
		wanted := busy
		if s.log.Pace(busy) > busy {
			wanted = idle
		}
		if wanted != set {
			if err := s.setNaptime(ctx, wanted); err == nil {
				set = wanted
			} else if ctx.Err() == nil {
				s.logger.Debug("autovacuum not paced, trying again", "error", err)
			}
		}
		_ = eventstore.Sleep(ctx, look)
	}
}

func (s *server) setNaptime(ctx context.Context, d time.Duration) error {
	if _, err := s.pool.Exec(ctx, `ALTER SYSTEM SET autovacuum_naptime = `+strconv.Itoa(int(d.Seconds()))); err != nil {
		return err
	}
	_, err := s.pool.Exec(ctx, `SELECT pg_reload_conf()`)
	return err
}
