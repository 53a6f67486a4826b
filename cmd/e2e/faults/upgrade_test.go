package faults

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/eventstore"
)

// nextSchema is that of the version after this one, as buildNext builds it.
const nextSchema = 9999

// nextMigration is one that programs of this schema survive.
var nextMigration = fmt.Sprintf(`-- +goose Up
SET LOCAL medilab.oldest_schema = %d;
SET LOCAL lock_timeout = '500ms';
ALTER TABLE medilab.queue ADD COLUMN next text NOT NULL DEFAULT '';
ALTER TABLE medilab.webhooks ADD COLUMN next integer;
`, eventstore.SchemaVersion)

// buildNext builds a version that has one migration more and fills a read model otherwise.
func buildNext(t *testing.T) (program string) {
	dir, err := harness.BuildDir()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Dir(filepath.Dir(dir))
	replaced := map[string]string{}
	replace := func(file, text string) {
		to := filepath.Join(dir, filepath.Base(file)+".next")
		if err := os.WriteFile(to, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		replaced[filepath.Join(root, file)] = to
	}
	edit := func(file string, edits ...string) {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		for ; len(edits) > 0; edits = edits[2:] {
			if bytes.Count(text, []byte(edits[0])) != 1 {
				t.Fatalf("%s does not hold once: %s", file, edits[0])
			}
			text = bytes.Replace(text, []byte(edits[0]), []byte(edits[1]), 1)
		}
		replace(file, string(text))
	}
	replace(fmt.Sprintf("migrations/sql/%d_next.sql", nextSchema), nextMigration)
	edit("eventstore/session.go", fmt.Sprintf("const SchemaVersion = %d\n", eventstore.SchemaVersion), fmt.Sprintf("const SchemaVersion = %d\n", nextSchema))
	edit("projections/webhooks.go",
		`Name: "webhooks", SchemaVersion: 2,`, fmt.Sprintf(`Name: "webhooks", SchemaVersion: %d,`, nextSchema),
		`INSERT INTO {webhooks} (id, number, status, name)`, `INSERT INTO {webhooks} (id, number, status, name, next)`,
		`SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[])`, `SELECT *, 1 FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[])`,
		`name = EXCLUDED.name`, `name = EXCLUDED.name, next = 1`)
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "next.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	if program, err = harness.Build("next", "-overlay", file); err != nil {
		t.Fatal(err)
	}
	return program
}

// Three nodes under load are replaced, one after another, by those of the next version, and
// then by those of this one. Nothing is lost or doubled, and a caller that retries once
// elsewhere is accepted. The next version keeps the read models while one of its nodes lives.
func TestRollingUpgrade(t *testing.T) {
	inCampaign(t)
	t.Parallel()
	next := buildNext(t)
	h := newHome(t, sharedCluster(t).database(t))
	l := newLedger(t, h)
	nodes := []*node{h.node("a").start(), h.node("b").start(), h.node("c").start()}
	l.usual(nodes[0])
	stop := l.load(60, nodes...)
	// A long read: the migration does not make everybody wait behind it.
	reads, err := l.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := reads.Exec(t.Context(), `SELECT FROM medilab.queue LIMIT 1`); err != nil {
		t.Fatal(err)
	}
	replace := func(n *node, program string, schema int) {
		t.Helper()
		if code := n.Term(); code != 0 {
			t.Errorf("%s ended with %d", n.Label, code)
		}
		n.Program = program
		n.Launch()
		if reads != nil {
			until(t, "the migration waits for the read", func() bool { return strings.Contains(n.Said.String(), "does not get a lock") })
			before := l.acceptedCount()
			until(t, "events are accepted meanwhile", func() bool { return l.acceptedCount() > before+100 })
			if err := reads.Rollback(t.Context()); err != nil {
				t.Error(err)
			}
			reads = nil
		}
		until(t, n.Label+" is ready", func() bool { return n.Status("/readyz") == http.StatusOK })
		until(t, fmt.Sprintf("a node of schema %d keeps the read models", schema), func() (keeps bool) {
			err := l.db.QueryRow(t.Context(), `SELECT n.schema_version = $1 FROM medilab.readers AS r JOIN medilab.nodes AS n ON n.id = r.node
				WHERE r.name = 'projections' AND lease_until > clock_timestamp()`, schema).Scan(&keeps)
			return err == nil && keeps
		})
		// Each node changes webhooks that nodes of the other version made.
		l.subscribe(n, fmt.Sprintf("%s of %d", n.Label, schema), nil, nil, everything)
		n.api(http.StatusOK, "PATCH", "/webhooks/"+l.hooks[0].ID, map[string]any{"description": fmt.Sprintf("%s of %d", n.Label, schema)}, nil)
		for _, other := range nodes {
			if other.Status("/readyz") != http.StatusOK {
				t.Errorf("%s is not ready", other.Label)
			}
		}
	}
	filled := func(shape, others int) {
		t.Helper()
		until(t, fmt.Sprintf("all webhooks are as schema %d lists them", shape), func() bool {
			var made, wrong int
			err := l.db.QueryRow(t.Context(), `SELECT (SELECT shape FROM medilab.read_models WHERE name = 'webhooks'),
				count(*) FILTER (WHERE coalesce(next, 0) <> $1) FROM medilab.webhooks`, others).Scan(&made, &wrong)
			return err == nil && made == shape && wrong == 0
		})
	}
	for _, n := range nodes {
		replace(n, next, nextSchema)
	}
	filled(nextSchema, 1)
	for i, n := range nodes {
		if i < len(nodes)-1 {
			replace(n, binary, nextSchema)
		} else {
			replace(n, binary, eventstore.SchemaVersion)
		}
	}
	filled(2, 0)
	stop()
	l.balance(nodes[0])
	l.verified()
	for id, times := range l.again {
		if times > 1 {
			t.Errorf("the caller of %s was told to come again %d times", id, times)
		}
	}
}
