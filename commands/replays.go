package commands

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/eventstore/cpulimit"
)

// Replays works on replays that were requested, from where the log says they are: it does
// not matter who worked on one before, nor what became of it. Two that work on the same one
// do no harm: what is asked for is in the replay's stream at its version or not at all. All
// fields but the last are required.
type Replays struct {
	Log       *eventstore.Log
	Directory *Directory
	Queue     Queue
	Pool      *pgxpool.Pool
	Failed    FailedDeliveries

	// Patience is how long a replay waits to have counted what it sends, before it begins.
	Patience time.Duration
}

// Unfinished lists the replays that are to go on, the oldest first, of those whose
// ids are not before the given one.
func (r *Replays) Unfinished(ctx context.Context, from domain.ReplayID) ([]domain.ReplayID, error) {
	rows, _ := r.Pool.Query(ctx, `
		SELECT r.stream FROM medilab.events AS r
		CROSS JOIN LATERAL (SELECT e.type FROM medilab.events AS e WHERE e.stream = r.stream ORDER BY e.version DESC LIMIT 1) AS last
		WHERE r.stream >= $1 AND r.stream < 'replay.' AND r.version = 1 AND last.type <> $2
		ORDER BY r.stream`, from.Stream(), domain.ReplayCompleted{}.ChangeType())
	streams, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("list unfinished replays: %w", err)
	}
	if len(streams) == 0 {
		return nil, nil
	}
	requests, err := r.Log.LoadFirst(ctx, streams)
	if err != nil {
		return nil, err
	}
	var replays []domain.ReplayID
	for i := range requests {
		requested, ok := requests[i].Value.(domain.ReplayRequested)
		if ok && !(domain.Replay{}).Evolve(requested, requests[i].RecordedAt).Completed {
			replays = append(replays, requested.ID)
		}
	}
	return replays, nil
}

// load returns a replay as it stands, and the events that say so: the first of its stream,
// and the last ones.
func (r *Replays) load(ctx context.Context, id domain.ReplayID) (replay domain.Replay, events []eventstore.Event, err error) {
	events, err = r.Log.LoadFrom(ctx, id.Stream(), domain.ReplayQueued{}.ChangeType())
	if err == nil {
		replay, err = fold(replay, events)
	}
	return replay, events, err
}

// Load returns a replay as it stands.
func (r *Replays) Load(ctx context.Context, id domain.ReplayID) (domain.Replay, error) {
	replay, _, err := r.load(ctx, id)
	return replay, err
}

const (
	// replayPoll is how soon a replay looks what became of what other nodes have of it, and
	// replayIdle how soon when nothing becomes of it.
	replayPoll, replayIdle = 20 * time.Millisecond, time.Second
	// replayPause is the least time between two steps, so that each finds several ends.
	replayPause = 10 * time.Millisecond
)

// Run works on a replay until it is over or paused, or ctx ends, or after a step when leave is
// closed. A token in wake says that a delivery of it has ended.
func (r *Replays) Run(ctx context.Context, id domain.ReplayID, wake, leave <-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	j := &job{r: r, id: id}
	defer func() {
		if cancel(); j.counted != nil {
			<-j.counted.done
		}
	}()
	for poll := replayPoll; ; poll = min(2*poll, replayIdle) {
		version := j.version
		wait, over, err := j.step(ctx)
		if eventstore.IsConflict(err) { // something was asked of it, or of one of its deliveries
			j.feed, err = nil, nil
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("go on with replay %s: %w", id, err)
		}
		select {
		case <-leave:
			return nil
		default:
		}
		if j.version != version {
			poll = replayPoll
		}
		if over || ctx.Err() != nil || !eventstore.Wait(ctx, replayPause, nil) || !eventstore.Wait(ctx, min(wait, poll)-replayPause, wake) {
			return nil
		}
	}
}

// webhookAt returns the webhook as it was at the version.
func (r *Replays) webhookAt(ctx context.Context, id domain.WebhookID, version int64) (w domain.Webhook, err error) {
	events, err := r.Log.Load(ctx, id.Stream())
	if err != nil {
		return w, err
	}
	return fold(w, events[:min(version, int64(len(events)))])
}

// job is a replay that is worked on.
type job struct {
	r       *Replays
	id      domain.ReplayID
	replay  domain.Replay
	caller  Caller              // who requested it
	before  eventstore.Position // where it was requested: what came later is not for it
	version int64
	feed    *feed // nil: to be read from where the log says the replay is
	counted *counting

	window   int // how many calls of its webhook it has under way
	measured time.Time
	due      time.Time // when it was to ask for what it asked for last
}

// step does the next of a replay. It returns how long to wait for what follows, if nothing
// ends before, and whether nothing does for now.
func (j *job) step(ctx context.Context) (wait time.Duration, over bool, err error) {
	replay, events, err := j.r.load(ctx, j.id)
	if err != nil || len(events) == 0 {
		return 0, true, err
	}
	by, err := events[0].ReadMetadata()
	if err != nil {
		return 0, true, err
	}
	j.caller = Caller{Actor: by.Actor, RequestID: by.RequestID}
	j.replay, j.before, j.version = replay, events[0].Position, events[len(events)-1].Version
	ctx = cpulimit.WithCaller(ctx, j.caller.Actor)
	w, _ := j.r.Directory.Webhook(j.replay.Request.WebhookID)
	switch {
	case replay.Completed:
		return 0, true, nil
	case replay.Cancelled:
		return j.withdraw(ctx)
	case w.Deleted:
		return 0, false, j.append(ctx, domain.ReplayCancelled{})
	case replay.Paused:
		return 0, true, j.r.Queue.Hold(ctx, j.id)
	case !replay.Counted:
		if known, err := j.count(ctx); known || err != nil {
			return 0, false, err
		}
	}
	return j.goOn(ctx)
}

// append appends changes to the replay's stream.
func (j *job) append(ctx context.Context, changes ...domain.Change) error {
	return j.commit(ctx, eventstore.Unit{}, changes...)
}

// commit appends the unit, with changes to the replay's stream.
func (j *job) commit(ctx context.Context, unit eventstore.Unit, changes ...domain.Change) error {
	unit.Writes = append(unit.Writes, j.write(j.id.Stream(), j.version, changes...))
	_, err := j.r.Directory.Append(ctx, unit)
	if err == nil {
		if j.feed != nil && j.feed.version == j.version { // else it does not know what others asked for
			j.feed.version++
		}
		j.version++
	}
	return err
}

func (j *job) write(stream string, expected int64, changes ...domain.Change) eventstore.Write {
	metadata := j.caller.metadata()
	metadata.CausationID = j.id.String()
	return Write(stream, expected, metadata, changes...)
}

// candidates returns what the replay may ask for, from a position on.
func (j *job) candidates(ctx context.Context, from eventstore.Position) (*candidates, error) {
	w, err := j.r.webhookAt(ctx, j.replay.Request.WebhookID, j.replay.Request.WebhookVersion)
	if err != nil {
		return nil, err
	}
	return j.r.candidates(ctx, j.replay.Request, w, from, j.before)
}

// counting is what a replay sends, being counted.
type counting struct {
	done chan struct{} // closed then
	n    int
	err  error
}

// count counts what the replay sends, beside its sending, and reports whether there is something to
// be done before that goes on. A retry waits, as all that it may send is in memory: not twice at once.
func (j *job) count(ctx context.Context) (first bool, err error) {
	if j.counted == nil {
		all, err := j.candidates(ctx, 0)
		if err != nil {
			return false, err
		}
		c := &counting{done: make(chan struct{})}
		request, before := j.replay.Request, j.before
		go func() {
			defer close(c.done)
			for n, more := 0, true; more && c.err == nil; c.n += n {
				n, more, c.err = j.r.countNext(ctx, request, before, all)
			}
		}()
		j.counted = c
		eventstore.Wait(ctx, j.r.Patience, c.done)
	}
	if j.replay.Request.Kind == domain.KindRetry {
		eventstore.Wait(ctx, replayIdle, j.counted.done)
		first = true
	}
	select {
	case <-j.counted.done:
	default:
		return first, nil
	}
	if j.counted.err != nil {
		return false, j.counted.err
	}
	return true, j.append(ctx, domain.ReplayCounted{Matched: j.counted.n})
}

// withdraw ends what a cancelled replay has asked for and nobody works on. What is on its
// way ends first.
func (j *job) withdraw(ctx context.Context) (wait time.Duration, over bool, err error) {
	waiting, err := j.r.Queue.OfReplay(ctx, j.id)
	if err != nil {
		return 0, true, err
	}
	if len(waiting) == 0 && !j.replay.Counted && !j.replay.QueuedAt.IsZero() { // it says of how many it sent some
		_, err := j.count(ctx)
		return replayIdle, false, err
	}
	if len(waiting) == 0 {
		return 0, true, j.append(ctx, domain.ReplayCompleted{})
	}
	var units []eventstore.Unit
	for _, d := range waiting {
		if !d.Free {
			continue
		}
		w, _ := j.r.Directory.Webhook(d.WebhookID)
		ended := j.replay.Withdraw(d.WebhookID, d.EventID, d.Ordered && w.OrderOnFailure == domain.OrderBlock, true)
		units = append(units, eventstore.Unit{Writes: []eventstore.Write{j.write(d.ID.Stream(), d.Version, ended)}})
	}
	for _, err := range j.r.Log.AppendEach(ctx, units) {
		if err != nil && !eventstore.IsConflict(err) {
			return 0, true, err
		}
	}
	return replayIdle, false, nil
}
