package eventstore

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	// connectTimeout is for each of several hosts, unless the URL says another. The only one
	// may be busy, which giving up makes worse: there is no other to turn to.
	connectTimeout = 3 * time.Second
	onlyTimeout    = 30 * time.Second // of the only one: to connect, to answer a ping
	pingEvery      = time.Second
	// With several hosts another server may have taken over from one that is slow to answer.
	pingPatience = 4 * time.Second
	pingSlow     = pingPatience / 4
	lookEvery    = 5 * time.Second
	askAgain     = 100 * time.Millisecond
)

// Guard keeps a process on the current primary and on the log that it knows: it refuses
// servers that another has taken over from, leaves one that does not answer, and compares
// the log on each new connection. It is of one pool. Safe for concurrent use.
type Guard struct {
	knowledge knowledge
	logger    *slog.Logger
	config    *pgx.ConnConfig // as the pool has it
	hosts     [][]*pgconn.FallbackConfig
	looking   sync.Mutex // held by a look at all hosts; protects looked
	looked    time.Time  // when the last began

	mu       sync.Mutex
	server   server          // the newest that was seen
	found    string          // the host that it was found on; "": not known
	silent   map[string]bool // hosts that did not answer when it was looked for
	sessions map[*guarded]struct{}
}

// server is one Postgres between two failovers: each promotion begins a timeline.
type server struct {
	system   string
	timeline uint64
}

// guarded is a connection to the database.
type guarded struct {
	net.Conn
	guard  *Guard
	server server // zero: it does not say
}

// Close implements net.Conn.
func (c *guarded) Close() error {
	c.guard.mu.Lock()
	delete(c.guard.sessions, c)
	c.guard.mu.Unlock()
	return c.Conn.Close()
}

// NewGuard returns the guard of a pool; see OpenPool.
func NewGuard(logger *slog.Logger) *Guard {
	g := &Guard{logger: logger, silent: map[string]bool{}, sessions: map[*guarded]struct{}{}}
	g.knowledge.logger = logger
	g.knowledge.generation.Store(1)
	return g
}

// protect adds the guard to what the pool does on each new connection.
func (g *Guard) protect(config *pgxpool.Config) {
	g.config = config.ConnConfig
	all := append([]*pgconn.FallbackConfig{{Host: g.config.Host, Port: g.config.Port, TLSConfig: g.config.TLSConfig}}, g.config.Fallbacks...)
	for _, way := range all { // a host has several when it may be reached with TLS and without
		at := slices.IndexFunc(g.hosts, func(ways []*pgconn.FallbackConfig) bool { return address(ways[0]) == address(way) })
		if at < 0 {
			at, g.hosts = len(g.hosts), append(g.hosts, nil)
		}
		g.hosts[at] = append(g.hosts[at], way)
	}
	config.MaxConns = max(2, config.MaxConns-1) // Watch has one
	if len(g.hosts) > 1 {
		config.MaxConns = max(2, config.MaxConns-1) // and a look
	}
	dial, validate, before, after := g.config.DialFunc, g.config.ValidateConnect, config.BeforeConnect, config.AfterConnect
	g.config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		raw, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		c := &guarded{Conn: raw, guard: g}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.sessions[c] = struct{}{}
		return c, nil
	}
	g.config.ValidateConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		if validate != nil {
			if err := validate(ctx, conn); err != nil {
				return err
			}
		}
		return g.validate(ctx, conn)
	}
	config.BeforeConnect = func(ctx context.Context, c *pgx.ConnConfig) error {
		if len(g.hosts) > 1 {
			g.find(ctx)
			reach(c, g.order()...)
		}
		if before == nil {
			return nil
		}
		return before(ctx, c)
	}
	config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		if after != nil {
			if err := after(ctx, conn); err != nil {
				return err
			}
		}
		_, err := g.knowledge.check(ctx, conn)
		return err
	}
}

func address(way *pgconn.FallbackConfig) string {
	return net.JoinHostPort(way.Host, strconv.Itoa(int(way.Port)))
}

// reach makes the config try the hosts in this order.
func reach(c *pgx.ConnConfig, hosts ...[]*pgconn.FallbackConfig) {
	ways := slices.Concat(hosts...)
	c.Host, c.Port, c.TLSConfig, c.Fallbacks = ways[0].Host, ways[0].Port, ways[0].TLSConfig, ways[1:]
}

// order returns the hosts, first the one on which the newest server was found, without those
// that answer nobody if others do: one that is frozen costs every connection its timeout.
func (g *Guard) order() [][]*pgconn.FallbackConfig {
	g.mu.Lock()
	defer g.mu.Unlock()
	hosts := slices.DeleteFunc(slices.Clone(g.hosts), func(host []*pgconn.FallbackConfig) bool {
		return g.silent[address(host[0])] && len(g.silent) < len(g.hosts)
	})
	slices.SortStableFunc(hosts, func(a, b []*pgconn.FallbackConfig) int {
		return cmp.Compare(g.rank(a), g.rank(b))
	})
	return hosts
}

func (g *Guard) rank(host []*pgconn.FallbackConfig) int {
	if address(host[0]) == g.found {
		return 0
	}
	return 1
}

// serverSQL names the server. A standby has no timeline of its own.
const serverSQL = `SELECT system_identifier::text, CASE WHEN pg_is_in_recovery() THEN '0'
	ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END FROM pg_control_system()`

// validate refuses a server that another has taken over from. A server that does not say
// who it is, is accepted.
func (g *Guard) validate(ctx context.Context, conn *pgconn.PgConn) error {
	results, err := conn.Exec(ctx, serverSQL).ReadAll()
	if IsRefusal(err) {
		g.logger.Debug("the server does not name itself", "error", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("ask the server who it is: %w", err)
	}
	row := results[0].Rows[0]
	timeline, err := strconv.ParseUint(string(row[1]), 16, 64)
	if err != nil || timeline == 0 {
		return g.acceptStandby()
	}
	return g.accept(conn.Conn(), server{string(row[0]), timeline})
}

// acceptStandby refuses a server that takes no writes once there was one that does: a proxy
// leads there for a moment when the primary's role moves, and the connection would stay.
func (g *Guard) acceptStandby() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.server != (server{}) {
		return errors.New("this server is a standby")
	}
	return nil
}

// accept takes in a server that answers on the connection. From the one before, if it is
// another, all connections are closed.
func (g *Guard) accept(on net.Conn, s server) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	was := g.server
	if was.system == s.system && s.timeline < was.timeline {
		return fmt.Errorf("this server was left behind: it is on timeline %d, and the current one is on %d", s.timeline, was.timeline)
	}
	if g.server = s; was != s && was != (server{}) {
		g.logger.Warn("another database server took over", "timeline", s.timeline, "before", was.timeline)
		g.found = ""
		g.closeAll(func(c *guarded) bool { return c.server == was })
	}
	if c := guardedOf(on); c != nil {
		c.server = s
	}
	return nil
}

// guardedOf returns ours below the connection.
func guardedOf(conn net.Conn) *guarded {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	c, _ := conn.(*guarded)
	return c
}

// closeAll closes connections, so that what waits for answers on them fails. The caller
// holds the lock.
func (g *Guard) closeAll(which func(*guarded) bool) {
	for c := range g.sessions {
		if which(c) {
			c.Conn.Close() //nolint:errcheck // its user gets the error
		}
	}
}

// find looks at all hosts unless it is known which has the current server: one that comes
// first may have been left behind, before this process could know.
func (g *Guard) find(ctx context.Context) {
	asked := time.Now()
	if g.knows() {
		return
	}
	g.looking.Lock()
	defer g.looking.Unlock()
	if !g.knows() && !g.looked.After(asked) {
		g.look(ctx)
	}
}

// knows reports whether it is known which host has the current server.
func (g *Guard) knows() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.found != ""
}

// look asks every host who it is, and finds the current server among them. While none is known
// it asks again, until there is one or its time is over. It waits for all, as a server that was
// left behind may answer first, but not once one has taken over from the server that was known.
// The caller holds the lock of looks.
func (g *Guard) look(ctx context.Context) {
	g.looked = time.Now()
	ctx, cancel := context.WithTimeout(ctx, g.config.ConnectTimeout)
	defer cancel()
	g.mu.Lock()
	before, again := g.server, g.found == ""
	g.mu.Unlock()
	var group sync.WaitGroup
	silent := make([]bool, len(g.hosts))
	for i, host := range g.hosts {
		group.Go(func() {
			for {
				found, err := g.ask(ctx, host)
				if silent[i] = ctx.Err() != nil || pgconn.Timeout(err); found != (server{}) && found != before && before != (server{}) {
					cancel()
				}
				if !again || g.knows() || IsRefusal(err) || err != nil && !IsOutage(err) || !Wait(ctx, askAgain, nil) {
					return
				}
			}
		})
	}
	group.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.silent)
	for i, host := range g.hosts {
		if silent[i] {
			g.silent[address(host[0])] = true
		}
	}
}

// ask asks a host who it is, and returns which server was found on it, if that is the current one.
func (g *Guard) ask(ctx context.Context, host []*pgconn.FallbackConfig) (found server, err error) {
	config := g.config.Copy()
	reach(config, host)
	conn, err := pgconn.ConnectConfig(ctx, &config.Config)
	if err != nil {
		return found, err
	}
	defer conn.Close(ctx) //nolint:errcheck // nothing is lost with it
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := guardedOf(conn.Conn()); g.found == "" && c != nil && c.server == g.server {
		g.found, found = address(host[0]), c.server
	}
	return found, nil
}

// Watch leaves a server that does not answer, or that another has taken over from, until
// ctx ends. It has a connection of its own.
func (g *Guard) Watch(ctx context.Context, pool *pgxpool.Pool) {
	var conn *pgconn.PgConn
	looked := time.Now()
	every := pingEvery
	if len(g.hosts) < 2 { // there is no other to go to
		every = lookEvery
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			if conn != nil {
				conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is lost with it
			}
			return
		case <-ticker.C:
		}
		var err error
		began, connected := time.Now(), conn != nil && !conn.IsClosed()
		if conn, err = g.ping(ctx, conn); connected && err != nil && pgconn.Timeout(err) && ctx.Err() == nil {
			g.leave(pool)
		}
		if len(g.hosts) > 1 && (time.Since(began) > pingSlow || time.Since(looked) > lookEvery) {
			looked = time.Now()
			g.looking.Lock()
			g.look(ctx)
			g.looking.Unlock()
		}
	}
}

// ping returns the connection, a new one if it is closed, after the server answered on it.
func (g *Guard) ping(ctx context.Context, conn *pgconn.PgConn) (*pgconn.PgConn, error) {
	timeout := onlyTimeout
	if len(g.hosts) > 1 {
		g.find(ctx)
		timeout = pingPatience
	}
	if conn == nil || conn.IsClosed() {
		config := g.config.Copy()
		reach(config, g.order()...)
		return pgconn.ConnectConfig(ctx, &config.Config)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return conn, conn.Ping(ctx)
}

// leave closes every connection: a server that is frozen would keep them for ever.
func (g *Guard) leave(pool *pgxpool.Pool) {
	g.logger.Warn("the database does not answer: its connections are closed")
	g.mu.Lock()
	g.found = ""
	g.closeAll(func(*guarded) bool { return true })
	g.mu.Unlock()
	pool.Reset()
}
