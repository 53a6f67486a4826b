package faults

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/cmd/testbed"
)

// adminToken is long enough for MEDILAB_TOKEN.
const adminToken = "faults-admin-token-0123456789-0123456789"

// node is one process of the product.
type node struct{ *harness.Process }

// home is what the nodes of one run share: a database and a folder with the keys.
type home struct {
	t   testing.TB
	url string // "": an embedded Postgres
	dir string
	env []string // further settings
}

func newHome(t testing.TB, url string) *home { return &home{t: t, url: url, dir: harness.ShortDir(t)} }

// node makes a process that is not started yet; env is added to its environment.
func (h *home) node(name string, env ...string) *node {
	h.t.Helper()
	n := &node{harness.NewProcess(h.t, name, binary)}
	n.Said.Most = 16 << 10
	n.Env = append(h.environment(), append([]string{"MEDILAB_ADDR=" + n.Addr, "MEDILAB_LOG=text,info"}, env...)...)
	return n
}

// environment is that of every command of the run.
func (h *home) environment() []string {
	return append(harness.Environment("MEDILAB_DATA_DIR="+h.dir, "MEDILAB_TOKEN="+adminToken, "MEDILAB_ALLOW_TARGETS=loopback",
		"MEDILAB_KEYS="+filepath.Join(h.dir, "keys.json"), "DATABASE_URL="+h.url), h.env...)
}

// command runs the product's command line and gives what it printed.
func (h *home) command(args ...string) (string, error) {
	out, notes, err := harness.Run(h.t.Context(), binary, h.environment(), "", args...)
	if err != nil {
		return out, fmt.Errorf("%v: %w: %s%s", args, err, out, notes)
	}
	return out, nil
}

// start starts the process and waits until it is ready.
func (n *node) start() *node {
	n.Helper()
	n.Start()
	return n
}

// stopped reports whether the kernel holds the process still.
func (n *node) stopped() bool { return testbed.Stopped(n.Pid()) }

// calls is how many calls the process says it made.
func (n *node) calls() int { return n.metric("medilab_delivery_attempt_duration_seconds_count") }

// metric is the sum of a metric over its labels.
func (n *node) metric(name string) (sum int) {
	n.Helper()
	sum, err := testbed.Metric(context.Background(), "http://"+n.Addr, name)
	if err != nil {
		n.Fatal(err)
	}
	return sum
}

// rss is the process's resident memory in bytes.
func (n *node) rss() int64 {
	n.Helper()
	rss, err := testbed.Memory(n.Pid(), "VmRSS")
	if err != nil {
		n.Fatal(err)
	}
	return rss
}

// request makes one request of the API. An error says that no answer came.
func (n *node) request(method, path string, body []byte) (harness.Answer, error) {
	return n.requestWithin(patience, method, path, body)
}

func (n *node) requestWithin(limit time.Duration, method, path string, body []byte) (harness.Answer, error) {
	ctx, cancel := context.WithTimeout(n.Context(), limit)
	defer cancel()
	return n.Request(ctx, adminToken, method, "/api/v1"+path, body)
}

// api makes a request that must be answered well.
func (n *node) api(want int, method, path string, body, into any) {
	n.Helper()
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			n.Fatal(err)
		}
	}
	n.API(want, adminToken, method, path, text, into)
}

// comeAgain reports whether a caller was told to come again, and when.
func comeAgain(a harness.Answer) bool {
	return (a.Status == http.StatusServiceUnavailable || a.Status == http.StatusTooManyRequests) && a.Header.Get("Retry-After") != ""
}

// insist posts until it is accepted: when the log cannot keep up, a caller is told
// to come again.
func (n *node) insist(path string, body, into any) {
	n.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		n.Fatal(err)
	}
	var a harness.Answer
	until(n, path+" is accepted", func() bool {
		if a, err = n.request("POST", path, text); err != nil {
			n.Fatal(err)
		}
		return !comeAgain(a)
	})
	if a.Status != http.StatusAccepted {
		n.Fatalf("POST %s was answered %d: %.300s", path, a.Status, a.Body)
	}
	if into != nil {
		if err := json.Unmarshal(a.Body, into); err != nil {
			n.Fatal(err)
		}
	}
}

// stream reads an answer line by line.
func (n *node) stream(path string, yield func(line []byte)) {
	n.Helper()
	req, err := http.NewRequestWithContext(n.Context(), "GET", "http://"+n.Addr+"/api/v1"+path, nil)
	if err != nil {
		n.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	resp, err := harness.Client.Do(req)
	if err != nil {
		n.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // it is read to its end
	if resp.StatusCode != http.StatusOK {
		n.Fatalf("GET %s answered %d", path, resp.StatusCode)
	}
	lines := bufio.NewReaderSize(resp.Body, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return
		}
		if err != nil {
			n.Fatal(err)
		}
		yield(line)
	}
}
