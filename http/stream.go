package http

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/language"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/http/texts"
	"github.com/medilab/webhooks/projections"
)

// streamKind is a kind of items of the stream.
type streamKind string

const (
	kindEvent    streamKind = "event"
	kindCall     streamKind = "call"
	kindDelivery streamKind = "delivery"
	kindAlert    streamKind = "alert"
	kindWebhook  streamKind = "webhook"
	kindErasure  streamKind = "erasure"
)

// allKinds are in the order in which the items of one entry are sent.
var allKinds = []streamKind{kindEvent, kindCall, kindDelivery, kindAlert, kindWebhook, kindErasure}

var (
	streamKinds = param[[]streamKind]{
		name: "kinds", text: "kinds of items, separated by commas: call, delivery, alert, webhook, event, erasure; left out: all", absent: allKinds,
		schema: schema{"type": "string", "examples": []string{"call,delivery"}}, parse: parseStreamKinds,
	}
	lastEventID = headerParam{"Last-Event-ID", "the id of the last item that is known already: the stream goes on after it; left out: from now on"}
)

func parseStreamKinds(value string, _ domain.Catalog) (kinds []streamKind, problem string) {
	for name := range strings.SplitSeq(value, ",") {
		if !slices.Contains(allKinds, streamKind(name)) {
			return nil, "must be of call, delivery, alert, webhook, event and erasure, separated by commas"
		}
		kinds = append(kinds, streamKind(name))
	}
	return slices.DeleteFunc(slices.Clone(allKinds), func(k streamKind) bool { return !slices.Contains(kinds, k) }), ""
}

func (s *Server) streamOperations() []operation {
	return []operation{{
		method: "GET", path: "/stream", id: projections.StreamReading, summary: "What happens, live, as server-sent events: each is named by its kind, its data is an item of the kind's list, and its id the position in the log. Where Last-Event-ID is in what is archived it is 410",
		scope: domain.ScopeWebhooksRead, query: []queryParam{streamKinds, whose}, header: []headerParam{lastEventID}, payloads: true, answer: text, media: "text/event-stream",
		unbounded: true, light: true, goes: true, serve: s.ofAsked(whose, s.serveStream),
	}}
}

const (
	// maxStreams bounds the streams of all callers; see turns.
	maxStreams = 256

	// Redacted is the header of a stream from which payloads are withheld.
	Redacted = "X-Redacted"

	// streamCheck is how old a check of the token may be when an item is sent: nothing is shown
	// later than a second after it was revoked on another node.
	streamCheck = time.Second - tokenAge
	// streamIdle is how long a stream without items waits until it checks its token.
	streamIdle = 500 * time.Millisecond
	// streamSilence is how long nothing may be sent.
	streamSilence = 15 * time.Second
	// streamStart says what clients wait before they reconnect, and where the stream begins, so
	// that one that is cut off before the first item misses nothing.
	streamStart = "retry: 1000\nid: %d\n\n"
)

// serveStream sends items until the client leaves or is too slow, the token is no longer good,
// or the server stops.
func (s *Server) serveStream(x *request, r *http.Request, w domain.Webhook) error {
	at, known, err := s.streamFrom(r)
	if err != nil {
		return err
	}
	c := &streamClient{server: s, x: x, request: r, kinds: streamKinds.of(x), webhook: w.ID, asked: askedFor(r)}
	if err := x.acquire(s.streams); err != nil {
		return err
	}
	x.Header().Set("Content-Type", "text/event-stream")
	x.Header().Set("X-Accel-Buffering", "no") // nginx would wait for more
	if x.payloads != nil && x.payloads.withhold {
		x.Header().Set(Redacted, "true")
	}
	c.language = x.language()
	x.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	ring, leave := s.live.join()
	defer leave()
	if err = c.flush(); err == nil && !known {
		at, err = s.streamNow(r.Context(), at)
	}
	c.at, c.told, c.asked[position.name] = at, at, strconv.FormatInt(int64(at), 10)
	if err == nil {
		err = c.sendNow(fmt.Appendf(nil, streamStart, at))
	}
	for more := true; err == nil && more; {
		more, err = c.next(r.Context(), ring)
	}
	x.err = err // there is nobody to tell: a client that is cut off reconnects
	return nil
}

// streamFrom returns the position that the stream follows: what the client knows, or the end
// of the log. An id beyond the end is of a log that was lost. What follows an archived one is
// not there any more.
func (s *Server) streamFrom(r *http.Request) (at projections.Position, known bool, err error) {
	head, err := s.commands.Log.Head(r.Context())
	last := r.Header.Get(lastEventID.name)
	if err != nil || last == "" {
		return head, false, err
	}
	at, problem := position.parse(last, domain.Catalog{})
	if problem != "" {
		return 0, false, domain.Invalid(lastEventID.name, "must be the id of an item")
	}
	return min(at, head), true, s.queries.CheckArchived(r.Context(), projections.AuditFilter{After: at})
}

// streamNow waits until lists show what the log holds up to its head, so that a client that
// reads them once the stream has begun misses nothing. While the read models are further
// behind, the stream begins where they are.
func (s *Server) streamNow(ctx context.Context, head projections.Position) (projections.Position, error) {
	const patience = time.Second
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if s.queries.WaitFor(wait, head) == nil {
		return head, nil
	}
	at, err := s.queries.Position(ctx)
	return min(at, head), err
}

// streamClient is one client of the stream.
type streamClient struct {
	server  *Server
	x       *request
	request *http.Request
	kinds   []streamKind
	webhook domain.WebhookID // zero: any
	asked   map[string]string

	language language.Tag

	at      projections.Position // up to where everything is sent
	told    projections.Position // that the client knows of
	live    bool                 // it has caught up
	checked time.Time            // that the token is good
	expires time.Time            // when it must be checked again; zero: it does not expire
	sent    time.Time            // the last time anything was
}

// next sends one page, or waits for one. It reports whether the stream goes on.
func (c *streamClient) next(ctx context.Context, r *ring) (more bool, err error) {
	if err := c.check(); err != nil {
		return false, err
	}
	if err := c.keepAlive(); err != nil {
		return false, err
	}
	p, dropped, moved := r.next(c.at)
	switch {
	case ctx.Err() != nil || c.server.stopping.Err() != nil:
		return false, nil
	case p != nil:
		c.live = true
		return true, c.sendPage(ctx, p)
	case r.isLost() || dropped && c.live:
		return false, nil // too slow: it reconnects
	case dropped:
		return true, c.catchUp(ctx, r)
	}
	select {
	case <-ctx.Done():
		return false, nil
	case <-c.server.stopping.Done():
		return false, nil
	case <-moved:
	case <-time.After(max(c.untilCheck(), streamIdle)):
	}
	return true, nil
}

// untilCheck returns how long the last check of the token holds.
func (c *streamClient) untilCheck() time.Duration {
	next := c.checked.Add(streamCheck)
	if !c.expires.IsZero() && c.expires.Before(next) {
		next = c.expires
	}
	return time.Until(next)
}

// check returns why the stream must end.
func (c *streamClient) check() error {
	if c.untilCheck() > 0 {
		return nil
	}
	c.checked = time.Now()
	_, token, err := c.server.auth.authorize(c.request, c.x.operation)
	if err != nil && !errors.Is(err, domain.KindUnavailable) { // nothing can be read now either
		return err
	}
	if c.expires = token.ExpiresAt; !c.expires.IsZero() {
		c.expires = c.checked.Add(token.ExpiresAt.Sub(c.server.commands.Now()))
	}
	return nil
}

// keepAlive sends something if nothing was for long.
func (c *streamClient) keepAlive() error {
	if time.Since(c.sent) < streamSilence {
		return nil
	}
	// An id alone is no event, and spares a client that reconnects what there was for others.
	alive := []byte(": alive\n")
	if c.at > c.told {
		alive = append(strconv.AppendInt(append(alive, "id: "...), int64(c.at), 10), '\n')
		c.told = c.at
	}
	return c.sendNow(append(alive, '\n'))
}

// catchUp sends a page that is in memory no more. It takes its memory from that of answers.
func (c *streamClient) catchUp(ctx context.Context, r *ring) error {
	if err := c.server.expectLarge(ctx, c.x, 0); err != nil {
		return err
	}
	defer func() { c.x.held.release(); c.x.held = nil }()
	p, err := c.server.readPage(ctx, c.at, r.end())
	if err == nil { // archived meanwhile, it would have a hole
		err = c.server.queries.CheckArchived(ctx, projections.AuditFilter{After: c.at})
	}
	if err != nil {
		return err
	}
	const copies = 4 // of the entries: decoded, as items, and these without payloads
	c.x.held.shrink(int64(copies * p.weight))
	c.x.cut = time.Now().Add(answerTime)
	defer func() { c.x.cut = time.Time{} }()
	return c.sendPage(ctx, p)
}

// sendPage sends the items of the page that the client does not have and wants.
func (c *streamClient) sendPage(ctx context.Context, p *page) error {
	items, err := c.server.itemsOf(ctx, p, c.kinds)
	if err != nil {
		return err
	}
	some := false
	for _, item := range items {
		if item.at <= c.at || !c.concerns(&item) {
			continue
		}
		if err := c.check(); err != nil {
			return err
		}
		data, err := c.x.payloads.item(&item, c.asked)
		if err != nil {
			return err
		}
		head := fmt.Appendf(nil, "event: %s\nid: %d\ndata: ", item.kind, item.at)
		if err := c.send(head, texts.Answer(c.language, data), []byte("\n\n")); err != nil {
			return err
		}
		c.told, some = item.at, true
	}
	c.at = p.last
	if !some {
		return nil
	}
	return c.flush()
}

// concerns reports whether the item is about the webhook that was asked for, if one was. An erasure
// may concern any.
func (c *streamClient) concerns(item *streamItem) bool {
	return c.webhook == (domain.WebhookID{}) || item.kind == kindErasure || slices.Contains(item.webhooks, c.webhook)
}

func (c *streamClient) send(parts ...[]byte) error {
	c.sent = time.Now()
	for _, part := range parts {
		if _, err := c.x.Write(part); err != nil {
			return err
		}
	}
	return nil
}

func (c *streamClient) sendNow(frame []byte) error {
	if err := c.send(frame); err != nil {
		return err
	}
	return c.flush()
}

func (c *streamClient) flush() error { return http.NewResponseController(c.x).Flush() }
