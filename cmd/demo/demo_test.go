package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/cmd/testbed"
	"github.com/medilab/webhooks/migrations/testdb"
)

const token = "demo-admin-token-0123456789-0123456789"

// row names a state that a row of the clinic had.
type row struct {
	table        string
	id, revision int
}

// The clinic and the product are killed at random and started again. Then the clinic's tables and the
// log agree to the last row: each change of each row is one event, and there are no others.
func TestTablesAndLogAgree(t *testing.T) {
	program := filepath.Join(t.TempDir(), "demo")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	product, database, data, addr := harness.Program(t), testdb.New(t), harness.ShortDir(t), harness.FreeAddress(t)
	environment := harness.Environment("MEDILAB_TOKEN=" + token)
	said := new(harness.Output)
	start := func(steps int) *testbed.Process {
		t.Helper()
		cmd := exec.Command(program, "-binary", product, "-database", database, "-data", data, "-addr", addr, "-rate", "400", "-steps", fmt.Sprint(steps))
		cmd.Env, cmd.Stdout, cmd.Stderr = environment, said, said
		p, err := testbed.Start(cmd)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Signal(syscall.SIGKILL) }) //nolint:errcheck // it has ended, or is ended here
		return p
	}
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context()) //nolint:errcheck // the database ends with the test
	number := func(query string) (n int) {
		if err := conn.QueryRow(t.Context(), query).Scan(&n); err != nil {
			return -1 // there is no such table yet
		}
		return n
	}
	step := func() int { return number(`SELECT step FROM clinic.progress`) }
	const kills = 3
	for range kills {
		until := max(step(), 0) + 20 + rand.IntN(60)
		p := start(0)
		harness.Until(t, "the clinic has made some steps", func() bool { return step() >= until })
		if err := p.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-p.Done()
		harness.Until(t, "the product has died with it", func() bool { return testbed.Status(t.Context(), "http://"+addr+"/healthz") == 0 })
	}
	last := step() + 50
	p := start(last)
	harness.Until(t, "the clinic is closed, and all it emitted is in the log", func() bool {
		return strings.Contains(said.String(), "The clinic is closed") && number(`SELECT count(*) FROM medilab.outbox`) == 0
	})
	if got := step(); got != last {
		t.Errorf("the clinic ended at step %d, want %d", got, last)
	}

	want := map[row]bool{}
	newest := map[row]string{}
	for table, kind := range kinds {
		rows, err := conn.Query(t.Context(), fmt.Sprintf(`SELECT %s, revision, row_to_json(t)::text FROM clinic.%s AS t`, kind.key, table))
		if err != nil {
			t.Fatal(err)
		}
		var id, revision int
		var text string
		if _, err := pgx.ForEachRow(rows, []any{&id, &revision, &text}, func() error {
			for n := range revision {
				want[row{table, id, n + 1}] = true
			}
			newest[row{table, id, revision}] = text
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	types := map[string]int{}
	for _, e := range events(t, "http://"+addr+"/api/v1") {
		if strings.HasPrefix(e.Type, "webhook.") {
			continue // the product's own
		}
		types[e.Type]++
		at := slices.IndexFunc(changes, func(c change) bool { return c.event == e.Type })
		if at < 0 {
			t.Fatalf("nobody emits %s", e.Type)
		}
		var fields map[string]any
		if err := json.Unmarshal(e.Data, &fields); err != nil {
			t.Fatal(err)
		}
		table := changes[at].table
		id, _ := fields[kinds[table].key].(float64)
		revision, _ := fields["revision"].(float64)
		is := row{table, int(id), int(revision)}
		if !want[is] {
			t.Errorf("the log has %s %s, which the tables do not have, or a second time", e.Type, e.Data)
		}
		delete(want, is)
		if text, ok := newest[is]; ok && text != string(e.Data) {
			t.Errorf("the row is %s, and the log has %s", text, e.Data)
		}
	}
	if len(want) > 0 {
		t.Errorf("the log lacks %v", slices.Collect(maps.Keys(want)))
	}
	if len(types) != 25 {
		t.Errorf("%d types of events: %v", len(types), types)
	}

	verify := exec.CommandContext(t.Context(), product, "audit", "verify")
	verify.Env = append(environment, "DATABASE_URL="+database, "MEDILAB_DATA_DIR="+filepath.Join(data, "webhooks"))
	if out, err := verify.CombinedOutput(); err != nil {
		t.Errorf("audit verify: %v\n%s", err, out)
	}
	if err := p.Signal(os.Interrupt.(syscall.Signal)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.Done():
	case <-time.After(harness.Patience):
		t.Fatalf("Ctrl-C does not end it:\n%s", said)
	}
	if p.ExitCode() != 0 || testbed.Status(t.Context(), "http://"+addr+"/healthz") != 0 {
		t.Errorf("after Ctrl-C it ends with %v:\n%s", p.Err(), said)
	}
}

type event struct {
	Type string          `json:"event_type"`
	Data json.RawMessage `json:"event_data"`
}

// events returns all events of the log.
func events(t *testing.T, api string) (all []event) {
	t.Helper()
	for cursor := ""; ; {
		var page struct {
			Items []event
			Next  *string `json:"next_cursor"`
		}
		if err := testbed.Call(t.Context(), token, "GET", api+"/webhooks/events?limit=1000&cursor="+url.QueryEscape(cursor), nil, &page); err != nil {
			t.Fatal(err)
		}
		all = append(all, page.Items...)
		if page.Next == nil {
			return all
		}
		cursor = *page.Next
	}
}
