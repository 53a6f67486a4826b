// Package e2e drives the product as its users do: the built binary, started on an embedded
// Postgres of its own, over HTTP and its command line, against real receivers.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait; what goes well takes a part of it.
const patience = 2 * time.Minute

// adminToken is long enough for MEDILAB_TOKEN.
const adminToken = "e2e-admin-token-0123456789-0123456789"

// binary is the product, built once.
var binary string

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (code int, err error) {
	if err := dependOnSources(); err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "medilab-e2e-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	binary = filepath.Join(dir, "medilab-webhooks")
	build := exec.Command("go", "build", "-o", binary, "../medilab-webhooks")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return 0, fmt.Errorf("build the product: %w", err)
	}
	return m.Run(), nil
}

// dependOnSources looks at what the product is built from: go test then knows that these results
// depend on it, and does not take old ones from its cache.
func dependOnSources() error {
	for _, folder := range []string{"cmd/medilab-webhooks", "commands", "domain", "eventstore", "http", "migrations", "projections"} {
		err := filepath.WalkDir(filepath.Join("..", "..", folder), func(_ string, _ fs.DirEntry, err error) error { return err })
		if err != nil {
			return err
		}
	}
	_, err := os.Stat(filepath.Join("..", "..", "go.mod"))
	return err
}

// product is one data folder and the process that serves it.
type product struct {
	testing.TB
	dataDir string
	addr    string
	token   string   // MEDILAB_TOKEN; "": the product makes its own
	extra   []string // further settings, as NAME=value
	process *exec.Cmd
	output  *lockedBuffer
	ended   chan error // gets the process's end
}

// start serves a new data folder, with further settings as NAME=value.
func start(t testing.TB, settings ...string) *product {
	t.Helper()
	p := prepare(t)
	p.extra = settings
	p.start()
	return p
}

// prepare makes a new data folder, to be served.
func prepare(t testing.TB) *product {
	t.Helper()
	// Sockets have short names, and a test's own folder a long one.
	dir, err := os.MkdirTemp("", "e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	p := &product{TB: t, dataDir: dir, token: adminToken, addr: freeAddress(t), output: new(lockedBuffer)}
	t.Cleanup(func() {
		if p.process != nil {
			p.stop()
		}
		if t.Failed() {
			t.Logf("the server said:\n%s", p.output)
		}
	})
	return p
}

// start serves the data folder, and waits until the server is ready.
func (p *product) start() {
	p.Helper()
	p.process = exec.Command(binary, "serve")
	p.process.Env = p.environment()
	p.process.Stdout, p.process.Stderr = p.output, p.output
	if err := p.process.Start(); err != nil {
		p.Fatal(err)
	}
	process := p.process
	p.ended = make(chan error, 1)
	go func() { p.ended <- process.Wait() }()
	p.until("the server is ready", func() bool {
		select {
		case err := <-p.ended:
			p.process = nil
			p.Fatalf("the server ended with %v:\n%s", err, p.output)
		default:
		}
		resp, err := http.Get("http://" + p.addr + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close() //nolint:errcheck // nothing is read
		return resp.StatusCode == http.StatusOK
	})
}

func (p *product) environment() []string {
	environment := []string{"MEDILAB_DATA_DIR=" + p.dataDir, "MEDILAB_ADDR=" + p.addr}
	if p.token != "" {
		environment = append(environment, "MEDILAB_TOKEN="+p.token)
	}
	for _, kept := range os.Environ() {
		if !strings.HasPrefix(kept, "MEDILAB_") || strings.HasPrefix(kept, "MEDILAB_POSTGRES_BIN=") {
			if !strings.HasPrefix(kept, "DATABASE_URL=") {
				environment = append(environment, kept)
			}
		}
	}
	return append(environment, p.extra...)
}

// freeAddress finds a port that is free now.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nobody uses it
	return l.Addr().String()
}

// stop ends the server as an operator does, and checks that it ends well.
func (p *product) stop() {
	p.Helper()
	p.signal(syscall.SIGTERM)
	if err := p.wait(); err != nil {
		p.Errorf("after SIGTERM the server ended with %v:\n%s", err, p.output)
	}
}

// kill ends the server as the kernel does.
func (p *product) kill() {
	p.Helper()
	p.signal(syscall.SIGKILL)
	p.wait() //nolint:errcheck // it says that it was killed
}

func (p *product) signal(s syscall.Signal) {
	p.Helper()
	if err := p.process.Process.Signal(s); err != nil {
		p.Fatal(err)
	}
}

func (p *product) wait() error {
	p.Helper()
	select {
	case err := <-p.ended:
		p.process = nil
		return err
	case <-time.After(patience):
		p.Fatalf("the server does not end:\n%s", p.output)
		return nil
	}
}

// until asks again and again until the condition holds.
func (p *product) until(what string, holds func() bool) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), patience)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			p.Fatalf("waited in vain until %s", what)
		}
	}
}

// request makes a request of the API with the admin token.
func (p *product) request(method, path, body string) (status int, answer []byte) {
	p.Helper()
	req, err := http.NewRequestWithContext(p.Context(), method, "http://"+p.addr+path, strings.NewReader(body))
	if err != nil {
		p.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+p.token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read to its end
	answer, err = io.ReadAll(resp.Body)
	if err != nil {
		p.Fatal(err)
	}
	return resp.StatusCode, answer
}

// api calls the API, checks the status and decodes the answer.
func (p *product) api(want int, method, path, body string, into any) {
	p.Helper()
	status, answer := p.request(method, "/api/v1"+path, body)
	if status != want {
		p.Fatalf("%s %s answered %d, want %d: %s", method, path, status, want, answer)
	}
	if into == nil {
		return
	}
	if err := json.Unmarshal(answer, into); err != nil {
		p.Fatalf("%s %s answered %s: %v", method, path, answer, err)
	}
}

// command runs another command of the product beside the server, and gives its standard output.
func (p *product) command(wantCode int, stdin string, args ...string) string {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, binary, args...)
	c.Env = p.environment()
	c.Stdin = strings.NewReader(stdin)
	var out, notes bytes.Buffer
	c.Stdout, c.Stderr = &out, &notes
	err := c.Run()
	if c.ProcessState == nil || c.ProcessState.ExitCode() != wantCode {
		p.Fatalf("%v ended with %v, want code %d:\n%s%s", args, err, wantCode, &out, &notes)
	}
	return out.String()
}

// webhook is what the tests look at of a webhook.
type webhook struct {
	ID      string `json:"id"`
	Number  int    `json:"number"`
	URL     string `json:"url"`
	Version int    `json:"version"`
}

// call is what the tests look at of an entry of the call log.
type call struct {
	CallID         string     `json:"call_id"`
	DeliveryID     string     `json:"delivery_id"`
	EventID        string     `json:"event_id"`
	Attempt        int        `json:"attempt"`
	URL            string     `json:"url"`
	Status         string     `json:"status"`
	Outcome        string     `json:"outcome"`
	DurationMS     float64    `json:"duration_ms"`
	ResponseStatus *int       `json:"response_status"`
	Error          *string    `json:"error"`
	Payload        string     `json:"payload"`
	Test           bool       `json:"test"`
	CreatedAt      time.Time  `json:"created_at"`
	NextAttemptAt  *time.Time `json:"next_attempt_at"`
}

// calls lists all of the webhook's calls, oldest first.
func (p *product) calls(webhook string) []call {
	p.Helper()
	var all []call
	cursor := ""
	for {
		var page struct {
			Items      []call  `json:"items"`
			NextCursor *string `json:"next_cursor"`
		}
		p.api(200, "GET", "/webhooks/"+webhook+"/calls?limit=100"+cursor, "", &page)
		all = append(all, page.Items...)
		if page.NextCursor == nil {
			break
		}
		cursor = "&cursor=" + *page.NextCursor
	}
	for i, j := 0, len(all)-1; i < j; i, j = i+1, j-1 {
		all[i], all[j] = all[j], all[i]
	}
	return all
}

// trigger triggers an event and gives its id.
func (p *product) trigger(body string) string {
	p.Helper()
	var accepted struct {
		EventID string `json:"event_id"`
	}
	p.api(202, "POST", "/webhooks/events/trigger", body, &accepted)
	return accepted.EventID
}

// lockedBuffer collects what a process says.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
