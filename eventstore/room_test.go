package eventstore_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/testdb"
)

// What a computation does not ask for is handed on as it is, without its key, in its place.
func TestOpensWhatIsAskedFor(t *testing.T) {
	pool := openPool(t, testdb.New(t))
	codec := func(string, []byte) (any, error) { return "decoded", nil }
	fill(t, openLog(t, eventstore.Config{Pool: pool}), "a", 5)
	log := openLog(t, eventstore.Config{Pool: pool, Codec: codec, Envelope: closed{}})
	filter := eventstore.Filter{Opens: func(e *eventstore.Event) bool { return e.Value == "decoded" && e.Position%2 == 0 }}
	var pages []eventstore.Position
	var at eventstore.Position
	err := log.Compute(t.Context(), 0, filter, func(e eventstore.Event) error {
		if at++; e.Position != at {
			t.Errorf("position %d comes as number %d", e.Position, at)
		}
		if opened := e.Err != nil; opened != (e.Position%2 == 0) {
			t.Errorf("position %d: it was opened: %v", e.Position, opened)
		}
		return nil
	}, func(last eventstore.Position) error { pages = append(pages, last); return nil })
	if err != nil || at != 5 || len(pages) != 1 || pages[0] != 5 {
		t.Errorf("%d events in the pages %v, %v", at, pages, err)
	}
	if err := log.Scan(t.Context(), 0, 5, 2, func(page []eventstore.Event) error {
		for _, e := range page {
			if e.Err != nil || e.Value != "decoded" {
				t.Errorf("position %d is %v, %v: readers of the log need no key", e.Position, e.Value, e.Err)
			}
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	stop := errors.New("enough")
	for name, end := range map[string]error{
		"Each":  log.Each(t.Context(), 0, eventstore.Filter{}, func(eventstore.Event) error { return stop }),
		"Scan":  log.Scan(t.Context(), 0, 5, 2, func([]eventstore.Event) error { return stop }),
		"yield": log.Compute(t.Context(), 0, filter, func(eventstore.Event) error { return stop }, func(eventstore.Position) error { return nil }),
		"done": log.Compute(t.Context(), 0, filter, func(eventstore.Event) error { return nil },
			func(eventstore.Position) error { return stop }),
	} {
		if !errors.Is(end, stop) {
			t.Errorf("%s ends it with %v", name, end)
		}
	}
}

// What is read in a context takes the room that it has, and grows once, before it holds more.
func TestRoomOfReadings(t *testing.T) {
	log := openLog(t, eventstore.Config{Pool: openPool(t, testdb.New(t))})
	for n := range 3 {
		mustAppend(t, log, unit("s", int64(n), `{"text":"0123456789"}`))
	}
	const size = len(`{"text":"0123456789"}`)
	for name, read := range map[string]func(context.Context) ([]eventstore.Event, error){
		"a stream": func(ctx context.Context) ([]eventstore.Event, error) { return log.Load(ctx, "s") },
		"a list": func(ctx context.Context) ([]eventstore.Event, error) {
			return log.GetListed(ctx, []eventstore.Position{3, 2, 1})
		},
	} {
		var held []int
		refusal := errors.New("no room")
		grow := func(_ context.Context, bytes int) error {
			if held = append(held, bytes); len(held) == 1 {
				return refusal
			}
			return nil
		}
		ctx := eventstore.WithRoom(t.Context(), 3*size, grow)
		if events, err := log.GetMany(ctx, []eventstore.Position{1, 2}); err != nil || len(events) != 2 || held != nil {
			t.Fatalf("what fits: %d events, %v, held %v", len(events), err, held)
		}
		if _, err := read(ctx); !errors.Is(err, refusal) {
			t.Errorf("%s without room: %v", name, err)
		}
		for range 2 {
			if events, err := read(ctx); err != nil || len(events) != 3 {
				t.Errorf("%s with room: %d events, %v", name, len(events), err)
			}
		}
		if !slices.Equal(held, []int{2 * size, 2 * size}) {
			t.Errorf("%s: it asked for room with %v bytes held", name, held)
		}
	}
}
