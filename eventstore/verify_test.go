package eventstore

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/migrations/testdb"
)

// openNew opens the log of a database of its own.
func openNew(t *testing.T) (*pgxpool.Pool, *Log) {
	t.Helper()
	pool, err := OpenPool(t.Context(), testdb.New(t), 5)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	log := Open(Config{Pool: pool})
	t.Cleanup(log.Close)
	return pool, log
}

// Whoever owns the database can change an event and seal its batch again, as the
// formula is no secret. The next seal holds the one before: it tells, up to the end of
// the log. Whoever seals all of them again, and the head, is told by an anchor alone.
func TestSealedAgain(t *testing.T) {
	pool, log := openNew(t)
	for _, stream := range []string{"a", "b", "c"} {
		write := Write{Stream: stream, Events: []NewEvent{{Type: "test.happened", Data: []byte(`{"n":1}`)}}}
		if _, err := log.Append(t.Context(), Unit{Writes: []Write{write}}); err != nil {
			t.Fatal(err)
		}
	}
	anchor, err := log.Anchor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	verify := func() string {
		t.Helper()
		var found []string
		err := log.Verify(t.Context(), func(d Damage) { found = append(found, d.Text) }, func(Position, Position) {})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(found, "; ")
	}
	if found := verify(); found != "" {
		t.Fatalf("of a log that nobody touched: %s", found)
	}

	tamper := func(sql string, args ...any) {
		t.Helper()
		err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			guard := func(state string) error {
				_, err := tx.Conn().PgConn().Exec(t.Context(), `ALTER TABLE medilab.events `+state+` TRIGGER events_append_only;
					ALTER TABLE medilab.seals `+state+` TRIGGER seals_append_only`).ReadAll()
				return err
			}
			if err := guard("DISABLE"); err != nil {
				return err
			}
			if _, err := tx.Exec(t.Context(), sql, args...); err != nil {
				return err
			}
			return guard("ENABLE ALWAYS")
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	// again seals the batch at the position as an append would.
	again := func(at Position) {
		t.Helper()
		events, err := collect(pool.Query(t.Context(), `SELECT `+eventColumns+` FROM medilab.events WHERE position = $1`, at))
		if err != nil || len(events) != 1 {
			t.Fatal(events, err)
		}
		v := verifier{digest: newDigest()}
		v.digest.add(&events[0])
		err = pool.QueryRow(t.Context(), `SELECT coalesce((SELECT seal FROM medilab.seals WHERE last_position = $1 - 1), '')`, at).Scan(&v.before)
		if err != nil {
			t.Fatal(err)
		}
		tamper(`UPDATE medilab.seals SET seal = $2 WHERE last_position = $1`, at, sealOf(v.before, SealRow{First: at, RecordedAt: events[0].RecordedAt}, v.digest))
	}
	again(2)
	if found := verify(); found != "" {
		t.Fatalf("sealing again what is as it was changes something: %s", found)
	}

	tamper(`UPDATE medilab.events SET data = '{"n":2}' WHERE position = 2`)
	if found := verify(); !strings.Contains(found, "positions 2 to 2 are not what was sealed") {
		t.Errorf("an event was changed; found %q", found)
	}
	again(2)
	if found := verify(); !strings.Contains(found, "positions 3 to 3 are not what was sealed") || strings.Contains(found, "2 to 2") {
		t.Errorf("a batch was sealed again; found %q", found)
	}
	again(3)
	if found := verify(); !strings.Contains(found, "is not the one that the log's head holds") {
		t.Errorf("all was sealed again but the head; found %q", found)
	}
	tamper(`UPDATE medilab.log_head SET last_seal = (SELECT seal FROM medilab.seals WHERE last_position = 3)`)
	if found := verify(); found != "" {
		t.Errorf("found %q, which nothing in the database can tell", found)
	}
	if found, err := log.CheckAnchor(t.Context(), anchor); err != nil || !strings.Contains(found, "rewritten") {
		t.Errorf("the anchor tells %q, %v", found, err)
	}
}
