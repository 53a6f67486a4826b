package domain

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/medilab/webhooks/domain/filter"
)

// blockSize is how many numbers share a block: what a change rebuilds at most.
const blockSize = 256

// block holds the webhooks of neighbouring numbers. It never changes.
type block struct {
	key       int64
	webhooks  []*registered // by number
	summaries []summary     // of each, for those who go through all webhooks
	all       *audience     // of types that only * asks for; nil: nobody
	groups    map[string]*audience
	types     map[EventType]*audience
}

// summary is what most of those who go through all webhooks need to know of one.
type summary struct{ exists, active, broken bool }

// audience is all of a block that events of one type go to unless a filter objects.
type audience struct {
	candidates []*registered // by number
	everyone   []Recipient   // the candidates, when none has a filter; else nil
	filters    *filter.Set   // of the candidates; nil when none has a filter
	byValue    bool          // values decide the lines of some
}

// blockOf returns the key of a webhook's block. Webhooks without a number, which only
// damaged logs have, are placed by id before all others.
func blockOf(number int64, id WebhookID) int64 {
	if number <= 0 {
		return int64(id[0]) - 256
	}
	return number / blockSize
}

func (r *Registry) search(key int64) (at int, found bool) {
	return slices.BinarySearchFunc(r.blocks, key, func(b *block, key int64) int { return cmp.Compare(b.key, key) })
}

// block returns the block with the key, or nil.
func (r *Registry) block(key int64) *block {
	if at, found := r.search(key); found {
		return r.blocks[at]
	}
	return nil
}

// newBlock indexes the webhooks that can match. A type's audience includes those that
// ask for its group or for *, so that one lookup answers for the block.
func newBlock(key int64, webhooks []*registered) *block {
	b := &block{key: key, webhooks: webhooks, summaries: make([]summary, len(webhooks)), groups: map[string]*audience{}, types: map[EventType]*audience{}}
	var all []*registered
	groups, types := map[string][]*registered{}, map[EventType][]*registered{}
	for i, w := range webhooks {
		b.summaries[i] = summary{w.Exists(), w.Active, w.broken}
		if b.summaries[i] != (summary{exists: true, active: true}) {
			continue
		}
		for _, s := range w.subscriptions {
			if group, ok := s.group(); ok {
				groups[group] = append(groups[group], w)
			} else if s == AllEvents {
				all = append(all, w)
			} else {
				types[EventType(s)] = append(types[EventType(s)], w)
			}
		}
	}
	if all != nil {
		b.all = newAudience(all)
	}
	for group, asked := range groups {
		if group == systemGroup {
			b.groups[group] = newAudience(asked)
		} else {
			b.groups[group] = newAudience(asked, all)
		}
	}
	for t, asked := range types {
		if t.IsSystem() {
			b.types[t] = newAudience(asked, groups[systemGroup])
		} else {
			b.types[t] = newAudience(asked, groups[t.Group()], all)
		}
	}
	return b
}

// newAudience merges lists, which may name a webhook several times.
func newAudience(asked ...[]*registered) *audience {
	candidates := slices.Concat(asked...)
	slices.SortFunc(candidates, byNumber)
	a := &audience{candidates: slices.Compact(candidates)}
	a.byValue = slices.ContainsFunc(a.candidates, func(w *registered) bool { return w.byValue() })
	if slices.ContainsFunc(a.candidates, func(w *registered) bool { return !w.filter.MatchesAll() }) {
		filters := make([]*filter.Filter, len(a.candidates))
		for i, w := range a.candidates {
			filters[i] = w.filter
		}
		a.filters = filter.NewSet(filters)
		return a
	}
	a.everyone = make([]Recipient, len(a.candidates))
	for i, w := range a.candidates {
		a.everyone[i] = w.recipient()
	}
	return a
}

// audience returns who asks for the type, or nil.
func (b *block) audience(t EventType) *audience {
	if a := b.types[t]; a != nil {
		return a
	}
	group := t.Group()
	if a := b.groups[group]; a != nil {
		return a
	}
	if group == systemGroup {
		return nil
	}
	return b.all
}

// idMap maps ids to webhooks in shards, of which a change copies one.
type idMap [256]map[WebhookID]*registered

func (m *idMap) find(id WebhookID) *registered { return m[shardOf(id)][id] }

// shardOf uses a byte that is random in every version of UUIDs.
func shardOf(id WebhookID) byte { return id[len(id)-1] }

// RegistryDraft collects events for a new Registry, so that what they share is rebuilt
// once. It is for one goroutine.
type RegistryDraft struct {
	base   *Registry
	ids    idMap
	copied [256]bool               // shards of ids that are the draft's own
	blocks map[int64][]*registered // the webhooks of changed blocks
}

// Draft returns a draft that starts from r.
func (r *Registry) Draft() *RegistryDraft {
	return &RegistryDraft{base: r, ids: r.ids, blocks: map[int64][]*registered{}}
}

// Apply adds an event of the webhook's stream, which the log recorded at the given time.
func (d *RegistryDraft) Apply(id WebhookID, change Change, at time.Time) {
	w, _ := d.ids.find(id).state()
	d.Set(id, w.Evolve(change, at))
}

// Set replaces the webhook by a later version of it.
func (d *RegistryDraft) Set(id WebhookID, w Webhook) {
	before := d.ids.find(id)
	known := before != nil
	if !known {
		before = &registered{}
	}
	if w.Version == before.Version {
		return
	}
	w.ID = id
	after := &registered{Webhook: w}
	after.compile(before)
	if known {
		webhooks := d.webhooks(before)
		if i, found := slices.BinarySearchFunc(webhooks, before, byNumber); found {
			d.blocks[blockOf(before.Number, id)] = slices.Delete(webhooks, i, i+1)
		}
	}
	webhooks := d.webhooks(after)
	i, _ := slices.BinarySearchFunc(webhooks, after, byNumber)
	d.blocks[blockOf(after.Number, id)] = slices.Insert(webhooks, i, after)
	shard := shardOf(id)
	if !d.copied[shard] {
		d.copied[shard], d.ids[shard] = true, maps.Clone(d.ids[shard])
	}
	if d.ids[shard] == nil {
		d.ids[shard] = map[WebhookID]*registered{}
	}
	d.ids[shard][id] = after
}

// webhooks returns the draft's own list of the webhook's block.
func (d *RegistryDraft) webhooks(w *registered) []*registered {
	key := blockOf(w.Number, w.ID)
	own, ok := d.blocks[key]
	if b := d.base.block(key); !ok && b != nil {
		own = slices.Clone(b.webhooks)
	}
	return own
}

// Registry returns the registry with all that was applied; the one that the draft
// started from when nothing changed. The draft must not be used afterwards.
func (d *RegistryDraft) Registry() *Registry {
	if len(d.blocks) == 0 {
		return d.base
	}
	next := &Registry{blocks: slices.Clone(d.base.blocks), ids: d.ids}
	for key, webhooks := range d.blocks {
		at, found := next.search(key)
		if !found {
			next.blocks = slices.Insert(next.blocks, at, nil)
		}
		next.blocks[at] = newBlock(key, webhooks)
	}
	return next
}
