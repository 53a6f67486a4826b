package projections

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Standby answers queries from a streaming copy of the database. Before each it holds all that
// the primary held when the query was asked, so nobody reads older than what they were
// answered, by whichever node. Safe for concurrent use.
type Standby struct {
	primary, copy *Projections
	logger        *slog.Logger
	current       eventstore.Refresher // for all who ask meanwhile

	asked   atomic.Int64 // queries that it answers now
	reads   atomic.Int64 // that it answered
	refused atomic.Int64 // that the primary answered in its place

	mu    sync.Mutex
	state StandbyState
	use   context.Context // ends when it may not be asked any more
	end   context.CancelFunc
}

// StandbyState says whether queries go to the standby.
type StandbyState string

// The states of a standby.
const (
	StandbyUnknown StandbyState = "unknown" // nobody has asked it yet
	StandbyOK      StandbyState = "ok"
	StandbyBehind  StandbyState = "behind" // too far, or on another log
	StandbyDown    StandbyState = "down"
)

// standbyPatience is how long a query waits for the standby to catch up.
const standbyPatience = 500 * time.Millisecond

var (
	errBehind  = errors.New("the standby is behind the primary")
	errPrimary = errors.New("ask the primary how far it is")
	errForked  = errors.New("the standby does not have the primary's log")
)

// NewStandby returns the standby that the pool reaches, of the database of the primary's read models.
func NewStandby(primary *Projections, pool *pgxpool.Pool) *Standby {
	s := &Standby{primary: primary, copy: New(pool, primary.log.On(pool), primary.logger), logger: primary.logger, state: StandbyUnknown}
	s.copy.keeper = primary
	s.current = eventstore.Refresher{Run: s.await, Timeout: standbyPatience}
	return s
}

// State returns whether queries go to the standby.
func (s *Standby) State() StandbyState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Reads returns how many queries the standby answered, and how many the primary in its place.
func (s *Standby) Reads() (standby, primary int64) { return s.reads.Load(), s.refused.Load() }

// held is what a server holds: the log's end, and how far the read models are.
type held struct {
	position, models eventstore.Position
	seal             []byte
	has              bool // the log's end of the other server
}

const heldSQL = `SELECT h.position, h.last_seal, coalesce((SELECT position FROM medilab.readers WHERE name = $1), 0),
		$2::bigint = 0 OR EXISTS (SELECT FROM medilab.seals WHERE last_position = $2 AND seal = $3::bytea)
	FROM medilab.log_head AS h`

func (p *Projections) held(ctx context.Context, other held) (h held, err error) {
	err = p.pool.QueryRow(ctx, heldSQL, readerName, other.position, other.seal).Scan(&h.position, &h.seal, &h.models, &h.has)
	return h, err
}

// Position returns how far the standby is: of the log, and of the read models.
func (s *Standby) Position(ctx context.Context) (log, models eventstore.Position, err error) {
	h, err := s.copy.held(ctx, held{})
	return h.position, h.models, err
}

// await returns nil when the standby holds all that the primary holds now. A standby that
// failed or fell behind is not waited for, until Watch finds that it has caught up.
func (s *Standby) await(ctx context.Context) error {
	if state := s.State(); state == StandbyBehind || state == StandbyDown {
		return errBehind
	}
	return s.check(ctx)
}

func (s *Standby) check(ctx context.Context) error {
	now, err := s.primary.held(ctx, held{})
	if err != nil {
		return fmt.Errorf("%w: %w", errPrimary, err)
	}
	err = s.catchUp(ctx, now)
	switch {
	case errors.Is(err, errPrimary): // says nothing of the standby
	case err == nil:
		s.enter(StandbyOK, nil)
	case errors.Is(err, errBehind), errors.Is(err, errForked):
		s.enter(StandbyBehind, err)
	default:
		s.enter(StandbyDown, err)
	}
	return err
}

// flushSQL makes the primary send what it has committed: pages of the read models wait for
// half a second else, as their commits do not wait for the disk.
const flushSQL = `SELECT pg_logical_emit_message(true, 'medilab', '')`

// catchUp returns when the standby holds what the primary held. A standby tells nobody that
// it has replayed something, so it is asked.
func (s *Standby) catchUp(ctx context.Context, primary held) error {
	const first, flush, most = time.Millisecond, 4 * time.Millisecond, 16 * time.Millisecond
	answered := false
	for pause := first; ; pause = min(2*pause, most) {
		standby, err := s.copy.held(ctx, primary)
		switch {
		case err != nil && answered && ctx.Err() != nil:
			return errBehind
		case err != nil:
			return err
		case standby.position >= primary.position && !standby.has:
			return errForked
		case standby.has && standby.models >= primary.models:
			return s.confirm(ctx, primary, standby)
		}
		if answered = true; pause == flush {
			_, _ = s.primary.pool.Exec(ctx, flushSQL) // else it takes longer
		}
		if eventstore.Sleep(ctx, pause) != nil {
			return errBehind
		}
	}
}

// confirm makes sure that the primary has what the standby holds beyond it: a standby that
// streamed what a failover lost does not go on.
func (s *Standby) confirm(ctx context.Context, primary, standby held) error {
	if standby.position == primary.position {
		return nil
	}
	now, err := s.primary.held(ctx, standby)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errPrimary, err)
	case !now.has:
		return errForked
	}
	return nil
}

// enter changes the state, and ends what the standby answers when it may not be asked any more.
func (s *Standby) enter(state StandbyState, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == state {
		return
	}
	if s.end != nil {
		s.end()
		s.end = nil
	}
	if s.state = state; state == StandbyOK {
		s.use, s.end = context.WithCancel(context.Background())
		s.logger.Info("queries go to the standby")
		return
	}
	s.logger.Warn("queries go to the primary in place of the standby", "standby", string(state), "error", why)
}

// Watch finds out that the standby has caught up, or that it no longer answers, until ctx ends.
// While nobody asks a good standby, it is checked every few seconds only.
func (s *Standby) Watch(ctx context.Context) {
	const every, idle, patience = time.Second, 5 * time.Second, 2 * time.Second
	var checked time.Time
	for {
		if s.State() != StandbyOK || s.asked.Load() > 0 || time.Since(checked) > idle {
			checked = time.Now()
			asking, cancel := context.WithTimeout(ctx, patience)
			_ = s.check(asking) // the state tells
			cancel()
		}
		if !eventstore.Wait(ctx, every, nil) {
			return
		}
	}
}

// Ask asks the standby, and the primary where that is not current or fails. Without a standby
// (nil) it asks the primary.
func Ask[T any](ctx context.Context, primary *Projections, s *Standby, ask func(context.Context, *Projections) (T, error)) (T, error) {
	if s == nil {
		return ask(ctx, primary)
	}
	if s.current.Refresh(ctx) == nil {
		if answer, err := askStandby(ctx, s, ask); isAnswer(err) || ctx.Err() != nil {
			s.reads.Add(1)
			return answer, err
		}
	}
	s.refused.Add(1)
	return ask(ctx, primary)
}

func askStandby[T any](ctx context.Context, s *Standby, ask func(context.Context, *Projections) (T, error)) (answer T, err error) {
	s.mu.Lock()
	use := s.use
	s.mu.Unlock()
	if use == nil {
		return answer, errBehind
	}
	s.asked.Add(1)
	defer s.asked.Add(-1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(use, cancel)()
	return ask(ctx, s.copy)
}

// isAnswer reports whether the primary would answer the same.
func isAnswer(err error) bool {
	kind := domain.KindOf(err)
	return err == nil || kind != domain.KindUnavailable && kind != domain.KindInternal
}
