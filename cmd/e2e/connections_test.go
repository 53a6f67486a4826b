package e2e

import (
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/migrations/testdb"
)

// A role that may have eight connections serves everything at once, and SQL of the clinic
// besides, which has its own.
func TestEightConnections(t *testing.T) {
	t.Parallel()
	database := testdb.NewEmpty(t)
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	role := "eight_of_" + filepath.Base(conn.Config().Database)
	for _, statement := range []string{`CREATE ROLE %s LOGIN PASSWORD 'secret' CONNECTION LIMIT 8`, `CREATE SCHEMA medilab AUTHORIZATION %s`} {
		if _, err := conn.Exec(t.Context(), fmt.Sprintf(statement, role)); err != nil {
			t.Fatal(err)
		}
	}
	p := prepare(t)
	as, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	as.User = url.UserPassword(role, "secret")
	p.database, p.extra = as.String(), []string{"MEDILAB_ALLOW_TARGETS=loopback", "MEDILAB_DB_CONNECTIONS=8"}
	p.start()
	in := harness.Receive(t, nil)
	w := p.register(in.URL, `{"events":["patient.created"]}`)
	paths := []string{"/webhooks/system/stats", "/webhooks/events", "/webhooks/alerts", "/audit/events", "/webhooks/" + w.ID + "/stats"}
	var all sync.WaitGroup
	for _, path := range slices.Repeat(paths, 4) {
		all.Go(func() {
			for range 5 {
				if status, answer := p.request("GET", "/api/v1"+path, ""); status != 200 && (status != 429 || path != "/audit/events") {
					t.Errorf("%s: %d %s", path, status, answer)
				}
			}
		})
	}
	all.Go(func() {
		for range 50 {
			p.trigger(`{"event_type":"patient.created","event_data":{"patient_id":1}}`)
		}
	})
	all.Wait()
	p.awaitCalls(w.ID, 50)
	p.stop()
	for _, statement := range []string{`REASSIGN OWNED BY %s TO CURRENT_USER`, `DROP OWNED BY %s`, `DROP ROLE %s`} {
		if _, err := conn.Exec(t.Context(), fmt.Sprintf(statement, role)); err != nil {
			t.Error(err)
		}
	}
}
