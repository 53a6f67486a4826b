package projections

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/envelope"
	"github.com/medilab/webhooks/eventstore"
)

// TestSubjectsDoNotDependOnPages: whatever pages a log is read in, and whether its entries named
// their subjects when they were appended or only since they were encrypted, each subject's
// positions are found, in both directions, and the rows are the same.
func TestSubjectsDoNotDependOnPages(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	owners := make([]envelope.Owner, 30)
	for i := range owners {
		owners[i] = envelope.Owner(uuid.New())
		owners[i][0] &= 7 // many share a row
	}
	of := map[envelope.Owner][]Position{}
	telling := func(some []envelope.Owner) domain.EventTriggered {
		var keys envelope.Keys
		for _, owner := range some {
			keys = append(keys, &envelope.Key{KeyID: envelope.KeyID{Owner: owner}})
		}
		return domain.EventTriggered{Content: domain.Content{Keys: keys}}
	}
	const last = 3 << subjectBits
	var log, encrypted []eventstore.Event // as it was appended, and as a rebuild finds it
	later := map[envelope.Owner][]int64{}
	for at := Position(1); at <= last; at++ {
		var some []envelope.Owner
		for range r.IntN(3) {
			if owner := owners[r.IntN(len(owners))]; !slices.Contains(some, owner) {
				some, of[owner] = append(some, owner), append(of[owner], at)
			}
		}
		e := eventstore.Event{Position: at, Value: telling(some)}
		encrypted = append(encrypted, e)
		if at < last/2 && r.IntN(2) == 0 { // it was in clear
			e.Value = telling(nil)
			for _, owner := range some {
				later[owner] = append(later[owner], int64(at))
			}
		}
		if at == last/2 || at == last/2+1000 { // what the first could not do, the second does too
			record := domain.PayloadsEncrypted{}
			for owner, positions := range later {
				record.Subjects = append(record.Subjects, domain.SubjectEntries{Owner: uuid.UUID(owner), Positions: positions})
			}
			e.Value = record
			encrypted[at-1].Value = record
			for _, owner := range some {
				of[owner] = of[owner][:len(of[owner])-1]
			}
		}
		log = append(log, e)
	}

	b := newBench(t)
	const subjectRows = `SELECT t::text FROM medilab.subject_places AS t ORDER BY kind, block`
	fill := func(log []eventstore.Event, most int) []string {
		t.Helper()
		if _, err := b.pool.Exec(b.ctx, `TRUNCATE medilab.subject_places`); err != nil {
			t.Fatal(err)
		}
		model := subjectsModel.New(Tables{})
		for len(log) > 0 {
			n := min(1+r.IntN(most), len(log))
			statements, err := model.Project(b.ctx, nil, log[:n])
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range statements {
				if _, err := b.pool.Exec(b.ctx, s.SQL, s.Args...); err != nil {
					t.Fatal(err)
				}
			}
			log = log[n:]
		}
		return column[string](b, subjectRows)
	}
	rows := fill(log, 300)
	if rebuilt := fill(encrypted, 10_000); !slices.Equal(rows, rebuilt) {
		t.Errorf("%d rows, which are not the %d of a rebuild", len(rows), len(rebuilt))
	}
	if _, err := b.pool.Exec(b.ctx, `CREATE TABLE medilab.subject_events (owner uuid, position bigint)`); err != nil {
		t.Fatal(err)
	}
	for owner, positions := range of { // as versions before had them
		if _, err := b.pool.Exec(b.ctx, `INSERT INTO medilab.subject_events (owner, position) SELECT $1, unnest($2::bigint[])`, uuid.UUID(owner), positions); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.pool.Exec(b.ctx, `DROP TABLE medilab.subject_places`); err != nil {
		t.Fatal(err)
	}
	b.migrate("0047_subject_places.sql")
	if migrated := column[string](b, subjectRows); !slices.Equal(rows, migrated) {
		t.Errorf("%d rows, which are not the %d that are migrated", len(rows), len(migrated))
	}
	for _, owner := range append(owners, envelope.Owner(uuid.New())) {
		after, to, limit := Position(r.IntN(last)), Position(r.IntN(last)), 1+r.IntN(20)
		between := slices.DeleteFunc(slices.Clone(of[owner]), func(at Position) bool { return at <= after || at > to })
		found, err := b.SubjectEvents(b.ctx, owner, after, to, limit)
		if want := between[:min(limit, len(between))]; err != nil || !slices.Equal(found, want) {
			t.Errorf("after %d up to %d: %d, want %d: %v", after, to, found, want, err)
		}
		newest := column[Position](b, newestOfSubject, owner[:], int64(math.MaxInt64), 0, limit)
		want := slices.Clone(of[owner])
		slices.Reverse(want)
		if want = want[:min(limit, len(want))]; !slices.Equal(newest, want) {
			t.Errorf("the newest are %d, want %d", newest, want)
		}
	}
}
