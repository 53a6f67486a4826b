package projections

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Delivery is one event on its way to one webhook, as it stands.
type Delivery struct {
	ID             domain.DeliveryID    `json:"delivery_id"`
	EventID        domain.EventID       `json:"event_id"`
	EventType      string               `json:"event_type"`
	WebhookID      domain.WebhookID     `json:"webhook_id"`
	BatchID        *domain.DeliveryID   `json:"batch_id"` // the delivery by which it goes together with others; null: by itself
	State          domain.DeliveryState `json:"state"`
	Attempts       int                  `json:"attempts"`
	NextAttemptAt  *time.Time           `json:"next_attempt_at"`
	WaitingBehind  *domain.DeliveryID   `json:"waiting_behind"` // the one directly before it in its key; null: it does not wait for one
	Reason         *string              `json:"reason"`         // why it ended, when it did not succeed
	Outcome        *domain.Outcome      `json:"outcome"`        // of the last attempt, as is what follows; null: none has ended
	ResponseStatus *int                 `json:"response_status"`
	Error          *string              `json:"error"`
	CreatedAt      time.Time            `json:"created_at"`
	UpdatedAt      time.Time            `json:"updated_at"`
	Version        int64                `json:"version"`

	sentBy     []Sent
	asOf       Position  // what came later does not count; 0: all counts
	left       Position  // where it left its batch; 0: it did not
	occurredAt time.Time // of the event
}

// Sent is what sent an event to a webhook, and how that ended; a retry of it counts as
// part of it.
type Sent struct {
	Kind       SentKind             `json:"kind"`
	ID         uuid.UUID            `json:"id"` // the replay's, else the delivery's
	DeliveryID domain.DeliveryID    `json:"delivery_id"`
	State      domain.DeliveryState `json:"state"` // when the next was asked for, or now

	batch domain.DeliveryID // in which it went, when that is its state
}

// SentKind says what sent an event.
type SentKind string

// What sends events.
const (
	SentByDispatch SentKind = "dispatch"
	SentByReplay   SentKind = "replay"
	SentByTest     SentKind = "test"
)

// Deliveries lists the deliveries of an event in the order of its dispatch, or
// returns a *domain.Error of KindNotFound. It reads the log itself, so it never lags.
func (p *Projections) Deliveries(ctx context.Context, id domain.EventID, limit int, cursor Cursor) (page Page[Delivery], err error) {
	event, dispatched, err := p.event(ctx, id)
	if err != nil {
		return page, err
	}
	all, err := p.replayedTo(ctx, id, dispatched)
	if err != nil {
		return page, err
	}
	list := all[min(int64(cursor), int64(len(all))):]
	list = list[:min(limit, len(list))]
	if rest := int64(cursor) + int64(len(list)); rest < int64(len(all)) {
		page.NextCursor = Cursor(rest)
	}
	page.Items, err = p.deliveries(ctx, event, list)
	return page, err
}

// deliveries returns the state of the deliveries of the event. They began, to the
// moment or nearly, when the event was accepted.
func (p *Projections) deliveries(ctx context.Context, event Event, list []domain.Dispatch) ([]Delivery, error) {
	items := mapped(list, func(d domain.Dispatch) Delivery { return newDelivery(event.head(), d) })
	return items, p.stateOf(ctx, items)
}

// dispatchTo returns the delivery of the event to the recipient.
func dispatchTo(id domain.EventID, to domain.Recipient) domain.Dispatch {
	return domain.Dispatch{DeliveryID: domain.DeliveryOf(id, to.WebhookID), Recipient: to}
}

// newDelivery returns a delivery that nothing happened to yet.
func newDelivery(event eventHead, d domain.Dispatch) Delivery {
	due := event.acceptedAt.Add(time.Duration(d.BatchWait) * time.Second)
	item := Delivery{ID: d.DeliveryID, EventID: event.id, EventType: event.eventType, WebhookID: d.WebhookID,
		NextAttemptAt: &due, CreatedAt: event.acceptedAt, UpdatedAt: event.acceptedAt, occurredAt: event.occurredAt}
	if d.WebhookVersion > 0 { // a replay's has none
		item.sentBy = []Sent{{Kind: SentByDispatch, ID: uuid.UUID(d.DeliveryID), DeliveryID: d.DeliveryID}}
	}
	return item
}

// stateOf completes new deliveries by what the log says of each, and of the batches that they
// went in.
func (p *Projections) stateOf(ctx context.Context, items []Delivery) error {
	if len(items) == 0 {
		return nil
	}
	// A delivery begins after its event, and a batch after those of all its members.
	since := slices.MinFunc(items, func(a, b Delivery) int { return a.CreatedAt.Compare(b.CreatedAt) }).CreatedAt
	states, own := make([]domain.Delivery, len(items)), make([]folded, len(items))
	for i := range items {
		states[i] = domain.Delivery{State: domain.DeliveryPending, NextAttemptAt: *items[i].NextAttemptAt}
		items[i].NextAttemptAt = nil
		own[i] = folded{items[i].ID.Stream(), &states[i], &items[i]}
	}
	if err := p.fold(ctx, since, own); err != nil {
		return err
	}
	joined := map[int]*domain.Delivery{}  // by the index of the item: its batch
	sent := map[[2]int]*domain.Delivery{} // by that and the index in sentBy: what was replayed by itself since
	var batches []folded
	for i := range items {
		if states[i].BatchID != (domain.DeliveryID{}) {
			joined[i] = &domain.Delivery{}
			batches = append(batches, folded{states[i].BatchID.Stream(), joined[i], &items[i]})
		}
		for j, by := range items[i].sentBy {
			if by.State == domain.DeliveryJoined {
				sent[[2]int{i, j}] = &domain.Delivery{}
				batches = append(batches, folded{by.batch.Stream(), sent[[2]int{i, j}], nil})
			}
		}
	}
	if err := p.fold(ctx, since, batches); err != nil {
		return err
	}
	for at, batch := range sent {
		items[at[0]].sentBy[at[1]].State = (domain.Delivery{EventID: items[at[0]].EventID}).In(*batch).State
	}
	gone, err := p.goneIn(ctx, items, joined)
	if err != nil {
		return err
	}
	for i := range items {
		if batch := joined[i]; batch != nil {
			stayed := states[i].State == domain.DeliveryJoined
			states[i] = states[i].In(*batch)
			switch why, known := gone[items[i].EventID]; {
			case !known || !stayed:
			case why.Expired:
				states[i].CancelReason = domain.CancelExpired
			case !why.Erased: // the replay took it out after it was read here
				states[i].State, states[i].CancelReason = domain.DeliveryFailed, ""
			}
		}
		items[i].show(states[i])
	}
	return nil
}

// goneIn returns why the events have no content, of those in batches that a replay ended: the log does not
// say why these were not sent. It leaves out events that are not found.
func (p *Projections) goneIn(ctx context.Context, items []Delivery, joined map[int]*domain.Delivery) (map[domain.EventID]Gone, error) {
	gone, streams := map[domain.EventID]Gone{}, []string{}
	for i, batch := range joined {
		if batch.CancelReason == domain.CancelReplayed {
			streams = append(streams, items[i].EventID.Stream())
		}
	}
	if len(streams) == 0 {
		return nil, nil
	}
	begun, err := p.log.LoadFirst(ctx, streams)
	for i := range begun {
		if event, ok := newEvent(&begun[i]); ok {
			gone[event.ID] = event.Gone
		}
	}
	return gone, err
}

// folded is a state that is folded from a stream.
type folded struct {
	stream string
	state  *domain.Delivery
	item   *Delivery // notes when that was; nil: nobody does
}

// fold evolves each state by its stream. None of them began before the time.
func (p *Projections) fold(ctx context.Context, since time.Time, all []folded) error {
	if len(all) == 0 {
		return nil
	}
	byStream := make(map[string][]folded, len(all)) // members of one batch share its stream
	for _, one := range all {
		byStream[one.stream] = append(byStream[one.stream], one)
	}
	events, err := p.closed.LoadAllSince(ctx, since, slices.Collect(maps.Keys(byStream)))
	for e, change := range each[domain.Change](events) {
		for _, one := range byStream[e.Stream] {
			if item := one.item; item != nil {
				if item.asOf > 0 && e.Position > item.asOf || !item.concerns(e, change) {
					continue
				}
				switch c := change.(type) {
				case domain.DeliveryRetryRequested:
					item.askedAgain(e, *one.state)
				case domain.DeliveryCancelled:
					if c.Was == domain.DeliveryJoined {
						item.left = e.Position
					}
				}
				if e.RecordedAt.After(item.UpdatedAt) { // what left its batch was changed after that
					item.UpdatedAt = e.RecordedAt
				}
			}
			*one.state = one.state.Evolve(change, e.RecordedAt)
		}
	}
	return err
}

// concerns reports whether the change is of the delivery. After it has left its batch, of what becomes
// of that only a call that was under way then is: it sent the event.
func (d *Delivery) concerns(e *eventstore.Event, change domain.Change) bool {
	call, ok := domain.OutcomeOf(change)
	return d.left == 0 || e.Position <= d.left || ok && call.Sent(d.EventID)
}

// askedAgain notes the replay that asked for the delivery, in the state that it was in
// then; anybody else asked for a retry of what is there.
func (d *Delivery) askedAgain(request *eventstore.Event, was domain.Delivery) {
	by, _ := request.ReadMetadata()
	replay, _ := uuid.Parse(by.CausationID) // nil: of no replay
	n := len(d.sentBy)
	if n > 0 && replay == uuid.Nil {
		return
	}
	if n > 0 {
		d.sentBy[n-1].State, d.sentBy[n-1].batch = was.State, was.BatchID
	}
	d.sentBy = append(d.sentBy, Sent{Kind: SentByReplay, ID: cmp.Or(replay, uuid.UUID(d.ID)), DeliveryID: d.ID})
}

func (d *Delivery) show(s domain.Delivery) {
	d.State, d.Attempts, d.Version = s.State, s.Attempts, s.Version
	d.Outcome, d.ResponseStatus, d.Error = orNil(s.LastOutcome), orNil(s.LastStatus), orNil(s.LastError)
	d.Reason = orNil(string(s.GaveUp) + string(s.CancelReason))
	d.BatchID = orNil(s.BatchID)
	if n := len(d.sentBy); n > 0 {
		d.sentBy[n-1].State = s.State
	}
	if s.State == domain.DeliveryPending {
		d.NextAttemptAt = &s.NextAttemptAt
	}
}

// replayedTo adds to the deliveries that an event was dispatched to those that only
// a replay made, in the order of the log.
func (p *Projections) replayedTo(ctx context.Context, id domain.EventID, dispatched []domain.Dispatch) ([]domain.Dispatch, error) {
	known := make(map[string]bool, len(dispatched))
	for _, d := range dispatched {
		known[d.DeliveryID.Stream()] = true
	}
	begun, err := p.begunWith(ctx, id, known)
	if err != nil {
		return nil, err
	}
	all := slices.Clip(dispatched)
	for _, asked := range each[domain.DeliveryRetryRequested](begun) {
		if asked.EventID == id {
			all = append(all, dispatchTo(id, domain.Recipient{WebhookID: asked.WebhookID}))
		}
	}
	return all, nil
}

// begunWith returns the first event of every delivery of the event, as far as it has one,
// in the order of the log: tests too, and batches; without those that are known. A UUIDv7 shares its millisecond with its
// deliveries, so they are one short run of the log's index however many webhooks there are.
func (p *Projections) begunWith(ctx context.Context, id domain.EventID, known map[string]bool) ([]eventstore.Event, error) {
	streams, err := p.begunStreams(ctx, []domain.EventID{id})
	streams = slices.DeleteFunc(streams, func(stream string) bool { return known[stream] })
	if err != nil || len(streams) == 0 {
		return nil, err
	}
	return p.log.LoadFirst(ctx, streams)
}

// The range of each event goes by the unique index, whatever the planner knew.
const begunSQL = `SELECT b.stream FROM unnest($1::text[], $2::text[], $3::text[]) AS e (first, last, id)
	CROSS JOIN LATERAL (SELECT stream, position FROM medilab.events WHERE stream >= e.first AND stream <= e.last
		AND version = 1 AND position(convert_to(e.id, 'UTF8') IN data) > 0 ORDER BY stream LIMIT 1 << 30) AS b ORDER BY b.position`

// begunStreams returns the streams that begunWith reads, of several events: each once.
func (p *Projections) begunStreams(ctx context.Context, ids []domain.EventID) ([]string, error) {
	firsts, lasts, texts := make([]string, len(ids)), make([]string, len(ids)), make([]string, len(ids))
	for n, id := range ids {
		first, last := domain.DeliveryID(id), domain.DeliveryID(id)
		for i := 6; i < len(id); i++ {
			first[i], last[i] = 0, 0xff
		}
		firsts[n], lasts[n], texts[n] = first.Stream(), last.Stream(), id.String()
	}
	rows, _ := p.pool.Query(ctx, begunSQL, firsts, lasts, texts)
	streams, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return slices.Compact(streams), doing("look for deliveries", err)
}
