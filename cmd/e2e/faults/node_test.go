package faults

import (
	"bufio"
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
)

// adminToken is long enough for MEDILAB_TOKEN.
const adminToken = "faults-admin-token-0123456789-0123456789"

// node is one process of the product. Its address stays the same over restarts,
// as behind a load balancer.
type node struct {
	t       testing.TB
	name    string
	addr    string
	program string
	env     []string

	mu     sync.Mutex
	cmd    *exec.Cmd
	ended  chan struct{} // closed when the process has ended
	err    error         // how it ended
	output *tailBuffer
}

// home is what the nodes of one run share: a database and a folder with the keys.
type home struct {
	t   testing.TB
	url string // "": an embedded Postgres
	dir string
}

func newHome(t testing.TB, url string) *home { return &home{t: t, url: url, dir: shortDir(t)} }

// node makes a process that is not started yet; env is added to its environment.
func (h *home) node(name string, env ...string) *node {
	h.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		h.t.Fatal(err)
	}
	n := &node{t: h.t, name: name, addr: addr, program: binary, output: new(tailBuffer)}
	n.env = append(h.environment(), append([]string{"MEDILAB_ADDR=" + addr, "MEDILAB_LOG=text,info"}, env...)...)
	h.t.Cleanup(n.finish)
	return n
}

// environment is that of every command of the run.
func (h *home) environment() []string {
	env := []string{"MEDILAB_DATA_DIR=" + h.dir, "MEDILAB_TOKEN=" + adminToken, "MEDILAB_ALLOW_TARGETS=loopback",
		"MEDILAB_KEYS=" + filepath.Join(h.dir, "keys.json"), "DATABASE_URL=" + h.url}
	for _, kept := range os.Environ() {
		if !strings.HasPrefix(kept, "MEDILAB_") && !strings.HasPrefix(kept, "DATABASE_URL=") || strings.HasPrefix(kept, "MEDILAB_POSTGRES_BIN=") {
			env = append(env, kept)
		}
	}
	return env
}

// command runs the product's command line and gives what it printed.
func (h *home) command(args ...string) (string, error) {
	cmd := exec.CommandContext(h.t.Context(), binary, args...)
	cmd.Env = h.environment()
	var out, notes bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &notes
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%v: %w: %s%s", args, err, &out, &notes)
	}
	return out.String(), nil
}

// launch starts the process and does not wait for it.
func (n *node) launch() {
	n.t.Helper()
	cmd := exec.Command(n.program, "serve")
	cmd.Env = n.env
	cmd.Stdout, cmd.Stderr = n.output, n.output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	ended := make(chan struct{})
	n.mu.Lock()
	n.cmd, n.ended = cmd, ended
	n.mu.Unlock()
	go func() {
		err := cmd.Wait()
		n.mu.Lock()
		n.err = err
		n.mu.Unlock()
		close(ended)
	}()
}

// start starts the process and waits until it is ready.
func (n *node) start() *node {
	n.t.Helper()
	n.launch()
	until(n.t, n.name+" is ready", func() bool {
		select {
		case <-n.done():
			n.t.Fatalf("%s ended by itself: %v\n%s", n.name, n.err, n.output)
		default:
		}
		return n.status("/readyz") == http.StatusOK
	})
	return n
}

// done is closed when the process has ended.
func (n *node) done() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ended
}

func (n *node) signal(s syscall.Signal) {
	n.t.Helper()
	if err := n.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		n.t.Fatal(err)
	}
}

// kill ends the process as the kernel does.
func (n *node) kill() {
	n.t.Helper()
	n.signal(syscall.SIGKILL)
	<-n.done()
}

// term ends the process as an operator does, and gives its exit code.
func (n *node) term() int {
	n.t.Helper()
	n.signal(syscall.SIGTERM)
	select {
	case <-n.done():
	case <-time.After(patience):
		n.t.Fatalf("%s does not end\n%s", n.name, n.output)
	}
	return n.cmd.ProcessState.ExitCode()
}

// finish ends what is left of the process at the end of the run.
func (n *node) finish() {
	if n.cmd == nil {
		return
	}
	if n.t.Failed() {
		n.t.Logf("%s said:\n%s", n.name, n.output)
	}
	select {
	case <-n.ended:
		return
	default:
	}
	n.cmd.Process.Signal(syscall.SIGCONT) //nolint:errcheck // it may have ended meanwhile
	n.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // as above
	select {
	case <-n.ended:
	case <-time.After(patience):
		n.cmd.Process.Kill() //nolint:errcheck // as above
		<-n.ended
		n.t.Errorf("%s did not end on SIGTERM", n.name)
	}
}

// stopped tells whether the kernel holds the process still.
func (n *node) stopped() bool { return held(n.cmd.Process.Pid) }

// held tells whether the kernel holds a process still.
func held(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(text), ") ")
	return strings.HasPrefix(state, "T")
}

// calls is how many calls the process says it made.
func (n *node) calls() int { return n.metric("medilab_delivery_attempt_duration_seconds_count") }

// metric is the sum of a metric over its labels.
func (n *node) metric(name string) (sum int) {
	n.t.Helper()
	resp, err := client.Get("http://" + n.addr + "/metrics")
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it is read to its end
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == '{' || rest[0] == ' ') {
			var count int
			if _, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &count); err != nil {
				n.t.Fatal(err)
			}
			sum += count
		}
	}
	return sum
}

// rss is the process's resident memory in bytes.
func (n *node) rss() int64 {
	n.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.cmd.Process.Pid))
	if err != nil {
		n.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if kb, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			var n int64
			if _, err := fmt.Sscan(kb, &n); err == nil {
				return n << 10
			}
		}
	}
	n.t.Fatal("the kernel says nothing of the process's memory")
	return 0
}

// client keeps connections as a clinic's service does.
var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256, IdleConnTimeout: time.Minute}}

// status asks for a path of health; 0 when nobody answers.
func (n *node) status(path string) int {
	ctx, cancel := context.WithTimeout(n.t.Context(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+n.addr+path, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	resp.Body.Close() //nolint:errcheck // nothing is read
	return resp.StatusCode
}

// answer is what a request came to.
type answer struct {
	status     int
	retryAfter string
	body       []byte
}

// request makes one request of the API. An error says that no answer came.
func (n *node) request(method, path string, body []byte) (answer, error) {
	return n.requestWithin(patience, method, path, body)
}

func (n *node) requestWithin(limit time.Duration, method, path string, body []byte) (answer, error) {
	ctx, cancel := context.WithTimeout(n.t.Context(), limit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+n.addr+"/api/v1"+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close() //nolint:errcheck // it is read to its end
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header.Get("Retry-After"), text}, err
}

// api makes a request that must be answered well.
func (n *node) api(want int, method, path string, body, into any) {
	n.t.Helper()
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			n.t.Fatal(err)
		}
	}
	a, err := n.request(method, path, text)
	if err != nil {
		n.t.Fatal(err)
	}
	if a.status != want {
		n.t.Fatalf("%s %s of %s answered %d: %.500s", method, path, n.name, a.status, a.body)
	}
	if into != nil {
		if err := json.Unmarshal(a.body, into); err != nil {
			n.t.Fatal(err)
		}
	}
}

// insist posts until it is accepted: when the log cannot keep up, a caller is told
// to come again.
func (n *node) insist(path string, body, into any) {
	n.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		n.t.Fatal(err)
	}
	var a answer
	until(n.t, path+" is accepted", func() bool {
		if a, err = n.request("POST", path, text); err != nil {
			n.t.Fatal(err)
		}
		return a.status != http.StatusServiceUnavailable && a.status != http.StatusTooManyRequests || a.retryAfter == ""
	})
	if a.status != http.StatusAccepted {
		n.t.Fatalf("POST %s was answered %d: %.300s", path, a.status, a.body)
	}
	if into != nil {
		if err := json.Unmarshal(a.body, into); err != nil {
			n.t.Fatal(err)
		}
	}
}

// stream reads an answer line by line.
func (n *node) stream(path string, yield func(line []byte)) {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), "GET", "http://"+n.addr+"/api/v1"+path, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	resp, err := client.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it is read to its end
	if resp.StatusCode != http.StatusOK {
		n.t.Fatalf("GET %s answered %d", path, resp.StatusCode)
	}
	lines := bufio.NewReaderSize(resp.Body, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return
		}
		if err != nil {
			n.t.Fatal(err)
		}
		yield(line)
	}
}

// tailBuffer keeps the last of what a process says.
type tailBuffer struct {
	mu sync.Mutex
	b  []byte
}

const maxTail = 16 << 10

func (b *tailBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.b = append(b.b, p...)
	if len(b.b) > 2*maxTail {
		b.b = append(b.b[:0], b.b[len(b.b)-maxTail:]...)
	}
	return len(p), nil
}

func (b *tailBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return string(b.b)
}
