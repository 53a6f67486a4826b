package e2e

import (
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// An export and an import that are killed at any step leave a log that verifies, and the next
// run completes them.
func TestArchiveIsKilled(t *testing.T) {
	t.Parallel()
	in := harness.Receive(t, func(http.ResponseWriter, harness.Call) {})
	p := start(t)
	w := p.register(in.URL, `{"events":["*"]}`)
	const events = 10
	for range events {
		p.trigger(`{"event_type":"patient.created","event_data":{"patient_id":7}}`)
	}
	p.awaitCalls(w.ID, events)
	holder, watcher := p.connect(), p.connect()

	// killed runs the command until it waits for what the statement locks, and kills it.
	killed := func(lock string, args ...string) {
		t.Helper()
		tx, err := holder.Begin(t.Context())
		if err == nil {
			_, err = tx.Exec(t.Context(), lock)
		}
		if err != nil {
			t.Fatal(err)
		}
		c := exec.CommandContext(t.Context(), p.Program, args...)
		c.Env = p.environment()
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		var waiting int
		p.Until(args[1]+" waits behind "+lock, func() bool {
			err := watcher.QueryRow(t.Context(), `SELECT coalesce(min(pid), 0) FROM pg_stat_activity
				WHERE datname = current_database() AND $1 = ANY (pg_blocking_pids(pid))`, holder.PgConn().PID()).Scan(&waiting)
			if err != nil {
				t.Fatal(err)
			}
			return waiting != 0
		})
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		c.Wait() //nolint:errcheck // it was killed
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.Until("the database has ended what the command waited for", func() (ended bool) {
			err := watcher.QueryRow(t.Context(), `SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND state = 'active')`, waiting).Scan(&ended)
			if err != nil {
				t.Fatal(err)
			}
			return ended
		})
	}
	dir := filepath.Join(t.TempDir(), "archive")
	export := []string{"archive", "export", "--to", "2100-01-01", dir}
	killed(`LOCK TABLE medilab.archiving IN SHARE MODE`, export...) // it gathers what to archive
	p.command(0, "", "audit", "verify")
	killed(`SELECT FROM medilab.events WHERE position = 2 FOR UPDATE`, export...) // it drops what is on record as archived
	p.command(0, "", "audit", "verify")
	p.command(0, "", "projections", "rebuild", "--all")
	p.command(0, "", "audit", "verify")
	p.command(0, "", export...)
	p.command(0, "", "audit", "verify")
	if out := p.command(0, "", "archive", "list", dir); !strings.Contains(out, "good") {
		t.Errorf("the list is %s", out)
	}
	killed(`LOCK TABLE medilab.seals IN SHARE MODE`, "archive", "import", dir)
	p.command(0, "", "audit", "verify")
	p.command(0, "", "archive", "import", dir) // what the second export found, the record of the first
	p.command(0, "", "archive", "import", dir)
	p.command(0, "", "audit", "verify")
	p.awaitCalls(w.ID, events)
	p.trigger(`{"event_type":"patient.created","event_data":{}}`)
	p.awaitCalls(w.ID, events+1)
}
