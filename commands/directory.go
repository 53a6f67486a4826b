package commands

import (
	"context"
	"iter"
	"log/slog"
	"maps"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/medilab/webhooks/commands/vault"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/envelope"
	"github.com/medilab/webhooks/domain/filter"
	"github.com/medilab/webhooks/eventstore"
)

// Directory is all configuration (webhooks and tokens) as of now, in memory: the
// guide's cache of configurations, with no invalidation to get wrong, as it is a
// fold of the log. What this process appends is in it before the append returns;
// what others append follows within moments (see Run). Reading it takes no lock. Safe
// for concurrent use.
type Directory struct {
	Tracer trace.Tracer // nil: no spans are made; set before use
	// Keys encrypt the content of what is appended; nil: it stays in clear.
	Keys *vault.Keyring
	// OnErasure is called for each erasure in the log, also for those of other processes, and again when
	// the log is read from its beginning. It must not block. nil: nothing is called; set before use.
	OnErasure func(Erasure)

	log    *eventstore.Log
	logger *slog.Logger

	snapshot atomic.Pointer[snapshot]
	read     atomic.Pointer[time.Time] // when the log was last read for what is folded here
	changed  chan struct{}             // a token: another process has changed something
	deciding sync.RWMutex              // see decideAndAppend
	holding  chan struct{}             // a token of the unit that holds the configuration
	catchUp  eventstore.Refresher
	renewal  atomic.Pointer[eventstore.Refresher] // nil: there is nothing to renew; see RenewBy
	renewed  atomic.Int64                         // the log's generation in which it last was

	mu       sync.RWMutex
	position eventstore.Position // up to where the log is folded
}

// snapshot is the configuration at one moment. It never changes.
type snapshot struct {
	generation int64               // of the log; see eventstore.Unit.Generation
	position   eventstore.Position // of a webhook's last change; see eventstore.Unit.Configuration
	registry   *domain.Registry
	tokens     map[domain.TokenID]domain.Token
	byHash     map[string]domain.TokenID
}

// draft is the next snapshot while events are applied.
type draft struct {
	snapshot
	webhooks  *domain.RegistryDraft
	ownTokens bool // the maps are copies
}

// NewDirectory returns an empty directory, which must be an observer of the log that
// Open is then called with.
func NewDirectory(logger *slog.Logger) *Directory {
	d := &Directory{logger: logger, changed: make(chan struct{}, 1), holding: make(chan struct{}, 1)}
	d.snapshot.Store(&snapshot{registry: domain.NewRegistry()})
	d.catchUp.Run, d.catchUp.Timeout = d.readLog, 10*time.Second
	return d
}

// Open sets the log that the directory folds, and folds it up to its head.
func (d *Directory) Open(ctx context.Context, log *eventstore.Log) error {
	d.log = log
	if d.Keys != nil {
		d.Keys.Follow = d.follow
	}
	return d.readLog(ctx)
}

// Observe is the log's Observer.
func (d *Directory) Observe(batch []eventstore.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if batch[0].Position != d.position+1 || !d.current() {
		return // another process appended in between: CatchUp reads both
	}
	configuration := d.Configuration()
	var next *draft
	for i := range batch {
		if !eventstore.IsConfiguration(batch[i].Stream) {
			continue
		}
		if next == nil {
			next = d.draft()
		}
		if d.apply(next, &batch[i]) {
			configuration = batch[i].Position
		}
	}
	d.publish(next, configuration, batch[len(batch)-1].Position)
}

// CatchUp folds what the log holds beyond the directory's position, by one reading for
// all who ask at the same time.
func (d *Directory) CatchUp(ctx context.Context) error { return d.catchUp.Refresh(ctx) }

func (d *Directory) readLog(ctx context.Context) error {
	asked := time.Now()
	d.mu.RLock()
	position, generation := d.position, d.snapshot.Load().generation
	d.mu.RUnlock()
	read, err := d.log.ReadConfiguration(ctx, position, generation)
	if err != nil {
		return err
	}
	// Under the lock, for which this process's appends wait, they are there already.
	compiled := make([]*filter.Filter, len(read.Events))
	for i := range read.Events {
		compiled[i] = domain.FilterOf(read.Events[i].Value)
	}
	defer runtime.KeepAlive(compiled)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.read.Store(&asked)
	var next *draft
	if read.Generation != generation { // what was folded may not be in the log any more
		next = &draft{snapshot: snapshot{generation: read.Generation}, webhooks: domain.NewRegistry().Draft()}
		d.position = 0
	} else if read.Head <= d.position {
		return nil // what this process appended meanwhile goes further
	}
	if next == nil && (len(read.Events) > 0 || read.Current != d.Configuration()) {
		next = d.draft()
	}
	for i := range read.Events {
		if read.Events[i].Position > d.position {
			d.apply(next, &read.Events[i])
		}
	}
	d.publish(next, read.Current, read.Head)
	return nil
}

func (d *Directory) draft() *draft {
	now := *d.snapshot.Load()
	return &draft{snapshot: now, webhooks: now.registry.Draft()}
}

// publish makes a snapshot of the draft, if there is one, and of the configuration at
// that position, for the log up to head. The caller holds the lock.
func (d *Directory) publish(next *draft, configuration, head eventstore.Position) {
	if next != nil {
		next.position, next.registry = configuration, next.webhooks.Registry()
		d.snapshot.Store(&next.snapshot)
	}
	d.position = head
}

// current reports whether what is folded here is in the log: it has not lost its tail
// since.
func (d *Directory) current() bool { return d.snapshot.Load().generation == d.log.Generation() }

// Age returns how long ago the log was read for what others append: the directory
// holds all that was appended before.
func (d *Directory) Age() time.Duration {
	if asked := d.read.Load(); asked != nil && d.current() {
		return time.Since(*asked)
	}
	return math.MaxInt64
}

// Announced takes in what other processes announced.
func (d *Directory) Announced(keys []string) {
	if slices.Contains(keys, eventstore.AnnouncedConfiguration) || slices.Contains(keys, eventstore.AnnouncedAll) {
		eventstore.Signal(d.changed)
	}
}

// Run follows the appends of other processes until ctx ends.
func (d *Directory) Run(ctx context.Context) {
	const (
		poll  = 500 * time.Millisecond
		pause = 10 * time.Millisecond // between two readings under load
	)
	for eventstore.Wait(ctx, d.log.Pace(poll), d.changed) {
		if err := d.CatchUp(ctx); err != nil && ctx.Err() == nil {
			d.logger.Warn("configuration not read, trying again", "error", err)
		} else if err := d.Renewed(ctx); err != nil && ctx.Err() == nil {
			d.logger.Warn("what the log lost is not made up for, trying again", "error", err)
		}
		_ = eventstore.Sleep(ctx, pause)
	}
}

// apply folds one event, and reports whether the configuration is another one. The caller
// holds the lock.
func (d *Directory) apply(next *draft, e *eventstore.Event) (configures bool) {
	change, ok := e.Value.(domain.Change)
	kind, id, err := domain.ParseStream(e.Stream)
	switch {
	case !ok:
		d.logger.Error("configuration event not understood, it changes nothing", "position", e.Position, "error", e.Err)
	case err != nil:
		d.logger.Error("configuration stream not understood", "position", e.Position, "error", err)
	case kind == "webhook":
		next.webhooks.Apply(domain.WebhookID(id), change, e.RecordedAt)
	case kind == "subject":
		d.applyToKeys(envelope.Owner(id), change, e.Position)
		if erased, ok := change.(domain.SubjectErased); ok && d.OnErasure != nil {
			d.OnErasure(newErasure(id, erased, e.RecordedAt))
		}
	default:
		next.setToken(next.tokens[domain.TokenID(id)].Evolve(change, e.RecordedAt), e.RecordedAt)
	}
	return kind != "token"
}

func (d *Directory) applyToKeys(owner envelope.Owner, change domain.Change, at eventstore.Position) {
	if d.Keys == nil {
		return
	}
	switch c := change.(type) {
	case domain.SubjectErased:
		d.Keys.Erased(owner, at)
	case domain.PayloadsExpired:
		d.Keys.Expired(c.Until)
	}
}

// follow takes in what others appended, if that was not done within the time. In a new generation
// it waits for the renewal: the database has keys again that were destroyed.
func (d *Directory) follow(ctx context.Context, within time.Duration) error {
	if d.Age() >= within {
		if err := d.CatchUp(ctx); err != nil {
			return err
		}
	}
	return d.Renewed(ctx)
}

// RenewBy calls renew, which makes up for what the log lost before this process knew it, and again
// in each new generation of the log. Content is opened and appended in that only afterwards, so
// renew must do neither.
func (d *Directory) RenewBy(ctx context.Context, renew func(context.Context) error) error {
	const timeout = time.Minute
	run := func(ctx context.Context) error {
		generation := d.log.Generation()
		if d.renewed.Load() == generation {
			return nil
		}
		err := renew(ctx)
		if err == nil {
			d.renewed.Store(generation)
		}
		return err
	}
	if err := run(ctx); err != nil {
		return err
	}
	d.renewal.Store(&eventstore.Refresher{Run: run, Timeout: timeout})
	return nil
}

// IsRenewed reports whether the renewal of this generation is done.
func (d *Directory) IsRenewed() bool {
	return d.renewal.Load() == nil || d.renewed.Load() == d.log.Generation()
}

// Renewed returns once the renewal of this generation is done, or a *domain.Error.
func (d *Directory) Renewed(ctx context.Context) error {
	for !d.IsRenewed() {
		if err := d.renewal.Load().Refresh(ctx); err != nil {
			return domain.Unavailable("the service is not ready", err)
		}
	}
	return nil
}

// setToken makes the token that of its id. Sessions that have ended by then are forgotten.
func (n *draft) setToken(token domain.Token, at time.Time) {
	if !n.ownTokens {
		tokens, byHash := map[domain.TokenID]domain.Token{}, map[string]domain.TokenID{}
		for id, one := range n.tokens {
			if !one.Session || one.Valid(at) {
				tokens[id], byHash[one.Hash] = one, id
			}
		}
		n.tokens, n.byHash, n.ownTokens = tokens, byHash, true
	}
	n.tokens[token.ID], n.byHash[token.Hash] = token, token.ID
}

// Position returns up to where the directory has folded the log.
func (d *Directory) Position() eventstore.Position {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.position
}

// Configuration returns the position of the last change of a webhook that is known
// here; see eventstore.Unit.Configuration.
func (d *Directory) Configuration() eventstore.Position { return d.snapshot.Load().position }

func (d *Directory) registry() *domain.Registry { return d.snapshot.Load().registry }

// Webhook returns a webhook, deleted ones included.
func (d *Directory) Webhook(id domain.WebhookID) (domain.Webhook, bool) {
	return d.registry().Webhook(id)
}

// Number returns the id of the webhook with the short number.
func (d *Directory) Number(number int64) (domain.WebhookID, bool) {
	w, ok := d.registry().ByNumber(number)
	return w.ID, ok
}

// Webhooks returns them all, deleted ones included, by number.
func (d *Directory) Webhooks() []domain.Webhook { return d.registry().All() }

// Newest iterates over all webhooks, deleted ones included, from the highest number
// down, as they are when it is called.
func (d *Directory) Newest() iter.Seq[domain.Webhook] { return d.registry().Newest() }

// Costly reports whether deciding who gets the event may take a millisecond or more.
func (d *Directory) Costly(eventType domain.EventType, data []byte) bool {
	return d.registry().Costly(eventType, data)
}

// Ordered iterates over the webhooks that events of the type may go to and that order or number
// them.
func (d *Directory) Ordered(t domain.EventType) iter.Seq[domain.WebhookID] {
	return d.registry().Ordered(t)
}

// Wanted reports whether an active webhook is subscribed to the type.
func (d *Directory) Wanted(t domain.EventType) bool { return d.registry().Wanted(t) }

// TokenByHash returns the token whose SHA-256 is hash, in hex; it may be expired
// or revoked.
func (d *Directory) TokenByHash(hash string) (domain.Token, bool) {
	now := d.snapshot.Load()
	id, ok := now.byHash[hash]
	return now.tokens[id], ok
}

// Token returns a token by its id.
func (d *Directory) Token(id domain.TokenID) (domain.Token, bool) {
	token, ok := d.snapshot.Load().tokens[id]
	return token, ok
}

// Tokens returns them all, the oldest first.
func (d *Directory) Tokens() []domain.Token {
	return slices.SortedFunc(maps.Values(d.snapshot.Load().tokens), func(a, b domain.Token) int { return a.CreatedAt.Compare(b.CreatedAt) })
}

// Actors of the system itself.
const (
	ActorDispatcher = "system:dispatcher"
	ActorDelivery   = "system:delivery"
)
