package patroni

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/medilab/webhooks/cmd/testbed"
)

func (m *Member) configure() error {
	if err := os.Mkdir(m.dir, 0o700); err != nil {
		return err
	}
	if owner := m.cluster.owner; owner != nil {
		if err := os.Chown(m.dir, int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	var config strings.Builder
	err := patroniConfig.Execute(&config, map[string]any{
		"name": m.Name, "address": m.Address, "rest": m.rest, "listens": m.listens, "restListens": m.restListens, "dir": m.dir, "bin": binDir(), "etcd": m.etcd,
		"through":  m.cluster.options.Through != nil,
		"password": m.cluster.password, "synchronous": m.cluster.options.Synchronous, "ttl": int(TTL.Seconds()),
	})
	if err != nil {
		return err
	}
	return m.cluster.write(m.config(), config.String())
}

func (m *Member) config() string { return filepath.Join(m.dir, "patroni.yml") }

// Start starts Patroni, which starts Postgres.
func (m *Member) Start() (err error) {
	m.patroni, err = m.cluster.start(m.Name, program("patroni"), m.config())
	return err
}

// Leads reports whether the server is the primary, as its Patroni says.
func (m *Member) Leads(ctx context.Context) bool {
	return testbed.Status(ctx, "http://"+m.rest+"/primary") == http.StatusOK
}

// Kill kills the server and its Patroni, as a machine that loses its power.
func (m *Member) Kill() {
	_ = m.patroni.Signal(syscall.SIGKILL)
	<-m.patroni.Done()
	m.kill()
}

// kill kills the server, if it runs.
func (m *Member) kill() { m.signal(syscall.SIGKILL) }

// Freeze stops the server and its Patroni: they keep their connections, and answer nothing.
func (m *Member) Freeze() {
	_ = m.patroni.Signal(syscall.SIGSTOP)
	m.signal(syscall.SIGSTOP)
}

// Thaw lets the server go on as if nothing had been, and starts another Patroni: that of Debian
// 12 would take the lead back from its successor (docs/cluster.md).
func (m *Member) Thaw() error {
	_ = m.patroni.Signal(syscall.SIGKILL)
	<-m.patroni.Done()
	m.signal(syscall.SIGCONT)
	return m.Start()
}

func (m *Member) signal(signal syscall.Signal) {
	m.each(func(pid int) { _ = syscall.Kill(pid, signal) }) // it has gone if that fails
}

// each calls do with each process of the server, which is not a child of Patroni's.
func (m *Member) each(do func(pid int)) {
	pid, err := testbed.Postmaster(m.data)
	if err != nil || pid <= 1 {
		return // it does not run
	}
	for _, each := range testbed.Tree(pid) {
		do(each)
	}
}

// Crash kills the server alone; its Patroni sees it at once.
func (m *Member) Crash() { m.kill() }

// HoldReplication keeps the standbys from getting what the server commits from now on.
func (m *Member) HoldReplication() {
	m.each(func(pid int) {
		title, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline") // it has gone if that fails
		if strings.Contains(string(title), "walsender") {
			_ = syscall.Kill(pid, syscall.SIGSTOP)
		}
	})
}
