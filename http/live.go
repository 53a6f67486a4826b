package http

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

// live is the newest part of the log, from memory, which all streams of this process share.
// While there are none it costs nothing.
type live struct {
	server *Server

	mu      sync.Mutex
	streams int
	ring    *ring // nil: there are none
	stop    func()
}

// join returns what a stream reads until it calls leave.
func (l *live) join() (r *ring, leave func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ring == nil || l.ring.isLost() {
		l.end()
		begun := &ring{moved: make(chan struct{})}
		ctx, cancel := context.WithCancel(context.Background())
		var reading sync.WaitGroup
		reading.Go(func() { l.server.fill(ctx, begun) })
		l.ring = begun
		l.stop = func() { cancel(); reading.Wait() }
	}
	l.streams++
	return l.ring, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.streams--; l.streams == 0 {
			l.end()
		}
	}
}

// end stops the reading of the log. The caller holds the lock.
func (l *live) end() {
	if l.stop != nil {
		l.stop()
	}
	l.ring, l.stop = nil, nil
}

// ring is the newest pages of what the read models hold of the log, one after the other: a
// bounded number of bytes, however many streams there are and however slow they are.
type ring struct {
	mu     sync.Mutex
	known  bool
	after  projections.Position // what the first page follows
	last   projections.Position // up to where the read models hold the log
	pages  []*page
	weight int
	lost   bool          // the log is not the one that was read
	moved  chan struct{} // closed when any of it changes
}

const ringWeight = 16 << 20

// next returns the page that has what follows the position, or nil and whether the ring held
// it once. moved is closed when there is more.
func (r *ring) next(at projections.Position) (p *page, dropped bool, moved <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.known || at >= r.last {
		return nil, false, r.moved
	}
	if at < r.after {
		return nil, true, r.moved
	}
	n, _ := slices.BinarySearchFunc(r.pages, at+1, func(p *page, at projections.Position) int { return int(p.last - at) })
	return r.pages[n], false, r.moved
}

// end returns up to where the read models hold the log.
func (r *ring) end() projections.Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

func (r *ring) isLost() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost
}

// change makes a change and wakes who waits for one.
func (r *ring) change(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
	close(r.moved)
	r.moved = make(chan struct{})
}

func (r *ring) start(at projections.Position) {
	r.change(func() { r.known, r.after, r.last = true, at, at })
}

// add takes in the next page. If it has an erasure, the pages before it may hold what was erased, and
// are dropped: a client that needs them reads the log.
func (r *ring) add(p *page) {
	r.change(func() {
		if p.erases() {
			r.pages, r.weight, r.after = nil, 0, r.last
		}
		r.pages, r.weight, r.last = append(r.pages, p), r.weight+p.weight, p.last
		drop := 0
		for ; r.weight > ringWeight && drop < len(r.pages)-1; drop++ {
			r.weight -= r.pages[drop].weight
			r.after = r.pages[drop].last
		}
		r.pages = slices.Delete(r.pages, 0, drop)
	})
}

// How often the read models are asked how far they are: soon after this process has appended
// something, and else as others may have.
const (
	streamSoon = 25 * time.Millisecond
	streamPoll = 250 * time.Millisecond
)

// fill adds what the read models take in, until ctx ends or the log lost its tail.
func (s *Server) fill(ctx context.Context, r *ring) {
	appended, stop := s.commands.Log.Appends(nil)
	defer stop()
	generation := s.commands.Log.Generation()
	for pause := streamSoon; ctx.Err() == nil; {
		grew, err := s.extend(ctx, r)
		if err != nil && ctx.Err() == nil {
			s.logger.Warn("the newest of the log cannot be streamed, trying again", "error", err)
		}
		if r.isLost() || s.commands.Log.Generation() != generation {
			r.change(func() { r.lost = true })
			return
		}
		if grew {
			pause = streamSoon
		}
		wait(ctx, streamSoon) // more gathers meanwhile
		select {
		case <-ctx.Done():
		case <-appended:
			pause = streamSoon
		case <-time.After(pause):
			pause = min(2*pause, streamPoll)
		}
	}
}

// extend reads up to where the read models are, and reports whether that was any further.
func (s *Server) extend(ctx context.Context, r *ring) (grew bool, err error) {
	position, err := s.queries.Position(ctx)
	if err != nil {
		return false, err
	}
	if !r.known {
		r.start(position)
		return true, nil
	}
	last := r.end()
	if position < last {
		r.change(func() { r.lost = true })
	}
	for ; last < position; last = r.end() {
		p, err := s.readPage(ctx, last, position)
		if err == nil && p.erases() { // the page itself may be of before this process heard of that
			if err = s.commands.Directory.CatchUp(ctx); err == nil {
				p, err = s.readPage(ctx, last, p.last)
			}
		}
		if err != nil {
			return grew, err
		}
		r.add(p)
		grew = true
	}
	return grew, nil
}

// page is a run of entries, with the items that they make, encoded once for all streams.
type page struct {
	last    projections.Position
	entries []projections.Entry
	weight  int

	mu    sync.Mutex
	items map[streamKind][]streamItem
}

// streamItem is an item as it is sent.
type streamItem struct {
	at       projections.Position
	webhooks []domain.WebhookID
	kind     streamKind
	data     []byte // a line
	withheld []byte // for those who may not see payloads; nil: there are none
}

// erases reports whether an entry of the page destroyed keys.
func (p *page) erases() bool { return len(projections.ErasuresIn(p.entries)) > 0 }

func (s *Server) readPage(ctx context.Context, after, to projections.Position) (*page, error) {
	entries, weight, err := s.queries.Entries(ctx, after, to)
	p := &page{last: to, entries: entries, weight: weight, items: map[streamKind][]streamItem{}}
	if len(entries) > 0 {
		p.last = entries[len(entries)-1].Position
	}
	return p, err
}

// itemsOf returns the items of the kinds, in the order of the log.
func (s *Server) itemsOf(ctx context.Context, p *page, kinds []streamKind) (all []streamItem, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, kind := range kinds {
		items, made := p.items[kind]
		if !made {
			if items, err = s.makeItems(ctx, kind, p.entries); err != nil {
				return nil, err
			}
			p.items[kind] = items
		}
		all = append(all, items...)
	}
	slices.SortStableFunc(all, func(a, b streamItem) int { return int(a.at - b.at) })
	return all, nil
}

// makeItems returns the items of the kind that the entries make: those of the kind's list.
func (s *Server) makeItems(ctx context.Context, kind streamKind, entries []projections.Entry) ([]streamItem, error) {
	switch kind {
	case kindEvent:
		return encodeItems(kind, projections.EventsIn(entries), func(e projections.Event) []byte { return appendEvent(nil, e) }), nil
	case kindCall:
		return encodeItems(kind, projections.CallsIn(entries), func(c projections.Call) []byte { return encode(c) }), nil
	case kindDelivery:
		shown, err := s.queries.DeliveriesIn(ctx, entries)
		waiting := make([]*projections.Delivery, len(shown))
		for i := range shown {
			waiting[i] = &shown[i].Item
		}
		if err == nil {
			err = s.addWaitingBehind(ctx, waiting)
		}
		return encodeItems(kind, shown, func(d projections.Delivery) []byte { return encode(d) }), err
	case kindAlert:
		shown, err := s.queries.AlertsIn(ctx, entries)
		return encodeItems(kind, shown, func(a projections.Alert) []byte { return encode(a) }), err
	case kindErasure:
		return encodeItems(kind, projections.ErasuresIn(entries), func(e projections.Erasure) []byte { return encode(e) }), nil
	}
	shown, err := s.queries.WebhooksIn(ctx, entries)
	return encodeItems(kind, shown, func(w domain.Webhook) []byte { return encode(viewOf(w)) }), err
}

func encodeItems[T any](kind streamKind, shown []projections.Shown[T], encode func(T) []byte) []streamItem {
	items := make([]streamItem, len(shown))
	for i, one := range shown {
		data := encode(one.Item)
		items[i] = streamItem{at: one.At, webhooks: one.Webhooks, kind: kind, data: appendLine(nil, data)}
		if kind != kindEvent {
			continue
		}
		if payloads := domain.FindPayloads(data); !payloads.None() {
			items[i].withheld = appendLine(nil, payloads.Withheld(data))
		}
	}
	return items
}

// appendLine appends JSON as one line. Line ends in it, which are white space, as a text has
// none, become spaces.
func appendLine(dst, item []byte) []byte {
	begin := len(dst)
	dst = append(dst, bytes.TrimSpace(item)...)
	for i, c := range dst[begin:] {
		if c == '\n' || c == '\r' {
			dst[begin+i] = ' '
		}
	}
	return dst
}
