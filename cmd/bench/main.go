// Command bench measures the built product from outside, next to the machine's
// ceiling: a forwarder that keeps nothing, with the same producer and the same
// receiver, in the same run. What must not grow with history or webhooks is
// compared with a product that has little of them. A figure counts only when
// nothing was bought with it: each run asserts that every acknowledged event
// arrived exactly once, that every call is in the call log, and that no
// projection lags a second later.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/medilab/webhooks/cmd/testbed"
)

func main() {
	var err error
	if len(os.Args) > 1 && os.Args[1] == "forwarder" {
		err = runForwarder(os.Args[2:])
	} else {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = run(ctx, os.Args[1:])
		stop()
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench holds what all runs share.
type bench struct {
	binary   string
	workers  int
	duration time.Duration // of one run's load
	limit    int           // events of one run
	waiting  []int         // backlogs to measure memory at
	events   int           // of the long log
	webhooks int           // of the product with many
	patience time.Duration // with something that makes no progress
	quota    float64       // of each of several nodes, in cores

	receiver *testbed.Receiver
	producer *producer
}

func run(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	var (
		b        = &bench{workers: 512, limit: 150_000, webhooks: 10_000, patience: 20 * time.Second}
		asJSON   = flags.Bool("json", false, "print JSON")
		only     = flags.String("only", "", "scenarios to run, by the beginnings of their names, comma-separated")
		quick    = flags.Bool("quick", false, "one round of two seconds a run: a look, not a measurement")
		rounds   = flags.Int("rounds", 3, "how often each scenario runs; the medians count")
		million  = flags.Bool("million", false, "measure memory with a million deliveries waiting, too")
		keep     = flags.String("keep", "", "keep the result in this folder (docs/bench)")
		version  = flags.String("version", "dev", "what is measured")
		duration = flags.Duration("duration", 5*time.Second, "how long a run triggers")
	)
	flags.StringVar(&b.binary, "binary", "bin/medilab-webhooks", "the product")
	flags.IntVar(&b.events, "events", 1_000_000, "events of the long log (a fifth of it when quick); 20000000 takes half an hour and 25 GB")
	flags.Float64Var(&b.quota, "quota", 0.1, "cores that each node of the nodes scenario may use")
	if err := flags.Parse(args); err != nil {
		return err
	}
	b.duration, b.waiting = *duration, []int{100_000}
	if *quick {
		*rounds, b.duration, b.waiting = 1, 2*time.Second, []int{20_000}
		b.events, b.webhooks = b.events/5, b.webhooks/10
	}
	if *million {
		b.waiting = append(b.waiting, 1_000_000)
	}
	b.producer = newProducer(token)
	if b.receiver, err = testbed.Listen(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.receiver.Close()) }()

	r := &report{Version: *version, At: time.Now().UTC(), Machine: thisMachine(), Rounds: *rounds, Seconds: b.duration.Seconds(), Workers: b.workers}
	if err := b.measure(ctx, r, *only, *rounds); err != nil {
		return err
	}
	r.finish()
	if *keep != "" {
		path, err := r.keep(*keep)
		if err != nil {
			return err
		}
		fmt.Fprintln(os.Stderr, "kept in", path)
	}
	if *asJSON {
		err = json.NewEncoder(os.Stdout).Encode(r)
	} else {
		err = r.print(os.Stdout)
	}
	if err == nil && len(r.Failures) > 0 {
		err = fmt.Errorf("%d runs failed what they assert", len(r.Failures))
	}
	return err
}

// measure runs the scenarios, those of one kind of pair after those of another: a product
// that idles during a run still polls, and takes from it.
func (b *bench) measure(ctx context.Context, r *report, only string, rounds int) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	bare, err := startChild(ctx, "/targets", func(addr string) *exec.Cmd {
		return exec.Command(self, "forwarder", "--addr", addr, "--workers", count(b.workers))
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bare.stop()) }()
	for _, kind := range []pairKind{noPair, byHistory, byWebhooks, byFilters, byNodes} {
		var group []scenario
		for _, s := range allScenarios() {
			if s.pair == kind && selected(s.name, only) {
				group = append(group, s)
			}
		}
		if len(group) == 0 {
			continue
		}
		switch kind {
		case noPair:
			err = b.measureBeside(ctx, r, ceiling{bare}, group, rounds)
		case byNodes:
			err = b.measureNodes(ctx, r, group, rounds)
		default:
			err = b.measurePair(ctx, r, kind, group, rounds)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// measureBeside runs the scenarios on one product, and on the ceiling.
func (b *bench) measureBeside(ctx context.Context, r *report, bare ceiling, group []scenario, rounds int) (err error) {
	var ours *product
	if slices.ContainsFunc(group, func(s scenario) bool { return !s.once }) { // those have products of their own
		if ours, err = startProduct(ctx, b.binary, "", b.workers); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, ours.close()) }()
	}
	return b.rounds(ctx, r, group, rounds, side{bare, false}, side{ours, true})
}

// measurePair runs the scenarios on the two products of a pair.
func (b *bench) measurePair(ctx context.Context, r *report, kind pairKind, group []scenario, rounds int) (err error) {
	p, err := b.pairOf(ctx, kind)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	return b.rounds(ctx, r, group, rounds, side{p.small, false}, side{p.large, true})
}

// rounds runs the scenarios round by round, the two sides in turns and each first every
// other time.
func (b *bench) rounds(ctx context.Context, r *report, group []scenario, rounds int, less, ours side) error {
	for round := range rounds {
		for _, s := range group {
			sides := []side{less, ours}
			switch {
			case s.once && round > 0:
				continue
			case s.alone:
				sides = sides[1:]
			case round%2 == 1:
				sides[0], sides[1] = sides[1], sides[0]
			}
			for _, side := range sides {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				b.runOne(ctx, r, round, s, side)
			}
		}
	}
	return nil
}

// side is one of the two that a scenario compares.
type side struct {
	system
	ours bool // else it is the ceiling, or what holds less
}

// runOne runs a scenario on one side. A failure is a finding: it is reported
// with the figures and the other scenarios go on.
func (b *bench) runOne(ctx context.Context, r *report, round int, s scenario, side side) measures {
	who := map[bool]string{true: "ours", false: "ceiling"}[side.ours]
	if s.pair != noPair && s.pair != byNodes {
		who = map[bool]string{true: "large", false: "small"}[side.ours]
	}
	fmt.Fprintf(os.Stderr, "round %d: %s, %s\n", round+1, s.name, who)
	m, err := s.run(ctx, b, side.system)
	if err != nil {
		r.Failures = append(r.Failures, fmt.Sprintf("%s, %s: %v", s.name, who, err))
	}
	r.add(s.name, side.ours, m)
	return m
}

// child is a process that is measured, with all that it starts.
type child struct {
	*testbed.Process
	base string // URL of its listener
}

// startChild starts a program that listens on the address, and waits until the path answers.
func startChild(ctx context.Context, readyPath string, prepare func(addr string) *exec.Cmd) (*child, error) {
	addr, err := testbed.FreeAddress()
	if err != nil {
		return nil, err
	}
	cmd := prepare(addr)
	cmd.Stderr = os.Stderr
	p, err := testbed.Start(cmd)
	if err != nil {
		return nil, err
	}
	c := &child{p, "http://" + addr}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := p.Ready(ctx, c.base+readyPath); err != nil {
		return nil, errors.Join(err, c.stop())
	}
	return c, nil
}

func (c *child) stop() error { return c.Stop(time.Minute) }

func (c *child) cpu() (time.Duration, error) { return testbed.CPU(c.Pid()) }

func (c ceiling) setTargets(ctx context.Context, urls []string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/targets", strings.NewReader(strings.Join(urls, "\n")))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
