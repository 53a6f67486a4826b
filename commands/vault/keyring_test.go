package vault_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/vault"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/envelope"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
)

// process is one of several on a database.
type process struct {
	commands.Commands
	keys *vault.Keyring
}

func newProcess(t *testing.T, url string, keyset *vault.Vault) *process {
	t.Helper()
	guard := eventstore.NewGuard(slog.New(slog.DiscardHandler))
	pool, err := guard.OpenPool(t.Context(), url, 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	paths := func(domain.EventType) domain.SubjectPaths { return domain.ParseSubjectPaths("patient_id, patient.id") }
	p := &process{keys: vault.NewKeyring(vault.KeyringConfig{Pool: pool, Paths: paths, Open: func(context.Context) (*vault.Vault, error) { return keyset, nil }})}
	directory := commands.NewDirectory(slog.New(slog.DiscardHandler))
	directory.Keys = p.keys
	log := eventstore.Open(eventstore.Config{Pool: pool, Guard: guard, Envelope: p.keys, Observers: []eventstore.Observer{directory.Observe},
		Codec: func(name string, data []byte) (any, error) { return domain.Decode(name, data) }})
	t.Cleanup(log.Close)
	if err := directory.Open(t.Context(), log); err != nil {
		t.Fatal(err)
	}
	p.Commands = commands.Commands{Log: log, Directory: directory, Catalog: domain.BuiltinCatalog(), Pool: pool}
	return p
}

func ephemeral(t *testing.T) *vault.Vault {
	t.Helper()
	keyset, err := vault.Open(filepath.Join(t.TempDir(), "keys.json"), false)
	if err != nil {
		t.Fatal(err)
	}
	return keyset
}

func (p *process) trigger(t *testing.T, data string) domain.EventID {
	t.Helper()
	accepted, err := p.TriggerEvent(t.Context(), commands.Caller{Actor: "test"},
		commands.NewEvent{Event: domain.EventTriggered{EventType: "patient.created", EventData: []byte(data)}}, "")
	if err != nil {
		t.Fatal(err)
	}
	return accepted.EventID
}

// event reads an event from the database.
func (p *process) event(t *testing.T, id domain.EventID) domain.EventTriggered {
	t.Helper()
	events, err := p.Log.Load(t.Context(), id.Stream())
	if err != nil {
		t.Fatal(err)
	}
	triggered, ok := events[0].Value.(domain.EventTriggered)
	if !ok {
		t.Fatalf("%s does not decode: %v", id, events[0].Err)
	}
	return triggered
}

// holds reports whether any table holds the text.
func (p *process) holds(t *testing.T, text string) bool {
	t.Helper()
	found := false
	err := p.Pool.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM medilab.events WHERE position($1::bytea IN data) > 0)`, []byte(text)).Scan(&found)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Many processes encrypt for the same subjects at once, and each reads what the others wrote.
func TestKeyringsShareADatabase(t *testing.T) {
	url, keyset := testdb.New(t), ephemeral(t)
	writers := []*process{newProcess(t, url, keyset), newProcess(t, url, keyset)}
	const subjects, rounds = 5, 3
	var mu sync.Mutex
	wrote := map[domain.EventID]string{}
	var all sync.WaitGroup
	for i := range subjects * rounds * len(writers) {
		all.Go(func() {
			data := fmt.Sprintf(`{"patient_id": "p%d", "patient": {"id": %d}, "name": "Testov-%d"}`, i%subjects, i%2, i)
			if i%3 == 0 {
				data = fmt.Sprintf(`{"name": "Testov-%d"}`, i)
			}
			id := writers[i%len(writers)].trigger(t, data)
			mu.Lock()
			defer mu.Unlock()
			wrote[id] = data
		})
	}
	all.Wait()
	reader := newProcess(t, url, keyset)
	for id, data := range wrote {
		if got := reader.event(t, id); !bytes.Equal(got.EventData, []byte(data)) || got.Size() != len(data) {
			t.Errorf("got %s of %d bytes, want %s", got.EventData, got.Size(), data)
		}
	}
	if reader.holds(t, "Testov") {
		t.Error("the log has a name in clear")
	}
}

// A key whose append did not happen is stored by the next one.
func TestKeyOfARefusedAppend(t *testing.T) {
	url, keyset := testdb.New(t), ephemeral(t)
	p := newProcess(t, url, keyset)
	taken := p.trigger(t, `{"patient_id": "a"}`)
	_, err := p.TriggerEvent(t.Context(), commands.Caller{Actor: "test"},
		commands.NewEvent{ID: taken, Event: domain.EventTriggered{EventType: "patient.created", EventData: []byte(`{"patient_id": "b"}`)}}, "")
	if err == nil {
		t.Fatal("another event was accepted under the same id")
	}
	const data = `{"patient_id": "b", "name": "Testov"}`
	id := p.trigger(t, data)
	if got := newProcess(t, url, keyset).event(t, id); string(got.EventData) != data {
		t.Errorf("got %s", got.EventData)
	}
}

// A patient's events have one key, and once it is stored, appends carry it no more.
func TestKnownPatientStoresNoKey(t *testing.T) {
	p := newProcess(t, testdb.New(t), ephemeral(t))
	const data = `{"patient_id": "a"}`
	first := p.event(t, p.trigger(t, data))
	p.trigger(t, `{"patient_id": "b"}`) // a new key is when stored ones are let go of
	second := p.event(t, p.trigger(t, data))
	unit := eventstore.Unit{Generation: p.Log.Generation()}
	keys, err := p.keys.For(t.Context(), &unit, "patient.created", []byte(data))
	if err != nil || len(keys) != 1 || len(unit.Keys) != 0 {
		t.Fatalf("%d keys, %d to store: %v", len(keys), len(unit.Keys), err)
	}
	for _, e := range []domain.EventTriggered{first, second} {
		if e.Keys[0].KeyID != keys[0].KeyID {
			t.Errorf("the patient has the keys %v and %v", e.Keys[0].KeyID, keys[0].KeyID)
		}
	}
}

// A keyring whose database lost keys with the log's tail makes new ones.
func TestLostKeysAreMadeAgain(t *testing.T) {
	url, keyset := testdb.New(t), ephemeral(t)
	p := newProcess(t, url, keyset)
	p.trigger(t, `{"patient_id": "a"}`)
	if _, err := p.Pool.Exec(t.Context(), `DELETE FROM medilab.data_keys WHERE number <> 0`); err != nil {
		t.Fatal(err)
	}
	p.keys.ForgetAll()
	const data = `{"patient_id": "a", "name": "Testov"}`
	id := p.trigger(t, data)
	if got := newProcess(t, url, keyset).event(t, id); string(got.EventData) != data {
		t.Errorf("got %s", got.EventData)
	}
}

// No event is encrypted with a key that the database lost with the log's tail.
func TestLostTailTakesItsKeys(t *testing.T) {
	url, keyset := testdb.New(t), ephemeral(t)
	p := newProcess(t, url, keyset)
	p.trigger(t, `{"patient_id": "z"}`) // the key of the hashes stays
	restore := testdb.Snapshot(t, url)
	p.Pool.Reset()
	p.trigger(t, `{"patient_id": "a"}`)
	p.trigger(t, `{"patient_id": "b"}`) // the key of a is let go of
	restore()
	const data = `{"patient_id": "a", "name": "Testov"}`
	var id domain.EventID
	harness.Until(t, "an event is accepted", func() bool {
		accepted, err := p.TriggerEvent(t.Context(), commands.Caller{Actor: "test"},
			commands.NewEvent{Event: domain.EventTriggered{EventType: "patient.created", EventData: []byte(data)}}, "")
		id = accepted.EventID
		return err == nil
	})
	if got := newProcess(t, url, keyset).event(t, id); string(got.EventData) != data {
		t.Errorf("got %s", got.EventData)
	}
}

// Data keys move to a new key of the keyset; the old one is not needed any more.
func TestDataKeysAreWrappedAgain(t *testing.T) {
	url, path := testdb.New(t), filepath.Join(t.TempDir(), "keys.json")
	keyset, err := vault.Open(path, false)
	if err != nil {
		t.Fatal(err)
	}
	p := newProcess(t, url, keyset)
	const data = `{"patient_id": "a", "name": "Testov"}`
	id := p.trigger(t, data)
	if _, err := keyset.Rotate(); err != nil {
		t.Fatal(err)
	}
	if n, err := keyset.RewrapKeys(t.Context(), p.Pool); err != nil || n != 2 {
		t.Fatalf("%d keys wrapped again, want the subject's and that of the hashes: %v", n, err)
	}
	if n, err := keyset.RewrapKeys(t.Context(), p.Pool); err != nil || n != 0 {
		t.Errorf("then %d: %v", n, err)
	}
	dropOldKey(t, path)
	only, err := vault.Open(path, true)
	if err != nil {
		t.Fatal(err)
	}
	if got := newProcess(t, url, only).event(t, id); string(got.EventData) != data {
		t.Errorf("got %s", got.EventData)
	}
}

// dropOldKey leaves the newest key of a keyset file alone.
func dropOldKey(t *testing.T, path string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var keyset map[string]any
	if err := json.Unmarshal(content, &keyset); err != nil {
		t.Fatal(err)
	}
	keyset["key"] = keyset["key"].([]any)[1:]
	if content, err = json.Marshal(keyset); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// old is what a clock that is ahead takes for too old.
const old = -10 * time.Second

func TestPayloadsExpire(t *testing.T) {
	url, keyset := testdb.New(t), ephemeral(t)
	p, other := newProcess(t, url, keyset), newProcess(t, url, keyset)
	p.keys.Keep, other.keys.Keep = 50*time.Second, 50*time.Second // periods of a second
	id := p.trigger(t, `{"patient_id": "17", "name": "Testov"}`)
	if e := other.event(t, id); e.Erased {
		t.Fatalf("it is gone before its time: %+v", e)
	}
	var kept []byte
	const key = `SELECT json_agg(k) FROM medilab.data_keys AS k WHERE until > 0`
	if err := p.Pool.QueryRow(t.Context(), key).Scan(&kept); err != nil || kept == nil {
		t.Fatalf("the keys are %s: %v", kept, err)
	}
	for range 2 { // the second finds nothing to do
		if err := p.ExpirePayloads(t.Context(), old); err != nil {
			t.Fatal(err)
		}
	}
	var left []byte
	if err := p.Pool.QueryRow(t.Context(), key).Scan(&left); err != nil || left != nil {
		t.Errorf("the database has %s still: %v", left, err)
	}
	// As when they are on record as expired, and not deleted yet.
	if _, err := p.Pool.Exec(t.Context(), `INSERT INTO medilab.data_keys SELECT * FROM json_populate_recordset(NULL::medilab.data_keys, $1)`, kept); err != nil {
		t.Fatal(err)
	}
	for name, process := range map[string]*process{"this": p, "other": other, "new": newProcess(t, url, keyset)} {
		if process != p {
			if err := process.Directory.CatchUp(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if e := process.event(t, id); !e.Erased || !e.Expired || len(e.EventData) > 0 {
			t.Errorf("%s process reads %+v", name, e)
		}
		if e := process.event(t, process.trigger(t, `{"patient_id": "17"}`)); e.Erased {
			t.Errorf("%s process: what came later is gone too", name)
		}
	}
	var recorded int
	err := p.Pool.QueryRow(t.Context(), `SELECT count(*) FROM medilab.events WHERE type = 'payloads.expired'`).Scan(&recorded)
	if err != nil || recorded != 1 {
		t.Errorf("%d on record: %v", recorded, err)
	}
}

func TestRestoredSubjectIsErasedAgain(t *testing.T) {
	p := newProcess(t, testdb.New(t), ephemeral(t))
	p.Subjects = noSubjects{}
	before, other := p.trigger(t, `{"patient_id": "17"}`), p.trigger(t, `{"patient_id": "18"}`)
	owner, err := p.keys.Owner(t.Context(), "17")
	if err != nil {
		t.Fatal(err)
	}
	lost := []commands.Erasure{{Subject: uuid.UUID(owner), ErasedAt: time.Date(2026, 5, 3, 10, 0, 0, 0, time.UTC)}}
	for _, n := range []int{19, 20} { // and the same subject twice
		lost = append(lost, commands.Erasure{Subject: uuid.New(), ErasedAt: lost[0].ErasedAt}, commands.Erasure{Subject: uuid.UUID(owner), ErasedAt: lost[0].ErasedAt.AddDate(0, 0, n)})
	}
	for want := len(lost); want >= 0; want -= len(lost) { // once
		missing, err := p.Lost(t.Context(), append(lost, lost...))
		if err != nil || len(missing) != want {
			t.Fatalf("%d are missing, want %d: %v", len(missing), want, err)
		}
		cancel, err := p.EraseAgain(t.Context(), commands.Caller{Actor: "test"}, missing)
		if err != nil {
			t.Fatalf("erase again: %v", err)
		}
		for range 2 {
			if err := cancel(t.Context()); err != nil {
				t.Errorf("cancel what waits of who is erased again: %v", err)
			}
		}
	}
	if !p.event(t, before).Erased || p.event(t, other).Erased || p.event(t, p.trigger(t, `{"patient_id": "17"}`)).Erased {
		t.Error("what is erased again is not what was erased before")
	}
	later := p.trigger(t, `{"patient_id": "17"}`)
	if _, err := p.EraseAgain(t.Context(), commands.Caller{Actor: "test"}, lost); err != nil || p.event(t, later).Erased { // as another node that noticed the loss too
		t.Errorf("what came after is erased when others erase again: %v", err)
	}
	all, err := p.Erasures(t.Context())
	if err != nil || len(all) != len(lost) || slices.ContainsFunc(lost, func(e commands.Erasure) bool { return !slices.Contains(all, e) }) {
		t.Errorf("the log has the erasures %v, %v", all, err)
	}
}

// A log that loses its tail again while that is made up for is made up for again.
func TestLossDuringTheRenewal(t *testing.T) {
	url := testdb.New(t)
	p := newProcess(t, url, ephemeral(t))
	restore := testdb.Snapshot(t, url)
	lose := func() { // and notice it
		p.trigger(t, `{"patient_id": "18"}`)
		restore()
		harness.Until(t, "the loss is noticed", func() bool { return p.Directory.CatchUp(t.Context()) == nil && !p.Directory.IsRenewed() })
	}
	p.Pool.Reset()
	var runs []int64 // the generations
	renew := func(ctx context.Context) error {
		if runs = append(runs, p.Log.Generation()); len(runs) == 2 {
			if _, err := p.EraseAgain(ctx, commands.Caller{Actor: "test"}, []commands.Erasure{{Subject: uuid.New(), ErasedAt: time.Now()}}); err != nil {
				t.Error(err)
			}
			restore()
			harness.Until(t, "another loss is noticed", func() bool { return p.Directory.CatchUp(t.Context()) == nil && p.Log.Generation() != runs[1] })
		}
		return nil
	}
	if err := p.Directory.RenewBy(t.Context(), renew); err != nil {
		t.Fatal(err)
	}
	lose()
	if err := p.Directory.Renewed(t.Context()); err != nil || len(runs) != 3 || runs[2] != p.Log.Generation() {
		t.Errorf("renewed in the generations %v, want the last of %d: %v", runs, p.Log.Generation(), err)
	}
}

// In a new generation of the log nothing is opened or encrypted before what it lost is made up for.
func TestContentWaitsForTheRenewal(t *testing.T) {
	url := testdb.New(t)
	p := newProcess(t, url, ephemeral(t))
	p.Subjects = noSubjects{}
	old := p.trigger(t, `{"patient_id": "17"}`)
	owner, err := p.keys.Owner(t.Context(), "17")
	if err != nil {
		t.Fatal(err)
	}
	lost := []commands.Erasure{{Subject: uuid.UUID(owner), ErasedAt: time.Date(2026, 5, 3, 10, 0, 0, 0, time.UTC)}}
	restore := testdb.Snapshot(t, url)
	p.Pool.Reset()
	p.trigger(t, `{"patient_id": "18"}`) // what is lost
	renewing, goOn := make(chan struct{}), make(chan struct{})
	failed := errors.New("the file cannot be read")
	answers := []error{nil, failed, nil}
	renew := func(ctx context.Context) error {
		answer := answers[0]
		answers = answers[1:]
		switch {
		case answer != nil:
			return answer
		case len(answers) == 2: // at the start
			return nil
		}
		close(renewing)
		<-goOn
		_, err := p.EraseAgain(ctx, commands.Caller{Actor: "test"}, lost)
		return err
	}
	if err := p.Directory.RenewBy(t.Context(), renew); err != nil || !p.Directory.IsRenewed() {
		t.Fatal(err)
	}
	restore()
	harness.Until(t, "the loss is noticed", func() bool { return p.Directory.CatchUp(t.Context()) == nil && !p.Directory.IsRenewed() })
	if _, err := p.Log.Load(t.Context(), old.Stream()); !errors.Is(err, failed) || !errors.Is(err, domain.KindUnavailable) {
		t.Errorf("while the renewal fails, an event is read with %v", err)
	}
	var all sync.WaitGroup
	ended := make(chan struct{}, 2)
	all.Go(func() {
		if !p.event(t, old).Erased {
			t.Error("what was erased is read")
		}
		ended <- struct{}{}
	})
	var later domain.EventID
	all.Go(func() {
		later = p.trigger(t, `{"patient_id": "17"}`)
		ended <- struct{}{}
	})
	<-renewing
	if len(ended) > 0 {
		t.Error("it did not wait")
	}
	close(goOn)
	all.Wait()
	if p.event(t, later).Erased {
		t.Error("what came later is erased")
	}
}

// noSubjects finds nothing.
type noSubjects struct{}

func (noSubjects) AwaitSubjects(context.Context, eventstore.Position) error { return nil }

func (noSubjects) SubjectEvents(context.Context, envelope.Owner, eventstore.Position, eventstore.Position, int) ([]eventstore.Position, error) {
	return nil, nil
}

func TestMissingKeyIsFound(t *testing.T) {
	url, keyset := testdb.New(t), ephemeral(t)
	p := newProcess(t, url, keyset)
	p.trigger(t, `{"patient_id": "17"}`)
	var found []string
	verify := func() []string {
		found = nil
		report := func(f eventstore.Damage) { found = append(found, f.Text) }
		if err := newProcess(t, url, keyset).Log.Verify(t.Context(), report, func(eventstore.Position, eventstore.Position) {}); err != nil {
			t.Fatal(err)
		}
		return found
	}
	if verify(); len(found) > 0 {
		t.Errorf("of a whole log it reports %q", found)
	}
	if _, err := p.Pool.Exec(t.Context(), `DELETE FROM medilab.data_keys WHERE until > 0`); err != nil {
		t.Fatal(err)
	}
	if verify(); len(found) != 1 || !strings.Contains(found[0], "key of its content is missing") {
		t.Errorf("of a log without a key it reports %q", found)
	}
	// Who must have the content is told; who shows what the log has shows the rest.
	log := newProcess(t, url, keyset).Log
	if events, err := log.Read(t.Context(), 0, 1); err != nil || events[0].Err == nil || events[0].Value != nil {
		t.Errorf("the event is read as %+v, %v", events, err)
	}
	events, err := log.Lenient().Read(t.Context(), 0, 1)
	if event, ok := events[0].Value.(domain.EventTriggered); err != nil || !ok || event.EventType == "" || event.EventData != nil {
		t.Errorf("the event is shown as %+v, %v", events, err)
	}
}

// The keys of many new patients are read by their places, and those that are not there one by one.
func TestKeysOfManyNewPatients(t *testing.T) {
	url, keyset := testdb.New(t), ephemeral(t)
	writer := newProcess(t, url, keyset)
	const patients = 400
	var all sync.WaitGroup
	for i := range patients {
		all.Go(func() { writer.trigger(t, fmt.Sprintf(`{"patient_id": "p%d"}`, i)) })
	}
	all.Wait()
	_, err := writer.Pool.Exec(t.Context(), `
		CREATE TEMP TABLE chosen AS SELECT * FROM medilab.data_keys WHERE number > 0 ORDER BY owner LIMIT 3;
		DELETE FROM medilab.data_keys WHERE owner IN (SELECT owner FROM chosen);
		INSERT INTO medilab.data_keys (owner, number, until, wrapped) SELECT md5(n::text)::uuid, n, 1, '' FROM generate_series(1, 10000) AS n;
		INSERT INTO medilab.data_keys SELECT * FROM chosen OFFSET 1`)
	if err != nil {
		t.Fatal(err)
	}
	opened, missing := 0, 0
	err = newProcess(t, url, keyset).Log.Each(t.Context(), 0, eventstore.Filter{Type: "event.triggered"}, func(e eventstore.Event) error {
		if triggered, ok := e.Value.(domain.EventTriggered); ok && bytes.HasPrefix(triggered.EventData, []byte(`{"patient_id": "p`)) {
			opened++
		} else if e.Err != nil && strings.Contains(e.Err.Error(), "the key of its content is missing") {
			missing++
		}
		return nil
	})
	if err != nil || opened != patients-1 || missing != 1 {
		t.Errorf("opened %d events of %d, of which one lost its key; that is missing: %d; %v", opened, patients, missing, err)
	}
}
