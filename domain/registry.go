package domain

import (
	"bytes"
	"cmp"
	"encoding/json"
	"iter"
	"slices"
	"time"

	"github.com/medilab/webhooks/domain/filter"
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
	filter        *filter.Filter
	broken        bool // its filter does not compile any more: it matches nothing
}

// compile prepares a webhook of which there was another version.
func (w *registered) compile(before *registered) {
	w.subscriptions = SubscriptionsOf(w.Events)
	if w.filter, w.broken = before.filter, before.broken; w.filter != nil && bytes.Equal(w.Filters, before.Filters) {
		return
	}
	var problems []filter.Problem
	w.filter, problems = filter.Compile(w.Filters)
	w.broken = problems != nil
}

// FilterOf returns the compiled filter that the change gives a webhook, or nil. While it is
// held, no registry compiles it.
func FilterOf(change any) (f *filter.Filter) {
	switch c := change.(type) {
	case WebhookRegistered:
		f, _ = filter.Compile(c.Filters)
	case WebhookChanged:
		if c.Filters != nil {
			f, _ = filter.Compile(*c.Filters)
		}
	}
	return f
}

func (w *registered) recipient() Recipient {
	to := Recipient{WebhookID: w.ID, WebhookVersion: w.Version, Line: w.fixedLine(), NumberedSince: w.SequenceSince}
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

// Find returns the webhook of the registry itself, or nil.
func (r *Registry) Find(id WebhookID) *Webhook {
	if w := r.ids.find(id); w != nil {
		return &w.Webhook
	}
	return nil
}

// ByNumber returns the webhook with the short number, which may be deleted.
func (r *Registry) ByNumber(number int64) (Webhook, bool) {
	b := r.block(blockOf(number, WebhookID{}))
	if b == nil {
		return Webhook{}, false
	}
	at, found := slices.BinarySearchFunc(b.webhooks, number, func(w *registered, number int64) int { return cmp.Compare(w.Number, number) })
	if !found {
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

// Len returns how many there are, deleted ones included.
func (r *Registry) Len() (n int) {
	for _, b := range r.blocks {
		n += len(b.webhooks)
	}
	return n
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
// shared and must not be changed. The work is bounded: see filter.Match.
func (r *Registry) Recipients(eventType EventType, data json.RawMessage) []Recipient {
	var few [8]*audience
	asked := r.audiences(eventType, few[:0])
	switch {
	case len(asked) == 0:
		return nobody
	case len(asked) == 1 && asked[0].everyone != nil && !asked[0].byValue:
		return asked[0].everyone
	}
	var fewSets [8]*filter.Set
	doc := filter.Parse(data)
	matched := filter.Matched(doc, setsOf(asked, fewSets[:0]))
	size, byValue := len(matched), false
	for _, a := range asked {
		size += len(a.everyone)
		byValue = byValue || a.byValue
	}
	recipients := make([]Recipient, 0, size)
	for i, a := range asked {
		recipients = append(recipients, a.everyone...)
		for ; len(matched) > 0 && matched[0].Set == i; matched = matched[1:] {
			recipients = append(recipients, a.candidates[matched[0].Index].recipient())
		}
	}
	if byValue {
		return r.inLines(recipients, doc)
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

// Wanted reports whether an active webhook is subscribed to the type.
func (r *Registry) Wanted(t EventType) bool {
	return slices.ContainsFunc(r.blocks, func(b *block) bool { return b.audience(t) != nil })
}

// setsOf appends the filters of the audiences.
func setsOf(asked []*audience, to []*filter.Set) []*filter.Set {
	for _, a := range asked {
		to = append(to, a.filters)
	}
	return to
}

// Costly reports whether deciding the recipients of the event may take a millisecond or
// more, so that a caller can limit how many such decisions are made at once.
func (r *Registry) Costly(eventType EventType, data json.RawMessage) bool {
	var few [8]*audience
	var fewSets [8]*filter.Set
	return filter.Costly(len(data), setsOf(r.audiences(eventType, few[:0]), fewSets[:0]))
}

// Ordered iterates over the webhooks that events of the type may go to and that order or number
// them.
func (r *Registry) Ordered(t EventType) iter.Seq[WebhookID] {
	return func(yield func(WebhookID) bool) {
		var few [8]*audience
		for _, a := range r.audiences(t, few[:0]) {
			for _, w := range a.candidates {
				if (w.OrderBy != "" || w.Sequence) && !yield(w.ID) {
					return
				}
			}
		}
	}
}

// Explanation says whether an event goes to one webhook, and if not, why.
type Explanation struct {
	Webhook *Webhook // of the snapshot
	Matched bool
	// Subscribed, Active and Filter are the parts of the verdict, in this order. Explain
	// does not evaluate the filter of a webhook that is not subscribed or not active.
	Subscribed bool
	Active     bool

	verdict *filter.Verdict // nil: the filter is one of matches, or was not evaluated
	matches *filter.Matches
	ref     filter.Ref
}

// Filter returns the verdict of the webhook's filter. To find out which condition did not hold
// takes longer than to match, so that is left until somebody is shown it. It is not safe for
// concurrent use.
func (e *Explanation) Filter() filter.Verdict {
	switch {
	case e.verdict != nil:
		return *e.verdict
	case e.matches != nil:
		return e.matches.Explain(e.ref)
	}
	return filter.Verdict{Matched: e.Matched}
}

// unreadable is the verdict of a filter that does not compile any more.
var unreadable = filter.Verdict{Reason: "the filter cannot be evaluated"}

// Explain iterates over the verdicts for every webhook that exists, by number: those that
// matched are the Recipients of the event.
func (r *Registry) Explain(eventType EventType, data json.RawMessage) iter.Seq[Explanation] {
	return func(yield func(Explanation) bool) {
		matches := filter.Match(filter.Parse(data), setsOf(r.audiences(eventType, nil), nil))
		matched, set := matches.Matched, 0
		for _, b := range r.blocks {
			a := b.audience(eventType)
			next := 0 // of the candidates, which stand in the same order
			for i, w := range b.webhooks {
				now := b.summaries[i]
				if !now.exists {
					continue
				}
				e := Explanation{Webhook: &w.Webhook, Active: now.active}
				if now.broken {
					e.verdict = &unreadable
				}
				if a != nil && next < len(a.candidates) && a.candidates[next] == w {
					e.Subscribed = true
					if e.Matched = a.filters == nil; a.filters != nil {
						e.matches, e.ref = &matches, filter.Ref{Set: set, Index: next}
					}
					if len(matched) > 0 && matched[0] == e.ref && e.matches != nil {
						e.Matched, matched = true, matched[1:]
					}
					next++
				} else if !now.active || now.broken { // and so is no candidate
					e.Subscribed = w.subscriptions.Match(eventType)
				}
				if !yield(e) {
					return
				}
			}
			if a != nil {
				set++
			}
		}
	}
}

// ExplainOne returns the verdict for one webhook as if it were the only one, and evaluates
// its filter even when it is not subscribed or not active.
func (r *Registry) ExplainOne(id WebhookID, eventType EventType, data json.RawMessage) (Explanation, bool) {
	w := r.ids.find(id)
	if w == nil || !w.Exists() {
		return Explanation{}, false
	}
	verdict := unreadable
	if !w.broken {
		verdict = w.filter.Explain(filter.Parse(data))
	}
	e := Explanation{Webhook: &w.Webhook, Subscribed: w.subscriptions.Match(eventType), Active: w.Active, verdict: &verdict}
	e.Matched = e.Subscribed && e.Active && verdict.Matched
	return e, true
}
