package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// A process that was killed holds no lease any more once another starts on its data folder: what
// it had under way goes on, and what is emitted is relayed. One that lives keeps its lease,
// whoever starts on its folder or on a copy of it.
func TestARestartKnowsThatItsFormerSelfIsDead(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	in := harness.Receive(t, func(_ http.ResponseWriter, c harness.Call) {
		if c.Attempt() == "1" && c.Header.Get("X-Webhook-Event") == "visit.created" {
			<-hang
		}
	})
	defer close(hang)
	p := start(t)
	p.register(in.URL, `{"events":["*"]}`)
	p.trigger(`{"event_type":"visit.created","event_data":{}}`)
	in.Await(1)
	p.Kill()
	p.start()
	const ended, live = `SELECT count(*) FROM medilab.nodes WHERE lease_until = '-infinity'`, `SELECT count(*) FROM medilab.nodes WHERE lease_until > now()`
	if n := reads[int](t, p.database, ended); n != 1 {
		t.Errorf("%d leases are ended, want that of the killed process", n)
	}
	reads[string](t, p.database, `SELECT medilab.emit('patient.created', '{}')::text`)
	in.Await(3)

	same := prepare(t)
	same.dataDir, same.database = p.dataDir, p.database
	same.start()
	copied := prepare(t)
	copied.database = p.database
	for _, pattern := range []string{"keys.json", "nodes/*"} {
		paths, err := filepath.Glob(filepath.Join(p.dataDir, pattern))
		if err != nil || len(paths) == 0 {
			t.Fatalf("%s: %v, %v", pattern, paths, err)
		}
		for _, path := range paths {
			name, err := filepath.Rel(p.dataDir, path)
			if err != nil {
				t.Fatal(err)
			}
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Dir(filepath.Join(copied.dataDir, name)), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(copied.dataDir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	copied.start()
	if n := reads[int](t, p.database, live); n != 3 {
		t.Errorf("%d nodes live, want all three", n)
	}
	for _, p := range []*product{copied, same, p} {
		p.stop()
	}
	if left, err := filepath.Glob(filepath.Join(p.dataDir, "nodes", "*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
