package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/trace"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/mail"
	"github.com/medilab/webhooks/commands/outbox"
	"github.com/medilab/webhooks/commands/receipts"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/commands/sources"
	"github.com/medilab/webhooks/commands/vault"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/http"
	"github.com/medilab/webhooks/http/sender"
	"github.com/medilab/webhooks/migrations/postgres"
	"github.com/medilab/webhooks/projections"
)

func newServeCommand(db *databaseOptions) *cobra.Command {
	var s settings
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the API, the admin panel, the saga and the projections",
		Example: `  medilab-webhooks serve
  medilab-webhooks serve --addr :8000 --roles api --database-url postgres://medilab@db.clinic.example/medilab`,
		RunE: func(c *cobra.Command, _ []string) error {
			s.database = *db
			if err := s.resolve(c.ErrOrStderr()); err != nil {
				return usageError{err}
			}
			return serve(c.Context(), s, c.OutOrStdout())
		},
	}
	declare(c, c.Flags(), append(s.table(), db.eventTypesSetting()))
	completeFlag(c, "roles", listOf(append(slices.Clone(allRoles), roleRead)))
	return c
}

// server is one serving process, the one place that knows all of its parts.
type server struct {
	settings settings
	logger   *slog.Logger
	out      io.Writer
	nodeName string

	catalog     domain.Catalog
	client      *sender.Client
	authorities *x509.CertPool // nil: the system's

	*database
	log         *eventstore.Log
	commands    *commands.Commands
	queries     *projections.Projections
	saga        *saga.Saga
	metrics     *metrics
	receipts    *receipts.Signer
	anchors     *anchorFile
	tracer      trace.Tracer // nil: no tracing
	token       firstToken
	repairs     chan repair  // that follow a loss of the log's tail
	certificate *certificate // nil: no HTTPS
	stopping    atomic.Bool
}

// serve runs until ctx ends, then shuts down: new requests are refused, calls in flight end, the
// rest is released to other nodes, and the database stops last.
func serve(ctx context.Context, settings settings, out io.Writer) (err error) {
	s := &server{settings: settings, logger: settings.logger, out: out, nodeName: nodeName()}
	if err := s.load(); err != nil {
		return err
	}
	if settings.debugAddr == "" {
		runtime.MemProfileRate = 0 // nobody asks where memory is allocated, and to note it takes a hundredth of the CPU
	}
	tracer, flush, err := startTracing(ctx, s.logger)
	if err != nil {
		return err
	}
	s.tracer = tracer
	defer func() {
		if err := within(closeGrace, flush); err != nil {
			s.logger.Warn("the last spans are not sent", "error", err)
		}
	}()
	slog.SetDefault(s.logger)
	log.SetOutput(io.Discard) // net/http would quote what receivers send
	if s.database, err = settings.database.open(ctx, s.logger, postgres.Start); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.prepare(ctx); err != nil {
		return err
	}
	defer s.log.Close()
	return s.run(ctx)
}

// load reads the files that the settings name, so that a mistake in one ends the start before
// there is a database.
func (s *server) load() (err error) {
	if s.catalog, err = s.settings.database.catalog(); err != nil {
		return err
	}
	if s.client, err = newSender(s.settings); err != nil {
		return err
	}
	if s.authorities, err = sender.RootCAs(s.settings.caFile); err != nil {
		return err
	}
	if s.certificate, err = loadCertificate(s.settings.certFile, s.settings.keyFile, s.logger); err != nil {
		return err
	}
	if _, err := vault.Open(s.settings.database.keysFile(), true); !errors.Is(err, vault.ErrMissing) {
		return err
	}
	return nil
}

// startPatience is how long a start waits for a database that cannot be reached: one that fails
// over is back within a minute.
const startPatience, startPause = time.Minute, time.Second

// prepare connects, migrates and makes all parts, as soon as there is a server that can.
func (s *server) prepare(ctx context.Context) error {
	for began := time.Now(); ; {
		err := s.tryPrepare(ctx)
		lasting := eventstore.IsRefusal(err) || errors.Is(err, eventstore.ErrPooler) // as of a password that is wrong
		if err == nil || lasting || !eventstore.IsOutage(err) || time.Since(began) > startPatience {
			return err
		}
		s.logger.Warn("the database cannot be reached, trying again", "error", err)
		if ended := eventstore.Sleep(ctx, startPause); ended != nil {
			return errors.Join(err, ended)
		}
	}
}

func (s *server) tryPrepare(ctx context.Context) (err error) {
	if err := s.connect(ctx, s.settings.connections); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.disconnect()
		}
	}()
	applied, err := s.migrate(ctx, s.logger)
	if err != nil {
		return err
	}
	if len(applied) > 0 {
		s.logger.Info("migrations applied", "count", len(applied))
	}
	return s.build(ctx)
}

// disconnect undoes what tryPrepare did before it failed.
func (s *server) disconnect() {
	if s.log != nil {
		s.log.Close()
		s.log = nil
	}
	s.database.disconnect()
}

// build makes all parts and ties them together.
func (s *server) build(ctx context.Context) error {
	if err := outbox.SyncEventTypes(ctx, s.pool, s.catalog); err != nil {
		return err
	}
	s.metrics = newMetrics()
	directory := commands.NewDirectory(s.logger)
	directory.Tracer = s.tracer
	s.anchors = newAnchorFile(s.settings.database.anchorFile())
	directory.OnErasure = s.anchors.hear
	s.saga = saga.New(s.settings.workers)
	clock := eventstore.NewClock()
	attempter := &commands.Attempter{Sender: s.client, WithCertificate: s.client.WithCertificate, Clock: clock, Tracer: s.tracer}
	s.repairs = make(chan repair, maxRepairs)
	var keys *vault.Vault
	directory.Keys = s.settings.database.keyring(s.pool, func() domain.Catalog { return s.catalog }, func(context.Context) (*vault.Vault, error) { return keys, nil })
	s.log = eventstore.Open(eventstore.Config{
		Envelope: directory.Keys,
		Pool:     s.pool, Guard: s.guard, Lost: s.onLoss(directory, attempter), Clock: clock, Logger: s.logger,
		Codec:     func(name string, data []byte) (any, error) { return domain.Decode(name, data) },
		Inline:    s.inline(),
		Observers: []eventstore.Observer{directory.Observe, s.saga.Observe},
	})
	if err := directory.Open(ctx, s.log); err != nil {
		return fmt.Errorf("read the configuration: %w", err)
	}
	var err error
	keys, err = vault.OpenFor(ctx, s.pool, s.settings.database.keysFile(), func(v *vault.Vault) bool { return directory.Decrypts(v) })
	if err != nil {
		return databaseError(err)
	}
	attempter.Decrypter = keys
	if err := directory.Keys.Ready(ctx); err != nil {
		return databaseError(err)
	}
	if s.receipts, err = receipts.Open(ctx, s.pool, keys); err != nil {
		return databaseError(err)
	}
	s.settings.database.keepReceiptKey(s.receipts.PublicKeys(), s.logger)
	s.queries = projections.New(s.pool, s.log, s.logger)
	if err := s.follow(ctx, s.settings.database.readURL, s.settings.connections, s.queries); err != nil {
		return err
	}
	s.commands = &commands.Commands{
		Log: s.log, Directory: directory, Vault: keys, Catalog: s.catalog, Attempter: attempter, Queue: saga.Queue{Pool: s.pool}, Pool: s.pool,
		Failed: s.queries, Subjects: s.queries,
		Erased: func() {
			if s.anchors.addHeard(s.log) != nil {
				eventstore.Signal(s.anchors.wake) // it is tried again, which says why
			}
		},
	}
	if err := directory.RenewBy(ctx, s.eraseAgain); err != nil {
		return err
	}
	return s.anchors.addHeard(s.log)
}

// expirePayloads destroys the keys of what was kept for long enough, and what was parked for as long,
// until ctx ends.
func (s *server) expirePayloads(ctx context.Context, keep time.Duration) {
	const most, share = time.Minute, 50
	for {
		err := errors.Join(s.commands.ExpirePayloads(ctx, keep), outbox.DiscardExpired(ctx, s.commands, keep))
		if err != nil && ctx.Err() == nil {
			s.logger.Warn("payloads that were kept for long enough are not destroyed yet, trying again", "error", err)
		}
		if eventstore.Sleep(ctx, min(most, max(time.Second, keep/share))) != nil {
			return
		}
	}
}

// inline returns the tables that never lag behind the log.
func (s *server) inline() []eventstore.Inline {
	tables := []eventstore.Inline{saga.Queue{Saga: s.saga}}
	if s.settings.mail != nil {
		tables = append(tables, mail.Queue{})
	}
	return tables
}

func (s *server) sagaConfig() saga.Config {
	roles, directory := s.settings.roles, s.commands.Directory
	config := saga.Config{
		Log: s.log, Pool: s.pool, Directory: directory, Attempter: s.commands.Attempter, Failed: s.queries, Logger: s.logger,
		Grace: s.settings.grace, Name: s.nodeName,
		Dispatch: roles[roleSaga], Deliver: roles[roleWorker], Attempted: s.metrics.attempted, GaveUp: s.metrics.gaveUp,
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
		if s.settings.mail != nil {
			const poll = 5 * time.Second
			outbox := &mail.Outbox{
				Log: s.log, Pool: s.pool, Directory: directory, Sender: s.settings.mail, PanelURL: s.settings.panelURL(), Logger: s.logger,
				Tried: s.metrics.mailed, Poll: poll, Now: time.Now,
			}
			config.Beside = append(config.Beside, outbox.Run)
		}
		config.Beside = append(config.Beside, func(ctx context.Context, node *eventstore.Node) {
			outbox.NewRelay(s.log, directory, s.pool, node, s.commands.Catalog, s.logger).Run(ctx)
		})
		if len(s.settings.sources) > 0 {
			config.Beside = append(config.Beside, s.intake().Run)
		}
	}
	return config
}

func (s *server) intake() *sources.Intake {
	return &sources.Intake{
		Sources: s.settings.sources, Commands: s.commands, TLS: &tls.Config{RootCAs: s.authorities, MinVersion: tls.VersionTLS12},
		Taken: s.metrics.taken, Logger: s.logger, Read: http.ReadMessage,
	}
}

func nodeName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return host + "/" + strconv.Itoa(os.Getpid())
}

// run serves until ctx ends or serving fails, and then stops the parts: requests first, calls next,
// and last what both depend on.
func (s *server) run(ctx context.Context) (err error) {
	release, err := s.endFormer(ctx)
	if err != nil {
		s.logger.Warn("a process that was killed keeps its leases for some seconds: the data folder does not say that it is gone", "error", err)
	} else {
		defer func() { err = errors.Join(err, release()) }()
	}
	listener, err := net.Listen("tcp", s.settings.addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w; choose another address by MEDILAB_ADDR", s.settings.addr, err)
	}
	if s.token, err = s.firstToken(); err != nil {
		return errors.Join(err, listener.Close())
	}
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	var group sync.WaitGroup
	defer group.Wait()
	defer stopWork()
	if err := s.serveDebug(work); err != nil {
		return errors.Join(err, listener.Close())
	}
	s.watch(work, &group)
	saga := make(chan error, 1)
	sagaCtx, stopSaga := context.WithCancel(work)
	defer stopSaga()
	group.Go(func() { saga <- s.saga.Run(sagaCtx, s.sagaConfig()) })

	front := s.front()
	web := newWebServer(front)
	served := make(chan error, 1)
	s.announce(listener.Addr()) // before the first answer: clients may connect already
	go func() { served <- s.listen(web, front, listener) }()

	select {
	case <-ctx.Done():
		s.logger.Info("stopping: no new requests; calls in flight may end", "patience", s.settings.grace.String())
	case err = <-served:
		err = fmt.Errorf("serve HTTP: %w", err)
	}
	s.stopping.Store(true)
	if drained := within(webGrace, front.Drain); drained != nil {
		s.logger.Warn("some requests did not end in time", "error", drained)
	}
	stopSaga()
	err = errors.Join(err, <-saga)
	// Probes were answered until here: alive, and not ready.
	if within(closeGrace, web.Shutdown) != nil { // requests that were given up above
		err = errors.Join(err, web.Close())
	}
	return err
}

// watch starts what goes on beside requests and calls.
func (s *server) watch(ctx context.Context, group *sync.WaitGroup) {
	if s.embedded != nil {
		group.Go(func() { s.embedded.Supervise(ctx) })
		group.Go(func() { s.paceVacuum(ctx) })
	}
	group.Go(func() { s.guard.Watch(ctx, s.pool) })
	if s.standby != nil {
		group.Go(func() { s.standby.Watch(ctx) })
	}
	group.Go(func() { s.runRepairs(ctx) })
	group.Go(func() { s.commands.Directory.Run(ctx) })
	group.Go(func() { s.anchors.keep(ctx, s.log, s.logger) })
	if keep := s.settings.database.keep; keep > 0 {
		group.Go(func() { s.expirePayloads(ctx, keep) })
	}
	group.Go(func() {
		s.log.Listen(ctx, func(keys []string) {
			s.commands.Directory.Announced(keys)
			s.saga.Announced(keys)
			s.queries.Announced(keys)
		})
	})
}

const (
	webGrace   = 5 * time.Second
	closeGrace = time.Second
)

// within calls f with a context that ends after d.
func within(d time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return f(ctx)
}
