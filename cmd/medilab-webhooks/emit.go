package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
)

// emitOptions say what to trigger.
type emitOptions struct {
	database   *databaseOptions
	eventTypes string
	file       string
	skip       int
	event      emitted
	asJSON     bool
}

// emitted are the parts of an event that flags give, or the fields of a line.
type emitted struct {
	eventID, source, correlationID string
}

// newEmitCommand triggers events from the command line. They are in the log, durably, when
// it ends.
func newEmitCommand(db *databaseOptions) *cobra.Command {
	o := emitOptions{database: db}
	c := &cobra.Command{
		Use:   "emit TYPE JSON | emit --file FILE",
		Short: "Trigger one event, or those of a file",
		Long: `Trigger one event, or those of a file ("-" is standard input) of one JSON object a line:

  {"event_type": "patient.created", "event_data": {"patient_id": 123}, "source": "...", "correlation_id": "...", "event_id": "..."}

event_type and event_data are required. A line that is refused is reported with its number, and the
others go on. A line with an event_id can be emitted again without harm; after a failure, --skip
goes on where it ended.`,
		Example: `  medilab-webhooks emit patient.created '{"patient_id": 123}' --correlation-id manual-1
  medilab-webhooks emit --file events.ndjson`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case o.file != "" && len(args) > 0:
				return errors.New("give TYPE and JSON or --file, not both")
			case o.file == "" && len(args) != 2:
				return errors.New("give TYPE and JSON, or --file")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if o.file != "" {
				return o.emitFile(c)
			}
			return o.emitOne(c, args[0], args[1])
		},
	}
	f := c.Flags()
	f.StringVar(&o.file, "file", "", `emit the events of this file, one JSON object a line; "-" is standard input`)
	f.IntVar(&o.skip, "skip", 0, "leave out this many lines of the file")
	f.StringVar(&o.event.correlationID, "correlation-id", "", "your own id, to find the event again")
	f.StringVar(&o.event.source, "source", "cli", "where the event comes from")
	f.StringVar(&o.event.eventID, "event-id", "", "a UUID that makes emitting it again harmless")
	f.StringVar(&o.eventTypes, "event-types", fromEnvironment("MEDILAB_EVENT_TYPES", ""), "file that adds event types (environment MEDILAB_EVENT_TYPES)")
	f.BoolVar(&o.asJSON, "json", false, "print JSON")
	return c
}

func (o emitOptions) emitOne(c *cobra.Command, eventType, data string) error {
	catalog, err := loadCatalog(o.eventTypes)
	if err != nil {
		return err
	}
	event, err := o.event.event(catalog, eventType, []byte(data))
	if err != nil {
		return usageError{errors.New(problem(err))}
	}
	return o.database.use(c, func(s *session) error {
		s.commands.Catalog = catalog
		accepted, err := s.commands.TriggerEvent(c.Context(), caller(), event, "")
		if err != nil {
			return errors.New(problem(err))
		}
		switch {
		case o.asJSON:
			return printJSON(c.OutOrStdout(), map[string]any{"event_id": accepted.EventID, "event_type": accepted.EventType, "accepted_at": accepted.AcceptedAt.UTC()})
		case isTerminal(c.OutOrStdout()):
			_, err = fmt.Fprintf(c.OutOrStdout(), "Accepted %s as %s\n", accepted.EventType, accepted.EventID)
		default:
			_, err = fmt.Fprintln(c.OutOrStdout(), accepted.EventID)
		}
		return err
	})
}

// event checks what can be checked without the log.
func (e emitted) event(catalog domain.Catalog, eventType string, data []byte) (commands.NewEvent, error) {
	data = []byte(strings.TrimSpace(string(data)))
	if err := domain.CheckJSON(data); err != nil {
		return commands.NewEvent{}, err
	}
	triggered := domain.EventTriggered{EventType: eventType, Source: e.source, CorrelationID: e.correlationID, EventData: data}
	if err := catalog.CheckTriggered(triggered); err != nil {
		return commands.NewEvent{}, err
	}
	event := commands.NewEvent{Event: triggered}
	if e.eventID != "" {
		id, err := uuid.Parse(e.eventID)
		if err != nil {
			return commands.NewEvent{}, domain.Invalid("event_id", "must be a UUID")
		}
		event.ID = domain.EventID(id)
	}
	return event, nil
}

// problem is an error in words for the command line: of refused fields, which and why.
func problem(err error) string {
	fields := domain.FieldsOf(err)
	if len(fields) == 0 {
		return err.Error()
	}
	texts := make([]string, len(fields))
	for i, f := range fields {
		texts[i] = f.Field + " " + f.Message
	}
	return strings.Join(texts, "; ")
}

// emitFile streams the file in batches, in memory that does not grow with it.
func (o emitOptions) emitFile(c *cobra.Command) error {
	catalog, err := loadCatalog(o.eventTypes)
	if err != nil {
		return err
	}
	if o.skip < 0 {
		return usageError{errors.New("--skip must not be negative")}
	}
	in, size := io.ReadCloser(os.Stdin), int64(-1)
	if given := c.InOrStdin(); given != os.Stdin {
		in = io.NopCloser(given)
	}
	if o.file != "-" {
		file, err := os.Open(o.file)
		if err != nil {
			return fmt.Errorf("open the events: %w; check --file", err)
		}
		if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
			size = info.Size()
		}
		in = file
	}
	defer in.Close() //nolint:errcheck // it was only read
	defer context.AfterFunc(c.Context(), func() {
		in.Close() //nolint:errcheck // it ends a read that waits for input
	})()

	return o.database.use(c, func(s *session) error {
		s.commands.Catalog = catalog
		bar := newProgress(c.ErrOrStderr(), size, "emitting", progressbar.OptionShowBytes(true))
		p := &pipeline{
			session: s, catalog: catalog, source: o.event, notes: c.ErrOrStderr(), skip: o.skip,
			progress: func(bytes int) { bar.Add(bytes) }, //nolint:errcheck // a bar that cannot be drawn stops nothing
		}
		started := time.Now()
		failure := p.run(c.Context(), in)
		bar.Finish() //nolint:errcheck // as above
		if err := o.report(c.OutOrStdout(), p, time.Since(started)); err != nil {
			return errors.Join(failure, err)
		}
		if failure != nil {
			return fmt.Errorf("%w; go on with --skip %d", failure, p.done)
		}
		if p.refused > 0 {
			return fmt.Errorf("%d of %d lines were refused; mend them and emit them alone", p.refused, p.refused+p.accepted)
		}
		return nil
	})
}

func (o emitOptions) report(out io.Writer, p *pipeline, took time.Duration) error {
	if o.asJSON {
		return printJSON(out, map[string]int{"accepted": p.accepted, "refused": p.refused, "lines": p.done})
	}
	rate := ""
	if isTerminal(out) && took > 0 {
		rate = fmt.Sprintf(" in %s, %.0f a second", took.Round(time.Millisecond), float64(p.accepted)/took.Seconds())
	}
	_, err := fmt.Fprintf(out, "Accepted %d events%s\n", p.accepted, rate)
	return err
}
