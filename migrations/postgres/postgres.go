// Package postgres runs an embedded Postgres server: it finds or downloads the binaries, initialises
// a data directory once, and runs the server as a child that ends with this process.
//
// A data directory (Options.DataDir) holds
//
//	postgres/       the database cluster, with the password of its only role
//	run/            the Unix socket, in a directory that only the database's account may enter
//	lock            locked exclusively by the process that runs the server
//	clients         locked shared by processes that use a server of another process
//	postgres.log    the server's log, bounded
//
// Nothing in this package ever deletes a database.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/medilab/webhooks/migrations/filelock"
)

var (
	// ErrInUse means that another process runs the server of this data directory and stays.
	ErrInUse = errors.New("the data folder is in use")
	// ErrNotRunning means that no process runs the server of this data directory.
	ErrNotRunning = errors.New("no server runs on the data folder")
	// ErrNoDatabase means that the data directory holds none, and Open makes none.
	ErrNoDatabase = errors.New("no database")
	// ErrVersion means that the database was made by another major version of Postgres.
	ErrVersion = errors.New("the data folder is of another major version")
)

// Options say where the server keeps its data and which Postgres to run.
type Options struct {
	// DataDir is created when missing. Required.
	DataDir string
	// BinDir holds postgres and initdb. If empty, the machine is searched, and a Postgres is
	// downloaded when it has none.
	BinDir string
	// Log reports progress; the first start takes seconds. Nil discards it.
	Log *slog.Logger
	// Settings are server settings that override ours.
	Settings map[string]string
	// Disposable trades durability for speed. For tests only.
	Disposable bool
	// Repository is the Maven repository to download from; empty means Maven Central.
	Repository string
	// CacheDir keeps downloaded binaries; empty means a cache directory of the machine or user.
	CacheDir string

	// freePort returns a loopback port for when a socket cannot be used; nil asks the kernel.
	freePort func() (int, error)
	// search returns directories of installed binaries; nil is installed.
	search func(context.Context) []string
}

// Server is a running Postgres, run by this process or attached to.
type Server struct {
	url     string
	log     *slog.Logger
	cluster *cluster // nil when attached
	lock    *os.File // the data directory's, or when attached the clients' one
	drain   bool     // Stop waits for attached clients

	mu      sync.Mutex // guards what follows
	child   *child     // replaced by Supervise; nil when attached
	stopped bool
}

// URL returns a connection URL for pgx. It holds the password of a superuser: never log it.
func (s *Server) URL() string { return s.url }

// Done returns a channel that is closed when a server that this process runs has ended, by Stop or
// by itself. It is never closed for an attached server. Supervise starts a new server, with another
// channel.
func (s *Server) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.child == nil {
		return nil
	}
	return s.child.ended
}

// Start runs the server of a data directory. It waits while a command runs it (see Open), and
// returns ErrInUse if another Start does. A server left behind by a killed process is stopped first.
// Ctx bounds the start only.
func Start(ctx context.Context, o Options) (*Server, error) {
	o, err := o.complete()
	if err == nil { // closed to others: it keeps tokens and keys too
		err = o.explain("make the data folder", os.MkdirAll(o.DataDir, 0o700))
	}
	if err != nil {
		return nil, err
	}
	held, err := o.acquire(ctx)
	if err != nil {
		return nil, err
	}
	return o.start(ctx, held)
}

// Open is for commands: it attaches to the server that another process runs, or else runs one until
// Stop. It makes no database: without one it returns ErrNoDatabase.
func Open(ctx context.Context, o Options) (*Server, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(o.DataDir); err != nil {
		return nil, o.noDatabase(err)
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		held, err := o.lock(roleCommand)
		if err == nil {
			if _, err := os.Stat(o.clusterDir()); err != nil {
				return nil, errors.Join(o.noDatabase(err), held.Close())
			}
			s, err := o.start(ctx, held)
			if err == nil {
				s.drain = true
			}
			return s, err
		}
		if !errors.Is(err, filelock.ErrLocked) {
			return nil, err
		}
		// The owner may be starting, or may end before we are attached: then it is our turn.
		s, err := o.attach(ctx)
		if !errors.Is(err, ErrNotRunning) {
			return s, err
		}
		if waited := pause(waiting, pollInterval); waited != nil {
			_, pid := o.holder()
			return nil, fmt.Errorf("the database in %s, which process %s runs, does not answer yet: try again, or stop that process: %w", o.DataDir, pid, waited)
		}
	}
}

// noDatabase explains why the database was not found.
func (o Options) noDatabase(err error) error {
	if !errors.Is(err, os.ErrNotExist) {
		return o.explain("look for the database", err)
	}
	return fmt.Errorf("%w: DATABASE_URL is not set, and the data folder %s has none: set DATABASE_URL, or MEDILAB_DATA_DIR to the folder of a server", ErrNoDatabase, o.DataDir)
}

// Attach uses the server that another process runs on dataDir. It returns ErrNotRunning if there is
// none or it is not ready yet.
func Attach(ctx context.Context, dataDir string) (*Server, error) {
	o, err := Options{DataDir: dataDir}.complete()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(o.lockFile()); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNotRunning, o.DataDir)
	}
	held, err := o.lock("")
	if err == nil {
		return nil, errors.Join(fmt.Errorf("%w: %s", ErrNotRunning, o.DataDir), held.Close())
	}
	if !errors.Is(err, filelock.ErrLocked) {
		return nil, err
	}
	return o.attach(ctx)
}

// Stop shuts the server down: clients are disconnected and a checkpoint is written, so that the next
// start needs no recovery. If ctx ends first, the server is stopped at once, which loses nothing
// committed but makes the next start recover. An attached server is only released. Stop is
// idempotent.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	s.stopped = true
	if s.child == nil {
		return s.lock.Close()
	}
	var clients *os.File
	if s.drain {
		var err error
		if clients, err = s.drainClients(ctx); err != nil {
			s.log.Warn("stopping the database while another command uses it", "error", err)
		}
	}
	err := errors.Join(s.child.stop(ctx), s.lock.Close())
	if clients != nil {
		err = errors.Join(err, clients.Close())
	}
	return err
}

// drainClients waits until commands that started meanwhile have released the server, and locks out
// new ones.
func (s *Server) drainClients(ctx context.Context) (*os.File, error) {
	for {
		clients, err := filelock.Lock(s.cluster.clientsFile(), syscall.LOCK_EX)
		if !errors.Is(err, filelock.ErrLocked) {
			return clients, err
		}
		if err := pause(ctx, pollInterval); err != nil {
			return nil, err
		}
	}
}

// complete checks the options and fills in defaults.
func (o Options) complete() (Options, error) {
	if o.DataDir == "" {
		return o, errors.New("no data folder is named for the embedded Postgres: set MEDILAB_DATA_DIR")
	}
	dir, err := filepath.Abs(o.DataDir)
	if err != nil {
		return o, fmt.Errorf("find the data folder %s: %w", o.DataDir, err)
	}
	o.DataDir = dir
	if err := forgetLibpq(); err != nil {
		return o, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.freePort == nil {
		o.freePort = freePort
	}
	if o.search == nil {
		o.search = installed
	}
	return o, nil
}

// forgetLibpq removes from this process's environment what libpq reads there, as PGOPTIONS: it is meant
// for other servers, and every connection to ours would take it.
func forgetLibpq() error {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "PG") {
			if err := os.Unsetenv(name); err != nil {
				return fmt.Errorf("forget %s: %w", name, err)
			}
		}
	}
	return nil
}

func (o Options) lockFile() string    { return filepath.Join(o.DataDir, "lock") }
func (o Options) clientsFile() string { return filepath.Join(o.DataDir, "clients") }
func (o Options) logFile() string     { return filepath.Join(o.DataDir, "postgres.log") }
func (o Options) clusterDir() string  { return filepath.Join(o.DataDir, "postgres") }
func (o Options) runDir() string      { return filepath.Join(o.DataDir, "run") }

const (
	// pollInterval paces waits for another process, which cannot signal us.
	pollInterval = 50 * time.Millisecond
	// patience bounds waits for what another process should do within moments.
	patience = time.Minute
)

// pause waits for d. It returns ctx's error if ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
