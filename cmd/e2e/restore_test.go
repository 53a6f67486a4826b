package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/migrations/testdb"
)

// The commands of docs/install.md, and of its translation, back up while the server serves, and
// what they restore goes on: secrets decrypt, and what was pending is delivered.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()
	installed(t, "pg_dump")
	blocks := func(file, heading string) (found []string) {
		_, section, _ := strings.Cut(read(t, file), "\n## "+heading+"\n")
		section, _, _ = strings.Cut(section, "\n## ")
		for _, b := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(section, -1) {
			found = append(found, b[1])
		}
		return found
	}
	steps := blocks("docs/install.md", "Back up and restore")
	if len(steps) != 2 || strings.Join(steps, "") != strings.Join(blocks("docs/install.ru.md", "Копия и восстановление"), "") {
		t.Fatalf("the pages have the steps %q", steps)
	}
	var works atomic.Bool
	in := harness.Receive(t, func(w http.ResponseWriter, _ harness.Call) {
		if !works.Load() {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	p := start(t)
	const secret = "a secret of the receiver"
	p.register(in.URL, `{"secret":"`+secret+`","retry_delay":1,"max_retries":10}`)
	p.trigger(`{"event_type":"visit.created","event_data":{}}`)
	first := in.Await(1)[0]

	backup, restored := t.TempDir(), testdb.NewEmpty(t)
	shell := func(script string) {
		t.Helper()
		c := exec.CommandContext(t.Context(), "sh", "-euc", script)
		c.Env = append(p.environment(), "BACKUP="+backup, "RESTORED_URL="+restored, "MEDILAB_KEYS="+filepath.Join(p.dataDir, "keys.json"),
			"PATH="+filepath.Dir(p.Program)+":"+os.Getenv("PATH"))
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v:\n%s", err, out)
		}
	}
	shell(steps[0])
	p.stop()
	shell(steps[1])
	before := len(in.All())
	works.Store(true)
	q := prepare(t)
	q.database, q.extra = restored, []string{"MEDILAB_ALLOW_TARGETS=loopback", "MEDILAB_KEYS=" + filepath.Join(backup, "keys.json")}
	q.start()
	last := in.Await(before + 1)[before]
	if last.Delivery() != first.Delivery() || last.Header.Get("X-Webhook-Signature") != guideSignature(last.Body, secret) {
		t.Errorf("after the restore came delivery %s, %v; before it %s", last.Delivery(), last.Header, first.Delivery())
	}
	q.stop()
}
