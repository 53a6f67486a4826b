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
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/migrations/postgres"
)

// sides are two products that a scenario compares. The first stands in the ceiling's column.
type sides struct {
	name  string
	names [2]string
	start []func(context.Context, *bench) (*product, error)
}

var (
	byCeiling = sides{"ceiling", [2]string{"ceiling", "ours"}, []func(context.Context, *bench) (*product, error){
		func(ctx context.Context, b *bench) (*product, error) {
			if b.against != "" {
				return startProduct(ctx, b.against, "", b.workers)
			}
			return startForwarder(ctx, b.ceiling, b.workers)
		},
		func(ctx context.Context, b *bench) (*product, error) {
			return startProduct(ctx, b.binary, "", b.workers)
		},
	}}
	byHistory  = bySize("history", 900, func(b *bench) int { return b.events }, (*bench).withHistory)
	byWebhooks = bySize("webhooks", fanOut, func(b *bench) int { return b.webhooks }, (*bench).withWebhooks)
	byFilters  = bySize("filters", fanOut, func(b *bench) int { return b.webhooks }, (*bench).withFilters)
	byNodes    = sides{name: "nodes", names: [2]string{1: "ours"}}  // each run starts its own
	byItself   = sides{name: "itself", names: [2]string{1: "ours"}} // this one too

	allSides = []sides{byCeiling, byItself, byHistory, byWebhooks, byFilters, byNodes}
)

// bySize returns two products that differ in how much they hold.
func bySize(name string, small int, large func(*bench) int, start func(*bench, context.Context, int) (*product, error)) sides {
	return sides{name, [2]string{"small", "large"}, []func(context.Context, *bench) (*product, error){
		func(ctx context.Context, b *bench) (*product, error) { return start(b, ctx, small) },
		func(ctx context.Context, b *bench) (*product, error) { return start(b, ctx, large(b)) },
	}}
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
		p.targets = append(p.targets, b.target())
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i := range webhooks {
		group.Go(func() error {
			asked := asks(i)
			asked["name"], asked["url"] = "bench "+count(i), p.targets[i%fanOut].url
			return p.call(ctx, http.MethodPost, "/webhooks/", asked, nil)
		})
	}
	if err := group.Wait(); err != nil {
		return errors.Join(err, p.close())
	}
	return nil
}

// dispatching triggers events of the product's for a while, each for ten of the webhooks.
func dispatching(body func(*product) func() []byte) func(context.Context, *bench, *product) (measures, error) {
	return func(ctx context.Context, b *bench, p *product) (measures, error) { return b.dispatch(ctx, p, body(p)) }
}

func (b *bench) dispatch(ctx context.Context, p *product, body func() []byte) (measures, error) {
	for _, t := range p.targets {
		t.reset()
	}
	start := time.Now()
	got, err := b.producer.load(ctx, loadOptions{
		path: triggerPath, callers: 64, events: 1, limit: b.limit, duration: b.duration, body: body,
	}, p.base)
	if err != nil {
		return nil, err
	}
	if err := b.arrived(ctx, p.targets, len(got.ids)); err != nil {
		return nil, err
	}
	m := measures{"deliveries/s": float64(len(got.ids)*fanOut) / time.Since(start).Seconds()}
	err = b.settled(ctx, p, nil, 0, m)
	rss, unread := p.rss()
	m["RSS MB"] = rss
	return m, errors.Join(err, unread, checkAll(p.targets, got.ids))
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
		"all calls": "/webhooks/calls?limit=50", "calls of a rare status": "/webhooks/calls?response_status=503",
		"deliveries": "/webhooks/deliveries?limit=50", "deliveries that failed": "/webhooks/deliveries?state=failed",
		"delivered of a type": "/webhooks/deliveries?state=delivered&event_type=" + eventType, "calls of a correlation": "/webhooks/calls?correlation_id=none",
	})
}

// pairScenarios compare two products that differ in what they hold.
var pairScenarios = []scenario{
	{name: "log-append", sides: byHistory, run: ingesting(loadOptions{path: triggerPath, callers: 512, events: 1, body: one})},
	{name: "log-deliver", sides: byHistory, run: delivering(delivery{callers: 64, targets: 1})},
	{name: "log-read", sides: byHistory, run: func(ctx context.Context, _ *bench, p *product) (measures, error) { return p.readHistory(ctx) }},
	// What webhooks cost that are there, and what they cost when all of them are busy.
	{name: "webhooks-idle", sides: byWebhooks, run: dispatching(func(p *product) func() []byte { return p.same })},
	{name: "webhooks-dispatch", sides: byWebhooks, run: dispatching(func(p *product) func() []byte { return p.wanted })},
	{name: "filters-dispatch", sides: byFilters, run: dispatching(func(p *product) func() []byte { return p.wanted })},
	{name: "webhooks-list", sides: byWebhooks, run: func(ctx context.Context, _ *bench, p *product) (measures, error) {
		return p.answers(ctx, map[string]string{"list": "/webhooks/?limit=50", "search": "/webhooks/?q=bench%209"})
	}},
}

// allScenarios are in the order in which they run and are printed.
func allScenarios() []scenario { return slices.Concat(scenarios, pairScenarios, nodeScenarios()) }
