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
	"os"
	"os/signal"
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
	against  string // another version's, in the place of the ceiling
	ceiling  string // another program in its place, with its arguments; "": the forwarder
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
	flags.StringVar(&b.against, "against", "", "another version's binary, compared with in the place of the ceiling")
	flags.StringVar(&b.ceiling, "ceiling", "", "another program in the ceiling's place and its arguments, such as \"bin/peers --queue river\"")
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

// measure runs the scenarios, those of the same two sides together: a product that idles during a
// run still polls, and takes from it.
func (b *bench) measure(ctx context.Context, r *report, only string, rounds int) error {
	for _, sides := range allSides {
		var group []scenario
		for _, s := range allScenarios() {
			if s.sides.name == sides.name && selected(s.name, only) {
				group = append(group, s)
			}
		}
		if len(group) == 0 {
			continue
		}
		if sides.name == byNodes.name && group[0].name != lineups[0].name { // the others are compared with one node
			group = append(nodeScenarios()[:1], group...)
		}
		if err := b.measureGroup(ctx, r, sides, group, rounds); err != nil {
			return err
		}
	}
	return nil
}

// measureGroup runs the scenarios round by round, the two sides in turns and each first every
// other time.
func (b *bench) measureGroup(ctx context.Context, r *report, sides sides, group []scenario, rounds int) (err error) {
	var two [2]*product
	for i, start := range sides.start {
		if two[i], err = start(ctx, b); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, two[i].close()) }()
	}
	for round := range rounds {
		for _, s := range group {
			sides := []int{round % 2, 1 - round%2}
			switch {
			case s.once && round > 0:
				continue
			case s.alone:
				sides = []int{1}
			}
			for _, i := range sides {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				b.runOne(ctx, r, round, s, i, two[i])
			}
		}
	}
	return nil
}

// runOne runs a scenario on one side. A failure is a finding: it is reported
// with the figures and the other scenarios go on.
func (b *bench) runOne(ctx context.Context, r *report, round int, s scenario, side int, p *product) {
	who := s.sides.names[side]
	fmt.Fprintf(os.Stderr, "round %d: %s, %s\n", round+1, s.name, who)
	m, err := s.run(ctx, b, p)
	if err != nil {
		r.Failures = append(r.Failures, fmt.Sprintf("%s, %s: %v", s.name, who, err))
	}
	r.add(s.name, side == 1, m)
}
