package eventstore

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// sideBySide passes pages from read through prepare to use, in order: one is used while the next two
// are prepared or read, so three are held at most. It ends with the first error,
// and no part of it runs then.
func sideBySide[P any](ctx context.Context, read func(ctx context.Context, yield func(page P) error) error,
	prepare func(ctx context.Context, page P) error, use func(page P) error) error {
	type prepared struct {
		page P
		err  chan error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	pages := make(chan prepared, 1)
	group.Go(func() error {
		defer close(pages)
		return read(ctx, func(page P) error {
			next := prepared{page, make(chan error, 1)}
			group.Go(func() error {
				err := prepare(ctx, page)
				next.err <- err
				return err
			})
			select {
			case pages <- next:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	})
	for next := range pages {
		if <-next.err != nil {
			break // the group has the first error
		}
		if err := use(next.page); err != nil {
			cancel()
			group.Wait() //nolint:errcheck // it was ended
			return err
		}
	}
	return group.Wait()
}
