// Package postgres gives the product a Postgres of its own when it is told of none: it finds or
// fetches the binaries, initialises a data folder once, and runs the server as a child that ends
// with this process.
//
// A data folder (Options.DataDir) holds
//
//	postgres/       the database itself, with the password of its only role
//	run/            the unix socket, in a folder that only the database's account enters
//	lock            held exclusively by the process that runs the server
//	clients         held shared by processes that use a server which another process runs
//	postgres.log    what the server says, bounded
//
// The database is never deleted, by nothing in this package.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

var (
	// ErrInUse: another process runs the server of this data folder and will not end by itself.
	ErrInUse = errors.New("the data folder is in use")
	// ErrNotRunning: no process runs the server of this data folder.
	ErrNotRunning = errors.New("no server runs on the data folder")
	// ErrVersion: the data folder belongs to another major version of Postgres.
	ErrVersion = errors.New("the data folder is of another major version")
)

// Options say where the server keeps its data and which Postgres to run.
type Options struct {
	// DataDir is made when missing. Required.
	DataDir string
	// BinDir is the folder with postgres and initdb. When empty they are looked for, and fetched
	// when this machine has none.
	BinDir string
	// Log tells progress; the first start takes seconds. Nil is silent.
	Log *slog.Logger
	// Settings are server settings that override ours. Nil keeps ours.
	Settings map[string]string
	// Disposable gives up durability for speed: for tests alone.
	Disposable bool
	// Repository is the Maven repository that binaries are fetched from; empty is Maven Central.
	Repository string
	// CacheDir keeps fetched binaries; empty is a cache folder of the machine or the user.
	CacheDir string

	// freePort finds a loopback port where a socket cannot be used; nil asks the kernel.
	freePort func() (int, error)
	// search finds installed binaries; nil is installed.
	search func(context.Context) []string
}

// Server is a running Postgres: one that this process runs, or one that it is attached to.
type Server struct {
	url   string
	child *child  // nil when attached
	held  *lock   // the exclusive lock of a server that we run
	use   *lock   // the shared lock of a server that we are attached to
	drain bool    // stop only when nobody is attached any more
	out   *output // what the child says
	log   *slog.Logger

	// again starts the server anew, at the same URL.
	again func(context.Context) (*Server, error)

	mu      sync.Mutex // of what follows, and of child and out, which Keep replaces
	stopped bool
	done    <-chan struct{}
}

// URL is a connection URL for pgx with the password in it: never log it. The role is a superuser.
func (s *Server) URL() string { return s.url }

// Done is closed when a server that this process runs has ended, by Stop or by itself. It is never
// closed for one that we are attached to. After Keep has started the server again, Done is another.
func (s *Server) Done() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done
}

// Start runs the server of a data folder, which nobody else may be running; it waits for a command
// that runs it for a moment (see Open) and returns ErrInUse for a process that stays. A server that
// a killed process left behind is stopped first. Ctx bounds the start only.
func Start(ctx context.Context, o Options) (*Server, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	if err := o.makeDataDir(); err != nil {
		return nil, err
	}
	held, err := acquire(ctx, o, roleServe)
	if err != nil {
		return nil, err
	}
	return o.start(ctx, held)
}

// Open is for commands: it attaches to the server that another process runs, and otherwise runs one
// until Stop.
func Open(ctx context.Context, o Options) (*Server, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	if err := o.makeDataDir(); err != nil {
		return nil, err
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		held, err := tryLock(o.lockFile(), roleCommand)
		if err == nil {
			s, err := o.start(ctx, held)
			if err != nil {
				return nil, err
			}
			s.drain = true
			return s, nil
		}
		if !errors.Is(err, errLocked) {
			return nil, o.explain("lock", err)
		}
		// The owner may be starting, or may end before we are attached: then it is our turn.
		s, err := attach(ctx, o)
		if err == nil {
			return s, nil
		}
		if !errors.Is(err, ErrNotRunning) {
			return nil, err
		}
		if waited := pause(waiting, retryEvery); waited != nil {
			_, pid := holder(o.lockFile())
			return nil, fmt.Errorf("the database in %s, which process %s runs, does not answer yet: try again, or stop that process: %w", o.DataDir, pid, waited)
		}
	}
}

// Attach uses the server that another process runs on dataDir, and returns ErrNotRunning when none
// does or it is not ready yet.
func Attach(ctx context.Context, dataDir string) (*Server, error) {
	o, err := Options{DataDir: dataDir}.complete()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(o.lockFile()); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNotRunning, o.DataDir)
	}
	held, err := tryLock(o.lockFile(), "")
	if err == nil {
		return nil, errors.Join(fmt.Errorf("%w: %s", ErrNotRunning, o.DataDir), held.release())
	}
	if !errors.Is(err, errLocked) {
		return nil, o.explain("lock", err)
	}
	return attach(ctx, o)
}

// Stop ends the server: it disconnects its clients and writes a checkpoint, so that the next start
// needs no recovery. When ctx ends first the server is stopped at once, which loses nothing
// committed and makes the next start recover. An attached server is only let go. Stop twice is one
// stop.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	s.stopped = true
	if s.child == nil {
		return s.use.release()
	}
	err := s.shutdown(ctx)
	s.out.close()
	return errors.Join(err, s.held.release())
}

func (s *Server) shutdown(ctx context.Context) error {
	if s.drain {
		// Commands that started while we did use our server: they finish first.
		clients, err := s.drained(ctx)
		if err != nil {
			s.log.Warn("stopping the database while another command uses it", "error", err)
		} else {
			defer func() {
				if err := clients.release(); err != nil {
					s.log.Warn("release the lock of the database's clients", "error", err)
				}
			}()
		}
	}
	return s.child.stop(ctx)
}

func (s *Server) drained(ctx context.Context) (*lock, error) {
	for {
		clients, err := tryLock(filepath.Join(filepath.Dir(s.held.path), "clients"), "")
		if !errors.Is(err, errLocked) {
			return clients, err
		}
		if err := pause(ctx, retryEvery); err != nil {
			return nil, err
		}
	}
}

// complete checks the options and fills what was left out.
func (o Options) complete() (Options, error) {
	if o.DataDir == "" {
		return o, errors.New("no data folder is named for the embedded Postgres: set MEDILAB_DATA_DIR")
	}
	dir, err := filepath.Abs(o.DataDir)
	if err != nil {
		return o, fmt.Errorf("find the data folder %s: %w", o.DataDir, err)
	}
	o.DataDir = dir
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

// makeDataDir closes the folder to others: beside the database it keeps tokens and keys.
func (o Options) makeDataDir() error {
	return o.explain("make the data folder", os.MkdirAll(o.DataDir, 0o700))
}

func (o Options) lockFile() string    { return filepath.Join(o.DataDir, "lock") }
func (o Options) clientsFile() string { return filepath.Join(o.DataDir, "clients") }
func (o Options) logFile() string     { return filepath.Join(o.DataDir, "postgres.log") }
func (o Options) cluster() string     { return filepath.Join(o.DataDir, "postgres") }
func (o Options) runDir() string      { return filepath.Join(o.DataDir, "run") }

const (
	// retryEvery paces waits for another process, which cannot signal us.
	retryEvery = 50 * time.Millisecond
	// patience bounds how long we wait for what another process should do within moments.
	patience = time.Minute
)

// pause waits d, or less when ctx ends, which is its error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
