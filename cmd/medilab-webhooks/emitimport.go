package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/medilab/webhooks/domain"
)

// readTime takes the event's time from the field of the line, or of its data, that has it. A line
// without the field must have a time of its own.
func (p *pipeline) readTime(line []byte, event *domain.EventTriggered) error {
	raw := cmp.Or(valueAt(line, p.timeField), valueAt(event.EventData, p.timeField))
	if raw == "" && !event.OccurredAt.IsZero() {
		return nil
	}
	if raw == "" {
		return domain.Invalid(p.timeField, "is missing, and is to say when it happened")
	}
	text, _ := domain.JSONText([]byte(raw))
	at, ok := domain.ParseTime(text)
	if !ok {
		return domain.Invalid(p.timeField, "must be a time like 2024-01-15T10:30:00Z")
	}
	event.OccurredAt = at
	return domain.CheckFields(p.commands.EventFields(*event))
}

// valueAt returns the JSON at the path of an object, or "" if nothing is there; dots descend.
func valueAt(object []byte, path string) (raw string) {
	key, below, deeper := strings.Cut(path, ".")
	_ = domain.ObjectFields(object, func(name string, value []byte) error { // what is no object has no fields
		if name == key && deeper {
			raw = valueAt(value, below)
		} else if name == key {
			raw = string(value)
		}
		return nil
	})
	return raw
}

// importIDs is the namespace of the ids that importID makes.
var importIDs = uuid.MustParse("c1b7f0a6-2d0b-5a41-8d5e-90f1f7d0a7c4")

// importID returns the id of an imported event, the same whenever its line is imported again. Events
// without a time may be alike, so that theirs has the number of the line as well.
func importID(e domain.EventTriggered, line int) domain.EventID {
	when := "line " + strconv.Itoa(line)
	if !e.OccurredAt.IsZero() {
		when = e.OccurredAt.UTC().Truncate(time.Microsecond).Format(time.RFC3339Nano)
	}
	var content bytes.Buffer
	for _, part := range []string{e.EventType, e.Source, e.CorrelationID, when} {
		fmt.Fprintf(&content, "%q ", part)
	}
	content.Write(e.EventData)
	return domain.EventID(uuid.NewSHA1(importIDs, content.Bytes()))
}

// refusal is a line that was refused.
type refusal struct {
	numbered
	err error
}

// reason stands between a refused line and why it was refused. No JSON has it.
const reason = "\t# "

func withoutReason(line []byte) []byte {
	if at := bytes.LastIndex(line, []byte(reason)); at >= 0 {
		return line[:at]
	}
	return line
}

// report reports the refused lines of those that are done, in their order. The others are read again
// by the run that goes on.
func (p *pipeline) report() error {
	slices.SortStableFunc(p.wrong, func(a, b refusal) int { return cmp.Compare(a.line, b.line) })
	var failure error
	for _, r := range p.wrong {
		if r.line > p.done {
			break
		}
		p.refused++
		note := fmt.Sprintf("line %d: %s", r.line, sanitizeLine(problem(r.err)))
		fmt.Fprintln(p.notes, note) //nolint:errcheck // nowhere else to say it
		if _, err := fmt.Fprintf(p.rejects, "%s%s%s\n", r.text, reason, note); err != nil {
			failure = fmt.Errorf("keep the refused lines: %w", err)
		}
	}
	p.wrong = p.wrong[:0]
	return failure
}

// openRejects opens the file for refused lines: empty, or to add to when a run goes on.
func (o emitOptions) openRejects() (io.WriteCloser, error) {
	if o.rejects == "" {
		return os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	}
	if in, err := os.Stat(o.file); err == nil {
		if out, err := os.Stat(o.rejects); err == nil && os.SameFile(in, out) {
			return nil, usageError{errors.New("--rejects must not be the file that is read")}
		}
	}
	how := os.O_TRUNC
	if o.skip > 0 {
		how = os.O_APPEND
	}
	file, err := os.OpenFile(o.rejects, os.O_CREATE|os.O_WRONLY|how, 0o600) // it has patients' data
	if err != nil {
		return nil, fmt.Errorf("open the file for refused lines: %w; check --rejects", err)
	}
	return file, nil
}

// describeImport adds to the result in which time the imported events were accepted, by which a replay
// finds them, and returns that in words.
func (p *pipeline) describeImport(result map[string]any) string {
	if p.importedFrom.IsZero() {
		return ""
	}
	from, to := p.importedFrom.UTC(), p.importedTo.UTC().Add(time.Microsecond)
	result["imported_from"], result["imported_to"] = from, to
	return fmt.Sprintf("Nothing was sent; a replay from %s to %s sends them\n", from.Format(time.RFC3339Nano), to.Format(time.RFC3339Nano))
}
