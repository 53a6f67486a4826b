package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations"
	"github.com/medilab/webhooks/migrations/postgres"
)

// databaseOptions say which Postgres is ours. Every command reads them as serve does.
type databaseOptions struct {
	url     string // empty: the embedded one
	dataDir string
}

// register adds the flags, which override the environment. The URL's default is not shown in
// the help: it may hold a password.
func (o *databaseOptions) register(f *pflag.FlagSet) {
	f.StringVar(&o.url, "database-url", "", "the Postgres to use, 14 or newer (environment DATABASE_URL; default: an embedded one)")
	f.StringVar(&o.dataDir, "data-dir", fromEnvironment("MEDILAB_DATA_DIR", "./data"), "folder of the embedded Postgres, keys and first token (environment MEDILAB_DATA_DIR)")
}

func fromEnvironment(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

// external is the URL of the Postgres that the user named, or "" for the embedded one.
func (o databaseOptions) external() string {
	if o.url != "" {
		return o.url
	}
	return os.Getenv("DATABASE_URL")
}

// database is where the log is. Close it.
type database struct {
	url    string // it may hold a password: never print it
	server *postgres.Server
}

// stopTime bounds how long the end of a command waits for its Postgres.
const stopTime = 30 * time.Second

func (d *database) close() error {
	if d.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	return d.server.Stop(ctx)
}

// open finds the database for one command: the embedded one is the running server's, or is
// started until close.
func (o databaseOptions) open(ctx context.Context, log *slog.Logger) (*database, error) {
	if url := o.external(); url != "" {
		return &database{url: url}, nil
	}
	server, err := postgres.Open(ctx, postgres.Options{DataDir: o.dataDir, BinDir: os.Getenv("MEDILAB_POSTGRES_BIN"), Log: log})
	if err != nil {
		return nil, err
	}
	return &database{url: server.URL(), server: server}, nil
}

// session is what a command works with: the database with its log open, and the configuration
// as of now. Close it.
type session struct {
	*database
	pool     *pgxpool.Pool
	log      *eventstore.Log
	commands *commands.Commands
}

// sessionConns are few: a command shares the server with those that serve.
const sessionConns = 4

// session opens the database and makes sure that its schema is there.
func (o databaseOptions) session(ctx context.Context, notes io.Writer) (_ *session, err error) {
	logger := slog.New(slog.DiscardHandler)
	if isTerminal(notes) { // a first start may take a while
		logger = slog.New(slog.NewTextHandler(notes, nil))
	}
	db, err := o.open(ctx, logger)
	if err != nil {
		return nil, err
	}
	s := &session{database: db}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.pool, err = eventstore.OpenPool(ctx, db.url, sessionConns); err != nil {
		return nil, err
	}
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	directory := commands.NewDirectory(logger)
	s.log = eventstore.Open(eventstore.Config{
		Pool:      s.pool,
		Codec:     func(name string, data []byte) (any, error) { return domain.Decode(name, data) },
		Inline:    []eventstore.Inline{saga.Queue{}},
		Observers: []eventstore.Observer{directory.Observe},
		Announce:  true, // so that whoever serves notices at once
	})
	s.commands = &commands.Commands{Log: s.log, Pool: s.pool, Directory: directory, Catalog: domain.BuiltinCatalog()}
	if err := directory.Open(ctx, s.log); err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	return s, nil
}

// prepare gives a new database its tables. One that an older version made is not touched: a
// newer command must not change it under a server that runs.
func (s *session) prepare(ctx context.Context) error {
	pending, err := migrations.Pending(ctx, s.pool)
	if err != nil {
		return databaseError(err)
	}
	if !pending {
		return nil
	}
	var old bool
	if err := s.pool.QueryRow(ctx, `SELECT to_regclass('medilab.events') IS NOT NULL`).Scan(&old); err != nil {
		return databaseError(err)
	}
	if old {
		return errors.New("the database was made by an older version; run `medilab-webhooks migrate` first")
	}
	if _, err := migrations.Up(ctx, s.url); err != nil {
		return databaseError(err)
	}
	return nil
}

func (s *session) close() error {
	if s.log != nil {
		s.log.Close()
	}
	if s.pool != nil {
		s.pool.Close()
	}
	return s.database.close()
}

// databaseError says what to do about a database that does not answer.
func databaseError(err error) error {
	if errors.As(err, new(*pgconn.ConnectError)) {
		return fmt.Errorf("%w; check DATABASE_URL, and that the server runs", err)
	}
	return err
}

// use runs f with a session for the command.
func (o *databaseOptions) use(c *cobra.Command, f func(*session) error) (err error) {
	s, err := o.session(c.Context(), c.ErrOrStderr())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return f(s)
}

// caller is who the log says gave the command.
func caller() commands.Caller {
	return commands.Caller{Actor: "command line (" + fromEnvironment("USER", "uid "+fmt.Sprint(os.Getuid())) + ")"}
}
