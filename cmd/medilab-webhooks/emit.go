package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
)

type emitOptions struct {
	apiOptions
	file      string
	skip      int
	eventID   string
	timeField string
	rejects   string
	event     commands.NewEvent // as the flags have it: a line's fields override it
}

// newEmitCommand triggers events, which are durable when it ends.
func newEmitCommand(db *databaseOptions) *cobra.Command {
	o := emitOptions{apiOptions: apiOptions{database: db}}
	c := &cobra.Command{
		Use:   "emit TYPE JSON | emit --file FILE",
		Short: "Trigger one event, or those of a file",
		Long: `Trigger one event, or those of a file ("-" is standard input) of one JSON object a line:

  {"event_type": "patient.created", "event_data": {"patient_id": 123}, "source": "...", "correlation_id": "...", "event_id": "..."}

event_type and event_data are required; occurred_at and deliver may be there too. A line that is
refused is reported with its number, and the others go on; --rejects keeps it in a file, with the
reason after a tab and #, which can be mended and emitted. A line with an event_id can be emitted
again by the same caller without harm; after a failure, --skip goes on where it ended.

Events of the past are imported by --no-deliver and --occurred-at-field: they are recorded and sent
to nobody, until a replay sends them. The same caller can run an import again without harm: a line
without an event_id gets one made of its content, and of its number too if it has no time. Another
token, another user of this machine, and --server instead of the database are other callers: the
import records everything once more.`,
		Example: `  medilab-webhooks emit patient.created '{"patient_id": 123}' --correlation-id manual-1
  medilab-webhooks emit --file events.ndjson
  medilab-webhooks emit --file 2023.ndjson --occurred-at-field created_at --no-deliver --rejects refused.ndjson`,
		Args: func(_ *cobra.Command, args []string) error { return o.check(args) },
		RunE: func(c *cobra.Command, args []string) error {
			if o.eventID != "" && o.event.ID.UnmarshalText([]byte(o.eventID)) != nil {
				return usageError{errors.New("event_id must be a UUID")}
			}
			if o.eventID != "" && o.event.ID == (domain.EventID{}) {
				return usageError{errors.New("event_id " + domain.NilUUID)}
			}
			if o.file != "" {
				return o.emitFile(c)
			}
			return o.emitOne(c, args[0], args[1])
		},
	}
	f := c.Flags()
	f.StringVar(&o.file, "file", "", `emit the events of this file, one JSON object a line; "-" is standard input`)
	f.IntVar(&o.skip, "skip", 0, "skip this many lines of the file")
	f.StringVar(&o.event.Event.CorrelationID, "correlation-id", "", "your own id, to find the event again")
	f.StringVar(&o.event.Event.Source, "source", "cli", "where the event comes from")
	f.Var((*timeFlag)(&o.event.Event.OccurredAt), "occurred-at", "when it happened, not in the future; now if left out")
	f.StringVar(&o.timeField, "occurred-at-field", "", "the field of each line that says when it happened: a path in the line or in its event_data")
	f.BoolVar(&o.event.Event.Imported, "no-deliver", false, "record only: nobody gets it unless a replay sends it")
	f.StringVar(&o.rejects, "rejects", "", "keep the lines that are refused in this file, each with its reason")
	f.StringVar(&o.eventID, "event-id", "", "a UUID that makes emitting it again by the same caller harmless")
	declare(c, f, o.table())
	c.ValidArgsFunction = o.eventType
	return withJSON(c)
}

// check returns what is wrong with arguments and flags together.
func (o emitOptions) check(args []string) error {
	switch {
	case o.file != "" && len(args) > 0:
		return errors.New("give TYPE and JSON or --file, not both")
	case o.file == "" && len(args) != 2:
		return errors.New("give TYPE and JSON, or --file")
	case o.file == "" && (o.skip != 0 || o.timeField != "" || o.rejects != ""):
		return errors.New("--skip, --occurred-at-field and --rejects go with --file")
	case o.skip < 0:
		return errors.New("--skip must not be negative")
	}
	return nil
}

func (o emitOptions) emitOne(c *cobra.Command, eventType, data string) error {
	event := o.event
	event.Event.EventType, event.Event.EventData = eventType, []byte(strings.TrimSpace(data))
	if err := domain.CheckJSON(event.Event.EventData); err != nil {
		return usageError{errors.New(problem(err))}
	}
	return o.use(c, func(t trigger) error {
		accepted, err := t.TriggerEvent(c.Context(), caller(), event, "")
		if err != nil {
			return eventRefused(err)
		}
		result := map[string]any{"event_id": accepted.EventID, "event_type": accepted.EventType, "accepted_at": accepted.AcceptedAt.UTC()}
		return printResult(c, result, fmt.Sprintf("Accepted %s as %s\n", accepted.EventType, accepted.EventID), fmt.Sprintln(accepted.EventID))
	})
}

// eventRefused returns why an event is not accepted. It is wrong usage only if nothing but fields
// that flags give are at fault.
func eventRefused(err error) error {
	fields, text := domain.FieldsOf(err), errors.New(problem(err))
	isData := func(f domain.FieldError) bool {
		return f.Field == "event_type" || strings.HasPrefix(f.Field, "event_data")
	}
	if len(fields) > 0 && !slices.ContainsFunc(fields, isData) {
		return usageError{text}
	}
	return text
}

// problem returns an error's text for the command line: for refused fields, which and why.
func problem(err error) string {
	fields := domain.FieldsOf(err)
	if refused, ok := errors.AsType[*domain.Error](err); ok && refused.Public != "" {
		return refused.Message // whoever reads it gave the data
	}
	if len(fields) == 0 {
		return err.Error()
	}
	texts := make([]string, len(fields))
	for i, f := range fields {
		texts[i] = f.Field + " " + f.Message
	}
	return strings.Join(texts, "; ")
}

// trigger is what takes events: the use cases on the database, or a server.
type trigger interface {
	// EventFields names every field that keeps the event from being accepted now.
	EventFields(e domain.EventTriggered) []domain.FieldError
	// CheckData returns why the event's data keeps it from being accepted.
	CheckData(ctx context.Context, e domain.EventTriggered) error
	TriggerEvent(ctx context.Context, caller commands.Caller, event commands.NewEvent, key string) (commands.Accepted, error)
	TriggerBatch(ctx context.Context, caller commands.Caller, events []commands.NewEvent, key string) ([]commands.Accepted, error)
}

// use runs f with what takes the command's events.
func (o emitOptions) use(c *cobra.Command, f func(trigger) error) error {
	if o.server != "" {
		return o.apiOptions.use(c, func(a *apiClient) error { return f(apiTrigger{a}) })
	}
	return o.database.use(c, func(s *session) error { return f(s.commands) })
}

// emitFile streams the file in batches, in constant memory.
func (o emitOptions) emitFile(c *cobra.Command) error {
	in, size, err := o.input(c)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // it was only read
	rejects, err := o.openRejects()
	if err != nil {
		return err
	}
	defer rejects.Close() //nolint:errcheck // what was written was checked
	defer context.AfterFunc(c.Context(), func() {
		in.Close() //nolint:errcheck // it ends a read that waits for input
	})()
	return o.use(c, func(t trigger) error {
		bar := newProgress(c, size, "emitting", progressbar.OptionShowBytes(true))
		p := &pipeline{commands: t, defaults: o.event, timeField: o.timeField, notes: c.ErrOrStderr(), rejects: rejects, skip: o.skip, progress: bar}
		failure := p.run(c.Context(), in)
		bar.end()
		text, rate := fmt.Sprintf("Accepted %d %s", p.accepted, domain.Plural(p.accepted, "event", "events")), float64(p.accepted)/time.Since(bar.started).Seconds()
		result := map[string]any{"accepted": p.accepted, "refused": p.refused, "lines": p.done}
		replay := p.describeImport(result)
		printed := printResult(c, result, fmt.Sprintf("%s in %s, %.0f a second\n%s", text, bar.took(), rate, replay), text+"\n"+replay)
		switch {
		case printed != nil:
			return errors.Join(failure, printed)
		case failure != nil:
			return fmt.Errorf("%w; go on with --skip %d", failure, p.done)
		case p.refused > 0 && o.rejects != "":
			return fmt.Errorf("refused lines: %d of %d; mend them in %s and emit that", p.refused, p.refused+p.accepted, o.rejects)
		case p.refused > 0:
			return fmt.Errorf("refused lines: %d of %d; mend them and emit them alone", p.refused, p.refused+p.accepted)
		}
		return nil
	})
}

// input opens the file; its size is -1 if unknown.
func (o emitOptions) input(c *cobra.Command) (in io.ReadCloser, size int64, err error) {
	if o.file == "-" {
		if file, ok := c.InOrStdin().(*os.File); ok {
			return file, -1, nil
		}
		return io.NopCloser(c.InOrStdin()), -1, nil
	}
	file, err := os.Open(o.file)
	if err != nil {
		return nil, 0, fmt.Errorf("open the events: %w; check --file", err)
	}
	if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
		return file, info.Size(), nil
	}
	return file, -1, nil
}
