package projections

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/commands/archive"
	"github.com/medilab/webhooks/commands/receipts"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/commands/vault"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// archiveBench has a log with the queue, and what archives it.
type archiveBench struct {
	*history
	archiver *archive.Archiver
	dir      string
	keys     []byte
}

func newArchiveBench(t *testing.T) *archiveBench {
	t.Helper()
	b := newBench(t)
	b.log = eventstore.Open(eventstore.Config{Pool: b.pool, Codec: codec, Inline: []eventstore.Inline{saga.Queue{Pool: b.pool}}})
	t.Cleanup(b.log.Close)
	pace := b.pace
	b.Projections = New(b.pool, b.log, slog.New(slog.DiscardHandler))
	b.pace = pace
	keys, err := vault.Open(filepath.Join(t.TempDir(), "keys.json"), false)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := receipts.Open(b.ctx, b.pool, keys)
	if err != nil {
		t.Fatal(err)
	}
	a := &archive.Archiver{Log: b.log, Pool: b.pool, Signer: signer, ReadModels: b.Projections, Actor: "test", Progress: func(string, eventstore.Position, eventstore.Position) {}}
	return &archiveBench{&history{bench: b, rand: rand.New(rand.NewPCG(1, 2))}, a, t.TempDir(), signer.PublicKeys()}
}

// steps appends random history.
func (b *archiveBench) steps(n int) {
	for range n {
		b.step()
	}
	b.settle()
}

// sync takes in what others appended.
func (b *archiveBench) sync() {
	b.t.Helper()
	head, err := b.log.Head(b.ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	b.head = head
	b.settle()
}

func (b *archiveBench) export() archive.Result {
	b.t.Helper()
	result, err := b.archiver.Export(b.ctx, time.Now().Add(time.Hour), b.dir)
	if err != nil {
		b.t.Fatal(err)
	}
	b.sync()
	return result
}

// entries returns the log and its seals up to the position.
func (b *archiveBench) entries(to eventstore.Position) []string {
	b.t.Helper()
	rows, err := b.pool.Query(b.ctx, `
		SELECT e::text FROM medilab.events AS e WHERE position <= $1 UNION ALL SELECT s::text FROM medilab.seals AS s WHERE last_position <= $1 ORDER BY 1`, to)
	if err != nil {
		b.t.Fatal(err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		b.t.Fatal(err)
	}
	return all
}

// verified fails when a check of everything finds anything that the log did not have
// before it was archived.
func (b *archiveBench) verified(when string) {
	b.t.Helper()
	if err := b.verify(when); err != nil {
		b.t.Fatalf("%s: %v", when, err)
	}
}

// verify is verified of a check that may fail.
func (b *archiveBench) verify(when string) error {
	b.t.Helper()
	var found []string
	err := b.Verify(b.ctx, saga.Queue{Pool: b.pool}, func(p Problem) {
		if p.Kind != ProblemQueue && !strings.Contains(p.Text, "event.unknown") { // random history has its own oddities
			found = append(found, fmt.Sprintf("%s %d %s", p.Kind, p.Position, p.Text))
		}
	}, nil)
	if len(found) > 0 {
		b.t.Fatalf("%s: found\n%s", when, strings.Join(found, "\n"))
	}
	return err
}

// claimed lets what waits for its first attempt be what a node claimed in its appends.
func (b *archiveBench) claimed() {
	b.t.Helper()
	tag, err := b.pool.Exec(b.ctx, `
		WITH gone AS (DELETE FROM medilab.queue WHERE version = 0 AND line IS NULL RETURNING *)
		INSERT INTO medilab.claims (node, first, deliveries, webhooks, events, sizes)
		SELECT 1, (array_agg(delivery_id))[1], array_agg(delivery_id), array_agg(webhook_id), array_agg(event_id), array_agg(size) FROM gone HAVING count(*) > 0`)
	if err != nil || tag.RowsAffected() != 1 {
		b.t.Fatalf("claimed %s: %v", tag, err)
	}
}

func (b *archiveBench) pendingStays() {
	b.t.Helper()
	var lost int
	err := b.pool.QueryRow(b.ctx, `SELECT count(*) FROM medilab.pending AS q WHERE NOT EXISTS (
		SELECT FROM medilab.events AS e WHERE e.stream = 'event-' || q.event_id AND e.version = 1)`).Scan(&lost)
	if err != nil || lost > 0 {
		b.t.Fatalf("%d pending deliveries lost their event: %v", lost, err)
	}
}

// checking holds the locks of a check of the log that goes on, until it is told to end.
func (b *archiveBench) checking() (end func()) {
	b.t.Helper()
	tx, err := b.pool.Begin(b.ctx)
	if err == nil {
		_, err = tx.Exec(b.ctx, `SELECT set_config($1, $2, true), (SELECT count(*) FROM medilab.archiving)`, "idle_in_transaction_session_timeout", "0")
	}
	if err != nil {
		b.t.Fatal(err)
	}
	ctx := b.ctx
	bounded, cancel := context.WithTimeout(ctx, 2*time.Minute)
	b.ctx = bounded
	b.t.Cleanup(func() {
		cancel()
		_ = tx.Rollback(context.WithoutCancel(ctx)) // after a failure, else it has ended
	})
	return func() {
		b.t.Helper()
		b.ctx = ctx
		cancel()
		if err := tx.Rollback(ctx); err != nil {
			b.t.Error(err)
		}
	}
}

// Random history is archived twice while it goes on, and restored: totals stay as they
// were, all read models equal their rebuild, and in the end each entry is what it was.
func TestArchiveAndRestore(t *testing.T) {
	b := newArchiveBench(t)
	b.serve()
	b.steps(120)
	before := b.entries(b.head)
	at, totals := b.head, b.dump()["stats"]
	b.claimed()
	first := b.export()
	if first.Entries != int64(at) || first.First != 1 || first.Last != at || first.Kept >= first.Entries || first.Kept == 0 {
		t.Errorf("archived %+v of %d entries", first, at)
	}
	if got := b.dump()["stats"]; !slices.Equal(got, totals) {
		t.Errorf("statistics changed:\n%s\nwere\n%s", got, totals)
	}
	b.pendingStays()
	b.verified("after the first archive")
	kept := b.entries(at)
	b.deliveries = slices.DeleteFunc(b.deliveries, func(d *randomDelivery) bool { return !b.known(d) })
	b.steps(60)
	b.verified("after more history")
	middle := b.head
	checked := b.checking()
	second := b.export()
	if second.First != first.Last+1 || second.Last != middle {
		t.Errorf("the second archive is of %d to %d", second.First, second.Last)
	}
	b.pendingStays()
	b.verified("after the second archive")
	live := b.dump()
	if err := b.Rebuild(b.ctx, nil, nil); err != nil {
		t.Fatal(err)
	}
	equalDumps(t, b.dump(), live)
	for i := range 2 {
		if _, err := b.archiver.Import(b.ctx, b.dir); err != nil {
			t.Fatal(err)
		}
		b.sync()
		b.verified("after an import")
		if i == 0 && !slices.Equal(b.entries(at), kept) {
			t.Error("importing the second archive did not bring back what the first had kept")
		}
	}
	checked()
	if !slices.Equal(b.entries(at), before) {
		t.Error("the log is not what it was")
	}
	if _, err := b.archiver.Import(b.ctx, b.dir); !errors.Is(err, domain.KindConflict) {
		t.Errorf("with nothing archived an import says %v", err)
	}
}

// known reports whether the log holds the delivery's event.
func (b *archiveBench) known(d *randomDelivery) bool {
	b.t.Helper()
	events, err := b.log.LoadFirst(b.ctx, []string{d.event.Stream()})
	if err != nil {
		b.t.Fatal(err)
	}
	return len(events) > 0
}

// An export and an import are cut off at each of their steps: the log verifies each time, and the read
// models equal their rebuild, unless the lists are those of before. The next one goes on.
func TestArchiveIsCutOff(t *testing.T) {
	b := newArchiveBench(t)
	b.serve()
	b.steps(60)
	before, at := b.entries(b.head), b.head
	usual := b.archiver.Progress
	cutOff := func(step string, work func(context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithCancel(b.ctx)
		defer cancel()
		b.archiver.Progress = func(doing string, done, _ eventstore.Position) {
			if doing == step {
				cancel()
			}
		}
		if err := work(ctx); err == nil {
			t.Fatalf("%s was not cut off", step)
		}
		b.archiver.Progress = usual
		b.sync()
		if _, err := b.pool.Exec(b.ctx, `SELECT pg_advisory_xact_lock($1)`, rebuildLock); err != nil { // which was held when it was cut off
			t.Fatal(err)
		}
		listsBehind := step == "rebuilding lists"
		if err := b.verify("cut off in " + step); errors.Is(err, domain.KindConflict) != listsBehind || err != nil && !listsBehind {
			t.Fatalf("cut off in %s, a check says %v", step, err)
		}
		live := b.dump()
		if err := b.Rebuild(b.ctx, nil, nil); err != nil {
			t.Fatal(err)
		}
		if !listsBehind {
			equalDumps(t, b.dump(), live)
		}
		b.verified("after a rebuild")
	}
	export := func(ctx context.Context) error {
		_, err := b.archiver.Export(ctx, time.Now().Add(time.Hour), b.dir)
		return err
	}
	for _, step := range []string{"archiving", "keeping totals", "reading back"} {
		cutOff(step, export)
		if !slices.Equal(b.entries(at), before) {
			t.Fatalf("cut off in %s: something is gone that is not on record", step)
		}
	}
	for _, step := range []string{"rebuilding lists", "dropping"} {
		cutOff(step, export)
	}
	if err := export(b.ctx); err != nil && !errors.Is(err, domain.KindConflict) { // it ends what was left
		t.Fatal(err)
	}
	b.sync()
	b.verified("after the export was ended")
	for b.archivedTo() > 0 {
		for _, step := range []string{"checking", "restoring", "rebuilding lists"} {
			cutOff(step, func(ctx context.Context) error {
				_, err := b.archiver.Import(ctx, b.dir)
				return err
			})
		}
		if _, err := b.archiver.Import(b.ctx, b.dir); err != nil && !errors.Is(err, domain.KindConflict) {
			t.Fatal(err)
		}
		b.sync()
		b.verified("after the import was ended")
	}
	if !slices.Equal(b.entries(at), before) {
		t.Error("the log is not what it was")
	}
}

// What an import that ended halfway has restored is in no read model, also after a rebuild.
func TestHalfAnImport(t *testing.T) {
	b := newArchiveBench(t)
	b.serve()
	b.steps(120)
	before, at := b.entries(b.head), b.head
	var all []eventstore.Event
	if err := b.log.Scan(b.ctx, 0, at, 1000, func(page []eventstore.Event) error { all = append(all, page...); return nil }); err != nil {
		t.Fatal(err)
	}
	b.export()
	live := b.dump()
	for _, half := range [][]eventstore.Event{all[:len(all)/2], all[:len(all)*3/4], all} {
		if err := b.log.Restore(b.ctx, half, nil); err != nil {
			t.Fatal(err)
		}
		b.verified("after half an import")
		if err := b.Rebuild(b.ctx, nil, nil); err != nil {
			t.Fatal(err)
		}
		equalDumps(t, b.dump(), live)
		b.verified("after a rebuild of half an import")
	}
	if _, err := b.archiver.Import(b.ctx, b.dir); err != nil {
		t.Fatal(err)
	}
	b.sync()
	b.verified("after the import")
	if !slices.Equal(b.entries(at), before) {
		t.Error("the log is not what it was")
	}
}

func (b *archiveBench) archivedTo() eventstore.Position {
	b.t.Helper()
	to, err := b.log.ArchivedTo(b.ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	return to
}

// delivered appends an event and its delivery.
func (b *archiveBench) delivered(w domain.WebhookID) (domain.EventID, domain.DeliveryID) {
	event := b.trigger("patient.created", "", w)
	id := domain.DeliveryOf(event, w)
	b.append(id.Stream(), domain.DeliverySucceeded{Call: attempt(event, "patient.created", w, 1, 200, domain.OutcomeSuccess)})
	return event, id
}

// A delivery whose call ended after it was cancelled goes like others.
func TestLateOutcomesAreArchived(t *testing.T) {
	b := newArchiveBench(t)
	b.serve()
	w := b.register(1)
	event := b.trigger("patient.created", "", w)
	b.append(domain.DeliveryOf(event, w).Stream(), domain.DeliveryCancelled{EventID: event, WebhookID: w, Reason: domain.CancelRequested},
		domain.DeliveryOutcomeLate{Call: attempt(event, "patient.created", w, 1, 200, domain.OutcomeSuccess), Counts: true})
	b.settle()
	b.export()
	if left, err := b.log.Load(b.ctx, event.Stream()); err != nil || len(left) > 0 {
		t.Errorf("%d entries of the event are left: %v", len(left), err)
	}
}

// A delivery that is retried while its archive is being made stays; once that is on record, no
// delivery goes on, dropped or not.
func TestRetriesMeetAnArchive(t *testing.T) {
	b := newArchiveBench(t)
	b.serve()
	w := b.register(1)
	retried, delivery := b.delivered(w)
	other, gone := b.delivered(w)
	b.settle()
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	add := func(id domain.DeliveryID, change domain.Change) error {
		_, err := b.log.Append(b.ctx, eventstore.Unit{Writes: []eventstore.Write{{Stream: id.Stream(), Expected: 1, Events: []eventstore.NewEvent{
			{Type: change.ChangeType(), Data: domain.AppendJSON(nil, change), Value: change},
		}}}})
		return err
	}
	retry := func(event domain.EventID, id domain.DeliveryID) error {
		return add(id, domain.DeliveryRetryRequested{EventID: event, WebhookID: w, Size: 7})
	}
	asked := false
	usual := b.archiver.Progress
	b.archiver.Progress = func(doing string, _, _ eventstore.Position) {
		switch {
		case doing == "reading back" && !asked:
			asked = true
			before, err := b.log.Head(b.ctx)
			if err := errors.Join(err, retry(retried, delivery)); err != nil {
				t.Error(err)
			}
			for after, needed := range map[eventstore.Position]bool{before: true, before + 1: false} {
				if _, err := b.pool.Exec(b.ctx, `SELECT medilab.check_archiving($1)`, after); eventstore.IsNeededAgain(err) != needed {
					t.Errorf("of what came after %d, the append of an archive says %v", after, err)
				}
			}
		case doing == "dropping":
			cancel()
		}
	}
	if _, err := b.archiver.Export(ctx, time.Now().Add(time.Hour), b.dir); err == nil || !asked {
		t.Fatalf("the export was not cut off: %v", err)
	}
	b.archiver.Progress = usual
	if err := retry(other, gone); !errors.Is(err, eventstore.ErrArchived) {
		t.Errorf("a retry of what is archived and not dropped yet says %v", err)
	}
	b.sync()
	if _, err := b.archiver.Export(b.ctx, time.Now().Add(time.Hour), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if err := retry(other, gone); !errors.Is(err, eventstore.ErrArchived) {
		t.Errorf("a retry of what is dropped says %v", err)
	}
	for _, change := range []domain.Change{
		domain.DeliveryCancelled{EventID: other, WebhookID: w, Reason: domain.CancelSubjectErased},
		domain.DeliveryRetryCancelled{EventID: other, WebhookID: w},
	} {
		if err := add(gone, change); !errors.Is(err, eventstore.ErrArchived) {
			t.Errorf("%s of what is dropped says %v", change.ChangeType(), err)
		}
	}
	if _, err := b.Event(b.ctx, retried); err != nil {
		t.Errorf("of a delivery that goes on the event is %v", err)
	}
	if _, err := b.Event(b.ctx, other); !errors.Is(err, domain.KindNotFound) || !strings.Contains(err.Error(), "archive") {
		t.Errorf("of an archived event: %v", err)
	}
	b.sync()
	b.pendingStays()
	b.verified("after both")
}

// What archived entries took is used for new ones.
func TestArchiveFreesSpace(t *testing.T) {
	b := newArchiveBench(t)
	stop := b.serve()
	w := b.register(1)
	fill := func() {
		for range 300 {
			b.delivered(w)
		}
	}
	size := func() (bytes int64) {
		if err := b.pool.QueryRow(b.ctx, `SELECT pg_relation_size('medilab.events')`).Scan(&bytes); err != nil {
			t.Fatal(err)
		}
		return bytes
	}
	fill()
	b.settle()
	stop() // its transactions keep what was deleted
	full := size()
	if _, err := b.archiver.Export(b.ctx, time.Now().Add(time.Hour), b.dir); err != nil {
		t.Fatal(err)
	}
	if fill(); size() > full {
		t.Errorf("the table grew from %d to %d bytes", full, size())
	}
}

// Files that were changed are told and refused, and so is a log that lost what it kept.
func TestArchiveIsChecked(t *testing.T) {
	b := newArchiveBench(t)
	b.serve()
	b.steps(60)
	b.export()
	problems := func() (found string) {
		list, err := archive.List(b.ctx, b.dir, b.keys, func(_, _ eventstore.Position) {})
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		return list[0].Problem
	}
	if found := problems(); found != "" {
		t.Fatalf("of an archive that nobody touched: %s", found)
	}
	for _, pattern := range []string{"*.zst", "*.jws"} {
		names, err := filepath.Glob(filepath.Join(b.dir, pattern))
		if err != nil || len(names) == 0 {
			t.Fatal(names, err)
		}
		was, err := os.ReadFile(names[0])
		if err != nil {
			t.Fatal(err)
		}
		changed := bytes.Clone(was)
		changed[len(changed)/2] ^= 1
		if err := os.WriteFile(names[0], changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if problems() == "" {
			t.Errorf("a changed %s passes", pattern)
		}
		if _, err := b.archiver.Import(b.ctx, b.dir); err == nil {
			t.Errorf("a changed %s is imported", pattern)
		}
		if err := os.WriteFile(names[0], was, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.pool.Exec(b.ctx, `DELETE FROM medilab.events WHERE position = 1`); err == nil {
		t.Error("an entry was deleted by hand")
	}
	if _, err := b.pool.Exec(b.ctx, `INSERT INTO medilab.archiving (stream, event, cut) SELECT stream, right(stream, 36)::uuid, 1 FROM medilab.events WHERE position = 1;`); err != nil {
		t.Fatal(err)
	}
	if _, err := b.log.DropArchived(b.ctx, "", 10); err != nil {
		t.Fatal(err)
	}
	if b.entries(1) == nil {
		t.Error("the configuration was dropped")
	}
	tx, err := b.pool.Begin(b.ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(b.ctx) //nolint:errcheck // after a commit there is nothing to undo
	if _, err := tx.Exec(b.ctx, `SELECT set_config('medilab.archiving', pg_current_xact_id()::text, true)`); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(b.ctx, `DELETE FROM medilab.events WHERE position = 1`); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(b.ctx); err != nil {
		t.Fatal(err)
	}
	var found []string
	if err := b.log.Verify(b.ctx, func(d eventstore.Damage) { found = append(found, d.Text) }, func(_, _ eventstore.Position) {}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(found, "; "), "what is kept of the archived positions") {
		t.Errorf("a kept entry is gone, and found is %q", found)
	}
}
