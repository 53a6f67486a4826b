package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/http"
)

const (
	// longestLine holds the largest event and the rest of its line.
	longestLine = domain.MaxEventBytes + 64<<10
	// A batch is one append: large enough to be fast, small enough to resume from.
	batchEvents, batchBytes = 500, 8 << 20
	lastBatch               = 10 * time.Second // of an interrupted command
)

// pipeline appends the events of lines to the log in batches.
type pipeline struct {
	commands *commands.Commands
	defaults commands.NewEvent // of what a line leaves out
	notes    io.Writer
	progress *progress
	skip     int

	accepted, refused int
	done              int // all lines up to this one are accepted or refused

	line  int // the last one read
	batch []numbered
	bytes int
}

// numbered is an event and the line it came from.
type numbered struct {
	line  int
	event commands.NewEvent
}

// run reads to the end. Its error is what ended it early. When ctx ends, the batch under way ends too,
// so that done is what the log holds.
func (p *pipeline) run(ctx context.Context, in io.Reader) error {
	reader := bufio.NewReaderSize(in, 256<<10)
	appending, stop := outlast(ctx, lastBatch)
	defer stop()
	for {
		line, long, err := readLine(reader)
		last := errors.Is(err, io.EOF)
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted after line %d", p.done)
		}
		if err != nil && !last {
			return fmt.Errorf("read the events after line %d: %w", p.line, err)
		}
		if len(line) > 0 || long {
			p.line++
			p.progress.add(len(line))
			p.take(line, long)
		}
		// Do not let events wait for input that is not there yet.
		if last || len(p.batch) >= batchEvents || p.bytes >= batchBytes || reader.Buffered() == 0 {
			if err := p.flush(appending); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
	}
}

// outlast returns a context that ends as long after ctx, or by stop.
func outlast(ctx context.Context, d time.Duration) (_ context.Context, stop func()) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	after := context.AfterFunc(ctx, func() {
		time.AfterFunc(d, cancel)
	})
	return longer, func() { after(); cancel() }
}

// readLine returns one line with its end. It reads and drops what is beyond longestLine, and reports
// that as long. An empty line has a newline, so no bytes mean the end.
func readLine(r *bufio.Reader) (line []byte, long bool, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > longestLine {
			long = true
		} else if !long {
			line = append(line, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, long, err
		}
	}
}

// take checks a line and adds it to the batch.
func (p *pipeline) take(line []byte, long bool) {
	line = bytes.TrimSpace(line)
	if p.line <= p.skip || len(line) == 0 && !long {
		return
	}
	event, err := p.defaults, error(domain.TooLarge("the line is longer than 10 MB"))
	if !long {
		err = http.ReadEvent(line, p.commands.EventFields, &event)
	}
	if err != nil {
		p.refuse(p.line, err)
		return
	}
	p.batch = append(p.batch, numbered{p.line, event})
	p.bytes += len(line)
}

func (p *pipeline) refuse(line int, err error) {
	p.refused++
	fmt.Fprintf(p.notes, "line %d: %s\n", line, sanitizeLine(problem(err))) //nolint:errcheck // nowhere else to say it
}

// flush makes the batch durable. If the log refuses it, because an id belongs to another event, each
// event is tried alone.
func (p *pipeline) flush(ctx context.Context) error {
	if len(p.batch) > 0 {
		events := make([]commands.NewEvent, len(p.batch))
		for i, n := range p.batch {
			events[i] = n.event
		}
		_, err := p.commands.TriggerBatch(ctx, caller(), events, "")
		switch {
		case err == nil:
			p.accepted += len(p.batch)
		case isRefusal(err):
			if err := p.flushEach(ctx); err != nil {
				return err
			}
		default:
			return fmt.Errorf("emit the events after line %d: %w", p.done, err)
		}
	}
	p.batch, p.bytes, p.done = p.batch[:0], 0, max(p.line, p.skip)
	return nil
}

func (p *pipeline) flushEach(ctx context.Context) error {
	for _, n := range p.batch {
		_, err := p.commands.TriggerEvent(ctx, caller(), n.event, "")
		switch {
		case err == nil:
			p.accepted++
		case isRefusal(err):
			p.refuse(n.line, err)
		default:
			return fmt.Errorf("emit line %d: %w", n.line, err)
		}
		p.done = n.line
	}
	return nil
}

// isRefusal reports whether err is about the event, rather than a failure to record it.
func isRefusal(err error) bool {
	switch domain.KindOf(err) {
	case domain.KindInvalid, domain.KindMalformed, domain.KindConflict, domain.KindTooLarge:
		return true
	}
	return false
}
