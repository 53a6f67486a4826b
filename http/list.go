package http

import (
	"bytes"
	"context"
	"slices"

	"github.com/medilab/webhooks/eventstore/cpulimit"
	"github.com/medilab/webhooks/projections"
)

// maxListBytes is where a list of large items ends before its limit.
const maxListBytes = 4 << 20

// list is the answer to a request for a list, each item of which is encoded by itself: a
// long list is an expensive task. Its end returns the turn.
type list struct {
	ctx   context.Context //nolint:containedctx // of the request that it answers
	task  cpulimit.Task
	body  []byte
	items int
}

// list begins a list, behind the members of head, a JSON object; nil: none.
func (x *request) list(ctx context.Context, head []byte) *list {
	l := &list{ctx: ctx, task: x.limiter.Task(), body: []byte(`{"items":[`)}
	if head = bytes.TrimRight(head, "}\n"); head != nil {
		l.body = append(head, `,"items":[`...)
	}
	return l
}

// spend is called before work on so many bytes.
func (l *list) spend(bytes int) error { return l.task.Spend(l.ctx, bytes) }

// isFull reports whether the list has so many items, or large ones.
func (l *list) isFull(limit int) bool { return l.items >= limit || len(l.body) > maxListBytes }

func (l *list) add(item any) {
	if l.items++; l.items > 1 {
		l.body = append(l.body, ',')
	}
	l.body = append(l.body, bytes.TrimSuffix(encode(item), []byte{'\n'})...)
}

// respond answers with the list.
func (l *list) respond(x *request, next projections.Cursor) error {
	l.task.End()
	return x.respondJSON(append(appendCursor(l.body, next), '\n'))
}

// appendCursor ends a page.
func appendCursor(dst []byte, next projections.Cursor) []byte {
	cursor, _ := next.MarshalJSON() // it cannot fail
	return append(append(append(dst, `],"next_cursor":`...), cursor...), '}')
}

// appendPage appends a page, each item of which appendItem encodes.
func appendPage[T any](dst []byte, page projections.Page[T], appendItem func([]byte, T) []byte) []byte {
	return appendCursor(appendItems(dst, page.Items, appendItem), page.NextCursor)
}

// appendItems appends the beginning of an object with the items.
func appendItems[T any](dst []byte, items []T, appendItem func([]byte, T) []byte) []byte {
	dst = append(dst, `{"items":[`...)
	for i, item := range items {
		if i > 0 {
			dst = append(dst, ',')
		}
		if i == 1 { // most are about as long
			const most = 64 << 10
			dst = slices.Grow(dst, min(len(dst)*len(items), most))
		}
		dst = appendItem(dst, item)
	}
	return dst
}
