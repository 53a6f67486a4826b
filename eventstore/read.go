package eventstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/eventstore/cpulimit"
)

const (
	eventColumns = `position, stream, version, type, data, metadata::text, recorded_at`
	// withoutMetadata are they with none, which takes long to read.
	withoutMetadata = `position, stream, version, type, data, NULL::text, recorded_at`
)

// maxPageBytes bounds the memory of a page of events.
const maxPageBytes = 16 << 20

// Head returns the last position of the log.
func (l *Log) Head(ctx context.Context) (head Position, err error) {
	err = l.pool.QueryRow(ctx, `SELECT position FROM medilab.log_head`).Scan(&head)
	return head, Doing("read the log's head", err)
}

const headTimeout = 10 * time.Second

// readHead reads the head for all who ask at the same time.
func (l *Log) readHead(ctx context.Context) error {
	head, err := l.Head(ctx)
	if err == nil {
		l.head.Store(int64(head))
	}
	return err
}

// SealOf returns the seal of the batch that the position was appended in.
func (l *Log) SealOf(ctx context.Context, position Position) (seal []byte, err error) {
	err = l.pool.QueryRow(ctx, `SELECT seal FROM medilab.seals WHERE last_position >= $1 ORDER BY last_position LIMIT 1`, position).Scan(&seal)
	return seal, Doing("read a seal", err)
}

// Load reads a stream from its beginning. A stream that nobody appended to is
// empty: that is no error.
func (l *Log) Load(ctx context.Context, stream string) ([]Event, error) {
	return l.query(ctx, `SELECT `+eventColumns+` FROM medilab.events WHERE stream = $1 ORDER BY version`, stream)
}

// LoadAll reads many streams at once, each in order of its versions.
func (l *Log) LoadAll(ctx context.Context, streams []string) ([]Event, error) {
	return l.query(ctx, `SELECT `+eventColumns+` FROM medilab.events WHERE stream = ANY($1) ORDER BY stream, version`, streams)
}

// LoadAllSince is LoadAll of streams that began at the time or later; each is in the order of its
// versions. When memory holds what was recorded since, up to the head, that is not read again.
func (l *Log) LoadAllSince(ctx context.Context, since time.Time, streams []string) ([]Event, error) {
	if !l.tail.reaches(since) {
		return l.LoadAll(ctx, streams)
	}
	if err := l.atHead.Refresh(ctx); err != nil {
		return nil, err
	}
	events := l.tail.of(streams, since, Position(l.head.Load()))
	if events == nil {
		return l.LoadAll(ctx, streams)
	}
	return l.admit(ctx, events)
}

// LoadFirst reads the first event of each stream, in the order of the streams. A
// stream that nobody appended to is left out.
func (l *Log) LoadFirst(ctx context.Context, streams []string) ([]Event, error) {
	// LATERAL with LIMIT keeps to the unique index whatever the planner knew.
	return l.query(ctx, `SELECT e.* FROM unnest($1::text[]) WITH ORDINALITY AS s (stream, n)
		CROSS JOIN LATERAL (SELECT `+eventColumns+` FROM medilab.events WHERE stream = s.stream AND version = 1 LIMIT 1) AS e
		ORDER BY s.n`, streams)
}

// LoadFrom reads the first event of a stream, and those from the last of the type on, if it
// has one: all that a fold needs of which such events hold the whole state.
func (l *Log) LoadFrom(ctx context.Context, stream, last string) ([]Event, error) {
	return l.query(ctx, `
		WITH last AS (SELECT coalesce((SELECT version FROM medilab.events WHERE stream = $1 AND type = $2 ORDER BY version DESC LIMIT 1), 1) AS version)
		SELECT `+eventColumns+` FROM medilab.events WHERE stream = $1 AND version = 1
		UNION ALL (SELECT `+eventColumns+` FROM medilab.events
			WHERE stream = $1 AND version > 1 AND version >= (SELECT version FROM last) ORDER BY version)`, stream, last)
}

// GetMany reads the events at the positions, in the order given. It stops early, but not
// before the first, once it holds about maxPageBytes: the caller asks again for the rest.
// A position that the log does not hold is left out.
func (l *Log) GetMany(ctx context.Context, positions []Position) ([]Event, error) {
	if len(positions) == 0 {
		return nil, nil
	}
	// LATERAL with LIMIT keeps to the primary key even by a plan that was made when the
	// log was empty.
	return l.query(ctx, `
		SELECT `+eventColumns+` FROM (
			SELECT e.*, p.n, sum(octet_length(e.data)) OVER (ORDER BY p.n ROWS UNBOUNDED PRECEDING) - octet_length(e.data) AS before
			FROM unnest($1::bigint[]) WITH ORDINALITY AS p (at, n)
			CROSS JOIN LATERAL (SELECT * FROM medilab.events WHERE position = p.at LIMIT 1) AS e
		) AS sized WHERE before < $2 ORDER BY n`, positions, maxPageBytes)
}

// EachAt calls yield for pages of the events at the positions, as GetMany reads them, until it has them all.
func (l *Log) EachAt(ctx context.Context, positions []Position, yield func(page []Event) error) error {
	const rows = 500
	for len(positions) > 0 {
		some := positions[:min(rows, len(positions))]
		page, err := l.GetMany(ctx, some)
		if err != nil {
			return err
		}
		if len(page) == 0 { // the log has none of these
			positions = positions[len(some):]
			continue
		}
		for i := range page {
			positions = positions[slices.Index(positions, page[i].Position)+1:]
		}
		if err := yield(page); err != nil {
			return err
		}
	}
	return nil
}

// GetListed is GetMany of positions that a read model has just listed, so that the log has them:
// what is in memory is not read again.
func (l *Log) GetListed(ctx context.Context, positions []Position) ([]Event, error) {
	events := l.tail.at(positions)
	if events == nil {
		return l.GetMany(ctx, positions)
	}
	return l.admit(ctx, events)
}

// HasOnly reports whether memory holds the log after one position up to another, and all of that is of
// the type. False may mean that it is not known here.
func (l *Log) HasOnly(eventType string, after, to Position) bool {
	return l.tail.only(after, to, eventType)
}

// admit decodes and opens events from memory, when what is asked has room for them.
func (l *Log) admit(ctx context.Context, events []Event) ([]Event, error) {
	room, _ := ctx.Value(roomKey{}).(*room)
	if err := room.admit(ctx, bytesOf(events)); err != nil {
		return nil, err
	}
	return events, l.open(ctx, events)
}

// Read returns up to limit events after the position, in order, fewer when they are
// large. No events: that was the head.
func (l *Log) Read(ctx context.Context, after Position, limit int) ([]Event, error) {
	events, err := l.readClosed(ctx, after, limit)
	if err != nil {
		return nil, err
	}
	return events, l.Open(ctx, events) // what is erased since is not shown
}

// readClosed is Read for consumers, which need no content: it stays encrypted, so that a
// missing key does not block them. Readers take turns, so that one finds in memory what another has just
// read; one whose turn does not come within turnPatience reads by itself.
func (l *Log) readClosed(ctx context.Context, after Position, limit int) ([]Event, error) {
	if events := l.tail.after(after, limit); events != nil {
		return events, nil
	}
	select {
	case l.lastRead.turn <- struct{}{}:
		defer func() { <-l.lastRead.turn }()
	case <-time.After(turnPatience):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if events := l.lastRead.after(after, limit); events != nil {
		return events, nil
	}
	generation := l.Generation()
	var batch pgx.Batch
	batch.Queue(`
		SELECT `+eventColumns+` FROM (
			SELECT *, sum(octet_length(data)) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) - octet_length(data) AS before
			FROM (SELECT * FROM medilab.events WHERE position > $1 ORDER BY position LIMIT $2) AS page
		) AS sized WHERE before < $3 ORDER BY position`, after, limit, maxPageBytes)
	// Asked of the same server, so that it is noticed when the log loses what is kept here.
	batch.Queue(`SELECT position, last_seal, recorded_at FROM medilab.log_head`)
	results := l.pool.SendBatch(ctx, &batch)
	events, err := collect(results.Query())
	var end Anchor
	if err == nil {
		err = results.QueryRow().Scan(&end.Position, &end.Seal, &end.RecordedAt)
	}
	if err = cmp.Or(err, results.Close()); err != nil {
		return nil, err
	}
	l.decode(events)
	// A copy may have what the log never will, and archived positions are a gap.
	if n := len(events); n > 0 && l.pool == l.config.Pool && next(events) == events[0].Position+Position(n) {
		l.Saw(generation, end)
		l.lastRead.add(slices.Clone(events), generation)
	}
	return events, nil
}

func (l *Log) query(ctx context.Context, sql string, args ...any) ([]Event, error) {
	room, _ := ctx.Value(roomKey{}).(*room)
	most := room.left() // which may wait, so it comes before a connection is taken
	rows, err := l.pool.Query(ctx, sql, args...)
	events, err := collectUpTo(most, rows, err)
	if errors.Is(err, errNoRoom) {
		if err := room.more(ctx); err != nil {
			return nil, err
		}
		events, err = collect(l.pool.Query(ctx, sql, args...))
	}
	if err != nil {
		return nil, err
	}
	room.take(bytesOf(events))
	if !cpulimit.HasCaller(ctx) {
		return events, l.open(ctx, events)
	}
	task := l.Limiter.Task()
	for i := range events {
		if err := task.Spend(ctx, len(events[i].Data)); err != nil {
			task.End()
			return nil, err
		}
		l.config.Codec.decode(&events[i])
	}
	task.End() // what follows may wait for the database
	return events, l.Open(ctx, events)
}

func (l *Log) decode(events []Event) {
	for i := range events {
		l.config.Codec.decode(&events[i])
	}
}

func collect(rows pgx.Rows, err error) ([]Event, error) { return collectUpTo(math.MaxInt, rows, err) }

// collectUpTo returns errNoRoom if the events take more than the bytes.
func collectUpTo(most int, rows pgx.Rows, err error) (events []Event, _ error) {
	err = stream(rows, err, func(e Event) error {
		if most -= len(e.Data); most < 0 {
			return errNoRoom
		}
		events = append(events, e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return events, nil
}

// CollectMap collects rows of two columns: the key, and its value.
func CollectMap[K comparable, V any](rows pgx.Rows) (map[K]V, error) {
	all := map[K]V{}
	var key K
	var value V
	_, err := pgx.ForEachRow(rows, []any{&key, &value}, func() error {
		all[key] = value
		return nil
	})
	return all, err
}

// stream yields each row's event.
func stream(rows pgx.Rows, err error, yield func(Event) error) error {
	if err != nil {
		return fmt.Errorf("read the log: %w", err)
	}
	defer rows.Close()
	var e Event
	row := []any{&e.Position, &e.Stream, &e.Version, &e.Type, &e.Data, &e.Metadata, &e.RecordedAt}
	for rows.Next() {
		if err := rows.Scan(row...); err != nil {
			return fmt.Errorf("read the log: %w", err)
		}
		e.RecordedAt = e.RecordedAt.UTC()
		if err := yield(e); err != nil {
			return err
		}
	}
	return Doing("read the log", rows.Err())
}

// Filter narrows a reading of the log. The zero value lets everything through.
type Filter struct {
	Streams []string  // any of these; nil is any
	Type    string    // exact, or a prefix that ends in ".*"
	From    time.Time // recorded at or after
	To      time.Time // recorded before

	// Mention is an id. It lets through what is in a stream of that id or holds it anywhere
	// in its data, and of the streams that begin with Whole all whose first event holds it.
	Mention, Whole string
	// Metadata are texts as JSON has them, each of which the metadata holds.
	Metadata []string

	// Opens reports whether a decoded event, which Compute is about to yield, must be opened;
	// nil: all are. What it does not open may be sealed, and destroyed.
	Opens func(*Event) bool

	// kept leaves out what is archived up to this position, and still there or there again; 0: nothing.
	kept Position
}

// between returns the positions that are read, after one up to another: times are found in the log by
// their positions.
func (l *Log) between(ctx context.Context, after Position, f Filter) (from, to Position, err error) {
	var times [2]*time.Time
	for i, at := range []time.Time{f.From, f.To} {
		if !at.IsZero() {
			times[i] = &at
		}
	}
	err = l.pool.QueryRow(ctx, `SELECT greatest($1, CASE WHEN $2::timestamptz IS NOT NULL THEN medilab.position_before($2) END),
			least(position, CASE WHEN $3::timestamptz IS NOT NULL THEN medilab.position_before($3) END)
		FROM medilab.log_head`, after, times[0], times[1]).Scan(&from, &to)
	return from, to, Doing("read the log's head", err)
}

// query reads up to so many rows. Streams are few and go by their unique index, all else by position.
func (f Filter) query(columns string, after, head Position, limit int) (string, []any) {
	var where strings.Builder
	args := []any{after, head}
	and := func(condition string, arg any) {
		args = append(args, arg)
		fmt.Fprintf(&where, " AND "+condition, len(args))
	}
	if f.Streams != nil {
		and("stream = ANY($%d)", f.Streams)
	}
	if f.Mention != "" {
		args = append(args, f.Mention, f.Whole)
		fmt.Fprintf(&where, ` AND (position(convert_to($%[1]d, 'UTF8') IN data) > 0 OR right(stream, length($%[1]d)) = $%[1]d
			OR starts_with(stream, $%[2]d) AND $%[2]d <> '' AND EXISTS (SELECT FROM medilab.events AS f
				WHERE f.stream = events.stream AND f.version = 1 AND position(convert_to($%[1]d, 'UTF8') IN f.data) > 0))`, len(args)-1, len(args))
	}
	for _, text := range f.Metadata {
		and("position($%d IN metadata::text) > 0", text)
	}
	if prefix, group := strings.CutSuffix(f.Type, "*"); group {
		and("starts_with(type, $%d)", prefix)
	} else if f.Type != "" {
		and("type = $%d", f.Type)
	}
	if f.kept > 0 { // no NOT EXISTS, which becomes a join: see staysSQL
		and("EXISTS (SELECT FROM medilab.archiving AS a WHERE a.stream = events.stream AND a.cut <= $%d) = false", f.kept)
	}
	args = append(args, limit)
	return fmt.Sprintf(`SELECT %s FROM medilab.events WHERE position > $1 AND position <= $2%s ORDER BY position LIMIT $%d`,
		columns, where.String(), len(args)), args
}

// Each calls yield for every event after the position that the filter lets
// through, in order, in constant memory, until the head that it found at its start.
func (l *Log) Each(ctx context.Context, after Position, filter Filter, yield func(Event) error) error {
	return sideBySide(ctx, func(ctx context.Context, yield func([]Event) error) error {
		return l.eachPage(ctx, eventColumns, after, filter, yield)
	}, l.open, func(page []Event) error {
		for i := range page {
			if err := yield(page[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// eachPage yields what Each does in pages, undecoded. They are small, as three are held at most.
func (l *Log) eachPage(ctx context.Context, columns string, after Position, filter Filter, yield func(page []Event) error) error {
	const rows, enough = 2000, 1 << 20
	after, head, err := l.between(ctx, after, filter)
	if err != nil {
		return err
	}
	return readPages(ctx, l.pool, columns, after, head, filter, rows, enough, yield)
}

var errFull = errors.New("the page is full")

// readPages yields the events between the positions that the filter lets through, undecoded, in pages
// of up to so many rows that end once they have enough bytes. What the database sent beyond that it
// sends again: pages are asked for by the sizes of those before, as it takes long to sum up rows.
func readPages(ctx context.Context, db querier, columns string, after, to Position, filter Filter, rows, enough int, yield func(page []Event) error) error {
	const atFirst, growth = 32, 4 // few, as they may be large
	limit, room := min(rows, atFirst), 0
	for more := true; more && after < to; {
		sql, args := filter.query(columns, after, to, limit)
		page, size := make([]Event, 0, room), 0
		found, err := db.Query(ctx, sql, args...)
		err = stream(found, err, func(e Event) error {
			if size >= enough {
				return errFull
			}
			page, size = append(page, e), size+len(e.Data)
			return nil
		})
		full := errors.Is(err, errFull)
		if err != nil && !full || len(page) == 0 {
			return err
		}
		after, more, room = page[len(page)-1].Position, len(page) == limit || full, len(page)
		fit := len(page) * (enough + enough/8) / max(1, size)
		limit = min(rows, growth*limit, max(1, fit))
		if err := yield(page); err != nil {
			return err
		}
	}
	return nil
}

// ReadPages yields what the transaction sees of the log after the position, in pages: undecoded, and
// without metadata.
func ReadPages(ctx context.Context, tx pgx.Tx, after Position, yield func(page []Event) error) error {
	const rows = 1000
	return readPages(ctx, tx, withoutMetadata, after, math.MaxInt64, Filter{}, rows, maxPageBytes, yield)
}

// GapError says that the log lacks a position that it must have.
type GapError struct{ Position Position }

func (e *GapError) Error() string { return fmt.Sprintf("the log has no position %d", e.Position) }

// Scan reads the log after one position up to another, fast, in pages of up to size events:
// decoded, and closed, as readers of the log need no content. Of the archived beginning it reads what
// is kept: not what is still to be dropped, nor what an import has restored and not recorded. It ends
// early with yield's error, or with a *GapError.
func (l *Log) Scan(ctx context.Context, after, to Position, size int, yield func(page []Event) error) error {
	return sideBySide(ctx, func(ctx context.Context, yield func([]Event) error) error {
		return l.scan(ctx, after, to, size, yield)
	}, func(_ context.Context, page []Event) error {
		l.decode(page)
		return nil
	}, yield)
}

func (l *Log) scan(ctx context.Context, after, to Position, size int, yield func(page []Event) error) error {
	archived, err := l.ArchivedTo(ctx)
	if err != nil {
		return err
	}
	pass := func(last Position) (err error) {
		if last > after && last > archived {
			archived, err = l.explainGap(ctx, after+1, last)
		}
		return err
	}
	gapless := func(page []Event) error {
		for i := range page {
			if err := pass(page[i].Position - 1); err != nil {
				return err
			}
			after = page[i].Position
		}
		return yield(page)
	}
	if kept := archived; after < kept {
		if err := readPages(ctx, l.pool, eventColumns, after, min(kept, to), Filter{kept: kept}, size, maxPageBytes, gapless); err != nil {
			return err
		}
		after = min(kept, to)
	}
	if err := readPages(ctx, l.pool, eventColumns, after, to, Filter{}, size, maxPageBytes, gapless); err != nil {
		return err
	}
	return pass(to)
}
