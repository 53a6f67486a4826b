package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/medilab/webhooks/cmd/testbed"
	"github.com/medilab/webhooks/migrations/postgres"
)

// lineup is a set of nodes on one Postgres. Each node has a share of a core, so that the nodes
// are the bottleneck; Postgres, callers and receivers are not limited.
type lineup struct {
	name    string
	full    int // nodes with all roles
	entries int // how many of those are sent events
	workers int // nodes with --roles worker
}

var lineups = []lineup{
	{name: "nodes-1", full: 1, entries: 1},
	{name: "nodes-2", full: 2, entries: 2},
	{name: "nodes-3", full: 3, entries: 3},
	{name: "nodes-4", full: 4, entries: 4},
	{name: "nodes-4-one-entry", full: 4, entries: 1},
	{name: "nodes-1-workers-3", full: 1, entries: 1, workers: 3},
}

func nodeScenarios() []scenario {
	var list []scenario
	for _, l := range lineups {
		list = append(list, scenario{name: l.name, sides: byNodes, alone: true, run: func(ctx context.Context, b *bench, _ *product) (measures, error) {
			return b.nodes(ctx, l)
		}})
	}
	return list
}

const postgresCPU = "Postgres CPU s/1000"

// nodeTypes spread the deliveries over webhooks: each event has one recipient.
var nodeTypes = []string{
	"patient.created", "patient.updated", "appointment.created", "appointment.updated",
	"visit.created", "visit.updated", "payment.created", "user.updated",
}

// nodes measures what a lineup delivers.
func (b *bench) nodes(ctx context.Context, l lineup) (m measures, err error) {
	c, err := b.startCluster(ctx, l)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	t := b.target()
	defer b.receiver.Forget(t.url)
	for _, name := range nodeTypes {
		id, err := c.nodes[0].webhook(ctx, map[string]any{"name": name, "url": t.url, "events": []string{name}})
		if err != nil {
			return nil, err
		}
		c.webhooks = append(c.webhooks, id)
	}
	warm, err := c.load(ctx, b, l, t, time.Second)
	if err != nil {
		return nil, err
	}
	before, err := c.state(ctx)
	if err != nil {
		return nil, err
	}
	t.reset()
	start := time.Now()
	got, err := c.load(ctx, b, l, t, b.duration)
	if err != nil {
		return nil, err
	}
	elapsed := time.Since(start)
	used, err := c.nodesCPU()
	if err != nil {
		return nil, err
	}
	if err := c.settle(ctx, len(warm.ids)+len(got.ids), b.patience); err != nil {
		return nil, errors.Join(err, t.check(got.ids))
	}
	after, err := c.state(ctx)
	if err != nil {
		return nil, err
	}
	m = c.compare(before, after, float64(len(got.ids)))
	m["deliveries/s"] = float64(len(got.ids)) / elapsed.Seconds()
	// Not much below 1, or the nodes were not the bottleneck.
	m["CPU used of the quota"] = (used - before.nodes).Seconds() / elapsed.Seconds() / c.quota / float64(len(c.nodes))
	return m, t.check(got.ids)
}

// load triggers events for a while and waits until the last has arrived.
func (c *cluster) load(ctx context.Context, b *bench, l lineup, t *target, duration time.Duration) (produced, error) {
	var urls []string
	for _, p := range c.nodes[:l.entries] {
		urls = append(urls, p.base)
	}
	const callers = 256
	got, err := b.producer.load(ctx, loadOptions{
		path: triggerPath, callers: callers, events: 1, limit: b.limit, duration: duration,
		body: func() []byte { return event(nodeTypes[rand.IntN(len(nodeTypes))]) },
	}, urls...)
	if err != nil {
		return got, err
	}
	return got, b.arrived(ctx, []*target{t}, len(got.ids))
}

// cluster is the nodes of a lineup and their Postgres.
type cluster struct {
	dir      string
	postgres *postgres.Server
	nodes    []*product
	limits   []*cpuLimit // of the nodes; empty where none can be set
	webhooks []string
	quota    float64
}

func (b *bench) startCluster(ctx context.Context, l lineup) (c *cluster, err error) {
	c = &cluster{quota: b.quota}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	if c.dir, err = os.MkdirTemp("", "medilab-bench-nodes-"); err != nil {
		return c, err
	}
	if c.postgres, err = postgres.Start(ctx, postgres.Options{DataDir: c.dir}); err != nil {
		return c, err
	}
	for i := range l.full + l.workers {
		environment := []string{"MEDILAB_KEYS=" + filepath.Join(c.dir, "keys.json")}
		if i >= l.full {
			environment = append(environment, "MEDILAB_ROLES=worker")
		}
		limit, err := limitCPU(fmt.Sprintf("medilab-bench-%d-%d", os.Getpid(), i), b.quota)
		if err != nil {
			fmt.Fprintln(os.Stderr, "no CPU quota, but one thread a node:", err)
			environment = append(environment, "GOMAXPROCS=1")
			c.quota = 1
		} else {
			c.limits = append(c.limits, limit)
		}
		p, err := startProduct(ctx, b.binary, c.postgres.URL(), b.workers, environment...)
		if err != nil {
			return c, err
		}
		c.nodes = append(c.nodes, p)
		if limit != nil {
			if err := limit.add(p.Pid()); err != nil {
				return c, err
			}
		}
	}
	return c, nil
}

func (c *cluster) close() error {
	var errs []error
	for _, l := range c.limits {
		errs = append(errs, l.lift())
	}
	for _, p := range slices.Backward(c.nodes) {
		errs = append(errs, p.close())
	}
	for _, l := range c.limits {
		errs = append(errs, os.Remove(l.dir))
	}
	if c.postgres != nil {
		errs = append(errs, c.postgres.Stop(context.Background()))
	}
	return errors.Join(append(errs, os.RemoveAll(c.dir))...)
}

// settle waits until the statistics hold all calls and no projection lags.
func (c *cluster) settle(ctx context.Context, calls int, patience time.Duration) error {
	_, err := c.nodes[0].settleAll(ctx, c.webhooks, patience, func(got []int) string {
		total := 0
		for _, n := range got {
			total += n
		}
		if total != calls {
			return fmt.Sprintf("the call logs hold %d calls of %d", total, calls)
		}
		return ""
	})
	return err
}

// clusterState is what the nodes and Postgres have done so far.
type clusterState struct {
	calls    []float64 // of each node
	head     float64   // of the log
	nodes    time.Duration
	postgres time.Duration
}

func (c *cluster) state(ctx context.Context) (s clusterState, err error) {
	system, err := c.nodes[0].system(ctx)
	if err != nil {
		return s, err
	}
	s.head = system.Projections.Head
	pid, err := testbed.Postmaster(filepath.Join(c.dir, "postgres"))
	if err != nil {
		return s, err
	}
	if s.postgres, err = testbed.CPU(pid); err != nil {
		return s, err
	}
	for _, p := range c.nodes {
		calls, err := testbed.Metric(ctx, p.base, "medilab_delivery_attempt_duration_seconds_count")
		if err != nil {
			return s, err
		}
		s.calls = append(s.calls, float64(calls))
	}
	s.nodes, err = c.nodesCPU()
	return s, err
}

func (c *cluster) nodesCPU() (sum time.Duration, err error) {
	for _, p := range c.nodes {
		used, err := p.cpu()
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

// compare makes the figures from the states around a load.
func (c *cluster) compare(before, after clusterState, deliveries float64) measures {
	m := measures{
		"entries/delivery": (after.head - before.head) / deliveries,
		postgresCPU:        (after.postgres - before.postgres).Seconds() / deliveries * 1000,
	}
	calls := make([]float64, len(c.nodes))
	for i := range calls {
		calls[i] = after.calls[i] - before.calls[i]
		m["calls of node "+count(i+1)] = calls[i]
	}
	if len(calls) > 1 {
		m["busiest/least"] = slices.Max(calls) / max(1, slices.Min(calls))
	}
	return m
}

// cpuLimit is a control group with a quota of CPU time.
type cpuLimit struct {
	dir, file, unlimited string
}

// limitCPU makes a control group with a quota of so many cores, of version 1 or 2, next to or
// below the one of this process. The period is short: a node that waits for its next share must
// not keep a lock of the database for long.
func limitCPU(name string, cores float64) (*cpuLimit, error) {
	const period = 20_000 // µs
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(own)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) == 3 && slices.Contains(strings.Split(parts[1], ","), "cpu") {
			l := &cpuLimit{filepath.Join("/sys/fs/cgroup/cpu", parts[2], name), "cpu.cfs_quota_us", "-1"}
			return l, l.make(map[string]string{"cpu.cfs_period_us": count(period)}, count(int(cores*period)))
		}
	}
	_, path, _ := strings.Cut(strings.TrimSpace(string(own)), "::")
	l := &cpuLimit{filepath.Join("/sys/fs/cgroup", filepath.Dir(path), name), "cpu.max", "max"}
	return l, l.make(nil, fmt.Sprintf("%d %d", int(cores*period), period))
}

func (l *cpuLimit) make(settings map[string]string, quota string) error {
	if err := os.Mkdir(l.dir, 0o755); err != nil {
		return err
	}
	var errs []error
	for name, value := range settings {
		errs = append(errs, l.write(name, value))
	}
	if err := errors.Join(append(errs, l.write(l.file, quota))...); err != nil {
		return errors.Join(err, os.Remove(l.dir))
	}
	return nil
}

func (l *cpuLimit) write(name, value string) error {
	return os.WriteFile(filepath.Join(l.dir, name), []byte(value), 0o644)
}

// add moves a process into the group.
func (l *cpuLimit) add(pid int) error { return l.write("cgroup.procs", count(pid)) }

// lift ends the limit, so that the processes stop quickly.
func (l *cpuLimit) lift() error { return l.write(l.file, l.unlimited) }
