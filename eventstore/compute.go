package eventstore

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/medilab/webhooks/eventstore/cpulimit"
)

// Compute calls yield for the events that Each yields, decoded and without metadata, as an
// expensive task: yield must not block.
func (l *Log) Compute(ctx context.Context, after Position, filter Filter, yield func(Event) error) error {
	return l.ComputePages(ctx, after, filter, yield, func(Position) error { return nil })
}

// ComputePages is Compute that calls done after each page of events, with the position of
// the last. It holds no turn then, so done may block. The next pages are read and opened meanwhile.
func (l *Log) ComputePages(ctx context.Context, after Position, filter Filter, yield func(Event) error, done func(Position) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	read, opened := make(chan []Event), make(chan []Event)
	group.Go(func() error {
		defer close(read)
		const rows = 2000 // small, as four pages are held at most
		return l.eachPage(ctx, withoutMetadata, after, filter, rows, func(page []Event) error { return pass(ctx, read, page) })
	})
	group.Go(func() error {
		defer close(opened)
		for page := range read {
			if err := l.decodeAndOpen(ctx, page, filter.Opens); err != nil {
				return err
			}
			if err := pass(ctx, opened, page); err != nil {
				return err
			}
		}
		return nil
	})
	for page := range opened {
		err := l.inTurns(ctx, page, func(e *Event) error { return yield(*e) })
		if err == nil {
			err = done(page[len(page)-1].Position)
		}
		if err != nil {
			cancel()
			group.Wait() //nolint:errcheck // it was ended
			return err
		}
	}
	return group.Wait()
}

func pass(ctx context.Context, to chan<- []Event, page []Event) error {
	select {
	case to <- page:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
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
		return l.openDecoded(ctx, page)
	}
	wanted := make([]Event, 0, len(page))
	places := make([]int, 0, len(page)) // in the page
	for i := range page {
		if opens(&page[i]) {
			wanted, places = append(wanted, page[i]), append(places, i)
		}
	}
	err = l.openDecoded(ctx, wanted)
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
