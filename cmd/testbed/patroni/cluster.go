// Package patroni runs a Postgres that fails over on this machine, of Debian's packages: three
// servers under Patroni and etcd, haproxy, and PgBouncer.
package patroni

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/medilab/webhooks/cmd/testbed"
)

// Packages are Debian's of what Start runs.
const Packages = "patroni etcd-server haproxy pgbouncer postgresql"

// TTL is how long a primary that says nothing stays the primary: Patroni's least.
const TTL = 20 * time.Second

// Options are those of a cluster.
type Options struct {
	Dir         string   // for all it keeps; it exists and is empty
	Synchronous bool     // a standby has what was committed before that is answered
	Nodes       []string // addresses of the product's, behind haproxy
	// Through returns what stands between the member and all others, before an address that
	// it listens on or asks; nil: nothing does.
	Through func(member, address string) (before string, err error)
}

// Cluster is a running one. Close it.
type Cluster struct {
	Members []*Member
	API     string // the address of all nodes

	options                                  Options
	owner                                    *syscall.Credential // nil: this process's
	password, etcd, primary, replica, pooler string
	others                                   []*testbed.Process // etcd, haproxy, PgBouncer, in the order of their start
}

// Member is one server of the cluster, and its Patroni.
type Member struct {
	Name, Address string

	cluster               *Cluster
	rest, etcd, dir, data string
	listens, restListens  string // what Address and rest stand before
	patroni               *testbed.Process
}

// Missing names the programs that are not installed.
func Missing() (names []string) {
	for _, name := range []string{"patroni", "etcd", "haproxy", "pgbouncer"} {
		if program(name) == "" {
			names = append(names, name)
		}
	}
	if binDir() == "" {
		names = append(names, "postgres")
	}
	return names
}

// program returns the path of a program, which may be one of the administrator's.
func program(name string) string {
	for _, path := range []string{name, "/usr/sbin/" + name} {
		if found, err := exec.LookPath(path); err == nil {
			return found
		}
	}
	return ""
}

// binDir returns the folder of the newest Postgres's programs, or "".
func binDir() string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres") // only a malformed pattern fails
	if len(found) == 0 {
		return ""
	}
	return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) }))
}

func version(path string) int {
	n, _ := strconv.Atoi(strings.Split(path, "/")[4])
	return n
}

// Start returns when the cluster has a primary and two standbys that follow it.
func Start(ctx context.Context, options Options) (c *Cluster, err error) {
	if missing := Missing(); len(missing) > 0 {
		return nil, fmt.Errorf("not installed: %s; apt-get install %s", strings.Join(missing, ", "), Packages)
	}
	c = &Cluster{options: options, password: rand.Text()}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if os.Geteuid() == 0 {
		if c.owner, err = account("postgres"); err != nil {
			return c, err
		}
		if err := os.Chown(options.Dir, int(c.owner.Uid), int(c.owner.Gid)); err != nil {
			return c, err
		}
	}
	peers, err := c.place()
	if err != nil {
		return c, err
	}
	client, peer := "http://"+c.etcd, "http://"+peers
	if err := c.run("etcd", "", "--data-dir", filepath.Join(options.Dir, "etcd"), "--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer); err != nil {
		return c, err
	}
	for _, m := range c.Members {
		if err := m.configure(); err != nil {
			return c, err
		}
		if err := m.Start(); err != nil {
			return c, err
		}
	}
	if err := c.run("haproxy", c.haproxyConfig(), "-db", "-f"); err != nil {
		return c, err
	}
	if err := c.run("pgbouncer", c.pgbouncerConfig()); err != nil {
		return c, err
	}
	return c, c.Healthy(ctx)
}

// place adds the members to the cluster and chooses all addresses. It returns the one that etcd uses
// among its peers.
func (c *Cluster) place() (peers string, err error) {
	addresses := []*string{&c.etcd, &peers, &c.primary, &c.replica, &c.pooler, &c.API}
	for _, name := range []string{"pg1", "pg2", "pg3"} {
		m := &Member{Name: name, cluster: c, dir: filepath.Join(c.options.Dir, name)}
		m.data = filepath.Join(m.dir, "data")
		c.Members = append(c.Members, m)
		addresses = append(addresses, &m.Address, &m.rest)
	}
	for _, address := range addresses {
		if *address, err = testbed.FreeAddress(); err != nil {
			return "", err
		}
	}
	for _, m := range c.Members {
		m.listens, m.restListens, m.etcd = m.Address, m.rest, c.etcd
		for _, address := range []*string{&m.Address, &m.rest, &m.etcd} {
			if c.options.Through == nil {
				break
			}
			if *address, err = c.options.Through(m.Name, *address); err != nil {
				return "", err
			}
		}
	}
	return peers, nil
}

// account returns the user's, and of the group.
func account(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.Atoi(u.Gid)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

// start starts a program, whose output goes to a file.
func (c *Cluster) start(name, program string, args ...string) (*testbed.Process, error) {
	log, err := os.OpenFile(filepath.Join(c.options.Dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the process has its own
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = c.options.Dir, log, log, attributes(c.owner)
	cmd.Env = append(os.Environ(), "HOME="+c.options.Dir, "LC_ALL=C.UTF-8")
	return testbed.Start(cmd)
}

// run starts a program that is not a member. Its configuration, if it has one, is its last argument.
func (c *Cluster) run(name, config string, args ...string) error {
	if config != "" {
		file := filepath.Join(c.options.Dir, name+".conf")
		if err := c.write(file, config); err != nil {
			return err
		}
		args = append(args, file)
	}
	p, err := c.start(name, program(name), args...)
	if err == nil {
		c.others = append(c.others, p)
	}
	return err
}

// write makes a file that the cluster's account alone may read: it may hold a password.
func (c *Cluster) write(file, text string) error {
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil || c.owner == nil {
		return err
	}
	return os.Chown(file, int(c.owner.Uid), int(c.owner.Gid))
}

// Close ends all of it.
func (c *Cluster) Close() {
	const patience = 20 * time.Second
	for _, m := range c.Members {
		if m.patroni != nil {
			m.signal(syscall.SIGCONT)
			_ = m.patroni.Signal(syscall.SIGCONT)
			_ = m.patroni.Signal(syscall.SIGTERM) // all at once; Stop waits
		}
	}
	for _, m := range c.Members {
		if m.patroni != nil {
			_ = m.patroni.Stop(patience) // it ends with the signal's number
			m.kill()
		}
	}
	for _, p := range slices.Backward(c.others) {
		_ = p.Stop(patience)
	}
}

// url reaches servers, as the superuser.
func (c *Cluster) url(attributes string, addresses ...string) string {
	return fmt.Sprintf("postgres://postgres:%s@%s/postgres?sslmode=disable%s", c.password, strings.Join(addresses, ","), attributes)
}

// URL names all servers, for a client that finds the primary itself.
func (c *Cluster) URL() string {
	return c.url("&target_session_attrs=read-write", c.addresses()...)
}

// StandbyURL names all servers, for a client that wants a standby.
func (c *Cluster) StandbyURL() string {
	return c.url("&target_session_attrs=prefer-standby", c.addresses()...)
}

// BalancedURL leads to the primary through haproxy, PooledURL through PgBouncer and haproxy.
func (c *Cluster) BalancedURL() string { return c.url("", c.primary) }

// PooledURL is described with BalancedURL.
func (c *Cluster) PooledURL() string { return c.url("", c.pooler) }

func (c *Cluster) addresses() (all []string) {
	for _, m := range c.Members {
		all = append(all, m.Address)
	}
	return all
}

// Healthy returns when one server is the primary, the others follow it and, in a synchronous
// cluster, one of them synchronously. One that was the primary runs on its own timeline before it
// is rewound, and must not lose what it is rewound from.
func (c *Cluster) Healthy(ctx context.Context) error {
	return c.until(ctx, func() bool {
		counts, timelines := map[string]int{}, map[int]bool{}
		for _, m := range c.state(ctx) {
			if m.State == "running" || m.State == "streaming" {
				counts[m.Role]++
				timelines[m.Timeline] = true
			}
		}
		if len(timelines) != 1 {
			return false
		}
		if c.options.Synchronous && counts["sync_standby"] == 0 {
			return false
		}
		return counts["leader"] == 1 && counts["replica"]+counts["sync_standby"] == len(c.Members)-1
	})
}

// Leader returns the primary, once there is one other than the one before, which may be nil.
func (c *Cluster) Leader(ctx context.Context, before *Member) (leader *Member, err error) {
	err = c.until(ctx, func() bool {
		for _, m := range c.Members {
			if m != before && m.Leads(ctx) {
				leader = m
				return true
			}
		}
		return false
	})
	return leader, err
}

// until asks again and again until the condition holds or ctx ends: Patroni tells nobody.
func (c *Cluster) until(ctx context.Context, holds func() bool) error {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the cluster is not as it should be; see the logs in %s: %w", c.options.Dir, ctx.Err())
		case <-ticker.C:
		}
	}
	return nil
}

type memberState struct {
	Name, Role, State string
	Timeline          int
}

// state returns what a Patroni that answers says of all members.
func (c *Cluster) state(ctx context.Context) []memberState {
	for _, m := range c.Members {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		var state struct{ Members []memberState }
		if testbed.Call(ctx, "", "GET", "http://"+m.rest+"/cluster", nil, &state) == nil {
			return state.Members
		}
	}
	return nil
}

// Switchover hands the primary's role over, as for its maintenance.
func (c *Cluster) Switchover(ctx context.Context) error {
	leader, err := c.Leader(ctx, nil)
	if err != nil {
		return err
	}
	err = c.tell(ctx, leader, "POST", "/switchover", fmt.Sprintf(`{"leader":%q}`, leader.Name))
	if err != nil && strings.Contains(err.Error(), "status unknown") {
		return nil // Patroni waits for it for ten seconds only
	}
	return err
}

// Asynchronous makes commits wait for no standby, so that a failover may lose some.
func (c *Cluster) Asynchronous(ctx context.Context) error {
	leader, err := c.Leader(ctx, nil)
	if err != nil {
		return err
	}
	c.options.Synchronous = false
	if err := c.tell(ctx, leader, "PATCH", "/config", `{"synchronous_mode":false}`); err != nil {
		return err
	}
	return c.until(ctx, func() bool {
		state := c.state(ctx)
		return len(state) == len(c.Members) && !slices.ContainsFunc(state, func(m memberState) bool { return m.Role == "sync_standby" })
	})
}

// tell makes a request of the member's Patroni.
func (c *Cluster) tell(ctx context.Context, m *Member, method, path, body string) error {
	answer, err := testbed.Request(ctx, "", method, "http://"+m.rest+path, []byte(body))
	if err == nil && answer.Status != http.StatusOK {
		err = fmt.Errorf("%s %s was answered %d: %s", method, path, answer.Status, answer.Body)
	}
	return err
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address) // ours all have one
	return port
}
