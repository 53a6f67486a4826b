// Package commands holds the use cases, a file each: load, decide, append.
package commands

import (
	"context"
	"iter"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Directory is all configuration (webhooks and tokens) as of now, in memory: the
// guide's cache of configurations, with no invalidation to get wrong, as it is a
// fold of the log. What this process appends is in it before the append returns;
// what others append follows within moments (see Run). Safe for concurrent use.
type Directory struct {
	log    *eventstore.Log
	logger *slog.Logger

	read atomic.Pointer[time.Time] // when the log was asked last for what is folded here

	mu       sync.RWMutex
	position eventstore.Position
	registry *domain.Registry
	tokens   map[domain.TokenID]domain.Token
	byHash   map[string]domain.TokenID
}

// NewDirectory gives a directory of nothing; CatchUp fills it. It must be given
// to the log as an observer: see Observe.
func NewDirectory(logger *slog.Logger) *Directory {
	return &Directory{
		logger:   logger,
		registry: domain.NewRegistry(),
		tokens:   map[domain.TokenID]domain.Token{},
		byHash:   map[string]domain.TokenID{},
	}
}

// Attach tells the directory which log it folds. The log needs the directory at
// its opening, so this comes after.
func (d *Directory) Attach(log *eventstore.Log) { d.log = log }

// Observe is the log's Observer.
func (d *Directory) Observe(batch []eventstore.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if batch[0].Position != d.position+1 {
		return // another process appended in between: CatchUp reads both
	}
	d.apply(batch)
	d.position = batch[len(batch)-1].Position
}

// CatchUp folds what the log holds beyond the directory's position.
func (d *Directory) CatchUp(ctx context.Context) error {
	asked := time.Now()
	events, head, err := d.log.ReadConfiguration(ctx, d.Position())
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.apply(events)
	d.position = max(d.position, head)
	d.read.Store(&asked)
	return nil
}

// Age is how long ago the log was asked for what others append: the directory knows
// all that was appended before.
func (d *Directory) Age() time.Duration {
	if asked := d.read.Load(); asked != nil {
		return time.Since(*asked)
	}
	return math.MaxInt64
}

// Run follows the appends of other processes until ctx ends.
func (d *Directory) Run(ctx context.Context) {
	const (
		poll     = 500 * time.Millisecond
		breathe  = 10 * time.Millisecond // between two readings under load
		patience = 10 * time.Second      // with a connection that is dead and does not say so
	)
	// What this process appended is known, unless another appended right before it.
	wake, stop := d.log.Wakes(func(batch []eventstore.Event) bool { return d.Position() < batch[len(batch)-1].Position })
	defer stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-time.After(poll):
		}
		reading, cancel := context.WithTimeout(ctx, patience)
		err := d.CatchUp(reading)
		cancel()
		if err != nil && ctx.Err() == nil {
			d.logger.Warn("configuration not read, trying again", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(breathe):
		}
	}
}

// apply folds the events that are news. The caller holds the lock.
func (d *Directory) apply(events []eventstore.Event) {
	for i := range events {
		e := &events[i]
		if e.Position <= d.position || !(strings.HasPrefix(e.Stream, "webhook-") || strings.HasPrefix(e.Stream, "token-")) {
			continue
		}
		change, ok := e.Value.(domain.Change)
		if !ok {
			d.logger.Error("configuration event not understood, it changes nothing", "position", e.Position, "error", e.Err)
			continue
		}
		kind, id, err := domain.ParseStream(e.Stream)
		switch {
		case err != nil:
			d.logger.Error("configuration stream not understood", "position", e.Position, "error", err)
		case kind == "webhook":
			d.registry = d.registry.With(domain.WebhookID(id), change, e.RecordedAt)
		case kind == "token":
			d.applyToken(domain.TokenID(id), change, e.RecordedAt)
		}
	}
}

func (d *Directory) applyToken(id domain.TokenID, change domain.Change, at time.Time) {
	token := d.tokens[id].Evolve(change, at)
	d.tokens[id] = token
	d.byHash[token.Hash] = id
}

// Position is up to where the directory has folded the log.
func (d *Directory) Position() eventstore.Position {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.position
}

// Webhook gives a webhook, deleted ones included.
func (d *Directory) Webhook(id domain.WebhookID) (domain.Webhook, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.registry.Webhook(id)
}

// Number gives the id of the webhook with the short number.
func (d *Directory) Number(number int64) (domain.WebhookID, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	w, ok := d.registry.ByNumber(number)
	return w.ID, ok
}

// Webhooks gives them all, deleted ones included, by number.
func (d *Directory) Webhooks() []domain.Webhook {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.registry.All()
}

// Newest goes through them all, deleted ones included, from the highest number
// down, as they are when it is called.
func (d *Directory) Newest() iter.Seq[domain.Webhook] {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.registry.Newest()
}

// Explain tells whether an event of the type with the data would go to the
// webhook as it is now.
func (d *Directory) Explain(id domain.WebhookID, eventType domain.EventType, data []byte) (domain.Explanation, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.registry.ExplainOne(id, eventType, data)
}

// TokenByHash gives the token whose SHA-256 is hash, in hex; it may be expired
// or revoked.
func (d *Directory) TokenByHash(hash string) (domain.Token, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	id, ok := d.byHash[hash]
	return d.tokens[id], ok
}

// Token gives a token by its id.
func (d *Directory) Token(id domain.TokenID) (domain.Token, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	token, ok := d.tokens[id]
	return token, ok
}

// Tokens gives them all, the oldest first.
func (d *Directory) Tokens() []domain.Token {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return slices.SortedFunc(maps.Values(d.tokens), func(a, b domain.Token) int { return a.CreatedAt.Compare(b.CreatedAt) })
}

// Follow implements eventstore.Follower: it decides to whom the events of a batch
// go in the batch itself, when the directory has folded the log up to where the
// batch will stand. Else the dispatcher finds them in the log.
func (d *Directory) Follow(head eventstore.Position, batch []eventstore.Event) ([]eventstore.Event, bool) {
	d.mu.Lock() // matching keeps an index that it makes as it goes
	defer d.mu.Unlock()
	if d.position != head {
		return nil, false
	}
	var out []eventstore.Event
	for i := range batch {
		if strings.HasPrefix(batch[i].Stream, "webhook-") {
			return nil, false // what stands before an event decides: not this batch's own half
		}
		triggered, ok := batch[i].Value.(domain.EventTriggered)
		if !ok {
			continue
		}
		if out == nil {
			out = slices.Clone(batch)
		}
		triggered.Recipients = d.registry.Recipients(domain.EventType(triggered.EventType), triggered.EventData)
		out[i].Data, out[i].Value = stored(triggered)
	}
	return out, out != nil
}

// stored gives the form in which the log keeps the event, and the event with its
// data in there.
func stored(event domain.EventTriggered) ([]byte, domain.EventTriggered) {
	const around, recipient = 128, 90
	data := event.AppendJSON(make([]byte, 0, len(event.EventData)+len(event.Source)+len(event.CorrelationID)+around+recipient*len(event.Recipients)))
	end := len(data) - 1 // event_data is the last field, before the brace
	event.EventData = data[end-len(event.EventData) : end : end]
	return data, event
}

// Actors of the system itself.
const (
	ActorDispatcher = "system:dispatcher"
	ActorDelivery   = "system:delivery"
)
