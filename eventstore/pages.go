package eventstore

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// sideBySide passes pages from read through prepare to use: one is used while the next is
// prepared and the one after it is read, so four are held at most. It ends with the first error,
// and no part of it runs then.
func sideBySide(ctx context.Context, read func(ctx context.Context, yield func(page []Event) error) error,
	prepare func(ctx context.Context, page []Event) error, use func(page []Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	found, ready := make(chan []Event), make(chan []Event)
	group.Go(func() error {
		defer close(found)
		return read(ctx, func(page []Event) error { return pass(ctx, found, page) })
	})
	group.Go(func() error {
		defer close(ready)
		for page := range found {
			if err := prepare(ctx, page); err != nil {
				return err
			}
			if err := pass(ctx, ready, page); err != nil {
				return err
			}
		}
		return nil
	})
	for page := range ready {
		if err := use(page); err != nil {
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
