package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

// newReplayCommand groups the commands on replays and bulk retries, which a serving node
// works on.
func newReplayCommand(db *databaseOptions) *cobra.Command {
	c := &cobra.Command{Use: "replay", Short: "Send history again: start, watch and stop replays"}
	c.AddCommand(newReplayStartCommand(db), newReplayListCommand(db), newReplayShowCommand(db),
		newReplayChangeCommand(db, "pause", "Let a replay ask for nothing more until it is resumed", domain.Replay.Pause),
		newReplayChangeCommand(db, "resume", "Let a paused replay go on", domain.Replay.Resume),
		newReplayChangeCommand(db, "cancel", "End a replay: what of it waits is cancelled, or of a retry failed as before", domain.Replay.Cancel))
	return c
}

type replayStartOptions struct {
	from, to   string
	rate       float64
	dryRun     bool
	eventTypes string
	spec       domain.ReplaySpec
}

func newReplayStartCommand(db *databaseOptions) *cobra.Command {
	var o replayStartOptions
	c := &cobra.Command{
		Use:   "start WEBHOOK --from T --to T",
		Short: "Send the events of a range again to a webhook, and print the replay's id",
		Example: `  medilab-webhooks replay start 3 --from 2025-01-01 --to 2026-01-01 --dry-run
  medilab-webhooks replay start 3 --from 2025-01-01 --to 2026-01-01 --types 'patient.*,visit.created' --rate 50`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return db.use(c, func(s *session) error { return o.run(c, s, args[0]) })
		},
	}
	f := c.Flags()
	f.StringVar(&o.from, "from", "", "events accepted at this time or later: RFC 3339, or a date (UTC)")
	f.StringVar(&o.to, "to", "", "events accepted before this time")
	f.StringSliceVar(&o.spec.EventTypes, "types", nil, "only these event types or groups, separated by commas")
	f.BoolVar(&o.spec.OnlyFailed, "only-failed", false, "only what failed for good")
	f.Float64Var(&o.rate, "rate", 0, "deliveries a second (default: as the receiver takes them)")
	f.BoolVar(&o.dryRun, "dry-run", false, "only count what would be sent")
	declare(c, f, []setting{eventTypesSetting(&o.eventTypes)})
	cobra.CheckErr(errors.Join(c.MarkFlagRequired("from"), c.MarkFlagRequired("to")))
	c.ValidArgsFunction = db.webhookNumbers
	addJSONFlag(c)
	return c
}

func (o replayStartOptions) run(c *cobra.Command, s *session, webhook string) (err error) {
	spec := o.spec
	spec.Kind = domain.KindReplay
	if spec.WebhookID, err = findWebhook(s, webhook); err != nil {
		return err
	}
	if spec.From, err = parseTime("from", o.from); err != nil {
		return usageError{err}
	}
	if spec.To, err = parseTime("to", o.to); err != nil {
		return usageError{err}
	}
	if c.Flags().Changed("rate") {
		spec.Rate = &o.rate
	}
	catalog, err := loadCatalog(o.eventTypes)
	if err != nil {
		return err
	}
	if o.dryRun {
		matched, err := s.commands.CountReplay(c.Context(), catalog, spec)
		if err != nil {
			return errors.New(problem(err))
		}
		return printResult(c, map[string]any{"replay_id": nil, "matched": matched}, fmt.Sprintf("%d deliveries would be sent\n", matched), fmt.Sprintln(matched))
	}
	id, err := s.commands.StartReplay(c.Context(), caller(), catalog, spec, "")
	if err != nil {
		return errors.New(problem(err))
	}
	return printResult(c, map[string]any{"replay_id": id, "matched": nil}, fmt.Sprintln(id), fmt.Sprintln(id))
}

var replayHeading = []string{"ID", "KIND", "STATE", "MATCHED", "QUEUED", "DELIVERED", "FAILED", "CANCELLED", "RATE", "CREATED", "BY"}

func replayCells(r projections.Replay) []string {
	matched, rate := "-", "-"
	if r.Matched != nil {
		matched = fmt.Sprint(*r.Matched)
	}
	if r.Rate != nil {
		rate = strconv.FormatFloat(*r.Rate, 'f', -1, 64)
	}
	return []string{r.ID.String(), string(r.Kind), string(r.State), matched, fmt.Sprint(r.Queued), fmt.Sprint(r.Delivered),
		fmt.Sprint(r.Failed), fmt.Sprint(r.Cancelled), rate, formatTime(r.CreatedAt), r.RequestedBy}
}

func newReplayListCommand(db *databaseOptions) *cobra.Command {
	const newest = 1000
	c := &cobra.Command{
		Use:   "list [WEBHOOK]",
		Short: "List replays and bulk retries, newest first",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return db.use(c, func(s *session) (err error) {
				var of domain.WebhookID
				if len(args) > 0 {
					if of, err = findWebhook(s, args[0]); err != nil {
						return err
					}
				}
				page, err := s.queries().Replays(c.Context(), of, newest, 0)
				if err != nil {
					return err
				}
				return printList(c, page.Items, replayHeading, replayCells)
			})
		},
	}
	c.ValidArgsFunction = db.webhookNumbers
	addJSONFlag(c)
	return c
}

// onReplay runs f for the replay that the command names, and prints it.
func onReplay(db *databaseOptions, c *cobra.Command, id string, f func(context.Context, *session, domain.ReplayID) error) error {
	replay, err := uuid.Parse(id)
	if err != nil {
		return usageError{errors.New("REPLAY must be the UUID that `replay start` printed")}
	}
	return db.use(c, func(s *session) error {
		if err := f(c.Context(), s, domain.ReplayID(replay)); err != nil {
			return errors.New(problem(err))
		}
		r, err := s.queries().Replay(c.Context(), domain.WebhookID{}, domain.ReplayID(replay))
		if err != nil {
			return errors.New(problem(err))
		}
		if wantsJSON(c) {
			return printJSON(c.OutOrStdout(), r)
		}
		return printTable(c.OutOrStdout(), [][]string{replayHeading, replayCells(r)})
	})
}

func newReplayShowCommand(db *databaseOptions) *cobra.Command {
	c := &cobra.Command{
		Use:   "show REPLAY",
		Short: "Show how far a replay has come",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return onReplay(db, c, args[0], func(context.Context, *session, domain.ReplayID) error { return nil })
		},
	}
	addJSONFlag(c)
	return c
}

func newReplayChangeCommand(db *databaseOptions, name, short string, decide func(domain.Replay) ([]domain.Change, error)) *cobra.Command {
	c := &cobra.Command{
		Use:   name + " REPLAY",
		Short: short,
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return onReplay(db, c, args[0], func(ctx context.Context, s *session, id domain.ReplayID) error {
				return s.commands.ChangeReplay(ctx, caller(), domain.WebhookID{}, id, decide)
			})
		},
	}
	addJSONFlag(c)
	return c
}
