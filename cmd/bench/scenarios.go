package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/medilab/webhooks/cmd/testbed"
	"github.com/medilab/webhooks/eventstore"
)

// scenario is what one run measures, on each of two sides.
type scenario struct {
	name string
	// alone scenarios run on the second side only: the first has nothing to compare.
	alone bool
	// once scenarios run in the first round only.
	once bool
	// sides are the two products that are compared.
	sides sides
	run   func(ctx context.Context, b *bench, p *product) (measures, error)
}

// measures are figures by name.
type measures map[string]float64

var scenarios = []scenario{
	{name: "deliver-64", sides: byCeiling, run: delivering(delivery{callers: 64, targets: 1, costs: true})},
	{name: "deliver-512", sides: byCeiling, run: delivering(delivery{callers: 512, targets: 1})},
	{name: "ordered-10k", sides: byCeiling, alone: true, run: delivering(delivery{callers: 512, targets: 1, keys: 10_000})},
	{name: "fanout-10", sides: byCeiling, run: delivering(delivery{callers: 64, targets: 10})},
	{name: "ingest-512", sides: byCeiling, run: ingesting(loadOptions{path: triggerPath, callers: 512, events: 1, body: one})},
	{name: "ingest-batch", sides: byCeiling, alone: true, run: func(ctx context.Context, b *bench, p *product) (measures, error) {
		const size = 500
		body := batch(eventType, size)
		return b.ingest(ctx, p, loadOptions{path: triggerPath + "/batch", callers: 8, events: size, body: func() []byte { return body }})
	}},
	{name: "slow-100ms", sides: byCeiling, alone: true, run: func(ctx context.Context, b *bench, p *product) (measures, error) {
		return b.deliver(ctx, p, delivery{callers: 64, targets: 16, delay: 100 * time.Millisecond,
			limit: int(b.duration.Seconds() * float64(b.workers) / 0.1 / 16)})
	}},
	{name: "steady-50", sides: byCeiling, run: func(ctx context.Context, b *bench, p *product) (measures, error) { return b.latency(ctx, p) }},
	{name: "lists", sides: byCeiling, alone: true, run: func(ctx context.Context, b *bench, p *product) (measures, error) { return b.lists(ctx, p) }},
	{name: "whole", sides: byCeiling, alone: true, once: true, run: func(ctx context.Context, b *bench, p *product) (measures, error) { return b.whole(ctx, p) }},
	{name: "append-512", sides: byItself, alone: true, once: true, run: func(ctx context.Context, b *bench, _ *product) (measures, error) { return b.appendAlone(ctx) }},
	{name: "one-log", sides: byItself, alone: true, once: true, run: func(ctx context.Context, b *bench, _ *product) (measures, error) { return b.oneLog(ctx) }},
	{name: "memory", sides: byItself, alone: true, once: true, run: func(ctx context.Context, b *bench, _ *product) (measures, error) { return b.memoryWaiting(ctx) }},
}

func delivering(d delivery) func(context.Context, *bench, *product) (measures, error) {
	return func(ctx context.Context, b *bench, p *product) (measures, error) { return b.deliver(ctx, p, d) }
}

func ingesting(o loadOptions) func(context.Context, *bench, *product) (measures, error) {
	return func(ctx context.Context, b *bench, p *product) (measures, error) { return b.ingest(ctx, p, o) }
}

func one() []byte { return event(eventType) }

type delivery struct {
	callers, targets int
	delay            time.Duration
	limit            int // events; 0: the bench's
	keys             int // of an ordered webhook; 0: it is not
	costs            bool
}

// deliver triggers events for a while and waits until the last has arrived: the
// rate is over all of that time, so that a backlog is not a gain.
func (b *bench) deliver(ctx context.Context, p *product, d delivery) (m measures, err error) {
	targets := make([]*target, d.targets)
	for i := range targets {
		targets[i] = b.target()
		targets[i].delay = d.delay
		defer b.receiver.Forget(targets[i].url)
	}
	webhooks, err := p.subscribe(ctx, targets)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.unsubscribe(context.WithoutCancel(ctx), webhooks)) }()
	if d.limit == 0 {
		d.limit = b.limit
	}
	body := one
	if d.keys > 0 {
		body = func() []byte { return eventOf(eventType, rand.IntN(d.keys)) }
		if err := p.call(ctx, http.MethodPatch, "/webhooks/"+webhooks[0], map[string]any{"order_by": "patient_id"}, nil); err != nil {
			return nil, err
		}
	}
	before, err := b.costs(ctx, p, d.costs)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	got, err := b.producer.load(ctx, loadOptions{
		path: triggerPath, callers: d.callers, events: 1, limit: d.limit, duration: b.duration, body: body,
	}, p.base)
	if err != nil {
		return nil, err
	}
	if err := b.arrived(ctx, targets, len(got.ids)); err != nil {
		return nil, err
	}
	elapsed := time.Since(start)
	deliveries := float64(len(got.ids) * len(targets))
	m = measures{"deliveries/s": deliveries / elapsed.Seconds()}
	unsettled := b.settled(ctx, p, webhooks, len(got.ids), m)
	after, err := b.costs(ctx, p, d.costs)
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

func (b *bench) costs(ctx context.Context, p *product, wanted bool) (c costs, err error) {
	if !wanted {
		return c, nil
	}
	if c.cpu, err = p.cpu(); err != nil {
		return c, err
	}
	if !p.bare {
		c.size, err = p.databaseSize(ctx)
	}
	return c, err
}

// settled asserts the product's own account of the run: all calls are in the statistics and no
// projection lags within the second that the contract allows.
func (b *bench) settled(ctx context.Context, p *product, webhooks []string, calls int, m measures) error {
	if p.bare {
		return nil
	}
	took, err := p.settle(ctx, webhooks, calls, b.patience)
	m["settled after ms"] = float64(took.Milliseconds())
	if err == nil && took > 1200*time.Millisecond {
		err = fmt.Errorf("calls showed in the statistics only after %s", took.Round(time.Millisecond))
	}
	return err
}

// arrived waits for n calls at each target, for as long as more keep coming.
func (b *bench) arrived(ctx context.Context, targets []*target, n int) error {
	return b.reaches(ctx, "deliveries arrived", n*len(targets), func() (sum int, err error) {
		for _, t := range targets {
			sum += int(t.arrivals.Load())
		}
		return sum, nil
	})
}

// reaches waits until count returns n or more, for as long as it grows.
func (b *bench) reaches(ctx context.Context, what string, n int, count func() (int, error)) error {
	last, at := -1, time.Now()
	for {
		sum, err := count()
		switch {
		case err != nil || sum >= n:
			return err
		case sum > last:
			last, at = sum, time.Now()
		case time.Since(at) > b.patience:
			return fmt.Errorf("only %d of %d %s, and no more for %s", sum, n, what, b.patience)
		}
		if err := eventstore.Sleep(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

// ingest posts with nobody subscribed; what was acknowledged must be in the log.
func (b *bench) ingest(ctx context.Context, p *product, o loadOptions) (measures, error) {
	before := 0
	if !p.bare {
		if _, err := p.settle(ctx, nil, 0, b.patience); err != nil {
			return nil, err
		}
		system, err := p.system(ctx)
		if err != nil {
			return nil, err
		}
		before = system.Events
	}
	o.duration, o.limit = b.duration, 10*b.limit
	got, err := b.producer.load(ctx, o, p.base)
	if err != nil {
		return nil, err
	}
	m := measures{"events/s": float64(len(got.ids)) / got.elapsed.Seconds()}
	if p.bare {
		return m, nil
	}
	if err := b.settled(ctx, p, nil, 0, m); err != nil {
		return nil, err
	}
	after, err := p.system(ctx)
	if err == nil && after.Events-before != len(got.ids) {
		err = fmt.Errorf("%d events were acknowledged and %d are in the log", len(got.ids), after.Events-before)
	}
	return m, err
}

// latency is from the trigger's first byte to the receiver's last, at 50 a second.
// It begins when the disk has taken what earlier runs wrote: gigabytes that the
// kernel writes half a minute later are not a steady load's.
func (b *bench) latency(ctx context.Context, p *product) (m measures, err error) {
	syscall.Sync()
	t := b.target()
	t.timed = true
	defer b.receiver.Forget(t.url)
	webhooks, err := p.subscribe(ctx, []*target{t})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.unsubscribe(context.WithoutCancel(ctx), webhooks)) }()
	got, err := b.producer.steady(ctx, p.base, 50, 2*b.duration)
	if err != nil {
		return nil, err
	}
	if err := b.arrived(ctx, []*target{t}, len(got.ids)); err != nil {
		return nil, err
	}
	at := t.percentiles(0.5, 0.99)
	m = measures{"p50 ms": ms(at[0]), "p99 ms": ms(at[1])}
	if err := b.settled(ctx, p, webhooks, len(got.ids), m); err != nil {
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
	t := b.target()
	t.hold = hold
	defer b.receiver.Forget(t.url)
	webhooks, err := p.subscribe(ctx, []*target{t})
	if err != nil {
		return 0, err
	}
	body := batch(eventType, 500)
	got, err := b.producer.load(ctx, loadOptions{
		path: triggerPath + "/batch", callers: 4, events: 500, limit: n, duration: 10 * time.Minute, body: func() []byte { return body },
	}, p.base)
	if err != nil {
		return 0, err
	}
	if err := b.reaches(ctx, "deliveries are pending", len(got.ids), func() (int, error) {
		s, err := p.stats(ctx, webhooks[0])
		return s.Pending, errors.Join(err, eventstore.Sleep(ctx, 50*time.Millisecond))
	}); err != nil {
		return 0, err
	}
	rss, err = p.rss()
	err = errors.Join(err, p.unsubscribe(ctx, webhooks))
	close(hold)
	return rss, err
}

// rss returns the server's resident memory, in MB.
func (p *product) rss() (float64, error) {
	bytes, err := testbed.Memory(p.Pid(), "VmRSS")
	return float64(bytes) / (1 << 20), err
}

func selected(name, only string) bool {
	return slices.ContainsFunc(strings.Split(only, ","), func(want string) bool { return strings.HasPrefix(name, strings.TrimSpace(want)) })
}
