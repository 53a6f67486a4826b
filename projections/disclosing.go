package projections

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/domain/envelope"
	"github.com/medilab/webhooks/eventstore"
)

// disclosing finds to whom events of the clinic, and tests, were sent. It asks the database
// for all of them together.
type disclosing struct {
	*Projections
	webhook domain.WebhookID // only to this one; zero: to any
	to      time.Time        // by calls before; zero: by all

	streams  map[string][]eventstore.Event // of deliveries, batches and webhooks
	webhooks map[domain.WebhookID][]HistoryEntry
}

// disclosed is an event of the clinic, or a test, and what it was sent by.
type disclosed struct {
	*disclosing
	source     *eventstore.Event
	event      Event             // zero: a test
	deliveries []domain.Dispatch // those that only a replay made have no version
	items      []Disclosure
	at         map[disclosedAs]int // in items
}

// disclosedAs is what makes one item of a list.
type disclosedAs struct {
	webhook domain.WebhookID
	kind    SentKind
	url     string
	what    string // name, fields and recipient
}

// of returns the items of each of the first positions: of as many as have enough deliveries,
// and of one at least.
func (d *disclosing) of(ctx context.Context, positions []Position, enough int) ([][]Disclosure, error) {
	events, err := d.log.GetMany(ctx, positions)
	if err != nil || len(events) == 0 {
		return make([][]Disclosure, len(positions)), err
	}
	d.streams, d.webhooks = map[string][]eventstore.Event{}, map[domain.WebhookID][]HistoryEntry{}
	all, err := d.dispatched(ctx, events, enough)
	if err != nil {
		return nil, err
	}
	if err := d.load(ctx, all); err != nil {
		return nil, err
	}
	items := make([][]Disclosure, slices.Index(positions, all[len(all)-1].source.Position)+1)
	for _, s := range all {
		if err := s.addAll(); err != nil {
			return nil, err
		}
		items[slices.Index(positions, s.source.Position)] = s.items
	}
	return items, nil
}

// dispatched returns the first of the events, with the deliveries that they were dispatched to.
func (d *disclosing) dispatched(ctx context.Context, events []eventstore.Event, enough int) (all []*disclosed, err error) {
	var former []string // whose recipients came later
	for e, triggered := range each[domain.EventTriggered](events) {
		if triggered.Recipients == nil {
			former = append(former, e.Stream)
		}
	}
	if err := d.read(ctx, former); err != nil {
		return nil, err
	}
	for i := 0; i < len(events) && enough > 0; i++ {
		s := &disclosed{disclosing: d, source: &events[i], at: map[disclosedAs]int{}}
		s.event, _ = newEvent(s.source)
		for _, e := range append(d.streams[s.source.Stream], events[i]) {
			if to, ok := domain.DispatchOf(s.event.ID, e.Value); ok {
				s.deliveries = to.Deliveries
			}
		}
		if d.webhook != (domain.WebhookID{}) {
			s.keepTo(d.webhook)
		}
		enough -= len(s.deliveries)
		all = append(all, s)
	}
	return all, nil
}

// keepTo leaves the delivery to the webhook, which may be a replay's.
func (s *disclosed) keepTo(webhook domain.WebhookID) {
	s.deliveries = slices.DeleteFunc(s.deliveries, func(d domain.Dispatch) bool { return d.WebhookID != webhook })
	if len(s.deliveries) == 0 {
		s.replayedTo(webhook)
	}
}

func (s *disclosed) replayedTo(webhook domain.WebhookID) {
	s.deliveries = append(s.deliveries, dispatchTo(s.event.ID, domain.Recipient{WebhookID: webhook}))
}

// load reads all that happened to the deliveries, and adds those that only replays made.
func (d *disclosing) load(ctx context.Context, all []*disclosed) error {
	var ids []domain.EventID
	events, streams := map[domain.EventID]*disclosed{}, map[string]bool{}
	for _, s := range all {
		if s.event.Type != "" && d.webhook == (domain.WebhookID{}) {
			ids, events[s.event.ID] = append(ids, s.event.ID), s
		}
		for _, of := range s.deliveries {
			streams[of.DeliveryID.Stream()] = true
		}
	}
	begun, err := d.begunStreams(ctx, ids)
	if err != nil {
		return err
	}
	begun = slices.DeleteFunc(begun, func(stream string) bool { return streams[stream] })
	if err := d.read(ctx, slices.AppendSeq(begun, maps.Keys(streams))); err != nil {
		return err
	}
	for _, stream := range begun {
		for _, first := range d.streams[stream][:min(1, len(d.streams[stream]))] { // none: archived meanwhile
			asked, ok := first.Value.(domain.DeliveryRetryRequested)
			if s := events[asked.EventID]; ok && s != nil {
				s.replayedTo(asked.WebhookID)
			}
		}
	}
	return d.loadRest(ctx, all)
}

// loadRest reads the batches that the deliveries went in, the webhooks, and the erasures.
func (d *disclosing) loadRest(ctx context.Context, all []*disclosed) error {
	rest := map[string]bool{}
	for _, history := range d.streams {
		for _, joined := range each[domain.DeliveryJoinedBatch](history) {
			rest[joined.BatchID.Stream()] = true
		}
	}
	for _, s := range all {
		for _, of := range s.deliveries {
			rest[of.WebhookID.Stream()] = true
		}
		if tested, ok := s.source.Value.(domain.DeliveryTested); ok {
			rest[tested.WebhookID.Stream()] = true
		}
		for _, owner := range s.erasable() {
			rest[domain.SubjectStream(owner)] = true
		}
	}
	return d.read(ctx, slices.Collect(maps.Keys(rest)))
}

// read reads those of the streams that were not read before.
func (d *disclosing) read(ctx context.Context, streams []string) error {
	streams = slices.DeleteFunc(streams, func(stream string) bool { return d.streams[stream] != nil })
	if len(streams) == 0 {
		return nil
	}
	events, err := d.log.LoadAll(ctx, streams)
	for _, e := range events {
		e.Data = nil
		d.streams[e.Stream] = append(d.streams[e.Stream], e)
	}
	return err
}

func (s *disclosed) addAll() error {
	if _, ok := s.source.Value.(domain.DeliveryTested); ok {
		return s.add(s.source, SentByTest)
	}
	for _, d := range s.deliveries {
		kind := SentByDispatch
		if d.WebhookVersion == 0 {
			kind = SentByReplay
		}
		if err := s.addStream(d.DeliveryID.Stream(), kind); err != nil {
			return err
		}
	}
	return nil
}

// addStream adds the calls of a delivery, and of the batch that it went in.
func (s *disclosed) addStream(stream string, kind SentKind) (err error) {
	var asked Delivery // what asked for the delivery
	var before domain.Delivery
	var due time.Time // when the attempt that follows was due first
	history := s.streams[stream]
	for i := range history {
		e := &history[i]
		switch c := e.Value.(type) {
		case domain.DeliveryRetryRequested:
			asked.sentBy = []Sent{{Kind: kind}}
			asked.askedAgain(e, domain.Delivery{})
			kind = asked.sentBy[len(asked.sentBy)-1].Kind
		case domain.DeliveryJoinedBatch:
			err = s.addStream(c.BatchID.Stream(), kind)
		case domain.DeliveryInterrupted:
			if !s.erasedBefore(e.Position, due) {
				err = s.add(e, kind)
			}
		default:
			err = s.add(e, kind)
		}
		if err != nil {
			return err
		}
		if change, ok := e.Value.(domain.Change); ok {
			was := before.State
			before = before.Evolve(change, e.RecordedAt)
			if _, asked := change.(domain.DeliveryRetryRequested); !asked || was != domain.DeliveryPending {
				due = before.NextAttemptAt // else the attempt may be under way already
			}
		}
	}
	return nil
}

// erasedBefore reports whether the event was erased, by the position, before the time at which an
// attempt was due, and every node knew. If that was cut off, nobody recorded what it left out: this
// was.
func (s *disclosed) erasedBefore(at Position, due time.Time) bool {
	const known = time.Second
	return slices.ContainsFunc(s.erasable(), func(owner envelope.Owner) bool {
		return slices.ContainsFunc(s.streams[domain.SubjectStream(owner)], func(e eventstore.Event) bool {
			return s.source.Position < e.Position && e.Position < at && e.RecordedAt.Add(known).Before(due)
		})
	})
}

// erasable returns the subjects whose erasures may have erased the event.
func (s *disclosed) erasable() []envelope.Owner {
	if !s.event.Erased {
		return nil
	}
	return domain.SubjectsOf(s.source.Value)
}

// add adds a call, if the event is one in which something may have been sent. What a batch
// sent is an item of the event.
func (s *disclosed) add(e *eventstore.Event, kind SentKind) error {
	call, ok := callOf(e.Value)
	if !ok || call.Outcome.SentNothing() || !call.Sent(s.event.ID) || !s.to.IsZero() && !e.RecordedAt.Before(s.to) {
		return nil
	}
	w, err := s.usedBy(e, call)
	if err != nil {
		return err
	}
	item := Disclosure{WebhookID: call.WebhookID, WebhookName: w.Name, URL: call.URL, EventID: s.event.ID, EventType: s.event.Type,
		Kind: kind, Recipient: w.Recipient, Fields: w.Fields, FirstCallAt: e.RecordedAt, Acknowledged: NotAcknowledged}
	if item.EventType == "" {
		item.EventID, item.EventType = call.EventID, call.EventType
	}
	what, err := json.Marshal([]any{w.Name, w.Fields, w.Recipient})
	if err != nil {
		return err
	}
	as := disclosedAs{call.WebhookID, kind, call.URL, string(what)}
	at, known := s.at[as]
	if !known {
		at = len(s.items)
		s.at[as], s.items = at, append(s.items, item)
	}
	s.items[at].add(call, e)
	return nil
}

// usedBy returns the webhook as the call used it; of one that was cut off, as it was then.
func (s *disclosed) usedBy(e *eventstore.Event, call domain.Call) (w domain.Webhook, err error) {
	history, known := s.webhooks[call.WebhookID]
	if !known {
		if history, err = historyOf(s.streams[call.WebhookID.Stream()]); err != nil {
			return w, err
		}
		s.webhooks[call.WebhookID] = history
	}
	return lastOf(history, func(h HistoryEntry) bool {
		if call.WebhookVersion > 0 {
			return h.Version <= call.WebhookVersion
		}
		return h.Position <= e.Position
	}), nil
}
