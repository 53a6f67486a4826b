package projections

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
)

// What follows turns entries of the log into the items that lists show of them. An item is as
// it was at its entry, however late it is read, so that an entry always makes the same items.

// Shown is an item of a list as an entry of the log left it.
type Shown[T any] struct {
	At       Position
	Item     T
	Webhooks []domain.WebhookID // that it is about
}

// What one page of entries holds at most: of a larger entry, one.
const (
	pageEntries = 1000
	pageWeight  = 2 << 20
	// itemWeight is about what a delivery takes in JSON; a batch has up to a thousand.
	itemWeight      = 500
	maxBatchMembers = 1000
)

// Entries returns entries after one position up to another, in order. weight is about the bytes
// of them and of their items. None: the log has none of these any more.
func (p *Projections) Entries(ctx context.Context, after, to Position) (entries []Entry, weight int, err error) {
	entries, err = p.log.Read(ctx, after, int(min(pageEntries, to-after)))
	for i := range entries {
		w := weightOf(&entries[i])
		if entries[i].Position > to || i > 0 && weight+w > pageWeight {
			return slices.Clip(entries[:i]), weight, nil
		}
		weight += w
	}
	return entries, weight, err
}

func weightOf(e *Entry) int {
	if event, ok := e.Value.(domain.EventTriggered); ok {
		return len(e.Data) + itemWeight*len(event.Recipients)
	}
	if s, ok := deliveryOf(e); ok && s.batch {
		return len(e.Data) + itemWeight*maxBatchMembers
	}
	return len(e.Data) + itemWeight
}

// EventsIn returns the clinic's events among the entries. They are about the webhooks that
// they were dispatched to.
func EventsIn(entries []Entry) (shown []Shown[Event]) {
	for i := range entries {
		event, ok := newEvent(&entries[i])
		if !ok {
			continue
		}
		webhooks := mapped(event.recipients, func(r domain.Recipient) domain.WebhookID { return r.WebhookID })
		shown = append(shown, Shown[Event]{event.Position, event, webhooks})
	}
	return shown
}

// CallsIn returns the calls that the entries record.
func CallsIn(entries []Entry) (shown []Shown[Call]) {
	for i := range entries {
		if call, ok := newCall(&entries[i]); ok {
			shown = append(shown, Shown[Call]{call.Position, call, []domain.WebhookID{call.WebhookID}})
		}
	}
	return shown
}

// Erasure is an entry of the log that destroyed keys: events and calls from before it may be erased,
// or expired, since.
type Erasure struct {
	Position   Position  `json:"position"`
	Type       string    `json:"type"`
	RecordedAt time.Time `json:"recorded_at"`
}

// ErasuresIn returns the erasures among the entries, whose webhooks are not known.
func ErasuresIn(entries []Entry) (shown []Shown[Erasure]) {
	for i := range entries {
		e := &entries[i]
		switch e.Value.(type) {
		case domain.SubjectErased, domain.PayloadsExpired:
			shown = append(shown, Shown[Erasure]{At: e.Position, Item: Erasure{e.Position, e.Type, e.RecordedAt}})
		}
	}
	return shown
}

// WebhooksIn returns the webhooks that the entries changed.
func (p *Projections) WebhooksIn(ctx context.Context, entries []Entry) (shown []Shown[domain.Webhook], err error) {
	streams, wanted := map[string]bool{}, map[Position]bool{}
	for i := range entries {
		if _, ok := webhookOf(&entries[i]); ok {
			streams[entries[i].Stream], wanted[entries[i].Position] = true, true
		}
	}
	if len(streams) == 0 {
		return nil, nil
	}
	history, err := p.log.LoadAll(ctx, slices.Collect(maps.Keys(streams)))
	if err != nil {
		return nil, fmt.Errorf("read webhooks: %w", err)
	}
	var w domain.Webhook
	for i := range history {
		e := &history[i]
		if e.Version == 1 {
			w = domain.Webhook{}
		}
		change, ok := e.Value.(domain.Change)
		if !ok {
			continue
		}
		if w = w.Evolve(change, e.RecordedAt); wanted[e.Position] {
			shown = append(shown, Shown[domain.Webhook]{e.Position, w, []domain.WebhookID{w.ID}})
		}
	}
	slices.SortFunc(shown, func(a, b Shown[domain.Webhook]) int { return cmp.Compare(a.At, b.At) })
	return shown, nil
}

// AlertsIn returns the alerts that the entries raised, acknowledged or resolved. What an alert
// counts is as it is now.
func (p *Projections) AlertsIn(ctx context.Context, entries []Entry) (shown []Shown[Alert], err error) {
	ids := map[int]uuid.UUID{} // by the entry's index
	for i := range entries {
		if id, _, ok := domain.AlertOf(entries[i].Value); ok {
			ids[i] = uuid.UUID(id)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	rows, _ := p.pool.Query(ctx, alertColumns+`WHERE id = ANY($1)`, slices.Collect(maps.Values(ids)))
	alerts, err := pgx.CollectRows(rows, scanAlert)
	if err != nil {
		return nil, fmt.Errorf("read alerts: %w", err)
	}
	for _, i := range slices.Sorted(maps.Keys(ids)) {
		for _, a := range alerts {
			if a.ID == ids[i] {
				shown = append(shown, Shown[Alert]{entries[i].Position, a.asOf(entries[i].RecordedAt), []domain.WebhookID{a.Key().Webhook}})
			}
		}
	}
	return shown, nil
}

// asOf returns the alert as it was at the time.
func (a Alert) asOf(at time.Time) Alert {
	if a.ResolvedAt != nil && a.ResolvedAt.After(at) {
		a.State, a.ResolvedAt = AlertOpen, nil
	}
	if a.AcknowledgedAt != nil && a.AcknowledgedAt.After(at) {
		a.AcknowledgedAt, a.AcknowledgedBy = nil, nil
	}
	return a
}

// deliveryOf returns the delivery, or the batch, that the entry changed.
func deliveryOf(e *Entry) (stand, bool) {
	if c, ok := e.Value.(domain.DeliveryJoinedBatch); ok {
		return stand{stream: e.Stream, at: e.Position, event: c.EventID, webhook: c.WebhookID}, true
	}
	s, _ := standOf(e)
	return s, s.event != domain.EventID{}
}

// DeliveriesIn returns the deliveries that the entries began or changed.
func (p *Projections) DeliveriesIn(ctx context.Context, entries []Entry) ([]Shown[Delivery], error) {
	var stands []stand
	at, heads := make(map[Position]*Entry, len(entries)), map[domain.EventID]eventHead{}
	for i := range entries {
		e := &entries[i]
		at[e.Position] = e
		if s, ok := deliveryOf(e); ok {
			stands = append(stands, s)
		}
		if event, ok := newEvent(e); ok {
			heads[event.ID] = event.head()
		}
	}
	stands, err := ofMembers(ctx, p.pool, stands)
	if err == nil {
		err = p.addHeads(ctx, heads, stands)
	}
	if err != nil {
		return nil, fmt.Errorf("read deliveries: %w", err)
	}
	shown := begunBy(entries, heads)
	var later []Delivery
	for _, s := range stands {
		head, known := heads[s.event]
		if !known {
			continue
		}
		item, e := newDelivery(head, dispatchTo(s.event, domain.Recipient{WebhookID: s.webhook})), at[s.at]
		if _, joined := e.Value.(domain.DeliveryJoinedBatch); e.Version > 1 || joined {
			item.asOf = s.at
			later = append(later, item)
			continue
		}
		item.UpdatedAt = e.RecordedAt
		shown = append(shown, item.shownAt(s.at, domain.Delivery{}.Evolve(e.Value.(domain.Change), e.RecordedAt)))
	}
	if err := p.stateOf(ctx, later); err != nil {
		return nil, fmt.Errorf("read deliveries: %w", err)
	}
	for _, item := range later {
		shown = append(shown, Shown[Delivery]{item.asOf, item, []domain.WebhookID{item.WebhookID}})
	}
	slices.SortStableFunc(shown, func(a, b Shown[Delivery]) int { return cmp.Compare(a.At, b.At) })
	return shown, nil
}

// shownAt returns a new delivery in the state.
func (d Delivery) shownAt(at Position, s domain.Delivery) Shown[Delivery] {
	d.NextAttemptAt = nil
	d.show(s)
	return Shown[Delivery]{at, d, []domain.WebhookID{d.WebhookID}}
}

// begunBy returns the deliveries that events were dispatched to: nothing happened to them yet.
func begunBy(entries []Entry, heads map[domain.EventID]eventHead) (shown []Shown[Delivery]) {
	for i := range entries {
		_, id, err := domain.ParseStream(entries[i].Stream)
		if err != nil {
			continue
		}
		dispatched, _ := domain.DispatchOf(domain.EventID(id), entries[i].Value)
		for _, d := range dispatched.Deliveries {
			if head, known := heads[domain.EventID(id)]; known {
				item := newDelivery(head, d)
				shown = append(shown, item.shownAt(entries[i].Position, domain.Delivery{State: domain.DeliveryPending, NextAttemptAt: *item.NextAttemptAt}))
			}
		}
	}
	return shown
}

// addHeads reads the events of the stands that are not there yet.
func (p *Projections) addHeads(ctx context.Context, heads map[domain.EventID]eventHead, stands []stand) error {
	missing := map[string]bool{}
	for _, s := range stands {
		if _, known := heads[s.event]; !known {
			missing[s.event.Stream()] = true
		}
	}
	read, err := headsOf(ctx, p.pool, headsByStream, slices.Collect(maps.Keys(missing)))
	maps.Copy(heads, read)
	return err
}
