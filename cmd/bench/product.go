package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/migrations/postgres"
)

const (
	eventType = "patient.created"
	token     = "bench-0123456789abcdef0123456789abcdef"
)

// product is the server under test, started as a user starts it and driven over
// its API alone. Only its database's size is read behind its back.
type product struct {
	*child
	binary  string
	dataDir string
	dbURL   string
	more    []string // of its environment

	filled  string        // the webhook of a log that was filled
	wanted  func() []byte // makes an event that ten of its webhooks want, others each time
	same    func() []byte // makes an event that the same ten want
	targets []*target     // of these webhooks
}

func startProduct(ctx context.Context, binary, databaseURL string, workers int, environment ...string) (*product, error) {
	dir, err := os.MkdirTemp("", "medilab-bench-")
	if err != nil {
		return nil, err
	}
	p := &product{binary: binary, dataDir: dir, dbURL: databaseURL, more: environment}
	p.child, err = startChild(ctx, "/readyz", func(addr string) *exec.Cmd {
		cmd := p.command(context.WithoutCancel(ctx), "serve") // it is stopped by close
		cmd.Env = append(cmd.Env, "MEDILAB_ADDR="+addr, "MEDILAB_TOKEN="+token,
			"MEDILAB_WORKERS="+count(workers), "MEDILAB_ALLOW_TARGETS=loopback")
		return cmd
	})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return p, nil
}

// command is one of the product's, on its database.
func (p *product) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, p.binary, args...)
	cmd.Env = append(append(os.Environ(), p.more...), "DATABASE_URL="+p.dbURL, "MEDILAB_DATA_DIR="+p.dataDir, "MEDILAB_LOG=text,error")
	return cmd
}

func (p *product) close() error {
	return errors.Join(p.stop(), os.RemoveAll(p.dataDir))
}

// call makes one API call and decodes its answer.
func (p *product) call(ctx context.Context, method, path string, body, into any) error {
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, p.base+"/api/v1"+path, payload)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	if resp.StatusCode > 299 {
		return fmt.Errorf("%s %s answered %d: %.300s", method, path, resp.StatusCode, answer)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}

// subscribe makes a webhook for each target and returns their ids.
func (p *product) subscribe(ctx context.Context, targets []*target) ([]string, error) {
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

func (p *product) unsubscribe(ctx context.Context, ids []string) error {
	var errs []error
	for _, id := range ids {
		errs = append(errs, p.call(ctx, http.MethodDelete, "/webhooks/"+id, nil, nil))
	}
	return errors.Join(errs...)
}

// settle waits until every call is in the statistics and no projection lags,
// and returns how long that took: the contract allows a second.
func (p *product) settle(ctx context.Context, webhooks []string, calls int, patience time.Duration) (time.Duration, error) {
	start := time.Now()
	for {
		problem, err := p.unsettled(ctx, webhooks, calls)
		took := time.Since(start)
		switch {
		case err != nil:
			return took, err
		case problem == "" && took > 1200*time.Millisecond:
			return took, fmt.Errorf("calls showed in the statistics only after %s", took.Round(time.Millisecond))
		case problem == "":
			return took, nil
		case took > patience:
			return took, errors.New(problem)
		}
		wait(ctx, 25*time.Millisecond)
	}
}

func (p *product) unsettled(ctx context.Context, webhooks []string, calls int) (problem string, err error) {
	for _, id := range webhooks {
		total, err := p.totalCalls(ctx, id)
		if err != nil {
			return "", err
		}
		if total != calls {
			return fmt.Sprintf("the call log of webhook %s holds %d calls of %d", id, total, calls), nil
		}
	}
	var system map[string]any
	if err := p.call(ctx, http.MethodGet, "/webhooks/system/stats", nil, &system); err != nil {
		return "", err
	}
	if lag := largestLag(system); lag > 0 {
		return fmt.Sprintf("projections lag by %v", lag), nil
	}
	return "", nil
}

// totalCalls returns how many calls the statistics of a webhook hold.
func (p *product) totalCalls(ctx context.Context, webhook string) (int, error) {
	var s struct {
		Total int `json:"total_calls"`
	}
	err := p.call(ctx, http.MethodGet, "/webhooks/"+webhook+"/stats", nil, &s)
	return s.Total, err
}

// head returns the last position of the log.
func (p *product) head(ctx context.Context) (float64, error) {
	var s struct {
		Projections struct {
			Head float64 `json:"head"`
		} `json:"projections"`
	}
	err := p.call(ctx, http.MethodGet, "/webhooks/system/stats", nil, &s)
	return s.Projections.Head, err
}

// largestLag finds the numbers called lag, wherever they stand.
func largestLag(v any) (lag float64) {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			if n, ok := inner.(float64); ok && strings.HasPrefix(name, "lag") {
				lag = max(lag, n)
			} else {
				lag = max(lag, largestLag(inner))
			}
		}
	case []any:
		for _, inner := range v {
			lag = max(lag, largestLag(inner))
		}
	}
	return lag
}

func (p *product) eventsTotal(ctx context.Context) (int, error) {
	var s struct {
		Total int `json:"events_total"`
	}
	err := p.call(ctx, http.MethodGet, "/webhooks/system/stats", nil, &s)
	return s.Total, err
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
