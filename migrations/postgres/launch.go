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

	"github.com/medilab/webhooks/migrations/filelock"
)

// cluster is a data directory whose lock we hold, with what it takes to run its server.
type cluster struct {
	Options
	account  account
	binaries binaries
	password string
	where    endpoint // set by the first launch and kept, so that the URL survives restarts
}

// start runs the server for the holder of the data directory's lock, and releases it on failure.
func (o Options) start(ctx context.Context, held *os.File) (*Server, error) {
	s, err := o.startLocked(ctx)
	if err != nil {
		return nil, errors.Join(err, held.Close())
	}
	s.lock = held
	return s, nil
}

func (o Options) startLocked(ctx context.Context) (*Server, error) {
	major, err := clusterMajor(o.clusterDir())
	if err != nil {
		return nil, err
	}
	c := &cluster{Options: o}
	if c.account, err = chooseAccount(o.clusterDir()); err != nil {
		return nil, err
	}
	if c.binaries, err = findBinaries(ctx, o, c.account, major); err != nil {
		return nil, err
	}
	if err := o.removeScratch(); err != nil {
		return nil, err
	}
	if major == 0 {
		if err := c.initialise(ctx); err != nil {
			return nil, err
		}
	}
	if c.password, err = readPassword(o.clusterDir()); err != nil {
		return nil, err
	}
	child, err := c.run(ctx)
	if err != nil {
		return nil, err
	}
	url := c.where.url(c.password)
	if err := ensureDatabase(ctx, url); err != nil {
		return nil, errors.Join(err, child.stop(ctx))
	}
	o.Log.Info("database started", "folder", o.clusterDir(), "version", c.binaries.version, "process", child.cmd.Process.Pid)
	return &Server{url: url, log: o.Log, cluster: c, child: child}, nil
}

// run starts the server once nobody else runs it and its files belong to its account. It tries again
// where that can help: another program took the loopback port, or a killed server's last process is
// still ending.
func (c *cluster) run(ctx context.Context) (*child, error) {
	if err := c.stopStalePostmaster(ctx); err != nil {
		return nil, err
	}
	var info syscall.Stat_t
	if err := syscall.Stat(c.clusterDir(), &info); err != nil {
		return nil, c.explain("look at the database", err)
	}
	if c.account.cred != nil && info.Uid != c.account.cred.Uid { // restored by root, for instance
		if err := c.account.give(c.clusterDir()); err != nil {
			return nil, c.explain("give the database to user "+c.account.name, err)
		}
	}
	const portTries, smallBuffers = 5, "16MB"
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for tries := 1; ; tries++ {
		child, err := c.launch(ctx)
		failed := (*launchError)(nil)
		if !errors.As(err, &failed) {
			return child, err
		}
		switch {
		case failed.saw("could not bind") && tries < portTries:
			c.Log.Info("a port was taken, trying another", "error", oneLine(err))
		case failed.saw("could not map anonymous shared memory") && c.Settings["shared_buffers"] != smallBuffers:
			c.Log.Warn("this machine has little memory to give, starting the database with less", "error", oneLine(err))
			settings := map[string]string{}
			maps.Copy(settings, c.Settings)
			settings["shared_buffers"] = smallBuffers
			c.Settings = settings
		case failed.saw("pre-existing shared memory block"):
			if tries == 1 {
				c.Log.Info("waiting for the last process of a killed database")
			}
			if pause(waiting, pollInterval) != nil {
				return nil, err
			}
		default:
			return nil, err
		}
	}
}

// launchError is a start that the server itself gave up.
type launchError struct {
	complaint string // the last, which explains the failure
	output    string // what it complained of before
	logFile   string
}

func (e *launchError) Error() string          { return e.complaint + "; see " + e.logFile }
func (e *launchError) saw(phrase string) bool { return strings.Contains(e.output, phrase) }

// launch starts the server once and waits until it accepts connections, however long recovery takes.
func (c *cluster) launch(ctx context.Context) (_ *child, err error) {
	defer func() { err = c.explain("start the database", err) }()
	// Files of a killed server would only confuse the next one.
	if err := os.RemoveAll(c.runDir()); err != nil {
		return nil, err
	}
	if err := os.Mkdir(c.runDir(), 0o700); err != nil {
		return nil, err
	}
	if err := c.account.give(c.runDir()); err != nil {
		return nil, err
	}
	where := c.where
	if where == (endpoint{}) {
		where = endpoint{dir: c.runDir(), port: socketPort}
		if !where.fits() {
			where.dir = ""
			if where.port, err = c.freePort(); err != nil {
				return nil, err
			}
		}
	}
	cmd := c.account.command(c.binaries.postgres())
	paths, done, err := c.account.passDirFD(cmd, c.clusterDir(), c.runDir())
	if err != nil {
		return nil, err
	}
	defer done()
	socketDir := ""
	if where.dir != "" {
		socketDir = paths[1]
	}
	cmd.Args = append(cmd.Args, "-D", paths[0])
	cmd.Args = append(cmd.Args, c.arguments(socketDir, where.port)...)
	out := newOutput(c.logFile(), c.Log)
	cmd.Stdout, cmd.Stderr = out, out
	setDeathSignal(cmd, syscall.SIGINT) // a fast shutdown

	child, err := startChild(cmd)
	if err != nil {
		return nil, err
	}
	select {
	case <-out.ready:
		c.where = where
		return child, nil
	case <-child.ended:
		last, all := out.complaints()
		return nil, &launchError{complaint: last, output: all, logFile: c.logFile()}
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), child.stop(ctx))
	}
}

// endpoint is where a server listens: a socket in a directory, or a loopback port if dir is empty.
type endpoint struct {
	dir  string
	port int
}

const (
	// socketPort names the socket; each data directory has its own, so they can all be the same.
	socketPort = 5432
	// socketPathMax fits the shortest sockaddr_un of our systems (macOS: 104 with its NUL).
	socketPathMax = 103
)

// fits reports whether the socket can be bound, and named in a URL, where a comma separates hosts.
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
		RawQuery: strings.ReplaceAll(query.Encode(), "+", "%20"), // in a connection URL a plus is a plus
	}
	return u.String()
}

const (
	codeNoDatabase    = "3D000"
	codeCannotConnect = "57P03" // starting or stopping
)

// hasCode reports whether err is the server's own, with the SQLSTATE.
func hasCode(err error, code string) bool {
	refused := (*pgconn.PgError)(nil)
	return errors.As(err, &refused) && refused.Code == code
}

// ensureDatabase creates our database in a server that was just initialised.
func ensureDatabase(ctx context.Context, url string) error {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return fmt.Errorf("read the database URL: %w", err)
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err == nil {
		return conn.Close(ctx)
	}
	if hasCode(err, codeNoDatabase) {
		config.Database = "postgres"
		conn, err = pgx.ConnectConfig(ctx, config)
	}
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	if _, err = conn.Exec(ctx, "CREATE DATABASE "+databaseName); err != nil {
		err = fmt.Errorf("create the database: %w", err)
	}
	return errors.Join(err, conn.Close(ctx))
}

// attach uses the server of the process that holds the data directory's lock. It returns
// ErrNotRunning if that does not accept connections.
func (o Options) attach(ctx context.Context) (*Server, error) {
	clients, err := filelock.Lock(o.clientsFile(), syscall.LOCK_SH)
	if errors.Is(err, filelock.ErrLocked) { // its owner is stopping it
		return nil, fmt.Errorf("%w: %s", ErrNotRunning, o.DataDir)
	}
	if err != nil {
		return nil, o.explain("lock", err)
	}
	url, err := o.runningURL(ctx)
	if err != nil {
		return nil, errors.Join(err, clients.Close())
	}
	return &Server{url: url, log: o.Log, lock: clients}, nil
}

// runningURL returns the URL of the data directory's server once that accepts connections.
func (o Options) runningURL(ctx context.Context) (string, error) {
	notRunning := func(err error) error { return fmt.Errorf("%w: %s: %w", ErrNotRunning, o.DataDir, err) }
	pidFile, err := readPidFile(o.clusterDir())
	if errors.Is(err, os.ErrPermission) {
		return "", fmt.Errorf("the database in %s belongs to another user: run this as the user that runs the server, or as root: %w", o.DataDir, err)
	}
	if err != nil {
		return "", notRunning(err)
	}
	password, err := readPassword(o.clusterDir())
	if err != nil {
		return "", err
	}
	where := endpoint{dir: o.runDir(), port: pidFile.port}
	if pidFile.loopback {
		where.dir = ""
	}
	url := where.url(password)
	conn, err := pgx.Connect(ctx, url)
	switch {
	case err == nil:
		return url, conn.Close(ctx)
	case errors.As(err, new(*pgconn.PgError)) && !hasCode(err, codeCannotConnect) && !hasCode(err, codeNoDatabase):
		return "", fmt.Errorf("connect to the database in %s: %w", o.DataDir, err)
	}
	return "", notRunning(err)
}
