package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/migrations/postgres"
)

// pair is two products that differ in one thing: how much they hold. The small
// one stands in the ceiling's column.
type pair struct {
	small, large *product
}

func (p *pair) close() error { return errors.Join(p.small.close(), p.large.close()) }

// pairKind says what a pair differs in.
type pairKind string

const (
	noPair     pairKind = "" // one product, compared with the ceiling
	byHistory  pairKind = "history"
	byWebhooks pairKind = "webhooks"
	byFilters  pairKind = "filters"
	byNodes    pairKind = "nodes" // several nodes on one Postgres, compared with one
)

// pairOf starts the two products.
func (b *bench) pairOf(ctx context.Context, kind pairKind) (*pair, error) {
	make, sizes := b.withHistory, [2]int{900, b.events}
	switch kind {
	case byWebhooks:
		make, sizes = b.withWebhooks, [2]int{fanOut, b.webhooks}
	case byFilters:
		make, sizes = b.withFilters, [2]int{fanOut, b.webhooks}
	}
	fmt.Fprintf(os.Stderr, "preparing %s: %d and %d\n", kind, sizes[0], sizes[1])
	small, err := make(ctx, sizes[0])
	if err != nil {
		return nil, err
	}
	large, err := make(ctx, sizes[1])
	if err != nil {
		return nil, errors.Join(err, small.close())
	}
	return &pair{small, large}, nil
}

// withHistory starts a product whose log holds events of one webhook, which is
// inactive by now.
func (b *bench) withHistory(ctx context.Context, events int) (*product, error) {
	p, err := startProduct(ctx, b.binary, "", b.workers)
	if err != nil {
		return nil, err
	}
	if err := p.fill(ctx, events); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *product) fill(ctx context.Context, events int) error {
	ids, err := p.subscribe(ctx, []*target{{url: "http://127.0.0.1:9000/filled"}})
	if err != nil {
		return err
	}
	p.filled = ids[0]
	id, err := uuid.Parse(p.filled)
	if err != nil {
		return err
	}
	server, err := postgres.Attach(ctx, p.dataDir)
	if err != nil {
		return err
	}
	defer server.Stop(ctx) // only lets go of somebody else's server
	if err := fill(ctx, server.URL(), []domain.WebhookID{domain.WebhookID(id)}, events); err != nil {
		return err
	}
	if _, err := p.settle(ctx, nil, 0, 10*time.Minute); err != nil && ctx.Err() != nil {
		return err // how long the read models took to follow is not what is measured here
	}
	return p.call(ctx, http.MethodPost, "/webhooks/"+p.filled+"/deactivate", nil, nil)
}

// fanOut is how many webhooks of a webhooks pair want each event.
const fanOut = 10

// withWebhooks starts a product with so many webhooks, each of one event type,
// ten of each.
func (b *bench) withWebhooks(ctx context.Context, webhooks int) (*product, error) {
	types := make([]map[string]string, webhooks/fanOut)
	for i := range types {
		types[i] = map[string]string{"type": fmt.Sprintf("bench.type_%d", i), "en": "of the bench"}
	}
	list, err := json.Marshal(types)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "medilab-bench-types-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // some bytes in a temporary folder
	file := filepath.Join(dir, "types.json")
	if err := os.WriteFile(file, list, 0o600); err != nil {
		return nil, err
	}
	p, err := startProduct(ctx, b.binary, "", b.workers, "MEDILAB_EVENT_TYPES="+file)
	if err != nil {
		return nil, err
	}
	p.wanted = func() []byte { return event(types[rand.IntN(len(types))]["type"]) }
	p.same = func() []byte { return event(types[0]["type"]) }
	return p, b.register(ctx, p, webhooks, func(i int) map[string]any {
		return map[string]any{"events": []string{types[i/fanOut]["type"]}}
	})
}

// withFilters starts a product with so many webhooks of one event type, each for one
// patient, ten for each.
func (b *bench) withFilters(ctx context.Context, webhooks int) (*product, error) {
	p, err := startProduct(ctx, b.binary, "", b.workers)
	if err != nil {
		return nil, err
	}
	p.wanted = func() []byte { return eventOf(eventType, rand.IntN(webhooks/fanOut)) }
	return p, b.register(ctx, p, webhooks, func(i int) map[string]any {
		return map[string]any{"events": []string{eventType}, "filters": map[string]any{"patient_id": i / fanOut}}
	})
}

// register makes the webhooks, some at once, each with what it asks for; it closes the
// product when that fails.
func (b *bench) register(ctx context.Context, p *product, webhooks int, asks func(i int) map[string]any) error {
	for range fanOut {
		p.targets = append(p.targets, b.target(func(*target) {}))
	}
	const callers = 16
	var wg sync.WaitGroup
	var next atomic.Int64
	errs := make([]error, callers)
	for c := range callers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < webhooks && errs[c] == nil; i = int(next.Add(1)) - 1 {
				asked := asks(i)
				asked["name"], asked["url"] = "bench "+count(i), p.targets[i%fanOut].url
				errs[c] = p.call(ctx, http.MethodPost, "/webhooks/", asked, nil)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return errors.Join(err, p.close())
	}
	return nil
}

// dispatch triggers events for a while, each for ten of the webhooks.
func (b *bench) dispatch(ctx context.Context, p *product, body func() []byte) (measures, error) {
	for _, t := range p.targets {
		t.reset()
	}
	start := time.Now()
	got, err := b.producer.load(ctx, loadOptions{
		path: triggerPath, callers: 64, events: 1, limit: b.limit, duration: b.duration, body: body,
	}, p.url())
	if err != nil {
		return nil, err
	}
	if err := b.arrived(ctx, p.targets, len(got.ids)); err != nil {
		return nil, err
	}
	m := measures{"deliveries/s": float64(len(got.ids)*fanOut) / time.Since(start).Seconds()}
	err = b.settled(ctx, p, nil, 0, m)
	return m, errors.Join(err, checkAll(p.targets, got.ids))
}

// answers returns the median time that each page takes; the pages are asked for in turns.
func (p *product) answers(ctx context.Context, pages map[string]string) (measures, error) {
	const times = 100
	took := map[string][]float64{}
	for range times {
		for name, path := range pages {
			start := time.Now()
			if err := p.call(ctx, http.MethodGet, path, nil, nil); err != nil {
				return nil, err
			}
			took[name] = append(took[name], ms(time.Since(start)))
		}
	}
	m := measures{}
	for name, values := range took {
		m[name+" p50 ms"] = median(values)
	}
	return m, nil
}

// readHistory is what one asks about a webhook with a long history.
func (p *product) readHistory(ctx context.Context) (measures, error) {
	of := "/webhooks/" + p.filled
	from := time.Now().Add(-24 * time.Hour).UTC().Format(time.RFC3339)
	return p.answers(ctx, map[string]string{
		"calls": of + "/calls?limit=100", "stats": of + "/stats", "history": of + "/history",
		"stats of a day": of + "/stats?bucket=hour&from=" + from, "events": "/webhooks/events?limit=50",
	})
}

// rebuild rebuilds all read models by the command line.
func (p *product) rebuild(ctx context.Context) (measures, error) {
	head, err := p.head(ctx)
	if err != nil {
		return nil, err
	}
	cmd := p.command(ctx, "projections", "rebuild", "--all")
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("rebuild: %w: %s", err, out)
	}
	return measures{"events/s": head / time.Since(start).Seconds()}, nil
}

// pairScenarios compare two products that differ in what they hold.
var pairScenarios = []scenario{
	{name: "log-append", pair: byHistory, run: func(ctx context.Context, b *bench, s system) (measures, error) {
		return b.ingest(ctx, s, loadOptions{path: triggerPath, callers: 512, events: 1, body: one})
	}},
	{name: "log-deliver", pair: byHistory, run: func(ctx context.Context, b *bench, s system) (measures, error) {
		return b.deliver(ctx, s, delivery{callers: 64, targets: 1})
	}},
	{name: "log-read", pair: byHistory, run: func(ctx context.Context, _ *bench, s system) (measures, error) {
		return s.(*product).readHistory(ctx)
	}},
	{name: "rebuild", pair: byHistory, alone: true, run: func(ctx context.Context, _ *bench, s system) (measures, error) {
		return s.(*product).rebuild(ctx)
	}},
	// What webhooks cost that are there, and what they cost when all of them are busy.
	{name: "webhooks-idle", pair: byWebhooks, run: func(ctx context.Context, b *bench, s system) (measures, error) {
		return b.dispatch(ctx, s.(*product), s.(*product).same)
	}},
	{name: "webhooks-dispatch", pair: byWebhooks, run: func(ctx context.Context, b *bench, s system) (measures, error) {
		return b.dispatch(ctx, s.(*product), s.(*product).wanted)
	}},
	{name: "filters-dispatch", pair: byFilters, run: func(ctx context.Context, b *bench, s system) (measures, error) {
		return b.dispatch(ctx, s.(*product), s.(*product).wanted)
	}},
	{name: "webhooks-list", pair: byWebhooks, run: func(ctx context.Context, _ *bench, s system) (measures, error) {
		return s.(*product).answers(ctx, map[string]string{"list": "/webhooks/?limit=50", "search": "/webhooks/?q=bench%209"})
	}},
}

// allScenarios are in the order in which they run and are printed.
func allScenarios() []scenario { return slices.Concat(scenarios, pairScenarios, nodeScenarios()) }
