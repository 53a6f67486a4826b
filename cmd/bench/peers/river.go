package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/medilab/webhooks/migrations/postgres"
)

// maxConns is enough for 512 callers: more only wait for the same disk.
const maxConns = 64

// jobs keeps calls as jobs of River.
type jobs struct {
	database *postgres.Server
	pool     *pgxpool.Pool
	client   *river.Client[pgx.Tx]
}

type worker struct {
	river.WorkerDefaults[call]
	make func(context.Context, call) error
}

// Work implements river.Worker.
func (w *worker) Work(ctx context.Context, job *river.Job[call]) error { return w.make(ctx, job.Args) }

// openRiver starts River on a Postgres with the product's settings.
func openRiver(ctx context.Context, dir string, workers int, send func(context.Context, call) error) (_ queue, err error) {
	database, err := postgres.Start(ctx, postgres.Options{DataDir: dir + "/postgres"})
	if err != nil {
		return nil, err
	}
	j := &jobs{database: database}
	defer func() {
		if err != nil {
			err = errors.Join(err, j.close(context.WithoutCancel(ctx)))
		}
	}()
	config, err := pgxpool.ParseConfig(database.URL())
	if err != nil {
		return nil, fmt.Errorf("read the database's URL: %w", err)
	}
	config.MaxConns = maxConns
	if j.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return nil, err
	}
	driver := riverpgxv5.New(j.pool)
	migrator, err := rivermigrate.New(driver, nil)
	if err != nil {
		return nil, err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return nil, err
	}
	all := river.NewWorkers()
	river.AddWorker(all, &worker{make: send})
	j.client, err = river.NewClient(driver, &river.Config{
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: workers}}, Workers: all, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	return j, j.client.Start(context.WithoutCancel(ctx))
}

func (j *jobs) put(ctx context.Context, calls []call) (err error) {
	if len(calls) == 1 {
		_, err = j.client.Insert(ctx, calls[0], nil)
		return err
	}
	many := make([]river.InsertManyParams, len(calls))
	for i, c := range calls {
		many[i].Args = c
	}
	_, err = j.client.InsertMany(ctx, many)
	return err
}

func (j *jobs) close(ctx context.Context) (err error) {
	if j.client != nil {
		err = j.client.StopAndCancel(ctx)
	}
	if j.pool != nil {
		j.pool.Close()
	}
	return errors.Join(err, j.database.Stop(ctx))
}
