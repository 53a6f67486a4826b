package eventstore

import (
	"context"
	"fmt"
	"runtime"
	"sync"
)

// Scan reads the log after one position up to another, fast, in pages of up to
// size events: the next page is read and decoded on all processors while the one
// before is used. Events come without their metadata. Memory is bounded by two
// pages. It ends early with yield's error, or with a
// *GapError.
func (l *Log) Scan(ctx context.Context, after, to Position, size int, yield func(page []Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	pages := make(chan []Event)
	read := make(chan error, 1)
	go func() {
		read <- l.scan(ctx, after, to, size, pages)
		close(pages)
	}()
	var used error
	for page := range pages {
		if used == nil {
			if used = yield(page); used != nil {
				cancel()
			}
		}
	}
	cancel()
	if err := <-read; used == nil {
		return err
	}
	return used
}

func (l *Log) scan(ctx context.Context, after, to Position, size int, pages chan<- []Event) error {
	for after < to {
		page, err := l.scanPage(ctx, after, to, size)
		if err != nil {
			return err
		}
		for i := range page {
			if page[i].Position != after+Position(i)+1 {
				return &GapError{Position: after + Position(i) + 1}
			}
		}
		if len(page) == 0 {
			return &GapError{Position: after + 1}
		}
		after = page[len(page)-1].Position
		l.decodeAll(page)
		select {
		case pages <- page:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// GapError says that the log lacks a position that it must have.
type GapError struct{ Position Position }

func (e *GapError) Error() string { return fmt.Sprintf("the log has no position %d", e.Position) }

// scanPage reads up to size consecutive events, fewer when they are large.
func (l *Log) scanPage(ctx context.Context, after, to Position, size int) (page []Event, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	rows, err := l.pool.Query(ctx, `SELECT position, stream, version, type, data, recorded_at FROM medilab.events
		WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3`, after, to, size)
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	defer rows.Close()
	page = make([]Event, 0, min(size, int(to-after)))
	bytes := 0
	for rows.Next() {
		var e Event
		if err := rows.Scan(&e.Position, &e.Stream, &e.Version, &e.Type, &e.Data, &e.RecordedAt); err != nil {
			return nil, fmt.Errorf("read the log: %w", err)
		}
		e.RecordedAt = e.RecordedAt.UTC()
		page = append(page, e)
		if bytes += len(e.Data); bytes > maxPageBytes {
			cancel() // the rest of the rows is not wanted
			return page, nil
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	return page, nil
}

// decodeAll decodes a page on all processors.
func (l *Log) decodeAll(page []Event) {
	workers := runtime.GOMAXPROCS(0)
	share := (len(page) + workers - 1) / workers
	var wg sync.WaitGroup
	for from := 0; from < len(page); from += share {
		part := page[from:min(from+share, len(page))]
		wg.Go(func() {
			for i := range part {
				l.config.Codec.decode(&part[i])
			}
		})
	}
	wg.Wait()
}
