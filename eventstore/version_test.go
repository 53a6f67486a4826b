package eventstore_test

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
)

// A running node whose database moved on to a schema that it does not know appends nothing
// and loses its lease.
func TestNewerSchema(t *testing.T) {
	t.Parallel()
	pool, err := eventstore.OpenPool(t.Context(), testdb.New(t), 5)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	log := eventstore.Open(eventstore.Config{Pool: pool})
	t.Cleanup(log.Close)
	node, err := eventstore.Join(t.Context(), pool, log.Clock(), "node", slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	unit := func(stream string) eventstore.Unit {
		return eventstore.Unit{Writes: []eventstore.Write{{Stream: stream, Events: []eventstore.NewEvent{{Type: "a", Data: []byte(`{}`)}}}}}
	}
	if _, err := log.Append(t.Context(), unit("a-1")); err != nil {
		t.Fatal(err)
	}
	// One that it survives changes nothing.
	_, err = pool.Exec(t.Context(), fmt.Sprintf(`DO $$ BEGIN
		SET LOCAL medilab.oldest_schema = %d;
		INSERT INTO medilab.schema_version (version_id, is_applied) VALUES (9998, true);
	END $$`, eventstore.SchemaVersion))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := log.Append(t.Context(), unit("a-2")); err != nil {
		t.Errorf("append under a schema that programs of this one survive: %v", err)
	}
	if _, err := pool.Exec(t.Context(), `INSERT INTO medilab.schema_version (version_id, is_applied) VALUES (9999, true)`); err != nil {
		t.Fatal(err)
	}
	if _, err := log.Append(t.Context(), unit("a-3")); !eventstore.IsOutage(err) {
		t.Errorf("append: %v", err)
	}
	if head, err := log.Head(t.Context()); err != nil || head != 2 {
		t.Errorf("the log ends at %d, %v", head, err)
	}
	if err := node.Run(t.Context()); !errors.Is(err, eventstore.ErrLeaseLost) {
		t.Errorf("the lease: %v", err)
	}
	if _, err := eventstore.Join(t.Context(), pool, log.Clock(), "again", slog.New(slog.DiscardHandler), nil); err == nil {
		t.Error("it joins again")
	}
}

// A program from before it said which schema it knows is refused too; people are not.
func TestOlderProgram(t *testing.T) {
	url := testdb.New(t)
	for name, refused := range map[string]bool{"medilab-webhooks": true, "psql": false} {
		conn, err := pgx.Connect(t.Context(), url+"&application_name="+name)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(t.Context()) //nolint:errcheck // nothing is lost with it
		for _, statement := range []string{
			`UPDATE medilab.log_head SET position = position`,
			`INSERT INTO medilab.nodes (name, lease_until) VALUES ('old', clock_timestamp() + interval '10 s')`,
		} {
			if _, err := conn.Exec(t.Context(), statement); (err != nil) != refused {
				t.Errorf("%s: %s: %v", name, statement, err)
			}
		}
	}
}
