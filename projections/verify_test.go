package projections

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// verify returns what a check finds, a line each.
func (b *bench) verify() string {
	b.t.Helper()
	var found []string
	last := eventstore.Position(-1)
	err := b.Verify(b.ctx, saga.Queue{}, func(p Problem) { found = append(found, fmt.Sprintf("%s %d %s", p.Kind, p.Position, p.Text)) },
		func(done, total eventstore.Position) {
			if done < last || done > total {
				b.t.Errorf("progress goes from %d to %d of %d", last, done, total)
			}
			last = done
		})
	if err != nil {
		b.t.Fatal(err)
	}
	b.noCopiesLeft()
	return strings.Join(found, "\n")
}

func (b *bench) tamper(sql string, args ...any) {
	b.t.Helper()
	tx, err := b.pool.Begin(b.ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	defer tx.Rollback(context.WithoutCancel(b.ctx)) //nolint:errcheck // after a commit there is nothing to undo
	guard := func(state string) {
		for _, table := range []string{"events", "seals"} {
			if _, err := tx.Exec(b.ctx, `ALTER TABLE medilab.`+table+` `+state+` TRIGGER `+table+`_append_only`); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	guard("DISABLE")
	tag, err := tx.Exec(b.ctx, sql, args...)
	if err != nil || tag.RowsAffected() == 0 {
		b.t.Fatalf("%s: %d rows, %v", sql, tag.RowsAffected(), err)
	}
	guard("ENABLE ALWAYS")
	if err := tx.Commit(b.ctx); err != nil {
		b.t.Fatal(err)
	}
}

func TestVerifyFindsEveryDamage(t *testing.T) {
	for _, test := range []struct {
		name string
		sql  string
		want []string // each is found
		not  string   // is not
	}{
		{"none", "", nil, " "},
		{"data changed", `UPDATE medilab.events SET data = replace(convert_from(data, 'UTF8'), 'test', 'tost')::bytea WHERE position = 3`,
			[]string{"seal 3 positions 3 to 4"}, "gap"},
		{"metadata changed", `UPDATE medilab.events SET metadata = '{"actor":"nobody"}' WHERE position = 2`, []string{"seal 2 positions 2 to 2"}, "read_model"},
		{"time changed", `UPDATE medilab.events SET recorded_at = recorded_at - interval '1 day' WHERE position = 2`, []string{"seal 2 "}, "gap"},
		{"stream renamed", `UPDATE medilab.events SET stream = 'webhook-00000000-0000-0000-0000-000000000001' WHERE position = 1`, []string{"seal 1 "}, "gap"},
		{"removed", `DELETE FROM medilab.events WHERE position = 3`, []string{"gap 3 positions 3 to 3 are missing", "version 0 version 2 of event-", "read_model 3"}, "seal"},
		{"last removed", `DELETE FROM medilab.events WHERE position = (SELECT max(position) FROM medilab.events)`, []string{"gap"}, "seal"},
		{"inserted behind the head", `INSERT INTO medilab.events SELECT position + 1, stream, version + 1, type, data, metadata, recorded_at FROM medilab.events ORDER BY position DESC LIMIT 1`,
			[]string{"seal", "behind the log's head"}, "gap"},
		{"reordered", `UPDATE medilab.events AS e SET (stream, version, type, data) = (SELECT stream, version + 1000, type, data FROM medilab.events AS o WHERE o.position = 3 - e.position) WHERE position IN (1, 2)`,
			[]string{"seal 1 ", "seal 2 ", "version 0 version 1001"}, "gap"},
		{"does not decode", `UPDATE medilab.events SET data = '{' WHERE position = 1`, []string{"seal 1", "undecoded 1"}, "gap"},
		{"resealed", `UPDATE medilab.seals SET seal = sha256(seal) WHERE last_position = (SELECT max(last_position) FROM medilab.seals)`,
			[]string{"is not the one that the log's head holds"}, "gap"},
		{"seal removed", `DELETE FROM medilab.seals WHERE last_position = 2`, []string{"seal 2 the seal up to 4 starts at 3: it should at 2"}, "gap"},
		{"last seal removed", `DELETE FROM medilab.seals WHERE last_position = (SELECT max(last_position) FROM medilab.seals)`,
			[]string{"are not sealed"}, "gap"},
		{"end cut off with its seals", `DELETE FROM medilab.seals WHERE last_position > 4; DELETE FROM medilab.events WHERE position > 4`,
			[]string{"seal 5 positions 5 to ", "are not sealed", "gap 5 positions 5 to "}, ""},
		{"inserted among others, which make room", `
			UPDATE medilab.events SET position = position + 1000000 WHERE position > 2;
			UPDATE medilab.events SET position = position - 999999 WHERE position > 1000000;
			INSERT INTO medilab.events SELECT 3, 'event-00000000-0000-0000-0000-000000000001', 1, type, data, metadata, recorded_at FROM medilab.events WHERE position = 4`,
			[]string{"seal 3 positions 3 to 4 are not what was sealed", "behind the log's head"}, "gap"},
		{"read model changed", `UPDATE medilab.stats SET calls = calls + 1`, []string{"read_model 0 medilab.stats holds"}, "seal"},
		{"read model lacks a row", `DELETE FROM medilab.calls WHERE block = (SELECT max(block) FROM medilab.calls)`, []string{"read_model 0 medilab.calls holds"}, "seal"},
		{"queue lacks a row", `DELETE FROM medilab.queue WHERE delivery_id = (SELECT min(delivery_id::text)::uuid FROM medilab.queue)`, []string{", pending by the log: "}, "read_model"},
		{"a waiting delivery is lost", `DELETE FROM medilab.batch_members`, []string{", pending by the log: "}, "read_model"},
		{"waits after its end", `INSERT INTO medilab.batch_members SELECT delivery_id, webhook_id, 1, event_id, 1, 1, due_at FROM medilab.queue WHERE version > 0`,
			[]string{"waits for a batch, and by the log it does no more"}, "read_model"},
		{"queue is behind", `UPDATE medilab.queue SET version = version + 1 WHERE delivery_id = (SELECT min(delivery_id::text)::uuid FROM medilab.queue)`, []string{"queue 0 the queue has version"}, "read_model"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			b.log.Close() // and one that keeps the queue, as the system does
			b.log = eventstore.Open(eventstore.Config{Pool: b.pool, Codec: codec, Inline: []eventstore.Inline{saga.Queue{}}})
			b.Projections.log = b.log
			t.Cleanup(b.log.Close)
			h := newHistory(b, 7)
			b.register(1)
			w := webhookID(1)
			h.webhooks = append(h.webhooks, w)
			b.register(2)
			event := b.trigger("patient.created", "", w)
			h.deliveries = append(h.deliveries, &randomDelivery{id: domain.DeliveryOf(event, w), event: event, webhook: w})
			for range 60 {
				h.step()
			}
			b.fill()
			if test.sql != "" {
				b.tamper(test.sql)
			}
			found := b.verify()
			for _, want := range test.want {
				if !strings.Contains(found, want) {
					t.Errorf("not found: %s", want)
				}
			}
			// The history holds events of an unknown type: they are found in any case.
			lines := strings.Split(found, "\n")
			kept := lines[:0]
			for _, line := range lines {
				if !strings.Contains(line, "event.unknown") {
					kept = append(kept, line)
				}
			}
			found = strings.Join(kept, "\n")
			if test.not != "" && strings.Contains(found, test.not) || t.Failed() {
				t.Errorf("found:\n%s", found)
			}
		})
	}
}

func TestVerifyWhileServing(t *testing.T) {
	b := newBench(t)
	b.serve()
	h := newHistory(b, rand.Uint64())
	for range 50 {
		h.step()
	}
	done := make(chan error, 1)
	var found []Problem
	go func() {
		done <- b.Verify(b.ctx, saga.Queue{}, func(p Problem) {
			if p.Kind != ProblemQueue && p.Kind != ProblemKind(eventstore.FlawUndecoded) { // this log keeps no queue
				found = append(found, p)
			}
		}, nil)
	}()
	for {
		select {
		case err := <-done:
			if err != nil || len(found) > 0 {
				t.Errorf("found %v, %v", found, err)
			}
			return
		default:
			h.step()
		}
	}
}

// The log is checked and the read models are compared side by side, as each waits for the other here.
func TestVerifyIsSideBySide(t *testing.T) {
	b := newBench(t)
	b.serve()
	b.trigger("patient.created", "", b.register(1))
	b.settle()
	compared, checked := make(chan struct{}), false
	err := b.VerifyBeside(b.ctx, func(ctx context.Context, progress Progress) error {
		progress(0, b.head)
		select {
		case <-compared:
			checked = true
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}, saga.Queue{}, func(Problem) {}, func(done, total eventstore.Position) {
		if done == b.head && total == 2*b.head {
			close(compared)
		}
	})
	if err != nil || !checked {
		t.Error(err)
	}
}
