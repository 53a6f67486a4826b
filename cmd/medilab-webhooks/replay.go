package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

func newReplayStartCommand(db *databaseOptions) *cobra.Command {
	o := &apiOptions{database: db}
	var types []string
	var rate float64
	var onlyFailed, dryRun bool
	c := &cobra.Command{
		Use:   "start WEBHOOK --from T --to T",
		Short: "Send the events of a range again to a webhook, and print the replay's id",
		Example: `  medilab-webhooks replay start 3 --from 2025-01-01 --to 2026-01-01 --dry-run
  medilab-webhooks replay start 3 --from 2025-01-01 --to 2026-01-01 --types 'patient.*,visit.created' --rate 50`,
		Args: webhookArg(oneArg("WEBHOOK")), ValidArgsFunction: o.webhookNumbers,
		RunE: func(c *cobra.Command, args []string) error {
			body := map[string]any{"only_failed": onlyFailed, "dry_run": dryRun}
			addTimes(body, c.Flags())
			if types != nil {
				body["event_types"] = types
			}
			if flag := c.Flags().Lookup("rate"); flag.Changed {
				if math.IsNaN(rate) || math.IsInf(rate, 0) { // numbers that JSON does not have
					return usageError{fmt.Errorf("--rate: %w", wrongValue(flag, flag.Value.String()))}
				}
				body["rate"] = rate
			}
			return o.use(c, func(a *apiClient) error {
				var started map[string]any
				if err := a.post(c.Context(), "/webhooks/"+args[0]+"/replay", body, &started); err != nil {
					return wrongReplay(err, types)
				}
				if dryRun {
					return printResult(c, started, fmt.Sprintf("deliveries that would be sent: %v\n", started["matched"]), fmt.Sprintln(started["matched"]))
				}
				return printResult(c, started, fmt.Sprintln(started["replay_id"]), fmt.Sprintln(started["replay_id"]))
			})
		},
	}
	f := c.Flags()
	f.Var(new(timeFlag), "from", "events accepted at this time or later: RFC 3339, or a date (UTC)")
	f.Var(new(timeFlag), "to", "events accepted before this time")
	f.StringSliceVar(&types, "types", nil, "only these event types or groups, separated by commas")
	f.BoolVar(&onlyFailed, "only-failed", false, "only what failed for good")
	f.Float64Var(&rate, "rate", 0, "deliveries a second (default: as the receiver takes them)")
	f.BoolVar(&dryRun, "dry-run", false, "only count what would be sent")
	declare(c, f, o.table())
	completeFlag(c, "types", o.listOfTypes)
	cobra.CheckErr(errors.Join(c.MarkFlagRequired("from"), c.MarkFlagRequired("to")))
	return withJSON(c)
}

// wrongReplay names the flags of the fields that were refused, and which of the types.
func wrongReplay(err error, types []string) error {
	fields := domain.FieldsOf(err)
	for i, f := range fields {
		n := -1
		if _, err := fmt.Sscanf(f.Field, "event_types[%d]", &n); err == nil && n < len(types) {
			fields[i] = domain.FieldError{Field: "types", Message: fmt.Sprintf("%q %s", types[n], f.Message)}
		} else if f.Field == "event_types" {
			fields[i].Field = "types"
		}
	}
	if len(fields) == 0 {
		return err
	}
	return wrongFlags(err)
}

var replayHeading = []string{"ID", "KIND", "STATE", "MATCHED", "QUEUED", "DELIVERED", "FAILED", "CANCELLED", "RATE", "CREATED", "BY"}

func replayCells(r projections.Replay) []string {
	return []string{r.ID.String(), string(r.Kind), string(r.State), textOf(r.Matched, "-"), fmt.Sprint(r.Queued), fmt.Sprint(r.Delivered),
		fmt.Sprint(r.Failed), fmt.Sprint(r.Cancelled), textOf(r.Rate, "-"), formatTime(r.CreatedAt), r.RequestedBy}
}

func newReplayListCommand(db *databaseOptions) *cobra.Command {
	c := &cobra.Command{
		Use: "list [WEBHOOK]", Short: "List replays and bulk retries, newest first", Args: webhookArg(cobra.MaximumNArgs(1)),
		Example: `  medilab-webhooks replay list
  medilab-webhooks replay list 3 --json`,
	}
	o := newListCommand(db, c, nil)
	c.RunE = tableOf(o, "/webhooks/replays", replayHeading, func(r projections.Replay, _ labels) []string { return replayCells(r) })
	c.ValidArgsFunction = o.webhookNumbers
	return c
}

// newOneReplayCommand returns a command that asks something of a replay, and prints it.
func newOneReplayCommand(db *databaseOptions, name, short, method, below string) *cobra.Command {
	o := &apiOptions{database: db}
	c := &cobra.Command{
		Use: name + " REPLAY", Short: short,
		Args:    argsThat(oneArg("REPLAY"), isUUID, "REPLAY must be the UUID that `replay start` printed"),
		Example: "  medilab-webhooks replay " + name + " 0198f0a0-0000-7000-8000-000000000001",
		RunE: o.run(func(c *cobra.Command, a *apiClient, args []string) error {
			var replay json.RawMessage
			if err := a.do(c.Context(), method, "/webhooks/replays/"+args[0]+below, nil, &replay); err != nil {
				return err
			}
			if wantsJSON(c) { // not a list
				return printJSON(c.OutOrStdout(), replay)
			}
			return printItems(c, []json.RawMessage{replay}, replayHeading, replayCells)
		}),
	}
	declare(c, c.Flags(), o.table())
	return withJSON(c)
}
