// Command cluster runs the whole of docs/cluster.md on this machine, on loopback, until Ctrl-C:
// Postgres under Patroni, haproxy, PgBouncer, three nodes, a receiver, and events.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/medilab/webhooks/cmd/testbed"
	"github.com/medilab/webhooks/cmd/testbed/patroni"
)

func main() {
	binary := flag.String("binary", "bin/medilab-webhooks", "the built product")
	rate := flag.Int("rate", 20, "events a second")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *binary, *rate); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, binary string, rate int) (err error) {
	if err := install(ctx); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "medilab-cluster-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil { // the account of Postgres enters it
		return err
	}
	nodes := make([]string, 3)
	for i := range nodes {
		if nodes[i], err = testbed.FreeAddress(); err != nil {
			return err
		}
	}
	fmt.Println("Starting Postgres; this takes about half a minute ...")
	c, err := patroni.Start(ctx, patroni.Options{Dir: dir, Synchronous: true, Nodes: nodes})
	if err != nil {
		return err
	}
	defer func() {
		c.Close()
		fmt.Println("All is stopped.")
	}()
	l, err := newLoad(c.API, filepath.Join(dir, "token"))
	if err != nil {
		return err
	}
	defer l.receiver.Close() //nolint:errcheck // nothing is left to do
	running, err := startNodes(ctx, c, dir, binary, l.token, nodes)
	defer func() {
		fmt.Println("Stopping ...")
		for _, p := range running {
			_ = p.Signal(syscall.SIGTERM) // all at once; Stop waits
		}
		for _, p := range running {
			_ = p.Stop(time.Minute) // somebody may have killed it
		}
	}()
	if err == nil { // the balancer looks at them now and then
		err = running[0].Ready(ctx, "http://"+c.API+"/readyz")
	}
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "url"), []byte(c.URL()), 0o600); err != nil {
		return err
	}
	err = welcome.Execute(os.Stdout, map[string]any{"dir": dir, "api": c.API, "members": c.Members, "nodes": described(nodes, running), "rate": rate})
	if err != nil {
		return err
	}
	return l.run(ctx, rate, func() string {
		for _, m := range c.Members {
			if m.Leads(ctx) {
				return m.Name
			}
		}
		return "none"
	})
}

// install brings what is missing, as root; others are told.
func install(ctx context.Context) error {
	missing := patroni.Missing()
	if len(missing) == 0 {
		return nil
	}
	apt, err := exec.LookPath("apt-get")
	if err != nil || os.Geteuid() != 0 {
		return fmt.Errorf("not installed: %s; as root: apt-get install %s", strings.Join(missing, ", "), patroni.Packages)
	}
	fmt.Println("Installing", patroni.Packages, "...")
	for _, args := range [][]string{{"update", "-qq"}, append([]string{"install", "-y", "-qq", "--no-install-recommends"}, strings.Fields(patroni.Packages)...)} {
		cmd := exec.CommandContext(ctx, apt, args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1") // which starts no service of theirs
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("apt-get %s: %w", args[0], err)
		}
	}
	return nil
}

// startNodes starts nodes that reach the primary in three ways, and read from a standby.
func startNodes(ctx context.Context, c *patroni.Cluster, dir, binary, token string, addresses []string) (running []*testbed.Process, err error) {
	home := filepath.Join(dir, "nodes")
	if err := os.Mkdir(home, 0o700); err != nil {
		return nil, err
	}
	for i, url := range []string{c.URL(), c.BalancedURL(), c.PooledURL()} {
		log, err := os.Create(filepath.Join(dir, fmt.Sprintf("node%d.log", i+1)))
		if err != nil {
			return running, err
		}
		cmd := exec.Command(binary, "serve")
		cmd.Stdout, cmd.Stderr = log, log
		cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MEDILAB_") }),
			"DATABASE_URL="+url, "MEDILAB_READ_URL="+c.StandbyURL(), "MEDILAB_ADDR="+addresses[i], "MEDILAB_DATA_DIR="+home,
			"MEDILAB_TOKEN="+token, "MEDILAB_ALLOW_TARGETS=loopback", "MEDILAB_LOG=text,info")
		p, err := testbed.Start(cmd)
		if err := errors.Join(err, log.Close()); err != nil {
			return running, err
		}
		running = append(running, p)
		if err := p.Ready(ctx, "http://"+addresses[i]+"/readyz"); err != nil {
			return running, fmt.Errorf("%w; see %s", err, log.Name())
		}
	}
	return running, nil
}

type node struct {
	Name, Address string
	Pid           int
}

func described(addresses []string, running []*testbed.Process) (nodes []node) {
	for i, p := range running {
		nodes = append(nodes, node{fmt.Sprint("node", i+1), addresses[i], p.Pid()})
	}
	return nodes
}

var welcome = template.Must(template.New("welcome").Parse(`
A cluster runs, all of it in {{.dir}} (logs, too), with {{.rate}} events a second. Ctrl-C ends it.

  API and panel   http://{{.api}}/admin   (haproxy; the token is in {{.dir}}/token)
{{range .nodes}}  {{.Name}}           http://{{.Address}}   (process {{.Pid}})
{{end}}{{range .members}}  {{.Name}}             {{.Address}}
{{end}}
Try:

  patronictl -c {{.dir}}/pg1/patroni.yml list
  patronictl -c {{.dir}}/pg1/patroni.yml switchover --force
  kill -9 $(head -1 {{.dir}}/pg1/data/postmaster.pid)        # a crash of pg1
  pg1="$(pgrep -f {{.dir}}/pg1) $(pgrep -P $(head -1 {{.dir}}/pg1/data/postmaster.pid))"
  kill -STOP $pg1; sleep 30; kill -CONT $pg1        # pg1 freezes
  kill -9 {{(index .nodes 0).Pid}}        # node1 dies, and is not started again
  psql "$(cat {{.dir}}/url)" -c 'SELECT position FROM medilab.log_head'

`))
