package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/medilab/webhooks/migrations/postgres"
)

// lists is how many pages of fifty a second callers get of each list, after some deliveries, and for
// comparison how many events a second as many callers trigger.
func (b *bench) lists(ctx context.Context, p *product) (measures, error) {
	const callers = 64
	if _, err := b.deliver(ctx, p, delivery{callers: callers, targets: 1}); err != nil {
		return nil, err
	}
	m := measures{}
	for _, list := range []string{"events", "calls", "deliveries"} {
		rate, err := b.producer.pages(ctx, callers, b.duration, p.base+"/api/v1/webhooks/"+list+"?limit=50")
		if err != nil {
			return nil, err
		}
		m[list+"/s"] = rate
	}
	triggered, err := b.ingest(ctx, p, loadOptions{path: triggerPath, callers: callers, events: 1, body: one})
	m["triggers/s"] = triggered["events/s"]
	return m, err
}

// pages has callers get the address again and again until the time is over, and returns how often a second.
func (p *producer) pages(ctx context.Context, callers int, duration time.Duration, address string) (float64, error) {
	target, err := url.Parse(address)
	if err != nil {
		return 0, err
	}
	var got atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	for range callers {
		group.Go(func() error {
			for time.Since(start) < duration && ctx.Err() == nil {
				if _, err := p.ask(ctx, http.MethodGet, target, nil, http.StatusOK); err != nil {
					return err
				}
				got.Add(1)
			}
			return ctx.Err()
		})
	}
	err = group.Wait()
	return float64(got.Load()) / time.Since(start).Seconds(), err
}

// whole is how fast the whole log is read by each that does so, in entries a second, and how long
// another node takes to be ready on it.
func (b *bench) whole(ctx context.Context, p *product) (measures, error) {
	system, err := p.system(ctx)
	if err != nil {
		return nil, err
	}
	server, err := postgres.Attach(ctx, p.dataDir)
	if err != nil {
		return nil, err
	}
	defer server.Stop(ctx) // only lets go of somebody else's server
	wanted := b.target()
	defer b.receiver.Forget(wanted.url)
	webhooks, err := p.subscribe(ctx, []*target{wanted})
	if err != nil {
		return nil, err
	}
	m := measures{"entries": system.Projections.Head}
	timed := func(name string, read func() error) {
		start := time.Now()
		err = errors.Join(err, read())
		m[name+" entries/s"] = system.Projections.Head / time.Since(start).Seconds()
	}
	command := func(args ...string) func() error {
		return func() error {
			if out, err := p.command(ctx, args...).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
			}
			return nil
		}
	}
	timed("rebuild", command("projections", "rebuild", "--all"))
	timed("verify", command("audit", "verify"))
	timed("audit stream", func() error { return p.call(ctx, http.MethodGet, "/audit/events", nil, nil) })
	timed("backtest", func() error {
		return p.call(ctx, http.MethodPost, "/webhooks/"+webhooks[0]+"/backtest", map[string]any{}, nil)
	})
	if err = errors.Join(err, p.unsubscribe(ctx, webhooks)); err != nil {
		return nil, err
	}
	start := time.Now()
	another, err := startProduct(ctx, b.binary, server.URL(), b.workers, "MEDILAB_KEYS="+filepath.Join(p.dataDir, "keys.json"))
	if err != nil {
		return nil, err
	}
	m["start ms"] = ms(time.Since(start))
	return m, another.close()
}
