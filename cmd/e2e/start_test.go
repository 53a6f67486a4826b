package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/migrations/testdb"
)

// The first start tells a newcomer all there is to know, and the line that it prints works when
// it is pasted. The token is shown that once.
func TestFirstStart(t *testing.T) {
	t.Parallel()
	p := prepare(t)
	p.token = ""
	p.start()
	curl := regexp.MustCompile(`(?m)^\s*curl .*$`)
	p.Until("it says how to try it", func() bool { return curl.MatchString(p.Said.String()) })
	said := p.Said.String()
	for _, wanted := range []string{"http://" + p.Addr + "/api/v1", "http://" + p.Addr + "/admin"} {
		if !strings.Contains(said, wanted) {
			t.Errorf("the first start does not say %s:\n%s", wanted, said)
		}
	}
	kept, err := os.ReadFile(filepath.Join(p.dataDir, "token"))
	if err != nil {
		t.Fatal(err)
	}
	p.token = strings.TrimSpace(string(kept))
	if info, err := os.Stat(filepath.Join(p.dataDir, "token")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the token's file has mode %v, %v", info.Mode(), err)
	}
	if len(p.token) < 32 || strings.Count(said, p.token) != 1 {
		t.Errorf("the token %q is not shown once:\n%s", p.token, said)
	}
	p.api(200, "GET", "/webhooks/", "", nil)

	line := curl.FindString(said)
	if _, err := exec.LookPath("curl"); err == nil {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", line).CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte(`"event_id"`)) {
			t.Errorf("the printed line ended with %v: %s", err, out)
		}
	}

	p.stop()
	p.Said = new(harness.Output)
	token := p.token
	p.token = ""
	p.start()
	p.Until("it says that it serves", func() bool { return strings.Contains(p.Said.String(), `"msg":"serving"`) })
	if said := p.Said.String(); strings.Contains(said, token) {
		t.Errorf("the second start shows the token again:\n%s", said)
	}
	p.token = token
	p.api(200, "GET", "/webhooks/", "", nil)
}

// What the database refuses for good is no outage to wait for, of one host or several.
func TestStartEndsWhenItIsRefused(t *testing.T) {
	t.Parallel()
	database := testdb.New(t)
	config, err := pgx.ParseConfig(database)
	if err != nil {
		t.Fatal(err)
	}
	with := func(path string, settings ...string) string {
		u, err := url.Parse(database)
		if err != nil {
			t.Fatal(err)
		}
		query := u.Query()
		for i := 0; i < len(settings); i += 2 {
			query.Set(settings[i], settings[i+1])
		}
		u.Path, u.RawQuery = u.Path+path, query.Encode()
		return u.String()
	}
	for name, refused := range map[string]string{
		"database": with("_unknown"), "setting": with("", "no_such_setting", "1"),
		"database of two hosts": with("_unknown", "host", config.Host+","+config.Host, "port", fmt.Sprintf("%[1]d,%[1]d", config.Port)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := prepareOn(t, refused)
			p.Env = p.environment()
			p.Launch()
			if code := p.Wait(); code == 0 || strings.Contains(p.Said.String(), "trying again") {
				t.Errorf("it ends with %d:\n%s", code, p.Said)
			}
		})
	}
}

// A server that starts while its database is away, as in a failover, waits for it.
func TestStartWaitsForTheDatabase(t *testing.T) {
	t.Parallel()
	p := prepareOn(t, testdb.New(t))
	config, err := pgx.ParseConfig(p.database)
	if err != nil {
		t.Fatal(err)
	}
	name := config.Database
	config.Database = "postgres"
	admin, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { admin.Close(context.Background()) }) //nolint:errcheck // it ends with the test
	letIn := func(is bool) {
		if _, err := admin.Exec(t.Context(), fmt.Sprintf("ALTER DATABASE %s ALLOW_CONNECTIONS %v", pgx.Identifier{name}.Sanitize(), is)); err != nil {
			t.Fatal(err)
		}
	}
	letIn(false)
	p.Env = p.environment()
	p.Launch()
	p.Until("it says what it waits for", func() bool { return strings.Contains(p.Said.String(), "the database cannot be reached") })
	letIn(true)
	p.Until("it is ready", func() bool { return p.Status("/readyz") == http.StatusOK })
}

// It does too when the database goes away after it was connected and migrated.
func TestStartSurvivesAnOutage(t *testing.T) {
	t.Parallel()
	p := prepareOn(t, testdb.New(t))
	connect := func() *pgx.Conn {
		conn, err := pgx.Connect(t.Context(), p.database)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close(context.Background()) }) //nolint:errcheck // it ends with the test
		return conn
	}
	holder, admin := connect(), connect()
	lock, err := holder.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock.Exec(t.Context(), "LOCK TABLE medilab.event_types"); err != nil { // which a start writes
		t.Fatal(err)
	}
	p.Env = p.environment()
	p.Launch()
	p.Until("its connection was cut", func() (cut bool) {
		if err := admin.QueryRow(t.Context(), `SELECT count(pg_terminate_backend(pid)) > 0 FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
			WHERE datname = current_database() AND relation = 'medilab.event_types'::regclass AND NOT granted`).Scan(&cut); err != nil {
			t.Fatal(err)
		}
		return cut
	})
	if err := lock.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.Until("it is ready", func() bool { return p.Status("/readyz") == http.StatusOK })
}

// A process that is shutting down says so until its calls have ended: it is alive, not
// ready, and sends callers elsewhere.
func TestItSaysThatItShutsDown(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	in := harness.Receive(t, func(http.ResponseWriter, harness.Call) { <-release })
	var released sync.Once
	end := func() { released.Do(func() { close(release) }) }
	defer end()
	p := start(t)
	p.register(in.URL, `{"events":["patient.created"]}`)
	event := p.trigger(`{"event_type":"patient.created","event_data":{}}`)
	in.Await(1)
	p.Signal(syscall.SIGTERM)
	p.Until("it is not ready", func() bool { status, _ := p.request("GET", "/readyz", ""); return status == 503 })
	if status, answer := p.request("GET", "/healthz", ""); status != 200 {
		t.Errorf("it is not alive: %d %s", status, answer)
	}
	if status, answer := p.request("GET", "/metrics", ""); status != 200 {
		t.Errorf("it has no metrics: %d %s", status, answer)
	}
	p.refused(503, "POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`, "", "shutting down")
	end()
	if code := p.Wait(); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	p.start()
	p.Until("the call is on record", func() bool {
		calls := p.calls("1")
		return len(calls) == 1 && calls[0].EventID == event && calls[0].Status == "success"
	})
	if got := in.All(); len(got) != 1 {
		t.Errorf("%d calls arrived", len(got))
	}
}

// What cannot work is said in one line with what to do, and nothing is left running.
func TestStartsThatFail(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close() //nolint:errcheck // nobody uses it
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"the port is taken":    {[]string{"serve", "--addr", taken.Addr().String()}, 1, "MEDILAB_ADDR"},
		"no such role":         {[]string{"serve", "--roles", "api,cook"}, 2, "cook"},
		"no such database":     {[]string{"serve", "--database-url", "postgres://nobody:hidden@127.0.0.1:1/none"}, 1, "DATABASE_URL"},
		"no such target":       {[]string{"serve", "--allow-targets", "everything"}, 2, "MEDILAB_ALLOW_TARGETS"},
		"no such flag":         {[]string{"serve", "--port", "1"}, 2, "--port"},
		"no such event types":  {[]string{"serve", "--event-types", "/nonexistent"}, 1, "MEDILAB_EVENT_TYPES"},
		"data in a plain file": {[]string{"serve", "--data-dir", "server_test.go"}, 1, "server_test.go"},
	} {
		t.Run(name, func(t *testing.T) {
			p := prepare(t)
			command := exec.CommandContext(t.Context(), p.Program, c.args...)
			command.Env = append(p.environment(), "MEDILAB_LOG=error")
			var out, notes bytes.Buffer
			command.Stdout, command.Stderr = &out, &notes
			err := command.Run()
			said := notes.String()
			if command.ProcessState == nil || command.ProcessState.ExitCode() != c.code {
				t.Fatalf("it ended with %v, want code %d:\n%s%s", err, c.code, &out, said)
			}
			last := strings.TrimSuffix(said[strings.LastIndex(strings.TrimSuffix(said, "\n"), "\n")+1:], "\n")
			if !strings.HasPrefix(last, "medilab-webhooks: ") || !strings.Contains(last, c.says) || strings.Contains(said, "hidden") {
				t.Errorf("it says %s", said)
			}
		})
	}
}
