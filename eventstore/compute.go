package eventstore

import (
	"context"

	"github.com/medilab/webhooks/eventstore/cpulimit"
)

// Compute calls yield for the events that Each yields, decoded and without metadata, as an
// expensive task: yield must not block. It calls done after each page of them, with the position of
// the last. It holds no turn then, so done may block. The next pages are read and opened meanwhile.
func (l *Log) Compute(ctx context.Context, after Position, filter Filter, yield func(Event) error, done func(Position) error) error {
	return sideBySide(ctx, func(ctx context.Context, yield func([]Event) error) error {
		return l.eachPage(ctx, withoutMetadata, after, filter, yield)
	}, func(ctx context.Context, page []Event) error {
		return l.decodeAndOpen(ctx, page, filter.Opens)
	}, func(page []Event) error {
		if err := l.inTurns(ctx, page, func(e *Event) error { return yield(*e) }); err != nil {
			return err
		}
		return done(page[len(page)-1].Position)
	})
}

// decodeAndOpen decodes the page, and opens the events that opens wants. It holds no turn while it
// may wait for the database.
func (l *Log) decodeAndOpen(ctx context.Context, page []Event, opens func(*Event) bool) error {
	err := l.inTurns(ctx, page, func(e *Event) error {
		l.config.Codec.decode(e)
		return nil
	})
	if err != nil {
		return err
	}
	if opens == nil {
		return l.Open(ctx, page)
	}
	wanted := make([]Event, 0, len(page))
	places := make([]int, 0, len(page)) // in the page
	for i := range page {
		if opens(&page[i]) {
			wanted, places = append(wanted, page[i]), append(places, i)
		}
	}
	err = l.Open(ctx, wanted)
	for i, place := range places {
		page[place] = wanted[i]
	}
	return err
}

func (l *Log) inTurns(ctx context.Context, page []Event, do func(*Event) error) error {
	task := l.Limiter.Task()
	defer task.End()
	for i := range page {
		if err := task.Spend(ctx, cpulimit.Expensive); err != nil {
			return err
		}
		if err := do(&page[i]); err != nil {
			return err
		}
	}
	return nil
}
