package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	nethttp "net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/outbox"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/commands/vault"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/http"
	"github.com/medilab/webhooks/migrations"
	"github.com/medilab/webhooks/migrations/postgres"
	"github.com/medilab/webhooks/projections"
)

func newServeCommand(db *databaseOptions) *cobra.Command {
	o := newServeOptions(db)
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the API, the admin panel, the saga and the projections",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			settings, err := o.settings(c.ErrOrStderr())
			if err != nil {
				return err
			}
			return serve(c.Context(), settings, c.OutOrStdout())
		},
	}
	o.register(c.Flags())
	return c
}

// server is one serving process: the one place that knows all.
type server struct {
	settings settings
	logger   *slog.Logger
	out      io.Writer

	postgres *postgres.Server // nil: DATABASE_URL
	url      string
	pool     *pgxpool.Pool
	log      *eventstore.Log
	commands *commands.Commands
	queries  *projections.Projections
	saga     *saga.Saga
	work     saga.Config
	metrics  *metrics
	stopping atomic.Bool
	token    firstToken

	certificate *certificate // nil: no HTTPS
}

// serve runs until ctx ends, then winds down: no request is taken any more,
// calls in flight end, what is left is given back, and the database stops last.
func serve(ctx context.Context, settings settings, out io.Writer) (err error) {
	s := &server{settings: settings, logger: settings.logger, out: out}
	slog.SetDefault(s.logger)
	log.SetOutput(io.Discard) // net/http would quote what receivers send
	tuneMemory()
	if err := s.openDatabase(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.closeDatabase()) }()
	if err := s.build(ctx); err != nil {
		return err
	}
	defer s.log.Close()
	return s.run(ctx)
}

// tuneMemory spends some memory on fewer collections: most of what a call
// allocates is gone when it ends. GOGC and GOMEMLIMIT say otherwise.
func tuneMemory() {
	const target, soft = 400, 256 << 20
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(target)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(soft)
	}
}

func (s *server) openDatabase(ctx context.Context) error {
	s.url = s.settings.database.external()
	if s.url == "" {
		var err error
		s.postgres, err = postgres.Start(ctx, postgres.Options{
			DataDir: s.settings.database.dataDir, BinDir: os.Getenv("MEDILAB_POSTGRES_BIN"), Log: s.logger,
		})
		if err != nil {
			return err
		}
		s.url = s.postgres.URL()
	}
	if err := s.migrate(ctx); err != nil {
		return errors.Join(err, s.closeDatabase())
	}
	return nil
}

func (s *server) migrate(ctx context.Context) (err error) {
	applied, err := migrations.Up(ctx, s.url)
	if err != nil {
		return databaseError(err)
	}
	if len(applied) > 0 {
		s.logger.Info("migrations applied", "count", len(applied))
	}
	s.pool, err = eventstore.OpenPool(ctx, s.url, s.settings.connections)
	return err
}

func (s *server) closeDatabase() error {
	if s.pool != nil {
		s.pool.Close()
		s.pool = nil
	}
	if s.postgres == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	return s.postgres.Stop(ctx)
}

// build makes all parts and ties them together.
func (s *server) build(ctx context.Context) error {
	catalog, err := loadCatalog(s.settings.eventTypes)
	if err != nil {
		return err
	}
	if err := outbox.SyncEventTypes(ctx, s.pool, catalog); err != nil {
		return err
	}
	keys, err := s.openVault(ctx)
	if err != nil {
		return err
	}
	client, err := newSender(s.settings)
	if err != nil {
		return err
	}
	s.metrics = newMetrics()
	directory := commands.NewDirectory(s.logger)
	s.saga = saga.New(s.settings.workers)
	s.log = eventstore.Open(eventstore.Config{
		Pool: s.pool, Logger: s.logger,
		Codec:     func(name string, data []byte) (any, error) { return domain.Decode(name, data) },
		Inline:    []eventstore.Inline{saga.Queue{Saga: s.saga}},
		Observers: []eventstore.Observer{directory.Observe, s.saga.Observe},
	})
	if err := directory.Open(ctx, s.log); err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	attempter := &commands.Attempter{Sender: client, Opener: keys, Clock: s.log.Clock()}
	s.commands = &commands.Commands{
		Log: s.log, Directory: directory, Vault: keys, Catalog: catalog, Attempter: attempter, Pool: s.pool,
	}
	s.queries = projections.New(s.pool, s.log, s.logger)
	s.work = s.sagaConfig(directory, attempter, catalog)
	return nil
}

func (s *server) sagaConfig(directory *commands.Directory, attempter *commands.Attempter, catalog domain.Catalog) saga.Config {
	roles := s.settings.roles
	config := saga.Config{
		Log: s.log, Pool: s.pool, Directory: directory, Attempter: attempter, Logger: s.logger,
		Grace: s.settings.grace, Name: nodeName(),
		Dispatch: roles[roleSaga], Deliver: roles[roleWorker], Attempted: s.metrics.attempted,
	}
	if roles[roleProjections] {
		config.Parts = append(config.Parts, func(ctx context.Context, router *message.Router, node *eventstore.Node) error {
			return s.queries.AddTo(ctx, router, node)
		})
		config.Beside = append(config.Beside, s.queries.RebuildOutdated)
	}
	if roles[roleSaga] {
		alerts := &saga.Alerts{
			Log: s.log, Directory: directory, Basis: s.queries, Rules: s.settings.alerts, Interval: s.settings.alertScan, Logger: s.logger,
		}
		config.Parts = append(config.Parts, alerts.AddTo)
		config.Beside = append(config.Beside, alerts.Run)
		config.Beside = append(config.Beside, func(ctx context.Context, node *eventstore.Node) {
			relay := outbox.NewRelay(s.log, directory, s.pool, node, catalog, s.logger)
			if err := relay.Run(ctx); err != nil && ctx.Err() == nil {
				s.logger.Error("the relay of emitted events stopped", "error", err)
			}
		})
	}
	return config
}

// openVault opens the keyset; a new database may have a new one.
func (s *server) openVault(ctx context.Context) (*vault.Vault, error) {
	var holdsSecrets bool
	if err := s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT FROM medilab.events WHERE stream LIKE 'webhook-%')`).Scan(&holdsSecrets); err != nil {
		return nil, databaseError(err)
	}
	return vault.Open(s.settings.keys, holdsSecrets)
}

func (s *server) run(ctx context.Context) error {
	if s.postgres != nil {
		// Nobody else can use this folder's database: who was here before is gone.
		if _, err := s.pool.Exec(ctx, `UPDATE medilab.nodes SET lease_until = '-infinity' WHERE lease_until > '-infinity'`); err != nil {
			return fmt.Errorf("end the leases of the process before: %w", err)
		}
	}
	if s.settings.certFile != "" {
		var err error
		if s.certificate, err = loadCertificate(s.settings.certFile, s.settings.keyFile, s.logger); err != nil {
			return err
		}
	}
	listener, err := net.Listen("tcp", s.settings.addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w; choose another address by MEDILAB_ADDR", s.settings.addr, err)
	}
	if s.token, err = s.firstToken(); err != nil {
		return errors.Join(err, listener.Close())
	}
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	var group sync.WaitGroup
	defer group.Wait()
	defer stopWork()
	if err := s.serveDebug(work); err != nil {
		return errors.Join(err, listener.Close())
	}
	if s.postgres != nil {
		group.Go(func() { s.postgres.Supervise(work) })
	}
	group.Go(func() { s.commands.Directory.Run(work) })
	group.Go(func() {
		s.log.Listen(work, func(keys []string) {
			s.commands.Directory.Announced(keys)
			s.saga.Announced(keys)
		})
	})
	saga := make(chan error, 1)
	sagaCtx, stopSaga := context.WithCancel(work)
	defer stopSaga()
	group.Go(func() { saga <- s.saga.Run(sagaCtx, s.work) })

	front := s.front()
	web := webServer(front)
	served := make(chan error, 1)
	go func() { served <- s.listen(web, listener) }()
	s.announce(listener.Addr())

	var broken error
	select {
	case <-ctx.Done():
		s.logger.Info("stopping: no new requests; calls in flight may end", "patience", s.settings.grace.String())
	case err := <-served:
		broken = fmt.Errorf("serve HTTP: %w", err)
	}
	s.stopping.Store(true)
	stopWeb, cancel := context.WithTimeout(context.Background(), webGrace)
	defer cancel()
	if err := front.Drain(stopWeb); err != nil {
		s.logger.Warn("some requests did not end in time", "error", err)
	}
	stopSaga()
	broken = errors.Join(broken, <-saga)
	// Until here who watches was told that this process is alive and takes nothing more.
	closeWeb, cancelClose := context.WithTimeout(context.Background(), closeGrace)
	defer cancelClose()
	if web.Shutdown(closeWeb) != nil { // requests that were given up above
		broken = errors.Join(broken, web.Close())
	}
	return broken
}

const (
	webGrace   = 5 * time.Second
	closeGrace = time.Second
	// writeTimeout lets the longest answer end: a test call may take five minutes.
	writeTimeout = 6 * time.Minute
)

// front is what answers requests: the API and the panel, or the probes alone.
func (s *server) front() *http.Server {
	config := http.Config{
		Commands: s.commands, Queries: s.queries, Logger: s.logger, AdminToken: s.token.secret, Identity: s.settings.identity,
		Ready: s.ready, Metrics: s.metrics.handler(s), Observe: s.metrics.answered, Mount: mountPages,
	}
	if s.settings.roles[roleAPI] {
		return http.NewServer(config)
	}
	return http.NewProbes(config)
}

func webServer(front *http.Server) *nethttp.Server {
	return &nethttp.Server{
		Handler:           front.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       2 * time.Minute,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
}

func (s *server) listen(web *nethttp.Server, raw net.Listener) error {
	config := http.ListenerConfig{Patience: web.ReadHeaderTimeout, Idle: web.IdleTimeout, Handler: web.Handler}
	if s.settings.roles[roleAPI] {
		config.FastPaths = http.FastPaths
	}
	if s.certificate != nil {
		web.TLSConfig = s.certificate.config()
		config.TLS = web.TLSConfig
	}
	listener := http.NewListener(raw, config)
	err := web.Serve(listener)
	if errors.Is(err, nethttp.ErrServerClosed) {
		return nil
	}
	return err
}

// ready says why this process cannot serve now.
func (s *server) ready(ctx context.Context) error {
	if s.stopping.Load() {
		return errors.New("the server is shutting down")
	}
	pending, err := migrations.Pending(ctx, s.pool)
	if err != nil {
		return errors.New("the database cannot be reached")
	}
	if pending {
		return errors.New("migrations are not applied")
	}
	if s.saga.Node() == 0 {
		return errors.New("this node has not joined the others yet")
	}
	return nil
}

func nodeName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return host + "/" + strconv.Itoa(os.Getpid())
}

// announce tells a person what to do next. The token is shown on the start that
// made it, and never again.
func (s *server) announce(addr net.Addr) {
	scheme := "http"
	if s.settings.certFile != "" {
		scheme = "https"
	}
	base := scheme + "://" + addr.String()
	s.logger.Info("serving", "address", base, "panel", base+"/admin", "roles", s.settings.roles.String())
	if !s.token.isNew {
		return
	}
	token := s.token.secret.Reveal()
	text := strings.NewReplacer("{base}", base, "{token}", token, "{file}", filepath.Join(s.settings.database.dataDir, tokenFile)).Replace(`
MediLab Webhooks is ready.

  API     {base}/api/v1
  Panel   {base}/admin
  Token   {token}
          (an admin token, shown this once and kept in {file})

Try it:

  curl -sS -X POST {base}/api/v1/webhooks/events/trigger -H "Authorization: Bearer $(cat '{file}')" -H "Content-Type: application/json" -d '{"event_type": "patient.created", "event_data": {"patient_id": 123}}'

`)
	if _, err := io.WriteString(s.out, text); err != nil {
		s.logger.Warn("the first token could not be shown; it is in the data folder", "error", err)
	}
}
