package saga_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
	"github.com/medilab/webhooks/projections"
)

// replaying is a node that works on replays and keeps the read models.
type replaying struct {
	*alerting
	commands *commands.Commands
}

func startReplaying(t *testing.T, url string, sender commands.Sender) *replaying {
	t.Helper()
	a := startAlerting(t, url, sender, domain.AlertRules{})
	return &replaying{a, &commands.Commands{Log: a.log, Directory: a.directory, Queue: saga.Queue{Pool: a.pool}, Pool: a.pool, Failed: a.queries}}
}

// emit appends n events before anybody asks for them, of as many patients; 0: of none.
func (r *replaying) emit(n, patients int) (events []domain.EventID) {
	r.t.Helper()
	for i := range n {
		data := fmt.Sprintf(`{"n":%d}`, i)
		if patients > 0 {
			data = fmt.Sprintf(`{"n":%d,"patient_id":"p%d"}`, i, i%patients)
		}
		id := domain.EventID(uuid.Must(uuid.NewV7()))
		r.append(id.Stream(), 0, domain.EventTriggered{EventType: "patient.created", EventData: []byte(data)})
		events = append(events, id)
	}
	return events
}

func (r *replaying) start(spec domain.ReplaySpec) domain.ReplayID {
	r.t.Helper()
	id, err := r.commands.StartReplay(r.t.Context(), commands.Caller{Actor: "test"}, domain.BuiltinCatalog(), spec)
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

func (r *replaying) ask(id domain.ReplayID, decide func(domain.Replay) ([]domain.Change, error)) {
	r.t.Helper()
	if err := r.commands.ChangeReplay(r.t.Context(), commands.Caller{Actor: "test"}, domain.WebhookID{}, id, decide); err != nil {
		r.t.Fatal(err)
	}
}

// awaitReplay waits until the read model of the replay is as wanted.
func (r *replaying) awaitReplay(id domain.ReplayID, what string, want func(projections.Replay) bool) projections.Replay {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	for {
		progress, err := r.queries.Replay(ctx, domain.WebhookID{}, id)
		if err != nil {
			r.t.Fatalf("waiting until it is %s: %v", what, err)
		}
		if want(progress) {
			return progress
		}
		wake, stop := r.log.Appends(nil)
		select {
		case <-wake:
		case <-time.After(50 * time.Millisecond): // another node's append may not wake us
		case <-ctx.Done():
			r.t.Fatalf("waiting until it is %s, it is %+v", what, progress)
		}
		stop()
	}
}

func finished(p projections.Replay) bool { return p.FinishedAt != nil }

// history is a replay of all that there is to the webhook.
func history(w domain.WebhookID) domain.ReplaySpec {
	return domain.ReplaySpec{Kind: domain.KindReplay, WebhookID: w, From: time.Now().Add(-time.Hour), To: time.Now().Add(time.Hour)}
}

// orderly is a receiver that sees whether the events of a patient come one after another.
type orderly struct {
	mu    sync.Mutex
	ended map[string][]int // by patient, as they succeeded
	calls int
	wrong []string
}

func (o *orderly) Send(_ context.Context, call commands.Outgoing) commands.Answer {
	var body struct {
		Data struct {
			N       int
			Patient string `json:"patient_id"`
		} `json:"event_data"`
	}
	_ = json.Unmarshal(call.Body, &body)
	patient := body.Data.Patient
	o.mu.Lock()
	defer o.mu.Unlock()
	o.calls++
	if ended := o.ended[patient]; len(ended) > 0 && ended[len(ended)-1] >= body.Data.N {
		o.wrong = append(o.wrong, fmt.Sprintf("%s: %d after %v", patient, body.Data.N, ended))
	}
	if headerOf(call, "X-Webhook-Replay") == "" {
		o.wrong = append(o.wrong, "a call does not name its replay")
	}
	if body.Data.N%40 == 7 && headerOf(call, "X-Webhook-Attempt") == "1" { // its patient's others wait for the retry
		return commands.Answer{Outcome: "http_status", Status: 500}
	}
	o.ended[patient] = append(o.ended[patient], body.Data.N)
	return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
}

// Several nodes may work on a replay at once, as when one takes over from another that
// lives: each event is asked for once, and in the order of its patient.
func TestReplayIsExactOnSeveralNodes(t *testing.T) {
	t.Parallel()
	url := testdb.New(t)
	in := &orderly{ended: map[string][]int{}}
	a := startReplaying(t, url, in)
	b := startReplaying(t, url, in)
	const n, patients = 200, 10
	events := a.emit(n, patients)
	w := a.register(1, nil)
	id := a.start(history(w))
	var group sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for _, node := range []*replaying{a, b} {
		group.Go(func() {
			all := commands.Replays{Log: node.log, Directory: node.directory, Queue: saga.Queue{Pool: node.pool}, Pool: node.pool, Failed: node.queries}
			for ctx.Err() == nil {
				if err := all.Run(ctx, id, nil, nil); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
				if done, _ := node.queries.Replay(ctx, w, id); finished(done) {
					return
				}
			}
		})
	}
	done := a.awaitReplay(id, "completed", finished)
	cancel()
	group.Wait()
	if done.State != domain.ReplayStateCompleted || *done.Matched != n || done.Queued != n || done.Delivered != n || done.Failed+done.Cancelled != 0 {
		t.Errorf("it ended as %+v", done)
	}
	if len(in.wrong) > 0 {
		t.Errorf("%d times, as %s", len(in.wrong), in.wrong[0])
	}
	for _, event := range events {
		changes, err := a.log.Load(t.Context(), domain.DeliveryOf(event, w).Stream())
		if err != nil {
			t.Fatal(err)
		}
		asked := 0
		for _, e := range changes {
			if _, ok := e.Value.(domain.DeliveryRetryRequested); ok {
				asked++
			}
		}
		if asked != 1 {
			t.Errorf("event %s was asked for %d times", event, asked)
		}
	}
}

// lookedAt is a queue that says what a replay looks at, and lets it wait.
type lookedAt struct {
	saga.Queue
	ask  func(deliveries int) // for untried ones
	step func()               // before the next of the replay
}

func (q lookedAt) OfReplay(ctx context.Context, id domain.ReplayID) ([]commands.Replayed, error) {
	q.step()
	return q.Queue.OfReplay(ctx, id)
}

func (q lookedAt) Untried(ctx context.Context, ids []domain.DeliveryID) (map[domain.DeliveryID]domain.Delivery, error) {
	q.ask(len(ids))
	return q.Queue.Untried(ctx, ids)
}

// What another node asked for, while this one counted what the replay sends, is under way.
func TestReplayCountedBesideAnotherNode(t *testing.T) {
	t.Parallel()
	in, let := gated()
	n := startReplaying(t, testdb.New(t), in)
	events := n.emit(2, 1)
	w := n.register(1, nil)
	if _, err := n.pool.Exec(t.Context(), `DELETE FROM medilab.readers WHERE name = 'replays'`); err != nil {
		t.Fatal(err) // so that the node leaves the replay to us
	}
	id := n.start(history(w))
	run := func(queue commands.Queue, leave chan struct{}) {
		err := (&commands.Replays{Log: n.log, Directory: n.directory, Queue: queue, Pool: n.pool, Failed: n.queries}).Run(t.Context(), id, nil, leave)
		if err != nil {
			t.Error(err)
		}
	}
	var looks sync.WaitGroup // of the counting, and of the reading
	looks.Add(2)
	asked, ended, steps := make(chan struct{}), make(chan struct{}), make(chan struct{}, 1)
	go func() {
		defer close(ended)
		step := func() { eventstore.Signal(steps) }
		run(lookedAt{step: step, Queue: saga.Queue{Pool: n.pool}, ask: func(deliveries int) {
			select {
			case <-asked:
			default:
				if deliveries == len(events) {
					looks.Done()
					<-asked
				}
			}
		}}, nil)
	}()
	looks.Wait()
	one := make(chan struct{})
	close(one)
	for first := domain.DeliveryOf(events[0], w); ; {
		run(saga.Queue{Pool: n.pool}, one) // another node's next step
		if changes, err := n.log.Load(t.Context(), first.Stream()); err != nil || len(changes) > 0 {
			break
		}
	}
	<-in.seen
	close(asked)
	n.awaitReplay(id, "counted", func(p projections.Replay) bool { return p.Matched != nil })
	for range 4 { // one may be from before, and the next under way
		<-steps
	}
	if changes, err := n.log.Load(t.Context(), domain.DeliveryOf(events[1], w).Stream()); err != nil || len(changes) > 0 {
		t.Error("the second event of the patient is sent beside the first", err)
	}
	close(let)
	n.awaitReplay(id, "completed", finished)
	<-ended
}

// Of a replay that the read models do not know yet, no end and no figures are told.
func TestReplayThatIsNotInTheReadModels(t *testing.T) {
	t.Parallel()
	n := start(t, testdb.New(t), newReceiver(), func(_ *node, c *saga.Config) { c.Dispatch = false })
	queries := projections.New(n.pool, n.log, nil)
	for want, changes := range map[domain.ReplayState][]domain.Change{
		domain.ReplayStateCounting:  {},
		domain.ReplayStateRunning:   {domain.ReplayQueued{Count: 2}, domain.ReplayCounted{Matched: 2}, domain.ReplayCompleted{}},
		domain.ReplayStateCancelled: {domain.ReplayQueued{Count: 2}, domain.ReplayCounted{Matched: 5}, domain.ReplayCancelled{}, domain.ReplayCompleted{}},
	} {
		id := domain.ReplayID(uuid.Must(uuid.NewV7()))
		requested := domain.ReplayRequested{ID: id, WebhookID: domain.WebhookID(uuid.New()), WebhookVersion: 1, Kind: domain.KindReplay}
		for version, change := range append([]domain.Change{requested}, changes...) {
			n.append(id.Stream(), int64(version), change)
		}
		got, err := queries.Replay(t.Context(), domain.WebhookID{}, id)
		if err != nil || got.State != want || got.FinishedAt != nil || got.Queued+got.Delivered+got.Failed+got.Cancelled != 0 {
			t.Errorf("%s is told as %+v, %v", want, got, err)
		}
	}
}

// A replay does not wait until all that it sends is counted, and has counted it in the end.
func TestReplayCountsBesideItsSending(t *testing.T) {
	n := startReplaying(t, testdb.New(t), newReceiver())
	const events = 1000
	n.emit(events, 0)
	w := n.register(1, nil)
	if _, err := n.pool.Exec(t.Context(), `DELETE FROM medilab.readers WHERE name = 'replays'`); err != nil {
		t.Fatal(err) // so that the node leaves the replay to us, who have no patience
	}
	id := n.start(history(w))
	err := (&commands.Replays{Log: n.log, Directory: n.directory, Queue: saga.Queue{Pool: n.pool}, Pool: n.pool, Failed: n.queries}).Run(t.Context(), id, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	done := n.awaitReplay(id, "completed", finished)
	if *done.Matched != events || done.Queued != events || done.Delivered != events || done.Cancelled != 0 {
		t.Errorf("it ended as %+v", done)
	}
	changes, err := n.log.Load(t.Context(), id.Stream())
	if err != nil {
		t.Fatal(err)
	}
	if _, first := changes[1].Value.(domain.ReplayQueued); !first {
		t.Errorf("first came %T", changes[1].Value)
	}
	counted := 0
	for _, e := range changes {
		if _, ok := e.Value.(domain.ReplayCounted); ok {
			counted++
		}
	}
	if counted != 1 {
		t.Errorf("it was counted %d times", counted)
	}
}

// gated is a receiver that answers a call when it is let.
func gated() (r *receiver, let chan struct{}) {
	r, let = newReceiver(), make(chan struct{})
	r.answer = func(commands.Outgoing) commands.Answer {
		<-let
		return commands.Answer{Outcome: domain.OutcomeSuccess, Status: 200}
	}
	return r, let
}

// To a webhook with limits, a live event does not wait for all that a replay may have under way.
func TestReplayQueuesLittleOfALimitedWebhook(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]func(*domain.WebhookRegistered){
		"max_concurrent": func(c *domain.WebhookRegistered) { c.MaxConcurrent = 1 },
		"rate_limit":     func(c *domain.WebhookRegistered) { c.RateLimit = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			in, let := gated()
			n := startReplaying(t, testdb.New(t), in)
			n.emit(40, 0)
			w := n.register(1, limit)
			id := n.start(history(w))
			<-in.seen
			live := domain.DeliveryOf(n.trigger(), w)
			close(let)
			for before := 0; len(in.attempts(live)) == 0; before++ {
				if before == 8 {
					t.Fatalf("the live event waits for more than %d calls of the replay", before)
				}
				<-in.seen
			}
			n.ask(id, domain.Replay.Cancel)
			n.awaitReplay(id, "over", finished)
		})
	}
}

// What is asked for while the call of a cancelled delivery is under way has another number,
// and both calls count.
func TestReplayOfWhatIsBeingCalled(t *testing.T) {
	t.Parallel()
	in := newStepwise(t)
	n := startReplaying(t, testdb.New(t), in)
	w := n.register(1, func(c *domain.WebhookRegistered) { c.MaxRetries = 0 })
	event := n.trigger()
	first := in.next(event)
	n.cancel(domain.DeliveryOf(event, w))
	id := n.start(history(w))
	second := in.next(event)
	if a, b := headerOf(first.Outgoing, "X-Webhook-Attempt"), headerOf(second.Outgoing, "X-Webhook-Attempt"); a != "1" || b != "2" {
		t.Errorf("attempts %s and %s are under way", a, b)
	}
	first.fail()
	n.awaitReplay(id, "heard of the first call", func(projections.Replay) bool {
		stats, err := n.queries.Stats(t.Context(), w, projections.StatsFilter{})
		return err == nil && stats.FailedCalls == 1 && *stats.ConsecutiveFailures == 1
	})
	second.succeed()
	if done := n.awaitReplay(id, "over", finished); done.Delivered != 1 {
		t.Errorf("the replay ends as %+v", done)
	}
	n.awaitState(domain.DeliveryOf(event, w), domain.DeliveryDelivered)
	stats, err := n.queries.Stats(t.Context(), w, projections.StatsFilter{})
	if err != nil || stats.TotalCalls != 2 || stats.Delivered != 1 || stats.Cancelled != 0 {
		t.Errorf("statistics %+v, %v", stats, err)
	}
	n.verify()
}

// What failed is retried by a job. When that is cancelled, what waits is failed as before.
func TestRetryOfNothingCompletes(t *testing.T) {
	n := startReplaying(t, testdb.New(t), &orderly{})
	done := n.awaitReplay(n.start(domain.ReplaySpec{Kind: domain.KindRetry}), "over", func(p projections.Replay) bool { return p.FinishedAt != nil })
	if done.State != domain.ReplayStateCompleted || *done.Matched != 0 {
		t.Errorf("a retry of nothing ended as %+v", done)
	}
}

func TestRetryOfAllThatFailed(t *testing.T) {
	t.Parallel()
	in := newReceiver()
	status := func(code int) {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.answer = func(commands.Outgoing) commands.Answer {
			if code == 200 {
				return commands.Answer{Outcome: domain.OutcomeSuccess, Status: code}
			}
			return commands.Answer{Outcome: "http_status", Status: code}
		}
	}
	status(503)
	n := startReplaying(t, testdb.New(t), in)
	w, other := n.register(1, quiet), n.register(2, quiet)
	var deliveries []domain.DeliveryID
	for _, event := range n.emit(5, 2) {
		deliveries = append(deliveries, domain.DeliveryOf(event, w), domain.DeliveryOf(event, other))
	}
	for _, id := range deliveries {
		n.awaitState(id, domain.DeliveryFailed)
	}
	count := func(spec domain.ReplaySpec) int {
		t.Helper()
		spec.Kind = domain.KindRetry
		matched, err := n.commands.CountReplay(t.Context(), domain.BuiltinCatalog(), spec)
		if err != nil {
			t.Fatal(err)
		}
		return matched
	}
	hour := time.Now().Add(time.Hour)
	for _, c := range []struct {
		spec domain.ReplaySpec
		want int
	}{
		{domain.ReplaySpec{}, 10}, {domain.ReplaySpec{WebhookID: w}, 5}, {domain.ReplaySpec{ResponseStatus: "5xx"}, 10}, {domain.ReplaySpec{ResponseStatus: "500"}, 0},
		{domain.ReplaySpec{EventTypes: []string{"patient.*"}, To: hour}, 10}, {domain.ReplaySpec{EventTypes: []string{"visit.created"}}, 0}, {domain.ReplaySpec{From: hour}, 0},
	} {
		if got := count(c.spec); got != c.want {
			t.Errorf("%+v matches %d, want %d", c.spec, got, c.want)
		}
	}

	// Each fails once more, and would be retried in an hour.
	n.append(w.Stream(), 1, domain.WebhookChanged{MaxRetries: new(3), RetryDelay: new(3600)})
	id := n.start(domain.ReplaySpec{Kind: domain.KindRetry, WebhookID: w})
	n.awaitReplay(id, "waiting", func(projections.Replay) bool { return n.pending() == 2 }) // one of each patient
	due := func() (seconds float64) {
		if err := n.pool.QueryRow(t.Context(), `SELECT extract(epoch FROM min(due_at) - clock_timestamp())::float8 FROM medilab.pending`).Scan(&seconds); err != nil {
			t.Fatal(err)
		}
		return seconds
	}
	n.awaitReplay(id, "waiting for the retries", func(projections.Replay) bool { return due() > 3000 })
	n.ask(id, domain.Replay.Pause)
	n.awaitReplay(id, "held", func(projections.Replay) bool { return due() > 1e9 })
	n.ask(id, domain.Replay.Resume)
	n.awaitReplay(id, "as it was", func(projections.Replay) bool { return due() > 3000 && due() < 3700 })
	n.ask(id, domain.Replay.Cancel)
	done := n.awaitReplay(id, "over", finished)
	if done.State != domain.ReplayStateCancelled || done.Kind != domain.KindRetry || *done.Matched != 5 || done.Queued != 2 || done.Cancelled != 5 {
		t.Errorf("cancelled as %+v", done)
	}
	if n.pending() > 0 || count(domain.ReplaySpec{}) != 10 {
		t.Errorf("%d wait, %d are failed", n.pending(), count(domain.ReplaySpec{}))
	}

	status(200)
	rate := 20.0
	id = n.start(domain.ReplaySpec{Kind: domain.KindRetry, Rate: &rate})
	if done := n.awaitReplay(id, "over", finished); done.State != domain.ReplayStateCompleted || done.Delivered != 10 || done.WebhookID != nil {
		t.Errorf("retried as %+v", done)
	}
	for _, d := range deliveries {
		n.awaitState(d, domain.DeliveryDelivered)
	}
	n.assertPace(id, rate)
	n.assertRebuilt()
	stats, err := n.queries.SystemStats(t.Context(), projections.StatsFilter{})
	if err != nil || stats.Delivered != 10 || stats.Exhausted != 0 || stats.PendingDeliveries != 0 {
		t.Errorf("statistics %+v, %v", stats, err)
	}
	list, err := n.queries.Replays(t.Context(), w, 10, 0)
	if err != nil || len(list.Items) != 1 {
		t.Errorf("replays of the webhook: %+v, %v", list, err)
	}
}

// assertRebuilt checks that the read model equals its rebuild.
func (r *replaying) assertRebuilt() {
	r.t.Helper()
	rows := func() (text string) {
		if err := r.pool.QueryRow(r.t.Context(), `SELECT string_agg(x::text, E'\n' ORDER BY position) FROM medilab.replays AS x`).Scan(&text); err != nil {
			r.t.Fatal(err)
		}
		return text
	}
	live := rows()
	if err := r.queries.Rebuild(r.t.Context(), []string{"replays"}, nil); err != nil {
		r.t.Fatal(err)
	}
	if rebuilt := rows(); rebuilt != live {
		r.t.Errorf("rebuilt, the replays are\n%s\nand were\n%s", rebuilt, live)
	}
}

// assertPace checks that the replay asked for no more than its rate allows.
func (r *replaying) assertPace(id domain.ReplayID, rate float64) {
	r.t.Helper()
	events, err := r.log.Load(r.t.Context(), id.Stream())
	if err != nil {
		r.t.Fatal(err)
	}
	events = slices.DeleteFunc(events, func(e eventstore.Event) bool { return e.Type != "replay.queued" })
	var least time.Duration // what is late may be made up for
	for i := 1; i < len(events); i++ {
		least += time.Duration(float64(events[i-1].Value.(domain.ReplayQueued).Count) / rate * float64(time.Second))
		if after := events[i].RecordedAt.Sub(events[0].RecordedAt); after < least {
			r.t.Errorf("the replay asked %d times within %s, want %s", i+1, after, least)
		}
	}
	if len(events) < 5 {
		r.t.Errorf("the replay asked %d times", len(events))
	}
}
