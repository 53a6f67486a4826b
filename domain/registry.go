package domain

import (
	"bytes"
	"cmp"
	"encoding/json"
	"iter"
	"slices"
	"sort"
	"time"
)

// Registry is a snapshot of all webhooks, by which events are matched. Who receives an
// event is decided by the registry at the event's position in the log, so every node
// decides the same at any time. Dispatch, explain and backtest all use this fold.
//
// A Registry never changes: With and Draft make new ones. It is safe for concurrent use.
//
// Webhooks stand in blocks by number. A block holds, for each subscription, who matches
// it, so a change rebuilds its block and shares all others.
type Registry struct {
	blocks []*block // by key
	ids    idMap
}

// NewRegistry returns a registry without webhooks.
func NewRegistry() *Registry { return new(Registry) }

// registered is a webhook prepared for matching. It never changes.
type registered struct {
	Webhook
	subscriptions Subscriptions
	filter        *Filter
	named         [][]value // see Filter.named
	broken        bool      // its filter does not compile any more: it matches nothing
}

func (w *registered) compile() {
	w.subscriptions = make(Subscriptions, len(w.Events))
	for i, s := range w.Events {
		w.subscriptions[i] = Subscription(s)
	}
	var err error
	w.filter, err = CompileFilter(w.Filters)
	w.broken = err != nil
	w.named = w.filter.named()
}

func (w *registered) recipient() Recipient {
	to := Recipient{WebhookID: w.ID, WebhookVersion: w.Version}
	if w.Batch != nil {
		to.BatchWait, to.BatchMax = w.Batch.MaxWait, w.Batch.MaxEvents
	}
	return to
}

func byNumber(a, b *registered) int {
	return cmp.Or(cmp.Compare(a.Number, b.Number), bytes.Compare(a.ID[:], b.ID[:]))
}

// With returns the registry after one more event of the webhook's stream, which the log
// recorded at the given time; r itself when the event changes nothing. To add many
// events, use a Draft.
func (r *Registry) With(id WebhookID, change Change, at time.Time) *Registry {
	draft := r.Draft()
	draft.Apply(id, change, at)
	return draft.Registry()
}

// Webhook returns the webhook, which may be deleted.
func (r *Registry) Webhook(id WebhookID) (Webhook, bool) { return r.ids.find(id).state() }

// ByNumber returns the webhook with the short number, which may be deleted.
func (r *Registry) ByNumber(number int64) (Webhook, bool) {
	b := r.block(blockOf(number, WebhookID{}))
	if b == nil {
		return Webhook{}, false
	}
	at := sort.Search(len(b.webhooks), func(i int) bool { return b.webhooks[i].Number >= number })
	if at == len(b.webhooks) || b.webhooks[at].Number != number {
		return Webhook{}, false
	}
	return b.webhooks[at].state()
}

func (w *registered) state() (Webhook, bool) {
	if w == nil {
		return Webhook{}, false
	}
	return w.Webhook, true
}

// All returns every webhook, deleted ones included, by number.
func (r *Registry) All() []Webhook {
	all := []Webhook{}
	for _, b := range r.blocks {
		for _, w := range b.webhooks {
			all = append(all, w.Webhook)
		}
	}
	return all
}

// Newest returns every webhook, deleted ones included, from the highest number down.
func (r *Registry) Newest() iter.Seq[Webhook] {
	return func(yield func(Webhook) bool) {
		for _, b := range slices.Backward(r.blocks) {
			for _, w := range slices.Backward(b.webhooks) {
				if !yield(w.Webhook) {
					return
				}
			}
		}
	}
}

// Recipients returns who receives the event, by number, never nil. The result may be
// shared and must not be changed.
func (r *Registry) Recipients(eventType EventType, data json.RawMessage) []Recipient {
	var few [8]*audience
	asked := r.audiences(eventType, few[:0])
	switch {
	case len(asked) == 0:
		return nobody
	case len(asked) == 1 && asked[0].everyone != nil:
		return asked[0].everyone
	}
	certain := 0
	for _, a := range asked {
		certain += len(a.everyone)
	}
	recipients := make([]Recipient, 0, certain)
	doc := ParseDoc(data)
	for _, a := range asked {
		recipients = a.appendMatching(recipients, doc)
	}
	return recipients
}

// nobody is the answer for events without recipients.
var nobody = []Recipient{}

// audiences appends who is subscribed to the type, block by block.
func (r *Registry) audiences(t EventType, to []*audience) []*audience {
	for _, b := range r.blocks {
		if a := b.audience(t); a != nil {
			to = append(to, a)
		}
	}
	return to
}

// Explanation says whether an event goes to one webhook, and if not, why.
type Explanation struct {
	Webhook Webhook
	Matched bool
	// Subscribed, Active and Filter are the parts of the verdict, in this order.
	Subscribed bool
	Active     bool
	Filter     Verdict
}

// Explain returns the verdict for every webhook that exists, by number.
func (r *Registry) Explain(eventType EventType, data json.RawMessage) []Explanation {
	var list []Explanation
	doc := ParseDoc(data)
	for _, b := range r.blocks {
		for _, w := range b.webhooks {
			if w.Exists() {
				list = append(list, w.explain(eventType, doc))
			}
		}
	}
	return list
}

// ExplainOne is Explain for one webhook, active or not.
func (r *Registry) ExplainOne(id WebhookID, eventType EventType, data json.RawMessage) (Explanation, bool) {
	w := r.ids.find(id)
	if w == nil || !w.Exists() {
		return Explanation{}, false
	}
	return w.explain(eventType, ParseDoc(data)), true
}

func (w *registered) explain(eventType EventType, doc *Doc) Explanation {
	e := Explanation{Webhook: w.Webhook, Subscribed: w.subscriptions.Match(eventType), Active: w.Active}
	if w.broken {
		e.Filter = Verdict{Reason: "the filter cannot be evaluated"}
	} else {
		e.Filter = w.filter.ExplainDoc(doc)
	}
	e.Matched = e.Subscribed && e.Active && e.Filter.Matched
	return e
}
