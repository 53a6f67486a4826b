package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
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
	commands  trigger
	defaults  commands.NewEvent // of what a line leaves out
	timeField string            // of each line; "": none
	notes     io.Writer
	rejects   io.Writer // the refused lines
	progress  *progress
	skip      int

	accepted, refused int
	done              int // all lines up to this one are accepted or refused

	importedFrom, importedTo time.Time // when the first and the last imported event were accepted

	line  int // the last one read
	batch []numbered
	bytes int
	wrong []refusal // since the last batch
}

// numbered is an event and the line it came from.
type numbered struct {
	line  int
	text  []byte
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
			p.take(appending, line, long)
		}
		// Do not let events wait for input that is not there yet.
		if last || len(p.batch)+len(p.wrong) >= batchEvents || p.bytes >= batchBytes || reader.Buffered() == 0 {
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
func (p *pipeline) take(ctx context.Context, line []byte, long bool) {
	line = withoutReason(bytes.TrimSpace(line))
	if p.line <= p.skip || len(line) == 0 && !long {
		return
	}
	event, err := p.defaults, error(domain.TooLarge("the line is longer than 10 MB"))
	if !long {
		err = p.read(line, &event)
	}
	if err == nil {
		err = p.commands.CheckData(ctx, event.Event)
	}
	p.bytes += len(line)
	if err != nil {
		p.wrong = append(p.wrong, refusal{numbered{p.line, line, event}, err})
		return
	}
	p.batch = append(p.batch, numbered{p.line, line, event})
}

// read reads the event of a line, with its time from the field that has it.
func (p *pipeline) read(line []byte, event *commands.NewEvent) error {
	extra, _, _ := strings.Cut(p.timeField, ".")
	if err := http.ReadEvent(line, extra, p.commands.EventFields, event); err != nil {
		return err
	}
	if p.timeField != "" {
		if err := p.readTime(line, &event.Event); err != nil {
			return err
		}
	}
	if event.ID == (domain.EventID{}) && (p.timeField != "" || event.Event.Imported) {
		event.ID = importID(event.Event, p.line)
	}
	return nil
}

// flush makes the batch durable, and reports what was refused of the lines that are done.
func (p *pipeline) flush(ctx context.Context) error {
	err := p.append(ctx)
	if err == nil {
		p.done = max(p.line, p.skip)
	}
	p.batch, p.bytes = p.batch[:0], 0
	if reported := p.report(); err == nil {
		err = reported
	}
	return err
}

// append appends the batch. If the log refuses it, because an id belongs to another event, each event
// is tried alone.
func (p *pipeline) append(ctx context.Context) error {
	if len(p.batch) == 0 {
		return nil
	}
	events := make([]commands.NewEvent, len(p.batch))
	for i, n := range p.batch {
		events[i] = n.event
	}
	accepted, err := p.commands.TriggerBatch(ctx, caller(), events, "")
	if commands.IsRefusal(err) {
		return p.flushEach(ctx)
	}
	if err != nil {
		return fmt.Errorf("emit the events after line %d: %w", p.done, err)
	}
	for i := range accepted {
		p.accept(events[i], accepted[i])
	}
	return nil
}

func (p *pipeline) accept(event commands.NewEvent, as commands.Accepted) {
	p.accepted++
	if !event.Event.Imported {
		return
	}
	if p.importedFrom.IsZero() || as.AcceptedAt.Before(p.importedFrom) {
		p.importedFrom = as.AcceptedAt
	}
	if as.AcceptedAt.After(p.importedTo) {
		p.importedTo = as.AcceptedAt
	}
}

func (p *pipeline) flushEach(ctx context.Context) error {
	for _, n := range p.batch {
		accepted, err := p.commands.TriggerEvent(ctx, caller(), n.event, "")
		switch {
		case err == nil:
			p.accept(n.event, accepted)
		case commands.IsRefusal(err):
			p.wrong = append(p.wrong, refusal{n, err})
		default:
			return fmt.Errorf("emit line %d: %w", n.line, err)
		}
		p.done = n.line
	}
	return nil
}
