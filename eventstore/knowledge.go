package eventstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
)

// A database may come back as an older copy of itself: an asynchronous standby took over,
// or a backup was restored. What a process holds in memory then follows from events that
// no longer exist, so it is compared with the log on each new connection, by each append
// and by each reading of the configuration.

// Loss is a tail that the log no longer has.
type Loss struct {
	First Position // 0: not known, as others have appended since
	Known Anchor   // the newest end of what is gone
}

// String names the positions.
func (l Loss) String() string {
	if l.First == 0 {
		return fmt.Sprintf("positions up to %d", l.Known.Position)
	}
	return fmt.Sprintf("positions %d to %d", l.First, l.Known.Position)
}

// ErrTailLost says that the unit was decided by events that the log has lost since:
// nothing was appended; decide again.
var ErrTailLost = errors.New("the log has lost its tail")

// knowledge is what a process knows of the log. Safe for concurrent use.
type knowledge struct {
	logger     *slog.Logger
	generation atomic.Int64 // from 1; changed under the lock

	mu     sync.Mutex
	known  Anchor // the newest end that was seen in this generation
	lost   int64  // positions, in all
	onLost func(Loss)
}

// tell sets what is called, under the lock, when the log has lost its tail.
func (k *knowledge) tell(onLost func(Loss)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.onLost = onLost
}

// now returns the generation, and what is known in it.
func (k *knowledge) now() (generation int64, known Anchor) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.generation.Load(), k.known
}

// saw takes in the log's end as it was seen in the generation.
func (k *knowledge) saw(generation int64, end Anchor) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if generation == k.generation.Load() && end.Position > k.known.Position && len(end.Seal) > 0 {
		k.known = end
	}
}

// compare takes in the log's end, and whether the log has what was known in the
// generation. If it has not, a new generation begins. It returns the generation of the
// end, 0 when that is not known.
func (k *knowledge) compare(generation int64, known, end Anchor, has bool) int64 {
	if has {
		k.saw(generation, end)
		return generation
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if generation != k.generation.Load() {
		return 0 // others have noticed
	}
	loss := Loss{Known: k.known}
	if end.Position < known.Position {
		loss.First = end.Position + 1
	}
	if k.known = end; len(end.Seal) == 0 {
		k.known = Anchor{}
	}
	generation = k.generation.Add(1)
	k.lost += int64(max(1, loss.Known.Position-end.Position))
	k.logger.Error("the database lost the end of the log; going on by what it has", "lost", loss.String(), "head", end.Position)
	if k.onLost != nil {
		k.onLost(loss)
	}
	return generation
}

// endSQL returns the log's end, and whether the log has the end $1 with the seal $2. A log
// whose end is not sealed is empty, or somebody cut it off by hand.
const endSQL = `SELECT h.position, s.seal, h.recorded_at,
		$1::bigint = 0 OR EXISTS (SELECT FROM medilab.seals WHERE last_position = $1 AND seal = $2::bytea)
	FROM medilab.log_head AS h LEFT JOIN medilab.seals AS s ON s.last_position = h.position`

// check compares the log with what is known of it, and returns the generation of what it
// read. A database that has no log yet is as good as any.
func (k *knowledge) check(ctx context.Context, db interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}) (int64, error) {
	generation, known := k.now()
	var end Anchor
	var has bool
	err := db.QueryRow(ctx, endSQL, known.Position, []byte(known.Seal)).Scan(&end.Position, &end.Seal, &end.RecordedAt, &has)
	if HasCode(err, "42P01", "42703", "3F000") {
		return generation, nil // the table, the column or the schema is not there
	}
	if err != nil {
		return 0, fmt.Errorf("compare the log with what is known of it: %w", err)
	}
	return k.compare(generation, known, end, has), nil
}

// Generation changes whenever the log has lost its tail: what was read before may not be
// in the log.
func (l *Log) Generation() int64 { return l.knowledge.generation.Load() }

// Saw takes in the log's end, as a query of the generation found it with what is held in
// memory from then on.
func (l *Log) Saw(generation int64, end Anchor) { l.knowledge.saw(generation, end) }

// LostPositions returns how many positions the log has lost, as this process saw it.
func (l *Log) LostPositions() int64 {
	l.knowledge.mu.Lock()
	defer l.knowledge.mu.Unlock()
	return l.knowledge.lost
}
