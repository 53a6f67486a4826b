package emitwatermill_test

import (
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/commands/emit/emitwatermill"
	"github.com/medilab/webhooks/migrations/testdb"
)

// awkward is a JSON object that any rewriting would change.
const awkward = `{ "z":1.00,"a":"\u0000<>&ü\"\\",  "n":1e+5, "long":12345678901234567890.10, "s":"é" }`

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestPublisher(t *testing.T) {
	pool, err := pgxpool.New(t.Context(), testdb.New(t))
	check(t, err)
	t.Cleanup(pool.Close)
	_, err = pool.Exec(t.Context(), `INSERT INTO medilab.event_types VALUES ('patient.created', '', '')`)
	check(t, err)
	tx, err := pool.Begin(t.Context())
	check(t, err)
	publisher, err := emitwatermill.NewPublisher(tx)
	check(t, err)
	m := message.NewMessageWithContext(t.Context(), "no-uuid", []byte(awkward))
	m.Metadata = message.Metadata{"correlation_id": "c-1", "source": "crm", "event_id": "0198F0A0-0000-7000-8000-000000000003"}
	check(t, publisher.Publish("patient.created", m, m.Copy()))
	check(t, publisher.Publish("patient.created"))
	check(t, publisher.Close())
	check(t, tx.Commit(t.Context()))

	type row struct{ ID, Data, CorrelationID, Source string }
	rows, err := pool.Query(t.Context(), `SELECT event_id::text, event_data::text, correlation_id, source FROM medilab.outbox ORDER BY seq`)
	check(t, err)
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[row])
	check(t, err)
	if len(found) != 2 {
		t.Errorf("published twice, and %d rows are in the outbox", len(found))
	}
	for _, r := range found {
		if (r != row{"0198f0a0-0000-7000-8000-000000000003", awkward, "c-1", "crm"}) {
			t.Errorf("the row is %+v", r)
		}
	}

	publisher, err = emitwatermill.NewPublisher(pool)
	check(t, err)
	m.Metadata["event_id"] = "seven"
	if err := publisher.Publish("patient.created", m); err == nil {
		t.Error("a bad event_id was published")
	}
	if _, err := emitwatermill.NewPublisher(nil); err == nil {
		t.Error("a publisher without a transaction was made")
	}
}
