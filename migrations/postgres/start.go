package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// start runs the server for whoever holds the lock of the data folder, and lets the lock go if that
// fails.
func (o Options) start(ctx context.Context, held *lock) (*Server, error) {
	s, err := o.startLocked(ctx, held)
	if err != nil {
		return nil, errors.Join(err, held.release())
	}
	return s, nil
}

func (o Options) startLocked(ctx context.Context, held *lock) (*Server, error) {
	major, err := clusterMajor(o.cluster())
	if err != nil {
		return nil, err
	}
	a, err := chooseAccount(o.cluster())
	if err != nil {
		return nil, err
	}
	b, err := findBinaries(ctx, o, a, major)
	if err != nil {
		return nil, err
	}
	if err := removeScratch(o); err != nil {
		return nil, err
	}
	if major == 0 {
		if err := initialise(ctx, o, a, b); err != nil {
			return nil, err
		}
	} else if err := o.takeOver(ctx, a); err != nil {
		return nil, err
	}
	password, err := readPassword(o.cluster())
	if err != nil {
		return nil, err
	}
	s, err := o.launchWithRetries(ctx, a, b, password)
	if err != nil {
		return nil, err
	}
	s.held = held
	s.again = o.sameAgain(s.url, a, b, password)
	if err := ensureDatabase(ctx, s.url); err != nil {
		err = errors.Join(err, s.child.stop(ctx))
		s.out.close()
		return nil, err
	}
	o.Log.Info("database started", "folder", o.cluster(), "version", b.version, "process", s.child.cmd.Process.Pid)
	return s, nil
}

// takeOver makes the database's folder ours to run: nobody else runs it, and it belongs to the
// account that will.
func (o Options) takeOver(ctx context.Context, a account) error {
	if err := stopLeftover(ctx, o); err != nil {
		return err
	}
	var info syscall.Stat_t
	if err := syscall.Stat(o.cluster(), &info); err != nil {
		return o.explain("look at the database", err)
	}
	if a.cred != nil && info.Uid != a.cred.Uid { // restored by root, for instance
		return o.explain("give the database to user "+a.name, a.give(o.cluster()))
	}
	return nil
}

// launchWithRetries starts the server, again where a second try can help: another program took the
// loopback port in between, or a killed server's last process is still going.
func (o Options) launchWithRetries(ctx context.Context, a account, b binaries, password string) (*Server, error) {
	const portTries = 5
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for tries, small := 1, false; ; tries++ {
		s, complaints, err := o.launch(ctx, a, b, password)
		if err == nil || ctx.Err() != nil {
			return s, err
		}
		switch {
		case strings.Contains(complaints, "could not bind") && tries < portTries:
			o.Log.Info("a port was taken, trying another", "error", oneLine(err))
		case strings.Contains(complaints, "could not map anonymous shared memory") && !small:
			small = true
			o.Log.Warn("this machine has little memory to give, starting the database with less", "error", oneLine(err))
			o.Settings = maps.Clone(o.Settings)
			if o.Settings == nil {
				o.Settings = map[string]string{}
			}
			o.Settings["shared_buffers"] = "16MB"
		case strings.Contains(complaints, "pre-existing shared memory block"):
			if tries == 1 {
				o.Log.Info("waiting for the last process of a killed database")
			}
			if pause(waiting, retryEvery) != nil {
				return nil, err
			}
		default:
			return nil, err
		}
	}
}

// launch starts the server once and waits until it takes connections, however long its recovery is.
func (o Options) launch(ctx context.Context, a account, b binaries, password string) (_ *Server, complaints string, err error) {
	// What a killed server left in here only confuses the next one.
	if err := os.RemoveAll(o.runDir()); err != nil {
		return nil, "", o.explain("clear the socket's folder", err)
	}
	if err := os.Mkdir(o.runDir(), 0o700); err != nil {
		return nil, "", o.explain("make the socket's folder", err)
	}
	if err := a.give(o.runDir()); err != nil {
		return nil, "", o.explain("make the socket's folder", err)
	}

	cmd := a.command(b.postgres())
	names, done, err := a.lend(cmd, o.cluster(), o.runDir())
	if err != nil {
		return nil, "", o.explain("start the database", err)
	}
	defer done()
	where := endpoint{dir: o.runDir(), port: socketPort}
	listen := quoteDirectory(names[1])
	if !where.fits() {
		if where.port, err = o.freePort(); err != nil {
			return nil, "", err
		}
		where.dir, listen = "", ""
	}
	cmd.Args = append(cmd.Args, "-D", names[0])
	cmd.Args = append(cmd.Args, o.settings(listen, where.port)...)
	out := newOutput(o.logFile(), o.Log)
	cmd.Stdout, cmd.Stderr = out, out
	dieWithUs(cmd, syscall.SIGINT) // a fast shutdown

	c, err := run(cmd)
	if err != nil {
		return nil, "", o.explain("start the database", err)
	}
	select {
	case <-out.ready:
	case <-c.ended:
		out.close()
		last, all := out.complaints()
		return nil, all, o.explain("start the database", fmt.Errorf("%s; see %s", last, o.logFile()))
	case <-ctx.Done():
		err := c.stop(ctx)
		out.close()
		return nil, "", errors.Join(fmt.Errorf("start the database: %w", ctx.Err()), err)
	}
	return &Server{
		url:   where.url(password),
		child: c,
		out:   out,
		log:   o.Log,
		done:  c.ended,
	}, "", nil
}

// endpoint is where a server listens: a socket in a folder, or a loopback port when dir is empty.
type endpoint struct {
	dir  string
	port int
}

const (
	// socketPort names the socket; every data folder has its own, so it may be the same everywhere.
	socketPort = 5432
	// socketPathMax is what the shortest sockaddr_un of our systems holds (macOS: 104 with its NUL).
	socketPathMax = 103
)

// fits reports whether the socket's path can be bound and named in a URL, where a comma parts hosts.
func (e endpoint) fits() bool {
	name := filepath.Join(e.dir, ".s.PGSQL."+strconv.Itoa(e.port))
	return len(name) <= socketPathMax && !strings.Contains(name, ",")
}

func (e endpoint) url(password string) string {
	host := e.dir
	if host == "" {
		host = "127.0.0.1"
	}
	query := url.Values{"host": {host}, "port": {strconv.Itoa(e.port)}, "sslmode": {"disable"}}
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(roleName, password),
		Path:     "/" + databaseName,
		RawQuery: query.Encode(),
	}
	return u.String()
}

// quoteDirectory writes a folder as an element of unix_socket_directories.
func quoteDirectory(dir string) string { return `"` + strings.ReplaceAll(dir, `"`, `""`) + `"` }

// ensureDatabase makes the database in a server that was just initialised.
func ensureDatabase(ctx context.Context, url string) error {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("read the database URL: %w", err)
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err == nil {
		return conn.Close(ctx)
	}
	if refused := (*pgconn.PgError)(nil); !errors.As(err, &refused) || refused.Code != "3D000" { // no such database
		return fmt.Errorf("connect to the database: %w", err)
	}
	config.Database = "postgres"
	if conn, err = pgx.ConnectConfig(ctx, config); err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	_, err = conn.Exec(ctx, "CREATE DATABASE "+databaseName)
	if err != nil {
		err = fmt.Errorf("create the database: %w", err)
	}
	return errors.Join(err, conn.Close(ctx))
}

// attach uses the server of the process that holds the lock of the data folder.
func attach(ctx context.Context, o Options) (*Server, error) {
	use, err := tryShare(o.clientsFile())
	if errors.Is(err, errLocked) { // its owner is stopping it
		return nil, fmt.Errorf("%w: %s", ErrNotRunning, o.DataDir)
	}
	if err != nil {
		return nil, o.explain("lock", err)
	}
	url, err := runningURL(ctx, o)
	if err != nil {
		return nil, errors.Join(err, use.release())
	}
	return &Server{url: url, use: use, log: o.Log, done: make(chan struct{})}, nil
}

// runningURL is the URL of the server of the data folder, once it takes connections to our database.
func runningURL(ctx context.Context, o Options) (string, error) {
	notRunning := func(err error) error { return fmt.Errorf("%w: %s: %w", ErrNotRunning, o.DataDir, err) }
	note, err := readPidFile(o.cluster())
	if errors.Is(err, os.ErrPermission) {
		return "", fmt.Errorf("the database in %s belongs to another user: run this as the user that runs the server, or as root: %w", o.DataDir, err)
	}
	if err != nil {
		return "", notRunning(err)
	}
	password, err := readPassword(o.cluster())
	if err != nil {
		return "", err
	}
	where := endpoint{dir: o.runDir(), port: note.port}
	if note.loopback {
		where.dir = ""
	}
	url := where.url(password)
	conn, err := pgx.Connect(ctx, url)
	if refused := (*pgconn.PgError)(nil); errors.As(err, &refused) {
		switch refused.Code {
		case "57P03", "3D000": // starting or stopping; just initialised
			return "", notRunning(err)
		}
		return "", fmt.Errorf("connect to the database in %s: %w", o.DataDir, err)
	}
	if err != nil {
		return "", notRunning(err)
	}
	return url, conn.Close(ctx)
}
