package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/commands/vault"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations"
	"github.com/medilab/webhooks/migrations/postgres"
	"github.com/medilab/webhooks/projections"
)

// databaseOptions say which Postgres to use. Every command has them.
type databaseOptions struct {
	url     string // empty: the embedded one
	readURL string // of a standby; empty: none
	dataDir string
	binDir  string
	keys    string // empty: see keysFile
	subject string
	anchors string        // empty: see anchorFile
	keep    time.Duration // of content; zero: for ever

	eventTypes string // file that adds some; empty: none
}

func (o *databaseOptions) table() []setting {
	return []setting{
		{env: "DATABASE_URL", flag: "database-url", value: &o.url, usage: "the Postgres to use, 14 or newer", unset: "an embedded one", secret: true},
		{env: "MEDILAB_READ_URL", flag: "read-url", value: &o.readURL, usage: "a standby of it, for the call log, events, statistics, audit, explain and backtest", unset: "none", secret: true,
			check: func() error {
				if o.readURL == "" {
					return nil
				}
				return eventstore.CheckURL(o.readURL)
			}},
		{env: "MEDILAB_DATA_DIR", flag: "data-dir", value: &o.dataDir, usual: "./data", usage: "folder of the embedded Postgres, keys and first token"},
		{env: "MEDILAB_POSTGRES_BIN", value: &o.binDir},
		{env: "MEDILAB_EVENT_TYPES", value: &o.eventTypes}, // see eventTypesSetting
		{env: "MEDILAB_KEYS", flag: "keys", value: &o.keys, usage: "keyset file that encrypts secrets and patients' data at rest", unset: "keys.json in the data folder"},
		{env: "MEDILAB_ANCHORS", flag: "anchors", value: &o.anchors, usage: "file that lists erasures, which serve makes again when an older backup was restored", unset: "anchors.ndjson in the data folder"},
		{env: "MEDILAB_KEEP_PAYLOADS", flag: "keep-payloads", value: &o.keep, usage: "how long what events hold and receivers answer can be read, as 365d", unset: "for ever",
			rule: "1s or more", valid: func() bool { return o.keep == 0 || o.keep >= time.Second }},
		{env: "MEDILAB_SUBJECT", flag: "subject", value: &o.subject, usual: "patient_id", usage: "where event_data names its patient: paths, separated by commas",
			rule: "paths as in filters, separated by commas", valid: func() bool { return domain.CheckSubjectPaths(o.subject) == "" }},
	}
}

// database is an open database. Close it.
type database struct {
	url      string           // it may hold a password: never print it
	embedded *postgres.Server // nil if databaseOptions name a URL
	pool     *pgxpool.Pool    // nil until connect
	guard    *eventstore.Guard
	copies   *pgxpool.Pool        // nil: no standby
	standby  *projections.Standby // likewise
}

// startFunc says how to get at an embedded database.
type startFunc func(context.Context, postgres.Options) (*postgres.Server, error)

// open finds the database.
func (o databaseOptions) open(ctx context.Context, logger *slog.Logger, start startFunc) (*database, error) {
	if o.url != "" {
		if err := eventstore.CheckURL(o.url); err != nil {
			return nil, fmt.Errorf("DATABASE_URL: %w", err)
		}
		return &database{url: o.url}, nil
	}
	server, err := start(ctx, postgres.Options{DataDir: o.dataDir, BinDir: o.binDir, Log: logger})
	if err != nil {
		return nil, err
	}
	return &database{url: server.URL(), embedded: server}, nil
}

func (d *database) migrate(ctx context.Context, logger *slog.Logger) (applied []string, err error) {
	applied, err = migrations.Up(ctx, d.pool, logger)
	return applied, databaseError(err)
}

func (d *database) connect(ctx context.Context, connections int) (err error) {
	d.guard = eventstore.NewGuard(slog.Default())
	d.pool, err = d.guard.OpenPool(ctx, d.url, connections)
	return databaseError(err)
}

// follow makes a standby at the URL answer queries. It need not be there yet.
func (d *database) follow(ctx context.Context, url string, connections int, queries *projections.Projections) (err error) {
	if url == "" {
		return nil
	}
	if d.copies, err = eventstore.OpenStandbyPool(ctx, url, connections); err != nil {
		return fmt.Errorf("MEDILAB_READ_URL: %w", err)
	}
	d.standby = projections.NewStandby(queries, d.copies)
	return nil
}

// stopTimeout bounds how long the end of a process waits for its Postgres.
const stopTimeout = 30 * time.Second

// disconnect undoes connect and follow.
func (d *database) disconnect() {
	for _, pool := range []**pgxpool.Pool{&d.copies, &d.pool} {
		if *pool != nil {
			(*pool).Close()
			*pool = nil
		}
	}
}

func (d *database) close() error {
	d.disconnect()
	if d.embedded == nil {
		return nil
	}
	return within(stopTimeout, d.embedded.Stop)
}

// databaseError adds what to do about a database that does not answer.
func databaseError(err error) error {
	if errors.As(err, new(*pgconn.ConnectError)) {
		return fmt.Errorf("%w; check DATABASE_URL, and that the server runs", err)
	}
	return err
}

// session is what a command works with: the database with its log open, and the configuration as of
// now. Close it.
type session struct {
	*database
	log      *eventstore.Log
	commands *commands.Commands
	anchors  *anchorFile
}

// sessionConnections are few: a command shares the server with those that serve.
const sessionConnections = 4

// session opens the database and makes sure that its schema is there.
func (o databaseOptions) session(ctx context.Context, logger *slog.Logger, start startFunc) (_ *session, err error) {
	catalog, err := o.catalog()
	if err != nil {
		return nil, err
	}
	db, err := o.open(ctx, logger, start)
	if err != nil {
		return nil, err
	}
	s := &session{database: db, anchors: newAnchorFile(o.anchorFile())}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if err := db.connect(ctx, sessionConnections); err != nil {
		return nil, err
	}
	if err := s.prepare(ctx, logger); err != nil {
		return nil, err
	}
	directory := commands.NewDirectory(logger)
	directory.OnErasure = s.anchors.hear
	directory.Keys = o.keyring(s.pool, func() domain.Catalog { return s.commands.Catalog }, func(ctx context.Context) (*vault.Vault, error) {
		return vault.OpenFor(ctx, s.pool, o.keysFile(), func(v *vault.Vault) bool { return directory.Decrypts(v) })
	})
	s.log = eventstore.Open(eventstore.Config{
		Pool: s.pool, Guard: s.guard, Envelope: whereKeyset{directory.Keys, o.keysFile()},
		Codec:     func(name string, data []byte) (any, error) { return domain.Decode(name, data) },
		Inline:    []eventstore.Inline{saga.Queue{}},
		Observers: []eventstore.Observer{directory.Observe},
		Lost:      func(eventstore.Loss) { directory.Keys.ForgetAll() },
		Announce:  true, // so that serving nodes notice at once
	})
	s.commands = &commands.Commands{
		Log: s.log, Pool: s.pool, Queue: saga.Queue{Pool: s.pool}, Directory: directory, Catalog: catalog,
		Failed: s.queries(), Subjects: s.queries(), Attempter: &commands.Attempter{Clock: s.log.Clock(), Decrypter: directory.Keys},
	}
	if err := directory.Open(ctx, s.log); err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	return s, s.follow(ctx, o.readURL, sessionConnections, s.queries())
}

// anchorFile returns the path of the file of anchors, by default in the data folder.
func (o databaseOptions) anchorFile() string {
	return cmp.Or(o.anchors, filepath.Join(o.dataDir, "anchors.ndjson"))
}

// keyring returns the keyring of the database.
func (o databaseOptions) keyring(pool *pgxpool.Pool, catalog func() domain.Catalog, open func(context.Context) (*vault.Vault, error)) *vault.Keyring {
	usual := domain.ParseSubjectPaths(o.subject)
	return vault.NewKeyring(vault.KeyringConfig{
		Pool: pool, Keep: o.keep, Open: open, Upgrade: saga.HashLines,
		Paths: func(t domain.EventType) domain.SubjectPaths { return catalog().SubjectPaths(t, usual) },
	})
}

// whereKeyset is a keyring of a database whose keyset may be elsewhere: then a command shows
// content as the log has it.
type whereKeyset struct {
	*vault.Keyring
	file string
}

// Open implements eventstore.Envelope.
func (k whereKeyset) Open(ctx context.Context, events []eventstore.Event) error {
	if _, err := os.Stat(k.file); err != nil {
		return nil
	}
	return k.Keyring.Open(ctx, events)
}

// prepare creates the tables of a new database. It does not migrate an older one: a newer command
// must not change it under a running server.
func (s *session) prepare(ctx context.Context, logger *slog.Logger) error {
	pending, err := migrations.Pending(ctx, s.pool)
	if err != nil || !pending {
		return databaseError(err)
	}
	var old bool
	if err := s.pool.QueryRow(ctx, `SELECT to_regclass('medilab.events') IS NOT NULL`).Scan(&old); err != nil {
		return databaseError(err)
	}
	if old {
		return errors.New("the database was made by an older version; run `medilab-webhooks migrate` first")
	}
	_, err = s.migrate(ctx, logger)
	return err
}

func (s *session) close() error {
	if s.log != nil {
		s.log.Close()
	}
	return s.database.close()
}

// use runs f with a session for the command.
func (o *databaseOptions) use(c *cobra.Command, f func(*session) error) (err error) {
	logger := slog.New(slog.DiscardHandler)
	if notes := c.ErrOrStderr(); isTerminal(notes) { // a first start may take a while
		logger = slog.New(slog.NewTextHandler(notes, nil))
	}
	s, err := o.session(c.Context(), logger, postgres.Open)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return f(s)
}

// run returns the RunE of a command that works on the database.
func (o *databaseOptions) run(do func(*cobra.Command, *session, []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		return o.use(c, func(s *session) error { return do(c, s, args) })
	}
}

// caller is the actor that the log names for a command.
func caller() commands.Caller {
	user := cmp.Or(os.Getenv("USER"), fmt.Sprint("uid ", os.Getuid()))
	return commands.Caller{Actor: "command line (" + user + ")"}
}
