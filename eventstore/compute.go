package eventstore

import (
	"context"

	"github.com/medilab/webhooks/eventstore/cpulimit"
)

// Compute calls yield for the events that Each yields, decoded and without metadata, as an
// expensive task: yield must not block.
func (l *Log) Compute(ctx context.Context, after Position, filter Filter, yield func(Event) error) error {
	return l.ComputePages(ctx, after, filter, yield, func(Position) error { return nil })
}

// ComputePages is Compute that calls done after each page of events, with the position of
// the last. It holds no turn then, so done may block. The next page is read meanwhile.
func (l *Log) ComputePages(ctx context.Context, after Position, filter Filter, yield func(Event) error, done func(Position) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pages, read := make(chan []Event), make(chan error, 1)
	go func() {
		read <- l.readAhead(ctx, after, filter, pages)
		close(pages)
	}()
	for page := range pages {
		err := l.compute(ctx, page, yield)
		if err == nil {
			err = done(page[len(page)-1].Position)
		}
		if err != nil {
			cancel()
			<-read
			return err
		}
	}
	return <-read
}

// readAhead sends the events in pages. They are small, as two are held at most.
func (l *Log) readAhead(ctx context.Context, after Position, filter Filter, pages chan<- []Event) error {
	const rows = 2000
	return l.eachPage(ctx, withoutMetadata, after, filter, rows, func(page []Event) error {
		select {
		case pages <- page:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
}

// compute decodes and opens a page, and yields its events. It holds no turn while it may
// wait for the database.
func (l *Log) compute(ctx context.Context, page []Event, yield func(Event) error) error {
	err := l.inTurns(ctx, page, func(e *Event) error {
		l.config.Codec.decode(e)
		return nil
	})
	if err == nil {
		err = l.openDecoded(ctx, page)
	}
	if err != nil {
		return err
	}
	return l.inTurns(ctx, page, func(e *Event) error { return yield(*e) })
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
