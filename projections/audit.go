package projections

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Position is an entry's place in the log.
type Position = eventstore.Position

// Entry is an entry of the log.
type Entry = eventstore.Event

// AuditFilter says what of the log to replay. The zero value is all of it. A stream, an
// event and times are found by indexes; all else looks through the log.
type AuditFilter struct {
	After         Position         // what follows it
	Stream        string           // "" is any
	Type          string           // exact, or a prefix that ends in ".*"; "" is any
	From, To      time.Time        // recorded at or after, before; zero is any
	Webhook       domain.WebhookID // its changes, deliveries, replays and alerts
	Event         domain.EventID   // it, its deliveries and their batches
	CorrelationID string
	Actor         string // as the log has it, or the id or name of a token
}

// Audit yields the log's entries in order, up to what was its head at the beginning. Their data may be
// written over when yield returns.
func (p *Projections) Audit(ctx context.Context, f AuditFilter, yield func(Entry) error) error {
	filter := eventstore.Filter{Type: f.Type, From: f.From, To: f.To}
	if f.Event != (domain.EventID{}) {
		var err error
		if filter.Streams, err = p.streamsOf(ctx, f.Event); err != nil {
			return err
		}
	}
	if f.Stream != "" && (filter.Streams == nil || slices.Contains(filter.Streams, f.Stream)) {
		filter.Streams = []string{f.Stream}
	} else if f.Stream != "" {
		return nil // no stream of the event
	}
	if f.Webhook != (domain.WebhookID{}) {
		filter.Mention, filter.Whole = f.Webhook.String(), replayStreams
	}
	if f.CorrelationID != "" {
		filter.Metadata = append(filter.Metadata, `"correlation_id":"`+eventstore.TextOf(f.CorrelationID)+`"`)
	}
	if f.Actor != "" {
		filter.Metadata = append(filter.Metadata, eventstore.TextOf(f.Actor))
	}
	var data []byte
	return p.log.Each(ctx, f.After, filter, func(e eventstore.Event) error {
		if !f.concerns(&e) {
			return nil
		}
		if content, ok := e.Value.(domain.Enveloped); ok && content.IsOpened() {
			data = domain.AppendClear(data[:0], content)
			e.Data = data
		}
		return yield(e)
	})
}

const replayStreams = "replay-"

// streamsOf returns the event's stream, and those of its deliveries and their batches.
func (p *Projections) streamsOf(ctx context.Context, id domain.EventID) ([]string, error) {
	streams := []string{id.Stream()}
	begun, err := p.begunWith(ctx, id, nil)
	for i := range begun {
		streams = append(streams, begun[i].Stream)
	}
	for _, joined := range each[domain.DeliveryJoinedBatch](begun) {
		streams = append(streams, joined.BatchID.Stream())
	}
	return streams, err
}

// concerns reports whether what the log's filter let through is about the webhook and by
// the actor, and does not merely mention them.
func (f AuditFilter) concerns(e *eventstore.Event) bool {
	if f.Actor != "" && !isActor(actorOf(e), f.Actor) {
		return false
	}
	if f.Webhook == (domain.WebhookID{}) || e.Stream == f.Webhook.Stream() || strings.HasPrefix(e.Stream, replayStreams) {
		return true
	}
	if event, err := domain.ParseEventStream(e.Stream); err == nil {
		dispatched, _ := domain.DispatchOf(event, e.Value)
		return slices.ContainsFunc(dispatched.Deliveries, func(d domain.Dispatch) bool { return d.WebhookID == f.Webhook })
	}
	if _, alert, ok := domain.AlertOf(e.Value); ok {
		return alert.Webhook == f.Webhook
	}
	c, ok := e.Value.(domain.Change)
	return ok && domain.Delivery{}.Evolve(c, e.RecordedAt).WebhookID == f.Webhook
}

// isActor reports whether the actor is the wanted one. A token's is "token:ID (NAME)", and
// its id or name is enough.
func isActor(actor, wanted string) bool {
	kind, name, _ := strings.Cut(strings.TrimSuffix(actor, ")"), " (")
	_, id, _ := strings.Cut(kind, ":")
	return slices.Contains([]string{actor, kind, id, name}, wanted)
}
