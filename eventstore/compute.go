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

// readAhead sends the events in pages. A page is kept small, so that a turn never waits for
// the database: there are two of them at most.
func (l *Log) readAhead(ctx context.Context, after Position, filter Filter, pages chan<- []Event) error {
	const rows, enough = 2000, 1 << 20
	var page []Event
	bytes := 0
	send := func() error {
		select {
		case pages <- page:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		page, bytes = make([]Event, 0, len(page)), 0
		return nil
	}
	err := l.each(ctx, withoutMetadata, after, filter, rows, func(e Event) error {
		page, bytes = append(page, e), bytes+len(e.Data)
		if len(page) < rows && bytes < enough {
			return nil
		}
		return send()
	})
	if err != nil || len(page) == 0 {
		return err
	}
	return send()
}

func (l *Log) compute(ctx context.Context, page []Event, yield func(Event) error) error {
	task := l.Limiter.Task()
	defer task.End()
	for i := range page {
		if err := task.Spend(ctx, cpulimit.Expensive); err != nil {
			return err
		}
		l.config.Codec.decode(&page[i])
		if err := yield(page[i]); err != nil {
			return err
		}
	}
	return nil
}
