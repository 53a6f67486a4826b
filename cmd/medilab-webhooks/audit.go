package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	api "github.com/medilab/webhooks/http"
	"github.com/medilab/webhooks/projections"
)

// auditLogOptions select what of the log to print, and how.
type auditLogOptions struct {
	filter                 projections.AuditFilter
	event, webhook, format string

	reason string
	rule   reasonRule
}

func newAuditLogCommand(db *databaseOptions) *cobra.Command {
	var o auditLogOptions
	c := &cobra.Command{
		Use:   "log",
		Short: "Replay history: every event of the log, in order",
		Example: `  medilab-webhooks audit log --webhook 1
  medilab-webhooks audit log --type 'webhook.*' --from 2026-01-01 --format ndjson > history.ndjson`,
		RunE: func(c *cobra.Command, _ []string) error {
			if wantsJSON(c) {
				o.format = "ndjson"
			}
			if err := o.check(); err != nil {
				return usageError{err}
			}
			if err := checkReason(o.reason, o.rule); err != nil {
				return err
			}
			return db.use(c, func(s *session) error {
				if o.webhook != "" {
					w, ok := api.FindWebhook(s.commands.Directory, o.webhook)
					if o.filter.Webhook = w.ID; !ok {
						return fmt.Errorf("there was never a webhook %s; `medilab-webhooks audit log --type webhook.registered` lists them", o.webhook)
					}
				}
				if err := noteArchived(c, s); err != nil {
					return err
				}
				return o.replay(c, s)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&o.filter.Stream, "stream", "", "this stream only, as in webhook-550e8400-e29b-41d4-a716-446655440000")
	f.StringVar(&o.webhook, "webhook", "", "what concerns this webhook (number or UUID): its changes, deliveries, replays and alerts")
	f.StringVar(&o.event, "event", "", "this event (UUID), its deliveries and their batches")
	f.StringVar(&o.filter.CorrelationID, "correlation-id", "", "what has this correlation id")
	f.StringVar(&o.filter.Actor, "actor", "", "what this actor did: as the log names it, or the id or name of a token")
	f.StringVar(&o.filter.Type, "type", "", "this type only, as in webhook.changed, or a group, as in webhook.*")
	f.Var((*timeFlag)(&o.filter.From), "from", "recorded at this time or later: RFC 3339, or a date (UTC)")
	f.Var((*timeFlag)(&o.filter.To), "to", "recorded before this time")
	f.Int64Var((*int64)(&o.filter.After), "after", 0, "continue after this position")
	f.StringVar(&o.format, "format", "table", "table (cut lines) or ndjson (all data)")
	completeFlag(c, "webhook", (&apiOptions{database: db}).webhookNumbers)
	f.Bool("json", false, "the same as --format ndjson")
	declare(c, f, []setting{reasonSetting(&o.reason), accessReasonSetting(&o.rule)})
	return c
}

// check returns what is wrong with the flags.
func (o *auditLogOptions) check() error {
	switch {
	case o.event != "" && o.filter.Event.UnmarshalText([]byte(o.event)) != nil:
		return errors.New("--event must be an event's UUID")
	case domain.CheckRange(o.filter.From, o.filter.To) != nil:
		return errors.New("--to must not be before --from")
	case o.filter.Stream != "" && o.webhook != "":
		return errors.New("give --stream or --webhook, not both")
	case o.filter.After < 0:
		return errors.New("--after must not be negative")
	case o.webhook != "" && !isWebhookName(o.webhook):
		return errors.New("--webhook must be a webhook's number or UUID")
	case o.format != "table" && o.format != "ndjson":
		return errors.New("--format must be table or ndjson")
	}
	return nil
}

func isWebhookName(name string) bool {
	_, notNumber := strconv.ParseInt(name, 10, 64)
	return notNumber == nil || uuid.Validate(name) == nil
}

// replay prints in order, in constant memory. That it shows payloads goes on record, once, before it
// does.
func (o auditLogOptions) replay(c *cobra.Command, s *session) error {
	out, asked, recorded := c.OutOrStdout(), askedByFlags(c), false
	w := bufio.NewWriterSize(out, 64<<10)
	print := printLine
	if o.format == "table" {
		print = printRow(out)
		if _, err := w.WriteString("POSITION  RECORDED                  TYPE                      STREAM, VERSION, DATA\n"); err != nil {
			return err
		}
	}
	_, err := projections.Ask(c.Context(), s.queries(), s.standby, func(ctx context.Context, q *projections.Projections) (struct{}, error) {
		return struct{}{}, q.Audit(ctx, o.filter, func(e eventstore.Event) error {
			if !recorded && domain.MayHoldPayloads(e.Type) {
				if payloads := domain.FindPayloads(e.Data); !payloads.None() {
					recorded = true
					if err := s.commands.RecordReading(ctx, caller(), domain.DataRead{What: "audit log", Asked: asked, Reason: o.reason}); err != nil {
						return err
					}
				}
			}
			o.filter.After = e.Position // the primary goes on from here if the standby fails
			return print(w, e)
		})
	})
	return errors.Join(err, w.Flush())
}

func printLine(w *bufio.Writer, e eventstore.Event) error {
	_, err := w.Write(append(e.AppendLine(w.AvailableBuffer()), '\n'))
	return err
}

// pipedWidth is what a line has outside of a terminal.
const pipedWidth = 240

// printRow prints a line for each event, on a terminal no wider than that.
func printRow(out io.Writer) func(*bufio.Writer, eventstore.Event) error {
	width := cmp.Or(terminalWidth(out), pipedWidth)
	return func(w *bufio.Writer, e eventstore.Event) error {
		data := e.Data[:min(len(e.Data), utf8.UTFMax*width)]
		row := fmt.Sprintf("%8d  %s  %-24s  %s v%d  %s", e.Position, e.RecordedAt.UTC().Format("2006-01-02T15:04:05.000Z"), e.Type, e.Stream, e.Version, data)
		_, err := fmt.Fprintln(w, truncate(sanitizeLine(row), width))
		return err
	}
}
