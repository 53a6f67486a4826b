package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/medilab/webhooks/cmd/testbed"
)

// system is what is measured: the product, or the bare forwarder as its ceiling.
type system interface {
	url() string
	subscribe(ctx context.Context, targets []*target) ([]string, error)
	unsubscribe(ctx context.Context, webhooks []string) error
	cpu() (time.Duration, error)
}

func (c *child) url() string { return c.base }

// ceiling is the forwarder, driven like the product.
type ceiling struct{ *child }

func (c ceiling) subscribe(ctx context.Context, targets []*target) ([]string, error) {
	urls := make([]string, len(targets))
	for i, t := range targets {
		urls[i] = t.url
	}
	return nil, c.setTargets(ctx, urls)
}

func (c ceiling) unsubscribe(ctx context.Context, _ []string) error { return c.setTargets(ctx, nil) }

// scenario is one line of the table, or a few that one run measures.
type scenario struct {
	name string
	// alone scenarios have no ceiling: the forwarder keeps nothing to compare.
	alone bool
	// once scenarios run in the first round only.
	once bool
	// pair scenarios run on the two products of a pair, alone ones on the large one.
	pair pairKind
	run  func(ctx context.Context, b *bench, s system) (measures, error)
}

// measures are figures by name.
type measures map[string]float64

var scenarios = []scenario{
	{name: "deliver-64", run: func(ctx context.Context, b *bench, s system) (measures, error) {
		return b.deliver(ctx, s, delivery{callers: 64, targets: 1, costs: true})
	}},
	{name: "deliver-512", run: func(ctx context.Context, b *bench, s system) (measures, error) {
		return b.deliver(ctx, s, delivery{callers: 512, targets: 1})
	}},
	{name: "fanout-10", run: func(ctx context.Context, b *bench, s system) (measures, error) {
		return b.deliver(ctx, s, delivery{callers: 64, targets: 10})
	}},
	{name: "ingest-512", run: func(ctx context.Context, b *bench, s system) (measures, error) {
		return b.ingest(ctx, s, loadOptions{path: triggerPath, callers: 512, events: 1, body: one})
	}},
	{name: "ingest-batch", alone: true, run: func(ctx context.Context, b *bench, s system) (measures, error) {
		const size = 500
		body := batch(eventType, size)
		return b.ingest(ctx, s, loadOptions{path: triggerPath + "/batch", callers: 8, events: size, body: func() []byte { return body }})
	}},
	{name: "slow-100ms", alone: true, run: func(ctx context.Context, b *bench, s system) (measures, error) {
		return b.deliver(ctx, s, delivery{callers: 64, targets: 16, delay: 100 * time.Millisecond,
			limit: int(b.duration.Seconds() * float64(b.workers) / 0.1 / 16)})
	}},
	{name: "steady-50", run: func(ctx context.Context, b *bench, s system) (measures, error) { return b.latency(ctx, s) }},
	{name: "append-512", alone: true, once: true, run: func(ctx context.Context, b *bench, _ system) (measures, error) { return b.appendAlone(ctx) }},
	{name: "memory", alone: true, once: true, run: func(ctx context.Context, b *bench, _ system) (measures, error) { return b.memoryWaiting(ctx) }},
}

func one() []byte { return event(eventType) }

type delivery struct {
	callers, targets int
	delay            time.Duration
	limit            int // events; 0: the bench's
	costs            bool
}

// deliver triggers events for a while and waits until the last has arrived: the
// rate is over all of that time, so that a backlog is not a gain.
func (b *bench) deliver(ctx context.Context, s system, d delivery) (m measures, err error) {
	targets := make([]*target, d.targets)
	for i := range targets {
		targets[i] = b.target(func(t *target) { t.delay = d.delay })
		defer b.receiver.Forget(targets[i].url)
	}
	webhooks, err := s.subscribe(ctx, targets)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.unsubscribe(context.WithoutCancel(ctx), webhooks)) }()
	if d.limit == 0 {
		d.limit = b.limit
	}
	before, err := b.costs(ctx, s, d.costs)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	got, err := b.producer.load(ctx, loadOptions{
		path: triggerPath, callers: d.callers, events: 1, limit: d.limit, duration: b.duration, body: one,
	}, s.url())
	if err != nil {
		return nil, err
	}
	if err := b.arrived(ctx, targets, len(got.ids)); err != nil {
		return nil, err
	}
	elapsed := time.Since(start)
	deliveries := float64(len(got.ids) * len(targets))
	m = measures{"deliveries/s": deliveries / elapsed.Seconds()}
	unsettled := b.settled(ctx, s, webhooks, len(got.ids), m)
	after, err := b.costs(ctx, s, d.costs)
	if err := errors.Join(unsettled, err); err != nil {
		return nil, errors.Join(err, checkAll(targets, got.ids))
	}
	if d.costs {
		m["CPU s/1000"] = (after.cpu - before.cpu).Seconds() / deliveries * 1000
		if after.size > 0 {
			m["DB bytes/delivery"] = (float64(after.size-before.size) - float64(len(got.ids)*eventSize)) / deliveries
		}
	}
	return m, checkAll(targets, got.ids)
}

func checkAll(targets []*target, acked []string) error {
	errs := make([]error, len(targets))
	for i, t := range targets {
		errs[i] = t.check(acked)
	}
	return errors.Join(errs...)
}

type costs struct {
	cpu  time.Duration
	size int64
}

func (b *bench) costs(ctx context.Context, s system, wanted bool) (c costs, err error) {
	if !wanted {
		return c, nil
	}
	if c.cpu, err = s.cpu(); err != nil {
		return c, err
	}
	if p, ok := s.(*product); ok {
		c.size, err = p.databaseSize(ctx)
	}
	return c, err
}

// settled asserts the product's own account of the run.
func (b *bench) settled(ctx context.Context, s system, webhooks []string, calls int, m measures) error {
	p, ok := s.(*product)
	if !ok {
		return nil
	}
	took, err := p.settle(ctx, webhooks, calls, b.patience)
	m["settled after ms"] = float64(took.Milliseconds())
	return err
}

// arrived waits for n calls at each target, for as long as more keep coming.
func (b *bench) arrived(ctx context.Context, targets []*target, n int) error {
	total := func() (sum int) {
		for _, t := range targets {
			sum += int(t.arrivals.Load())
		}
		return sum
	}
	last, at := total(), time.Now()
	for {
		switch sum := total(); {
		case sum >= n*len(targets):
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case sum > last:
			last, at = sum, time.Now()
		case time.Since(at) > b.patience:
			return fmt.Errorf("only %d of %d deliveries arrived, and no more for %s", sum, n*len(targets), b.patience)
		}
		wait(ctx, time.Millisecond)
	}
}

// ingest posts with nobody subscribed; what was acknowledged must be in the log.
func (b *bench) ingest(ctx context.Context, s system, o loadOptions) (measures, error) {
	p, isProduct := s.(*product)
	before := 0
	if isProduct {
		if _, err := p.settle(ctx, nil, 0, b.patience); err != nil {
			return nil, err
		}
		var err error
		if before, err = p.eventsTotal(ctx); err != nil {
			return nil, err
		}
	}
	o.duration, o.limit = b.duration, 10*b.limit
	got, err := b.producer.load(ctx, o, s.url())
	if err != nil {
		return nil, err
	}
	m := measures{"events/s": float64(len(got.ids)) / got.elapsed.Seconds()}
	if !isProduct {
		return m, nil
	}
	if err := b.settled(ctx, s, nil, 0, m); err != nil {
		return nil, err
	}
	after, err := p.eventsTotal(ctx)
	if err == nil && after-before != len(got.ids) {
		err = fmt.Errorf("%d events were acknowledged and %d are in the log", len(got.ids), after-before)
	}
	return m, err
}

// latency is from the trigger's first byte to the receiver's last, at 50 a second.
// It begins when the disk has taken what earlier runs wrote: gigabytes that the
// kernel writes half a minute later are not a steady load's.
func (b *bench) latency(ctx context.Context, s system) (m measures, err error) {
	syscall.Sync()
	t := b.target(func(t *target) { t.timed = true })
	defer b.receiver.Forget(t.url)
	webhooks, err := s.subscribe(ctx, []*target{t})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.unsubscribe(context.WithoutCancel(ctx), webhooks)) }()
	got, err := b.producer.steady(ctx, s.url(), 50, 2*b.duration)
	if err != nil {
		return nil, err
	}
	if err := b.arrived(ctx, []*target{t}, len(got.ids)); err != nil {
		return nil, err
	}
	p := t.percentiles(0.5, 0.99)
	m = measures{"p50 ms": ms(p[0]), "p99 ms": ms(p[1])}
	if err := b.settled(ctx, s, webhooks, len(got.ids), m); err != nil {
		return nil, err
	}
	return m, t.check(got.ids)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// memoryWaiting measures the server while its one receiver hangs.
func (b *bench) memoryWaiting(ctx context.Context) (measures, error) {
	m := measures{}
	for _, n := range b.waiting {
		// A server of its own: what earlier runs left in memory is not what waits.
		p, err := startProduct(ctx, b.binary, "", b.workers)
		if err != nil {
			return m, err
		}
		rss, err := b.memoryAt(ctx, p, n)
		if err := errors.Join(err, p.close()); err != nil {
			return m, err
		}
		m["RSS MB at "+count(n)] = rss
	}
	if n := len(b.waiting); n > 1 {
		m["RSS growth"] = m["RSS MB at "+count(b.waiting[n-1])] / m["RSS MB at "+count(b.waiting[0])]
	}
	return m, nil
}

func (b *bench) memoryAt(ctx context.Context, p *product, n int) (rss float64, err error) {
	hold := make(chan struct{})
	t := b.target(func(t *target) { t.hold = hold })
	defer b.receiver.Forget(t.url)
	webhooks, err := p.subscribe(ctx, []*target{t})
	if err != nil {
		return 0, err
	}
	body := batch(eventType, 500)
	got, err := b.producer.load(ctx, loadOptions{
		path: triggerPath + "/batch", callers: 4, events: 500, limit: n, duration: 10 * time.Minute, body: func() []byte { return body },
	}, p.url())
	if err != nil {
		return 0, err
	}
	if err := p.waitPending(ctx, webhooks[0], len(got.ids), b.patience); err != nil {
		return 0, err
	}
	bytes, err := testbed.Memory(p.Pid(), "VmRSS")
	err = errors.Join(err, p.unsubscribe(ctx, webhooks))
	close(hold)
	return float64(bytes) / (1 << 20), err
}

func (p *product) waitPending(ctx context.Context, webhook string, n int, patience time.Duration) error {
	last, at := -1, time.Now()
	for {
		var s struct {
			Pending int `json:"pending_deliveries"`
		}
		if err := p.call(ctx, "GET", "/webhooks/"+webhook+"/stats", nil, &s); err != nil {
			return err
		}
		switch {
		case s.Pending >= n:
			return nil
		case s.Pending > last:
			last, at = s.Pending, time.Now()
		case time.Since(at) > patience:
			return fmt.Errorf("%d of %d deliveries are pending, and no more for %s", s.Pending, n, patience)
		}
		wait(ctx, 100*time.Millisecond)
	}
}

func selected(name, only string) bool {
	if only == "" {
		return true
	}
	for want := range strings.SplitSeq(only, ",") {
		if strings.HasPrefix(name, strings.TrimSpace(want)) {
			return true
		}
	}
	return false
}
