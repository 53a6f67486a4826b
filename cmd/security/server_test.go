// Package security attacks the product from outside: the built binary, as it is
// started, over the network, and what it leaves on the disk.
package security

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

	"github.com/medilab/webhooks/migrations/testdb"
)

// patience bounds every wait; what goes well takes a part of it.
const patience = 2 * time.Minute

const adminToken = "canary-admin-token-0123456789-0123456789"

// built is the product, built once.
var built string

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "medilab-security-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	built = filepath.Join(dir, "medilab-webhooks")
	build := exec.Command("go", "build", "-o", built, "../medilab-webhooks")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return 0, fmt.Errorf("build the product: %w", err)
	}
	return m.Run(), nil
}

// product is a process that serves.
type product struct {
	testing.TB
	addr        string
	environment []string
	output      *output
}

// newDatabase is the environment of servers that share a Postgres of the test's
// own, and the keys of its secrets.
func newDatabase(t testing.TB) []string {
	t.Helper()
	return []string{"DATABASE_URL=" + testdb.New(t), "MEDILAB_KEYS=" + filepath.Join(t.TempDir(), "keys.json")}
}

// start serves until the test ends. Nothing of our own environment reaches it but
// what finds Postgres.
func start(t testing.TB, environment ...string) *product {
	t.Helper()
	p := &product{TB: t, addr: freeAddress(t), output: new(output)}
	p.environment = append([]string{
		"MEDILAB_ADDR=" + p.addr, "MEDILAB_TOKEN=" + adminToken, "PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"),
		"MEDILAB_POSTGRES_BIN=" + os.Getenv("MEDILAB_POSTGRES_BIN"), "MEDILAB_LOG=json,debug",
	}, environment...)
	process := exec.Command(built, "serve")
	process.Env, process.Stdout, process.Stderr = p.environment, p.output, p.output
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = process.Wait() }()
	t.Cleanup(func() {
		_ = process.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(patience):
			_ = process.Process.Kill()
			t.Error("the server does not end")
		}
		if t.Failed() {
			said := p.output.String()
			t.Logf("the server said, at last:\n%s", said[max(0, len(said)-4000):])
		}
	})
	p.until("the server is ready", func() bool {
		select {
		case <-ended:
			t.Fatalf("the server ended:\n%s", p.output)
		default:
		}
		resp, err := http.Get("http://" + p.addr + "/readyz")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return p
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nobody uses it
	return l.Addr().String()
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

// as makes a request with the token and gives the answer whole.
func (p *product) as(token, method, path, body string) (status int, answer []byte) {
	p.Helper()
	req, err := http.NewRequestWithContext(p.Context(), method, "http://"+p.addr+path, strings.NewReader(body))
	if err != nil {
		p.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		p.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read to its end
	if answer, err = io.ReadAll(resp.Body); err != nil {
		p.Fatal(err)
	}
	return resp.StatusCode, answer
}

// api calls the API as an administrator, checks the status and decodes the answer.
func (p *product) api(want int, method, path, body string, into any) {
	p.Helper()
	status, answer := p.as(adminToken, method, "/api/v1"+path, body)
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

// register makes a webhook for all events and gives its id.
func (p *product) register(url, more string) string {
	p.Helper()
	var made struct {
		ID string `json:"id"`
	}
	p.api(201, "POST", "/webhooks/", fmt.Sprintf(`{"name":"w","url":%q,"events":["*"],"max_retries":0,"timeout":5%s}`, url, more), &made)
	return made.ID
}

// call is an entry of the call log.
type call struct {
	Status         string  `json:"status"`
	ResponseStatus *int    `json:"response_status"`
	Error          *string `json:"error"`
	Test           bool    `json:"test"`
}

func (c call) text() string {
	if c.Error == nil {
		return ""
	}
	return *c.Error
}

func (p *product) calls(webhook string) []call {
	p.Helper()
	var page struct {
		Items []call `json:"items"`
	}
	p.api(200, "GET", "/webhooks/"+webhook+"/calls", "", &page)
	return page.Items
}

// command runs another command of the product beside the server.
func (p *product) command(args ...string) string {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), patience)
	defer cancel()
	c := exec.CommandContext(ctx, built, args...)
	c.Env = p.environment
	var out, notes bytes.Buffer
	c.Stdout, c.Stderr = &out, &notes
	if err := c.Run(); err != nil {
		p.Fatalf("%v: %v\n%s%s", args, err, &out, &notes)
	}
	return out.String()
}

// output collects what a process says.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func decode(t testing.TB, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}
