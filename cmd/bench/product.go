package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/cmd/testbed"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/postgres"
)

const (
	eventType = "patient.created"
	token     = "bench-0123456789abcdef0123456789abcdef"
)

// product is the server under test, started as a user starts it and driven over its API alone; only
// its database's size is read behind its back. A bare one is the forwarder.
type product struct {
	*testbed.Process
	bare    bool
	base    string // URL of its listener
	binary  string
	dataDir string
	dbURL   string
	more    []string // of its environment

	filled  string        // the webhook of a log that was filled
	wanted  func() []byte // makes an event that ten of its webhooks want, others each time
	same    func() []byte // makes an event that the same ten want
	targets []*target     // of these webhooks
}

func startProduct(ctx context.Context, binary, databaseURL string, workers int, environment ...string) (p *product, err error) {
	p = &product{binary: binary, dbURL: databaseURL, more: environment}
	if p.dataDir, err = os.MkdirTemp("", "medilab-bench-"); err != nil {
		return nil, err
	}
	return p, p.start(ctx, "/readyz", func(addr string) *exec.Cmd {
		cmd := p.command(context.WithoutCancel(ctx), "serve") // it is stopped by close
		cmd.Env = append(cmd.Env, "MEDILAB_ADDR="+addr, "MEDILAB_TOKEN="+token,
			"MEDILAB_WORKERS="+count(workers), "MEDILAB_ALLOW_TARGETS=loopback")
		return cmd
	})
}

// startForwarder starts the ceiling, a process of this binary, or the program that stands in its place.
func startForwarder(ctx context.Context, program string, workers int) (*product, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	command := []string{self, "forwarder"}
	if program != "" {
		command = strings.Fields(program)
	}
	p := &product{bare: true}
	return p, p.start(ctx, "/targets", func(addr string) *exec.Cmd {
		return exec.Command(command[0], append(command[1:], "--addr", addr, "--workers", count(workers))...)
	})
}

// start starts the program at an address of its own and waits until the path answers. It closes the
// product when that fails.
func (p *product) start(ctx context.Context, readyPath string, prepare func(addr string) *exec.Cmd) error {
	addr, err := testbed.FreeAddress()
	if err != nil {
		return errors.Join(err, p.close())
	}
	p.base = "http://" + addr
	cmd := prepare(addr)
	cmd.Stderr = os.Stderr
	process, err := testbed.Start(cmd)
	if err != nil {
		return errors.Join(err, p.close())
	}
	p.Process = process
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := p.Ready(ctx, p.base+readyPath); err != nil {
		return errors.Join(err, p.close())
	}
	return nil
}

func (p *product) cpu() (time.Duration, error) { return testbed.CPU(p.Pid()) }

// command is one of the product's, on its database.
func (p *product) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, p.binary, args...)
	cmd.Env = append(append(os.Environ(), p.more...), "DATABASE_URL="+p.dbURL, "MEDILAB_DATA_DIR="+p.dataDir, "MEDILAB_LOG=text,error")
	return cmd
}

// close stops the process and removes its data.
func (p *product) close() (err error) {
	if p.Process != nil {
		err = p.Stop(time.Minute)
	}
	return errors.Join(err, os.RemoveAll(p.dataDir))
}

// call makes one API call and decodes its answer.
func (p *product) call(ctx context.Context, method, path string, body, into any) error {
	return testbed.Call(ctx, token, method, p.base+"/api/v1"+path, body, into)
}

// subscribe makes a webhook for each target and returns their ids.
func (p *product) subscribe(ctx context.Context, targets []*target) ([]string, error) {
	if p.bare {
		return nil, p.forwardTo(ctx, targets)
	}
	ids := make([]string, len(targets))
	for i, t := range targets {
		var err error
		ids[i], err = p.webhook(ctx, map[string]any{
			"name": "bench " + count(i), "url": t.url, "events": []string{eventType}, "timeout": 300,
		})
		if err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// webhook makes a webhook and returns its id.
func (p *product) webhook(ctx context.Context, asked map[string]any) (string, error) {
	var made struct {
		ID string `json:"id"`
	}
	err := p.call(ctx, http.MethodPost, "/webhooks/", asked, &made)
	return made.ID, err
}

// forwardTo sets the targets of the forwarder.
func (p *product) forwardTo(ctx context.Context, targets []*target) error {
	var urls strings.Builder
	for _, t := range targets {
		fmt.Fprintln(&urls, t.url)
	}
	_, err := testbed.Request(ctx, "", http.MethodPost, p.base+"/targets", []byte(urls.String()))
	return err
}

func (p *product) unsubscribe(ctx context.Context, ids []string) error {
	if p.bare {
		return p.forwardTo(ctx, nil)
	}
	var errs []error
	for _, id := range ids {
		errs = append(errs, p.call(ctx, http.MethodDelete, "/webhooks/"+id, nil, nil))
	}
	return errors.Join(errs...)
}

// settle waits until the statistics of the webhooks hold so many calls each and no projection
// lags, and returns how long that took.
func (p *product) settle(ctx context.Context, webhooks []string, calls int, patience time.Duration) (time.Duration, error) {
	return p.settleAll(ctx, webhooks, patience, func(got []int) string {
		for i, n := range got {
			if n != calls {
				return fmt.Sprintf("the call log of webhook %s holds %d calls of %d", webhooks[i], n, calls)
			}
		}
		return ""
	})
}

// settleAll is settle with a check of the calls of each webhook, which returns what is wrong.
func (p *product) settleAll(ctx context.Context, webhooks []string, patience time.Duration, check func(calls []int) (problem string)) (time.Duration, error) {
	for start := time.Now(); ; {
		calls := make([]int, len(webhooks))
		for i, id := range webhooks {
			s, err := p.stats(ctx, id)
			if err != nil {
				return 0, err
			}
			calls[i] = s.Total
		}
		problem := check(calls)
		if problem == "" {
			system, err := p.system(ctx)
			if err != nil {
				return 0, err
			}
			if lag := system.Projections.Lag; lag > 0 {
				problem = fmt.Sprintf("projections lag by %d events", lag)
			}
		}
		took := time.Since(start)
		switch {
		case problem == "":
			return took, nil
		case took > patience:
			return took, errors.New(problem)
		}
		if err := eventstore.Sleep(ctx, 25*time.Millisecond); err != nil {
			return took, err
		}
	}
}

// webhookStats are the statistics of a webhook.
type webhookStats struct {
	Total   int `json:"total_calls"`
	Pending int `json:"pending_deliveries"`
}

func (p *product) stats(ctx context.Context, webhook string) (s webhookStats, err error) {
	return s, p.call(ctx, http.MethodGet, "/webhooks/"+webhook+"/stats", nil, &s)
}

// systemStats are the statistics of the server.
type systemStats struct {
	Events      int `json:"events_total"`
	Projections struct {
		Head float64 `json:"head"` // the last position of the log
		Lag  int     `json:"lag_events"`
	} `json:"projections"`
}

func (p *product) system(ctx context.Context) (s systemStats, err error) {
	return s, p.call(ctx, http.MethodGet, "/webhooks/system/stats", nil, &s)
}

// databaseSize is pg_database_size.
func (p *product) databaseSize(ctx context.Context) (int64, error) {
	server, err := postgres.Attach(ctx, p.dataDir)
	if err != nil {
		return 0, err
	}
	defer server.Stop(ctx) // only lets go of somebody else's server
	conn, err := pgx.Connect(ctx, server.URL())
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	var size int64
	err = conn.QueryRow(ctx, `SELECT pg_database_size(current_database())`).Scan(&size)
	return size, err
}
