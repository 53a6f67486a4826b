package e2e

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/migrations/testdb"
)

// installedByCI are programs that no test of CI may be skipped for: .ci/run installs them.
var installedByCI = []string{"dpkg", "haproxy", "nginx", "pg_dump"}

// installed returns the path of a program. Where it is missing the test is skipped, or fails
// if CI should have it.
func installed(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		path = filepath.Join("/usr/sbin", program) // not in everybody's PATH
		if _, err := os.Stat(path); err != nil {
			if os.Getenv("CI") != "" && slices.Contains(installedByCI, program) {
				t.Fatalf("%s is not installed", program)
			}
			t.Skipf("%s is not installed", program)
		}
	}
	return path
}

// front runs a proxy on a file of docs/deploy with other addresses, until the test ends.
func front(t *testing.T, file string, replace []string, program string, args ...string) {
	t.Helper()
	dir := harness.ShortDir(t)
	config := strings.NewReplacer(replace...).Replace(read(t, "docs/deploy/"+file))
	path := filepath.Join(dir, file)
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil { //nolint:gosec // nothing secret
		t.Fatal(err)
	}
	said := new(harness.Output)
	c := exec.CommandContext(context.Background(), program, args...)
	c.Dir, c.Stdout, c.Stderr = dir, said, said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = c.Wait()
		if t.Failed() {
			t.Logf("%s says:\n%s", program, said)
		}
	})
}

// from returns a client that calls from an address of its own.
func from(t *testing.T, local string) *http.Client {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(local)}}
	transport := &http.Transport{DialContext: dialer.DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// call makes two requests on a connection, one of each way of serving, and returns the last
// status; 0 when nothing answers.
func callFrom(t *testing.T, client *http.Client, address, id string) (status int) {
	t.Helper()
	for method, path := range map[string]string{"POST": "/api/v1/webhooks/events/trigger", "GET": "/api/v1/webhooks"} {
		var body io.Reader
		if method == "POST" {
			body = strings.NewReader(`{"event_type":"visit.created","event_data":{}}`)
		}
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = http.Header{"Authorization": {"Bearer " + adminToken}, "Content-Type": {"application/json"},
			"X-Request-Id": {id}, "X-Forwarded-For": {"198.51.100.1"}}
		answer, err := client.Do(r)
		if err != nil {
			return 0
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		_ = answer.Body.Close()
		if status = answer.StatusCode; status >= 300 {
			return status
		}
	}
	return status
}

// remotes are the clients that the server logged for the requests of an id.
func (p *product) remotes(id string) (remotes []string) {
	for line := range strings.Lines(p.Said.String()) {
		if strings.Contains(line, `"request_id":"`+id+`"`) {
			_, rest, _ := strings.Cut(line, `"remote":"`)
			remote, _, _ := strings.Cut(rest, `"`)
			remotes = append(remotes, remote)
		}
	}
	return remotes
}

func (p *product) wantRemotes(id, prefix string) {
	p.Helper()
	p.Until("both requests are logged", func() bool { return len(p.remotes(id)) >= 2 })
	for _, remote := range p.remotes(id) {
		if !strings.HasPrefix(remote, prefix) {
			p.Errorf("the client of %s is %s, want %s", id, remote, prefix)
		}
	}
}

func TestBehindNginx(t *testing.T) {
	t.Parallel()
	nginx, address := installed(t, "nginx"), harness.FreeAddress(t)
	p := start(t, "MEDILAB_TRUSTED_PROXIES=127.0.0.1", "MEDILAB_LOG=json,debug")
	front(t, "nginx.conf", []string{
		"upstream medilab_webhooks {", "pid nginx.pid; error_log stderr; events {}\nhttp { access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; scgi_temp_path s; uwsgi_temp_path u;\nupstream medilab_webhooks {",
		"        return 404;\n    }\n}", "        return 404;\n    }\n}}",
		"listen 443 ssl", "listen " + address, "ssl_certificate", "# ssl_certificate", "127.0.0.1:8000", p.Addr,
	}, nginx, "-p", ".", "-e", "stderr", "-c", "nginx.conf", "-g", "daemon off; master_process off;")
	client := from(t, "127.0.0.2")
	p.Until("nginx serves", func() bool { return callFrom(t, client, address, "probe") == 200 })
	callFrom(t, client, address, "by-nginx")
	p.wantRemotes("by-nginx", "127.0.0.2:")
	callFrom(t, client, p.Addr, "past-nginx") // whose X-Forwarded-For is nobody's word
	p.wantRemotes("past-nginx", "127.0.0.2:")
}

func TestBehindHAProxy(t *testing.T) {
	t.Parallel()
	haproxy, address := installed(t, "haproxy"), harness.FreeAddress(t)
	p := prepareOn(t, testdb.New(t))
	// The harness asks for readiness from 127.0.0.1, as no proxy does.
	p.extra = []string{"MEDILAB_TRUSTED_PROXIES=127.0.0.3", "MEDILAB_PROXY_PROTOCOL=on", "MEDILAB_LOG=json,debug"}
	p.start()
	front(t, "haproxy.cfg", []string{"bind :443", "bind " + address, "127.0.0.1:8000", p.Addr + " source 127.0.0.3"}, haproxy, "-db", "-f", "haproxy.cfg")
	client := from(t, "127.0.0.2")
	p.Until("haproxy serves", func() bool { return callFrom(t, client, address, "probe") == 200 })
	callFrom(t, client, address, "by-haproxy")
	p.wantRemotes("by-haproxy", "127.0.0.2:")
	if status := callFrom(t, from(t, "127.0.0.3"), p.Addr, "no-header"); status != 0 {
		t.Errorf("a proxy that sends no header gets %d", status)
	}
}
