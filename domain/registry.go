package domain

import (
	"bytes"
	"cmp"
	"encoding/json"
	"iter"
	"slices"
	"time"
)

// Registry is the fold of all webhooks by which events are matched. Which
// webhooks an event goes to is decided by the registry as it was at the event's
// place in the log: the same on any node, at any time again. Dispatch, explain
// and backtest are this one fold, stopped at different places.
//
// A Registry is not safe for concurrent use.
type Registry struct {
	webhooks map[WebhookID]*registered
	ordered  []*registered                  // all of them, by number
	byAsked  map[Subscription][]*registered // active ones, by number; nil: to be made
	byType   map[EventType]audience         // the same, by type; made when first asked
}

// audience is who asked for a type: active webhooks that can match, by number.
type audience struct {
	candidates []*registered
	// Every event of the type goes to these, as no filter is among them; nil: filters
	// decide. It is handed out, so it never changes.
	all   []Recipient
	short *shortlist // of the candidates; nil: ask them all
}

// registered is a webhook ready to match.
type registered struct {
	Webhook
	subscriptions Subscriptions
	filter        *Filter
	broken        bool // its filter does not compile any more: it matches nothing
}

// NewRegistry gives the fold of nothing.
func NewRegistry() *Registry {
	return &Registry{webhooks: map[WebhookID]*registered{}, byType: map[EventType]audience{}}
}

// Apply folds one change of a webhook's stream, which the log recorded at the
// time. Other changes do nothing.
func (r *Registry) Apply(id WebhookID, change Change, at time.Time) {
	before := r.webhooks[id]
	if before == nil {
		before = &registered{Webhook: Webhook{ID: id}}
	}
	after := &registered{Webhook: before.Webhook.Evolve(change, at)}
	if after.Version == before.Version {
		return
	}
	after.subscriptions, after.filter, after.broken = before.subscriptions, before.filter, before.broken
	switch change.(type) {
	case WebhookRegistered, WebhookChanged:
		after.compile()
	}
	r.webhooks[id] = after
	r.place(before, after)
	r.byAsked = nil
	clear(r.byType)
}

// place puts a webhook as it is now in the place of what it was.
func (r *Registry) place(before, after *registered) {
	at, found := r.find(before)
	if found && before.Number == after.Number {
		r.ordered[at] = after
		return
	}
	if found {
		r.ordered = slices.Delete(r.ordered, at, at+1)
	}
	at, _ = r.find(after)
	r.ordered = slices.Insert(r.ordered, at, after)
}

func (r *Registry) find(w *registered) (at int, found bool) {
	return slices.BinarySearchFunc(r.ordered, w, byNumber)
}

func byNumber(a, b *registered) int {
	return cmp.Or(cmp.Compare(a.Number, b.Number), bytes.Compare(a.ID[:], b.ID[:]))
}

func (w *registered) compile() {
	w.subscriptions = make(Subscriptions, len(w.Events))
	for i, s := range w.Events {
		w.subscriptions[i] = Subscription(s)
	}
	var err error
	w.filter, err = CompileFilter(w.Filters)
	w.broken = err != nil
}

// Webhook gives the webhook as the fold has it; deleted ones included.
func (r *Registry) Webhook(id WebhookID) (Webhook, bool) {
	w := r.webhooks[id]
	if w == nil {
		return Webhook{}, false
	}
	return w.Webhook, true
}

// All gives every webhook, deleted ones included, by number.
func (r *Registry) All() []Webhook {
	all := make([]Webhook, len(r.ordered))
	for i, w := range r.ordered {
		all[i] = w.Webhook
	}
	return all
}

// Newest goes through every webhook as it is now, deleted ones included, from
// the highest number down. The registry may change meanwhile.
func (r *Registry) Newest() iter.Seq[Webhook] {
	now := slices.Clone(r.ordered) // what it points to never changes
	return func(yield func(Webhook) bool) {
		for _, w := range slices.Backward(now) {
			if !yield(w.Webhook) {
				return
			}
		}
	}
}

// Recipients decides to whom the event goes: in the order of numbers, never nil.
// What it gives may be shared and must not be changed.
func (r *Registry) Recipients(eventType EventType, data json.RawMessage) []Recipient {
	who := r.audience(eventType)
	if who.all != nil {
		return who.all
	}
	recipients := []Recipient{}
	doc := ParseDoc(data)
	if who.short == nil {
		for _, w := range who.candidates {
			if w.filter.MatchDoc(doc) {
				recipients = append(recipients, w.recipient())
			}
		}
		return recipients
	}
	for _, place := range who.short.of(doc) {
		if w := who.candidates[place]; w.filter.MatchDoc(doc) {
			recipients = append(recipients, w.recipient())
		}
	}
	return recipients
}

func (w *registered) recipient() Recipient {
	to := Recipient{WebhookID: w.ID, WebhookVersion: w.Version}
	if w.Batch != nil {
		to.BatchWait, to.BatchMax = w.Batch.MaxWait, w.Batch.MaxEvents
	}
	return to
}

// audience finds who asked for the type.
func (r *Registry) audience(t EventType) audience {
	who, ok := r.byType[t]
	if ok {
		return who
	}
	if r.byAsked == nil {
		r.index()
	}
	for _, asked := range []Subscription{AllEvents, Subscription(t.Group() + ".*"), Subscription(t)} {
		if asked.Matches(t) {
			who.candidates = append(who.candidates, r.byAsked[asked]...)
		}
	}
	slices.SortFunc(who.candidates, byNumber)
	who.candidates = slices.Compact(who.candidates) // who asks in two ways
	if !slices.ContainsFunc(who.candidates, func(w *registered) bool { return !w.filter.MatchesAll() }) {
		who.all = make([]Recipient, len(who.candidates))
		for i, w := range who.candidates {
			who.all[i] = w.recipient()
		}
	} else {
		who.short = newShortlist(who.candidates)
	}
	r.byType[t] = who
	return who
}

// index makes the active webhooks that can match quick to find: with ten thousand
// of them and a thousand types, asking each webhook for each type took seconds.
func (r *Registry) index() {
	r.byAsked = map[Subscription][]*registered{}
	for _, w := range r.ordered {
		if !w.Active || !w.Exists() || w.broken {
			continue
		}
		for _, asked := range w.subscriptions {
			r.byAsked[asked] = append(r.byAsked[asked], w)
		}
	}
}

// Explanation says, for one webhook, whether an event goes to it and why not.
type Explanation struct {
	Webhook Webhook
	Matched bool
	// Subscribed, Active and Filter are the parts of the verdict, in this order.
	Subscribed bool
	Active     bool
	Filter     Verdict
}

// Explain gives the verdict for every webhook that exists here, by number.
func (r *Registry) Explain(eventType EventType, data json.RawMessage) []Explanation {
	var list []Explanation
	for _, w := range r.All() {
		if !w.Exists() {
			continue
		}
		list = append(list, r.explain(r.webhooks[w.ID], eventType, data))
	}
	return list
}

// ExplainOne is Explain for one webhook, active or not.
func (r *Registry) ExplainOne(id WebhookID, eventType EventType, data json.RawMessage) (Explanation, bool) {
	w := r.webhooks[id]
	if w == nil || !w.Exists() {
		return Explanation{}, false
	}
	return r.explain(w, eventType, data), true
}

func (r *Registry) explain(w *registered, eventType EventType, data json.RawMessage) Explanation {
	e := Explanation{Webhook: w.Webhook, Subscribed: w.subscriptions.Match(eventType), Active: w.Active}
	if w.broken {
		e.Filter = Verdict{Reason: "the filter cannot be evaluated"}
	} else {
		e.Filter = w.filter.Explain(data)
	}
	e.Matched = e.Subscribed && e.Active && e.Filter.Matched
	return e
}
