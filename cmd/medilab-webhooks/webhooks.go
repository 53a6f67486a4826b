package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/medilab/webhooks/commands/vault"
	"github.com/medilab/webhooks/domain"
	api "github.com/medilab/webhooks/http"
	"github.com/medilab/webhooks/projections"
)

// shownWebhook is what the table shows of a webhook.
type shownWebhook struct {
	Number int64    `json:"number"`
	Name   string   `json:"name"`
	Status string   `json:"status"`
	Events []string `json:"events"`
	URL    string   `json:"url"`
}

func (w shownWebhook) row(labels) []string {
	return []string{strconv.FormatInt(w.Number, 10), w.Name, w.Status, strings.Join(w.Events, ","), w.URL}
}

func newWebhooksListCommand(db *databaseOptions) *cobra.Command {
	c := &cobra.Command{Use: "list", Short: "List the webhooks, newest first",
		Example: `  medilab-webhooks webhooks list --status active --search crm
  medilab-webhooks webhooks list --type patient.created --json`}
	o := newListCommand(db, c, []filterFlag{{"status", "status", "that are active or inactive"}, eventTypeFlag, {"search", "q", "whose name, description or URL has this"}})
	c.RunE = tableOf(o, "/webhooks", []string{"NUMBER", "NAME", "STATUS", "EVENTS", "URL"}, shownWebhook.row)
	return c
}

func newWebhooksShowCommand(db *databaseOptions) *cobra.Command {
	o := &apiOptions{database: db}
	c := &cobra.Command{
		Example: "  medilab-webhooks webhooks show 1",
		Use:     "show WEBHOOK", Short: "Show all of a webhook", Args: webhookArg(oneArg("WEBHOOK")), ValidArgsFunction: o.webhookNumbers,
		RunE: o.run(func(c *cobra.Command, a *apiClient, args []string) error {
			var w json.RawMessage
			if err := a.get(c.Context(), "/webhooks/"+args[0], nil, &w); err != nil {
				return err
			}
			return printObject(c, w)
		}),
	}
	declare(c, c.Flags(), o.table())
	return withJSON(c)
}

// printObject prints an object of the API: as JSON on one line, else with a line a field.
func printObject(c *cobra.Command, object json.RawMessage) error {
	if wantsJSON(c) {
		return printJSON(c.OutOrStdout(), object)
	}
	var rows [][]string
	err := domain.ObjectFields(object, func(name string, value []byte) error {
		text, ok := domain.JSONText(value)
		if !ok {
			text = string(value)
		}
		rows = append(rows, []string{name, text})
		return nil
	})
	return errors.Join(err, printTable(c.OutOrStdout(), rows))
}

func newWebhooksTestCommand(db *databaseOptions) *cobra.Command {
	o := &apiOptions{database: db}
	var eventType, data string
	c := &cobra.Command{
		Example: `  medilab-webhooks webhooks test 1 --type visit.created --data '{"visit_id": 7}'`,
		Use:     "test WEBHOOK", Short: "Make one call to a webhook's receiver, at once", Args: webhookArg(oneArg("WEBHOOK")), ValidArgsFunction: o.webhookNumbers,
		Long: `Make one call to a webhook's receiver, at once and whatever its filters, and show the answer. Without
--server the call goes out from here, by the settings of serve in the environment.`,
		RunE: func(c *cobra.Command, args []string) error {
			test := map[string]any{"event_type": eventType}
			if data != "" {
				test["test_data"] = json.RawMessage(data)
			}
			if data != "" && !json.Valid([]byte(data)) {
				return usageError{errors.New("--data must be JSON")}
			}
			return o.use(c, func(a *apiClient) error {
				if err := a.sendFromHere(c.Context(), *db); err != nil {
					return err
				}
				var call json.RawMessage
				if err := a.post(c.Context(), "/webhooks/"+args[0]+"/test", test, &call); err != nil {
					return err
				}
				if err := printObject(c, call); err != nil {
					return err
				}
				return failedCall(call)
			})
		},
	}
	c.Flags().StringVar(&eventType, "type", "patient.created", "event type of the call")
	c.Flags().StringVar(&data, "data", "", "its event_data; the type's example if left out")
	declare(c, c.Flags(), o.readingTable())
	completeFlag(c, "type", o.listOfTypes)
	return withJSON(c)
}

// failedCall returns why the call failed, if it did.
func failedCall(call json.RawMessage) error {
	var ended struct{ Status, Error string }
	if err := json.Unmarshal(call, &ended); err != nil || ended.Status == "success" {
		return err
	}
	return fmt.Errorf("the call failed: %s; check the webhook's url and its receiver", ended.Error)
}

// sendFromHere lets a local client make calls and keep secrets as serve would.
func (a *apiClient) sendFromHere(ctx context.Context, db databaseOptions) error {
	if a.session == nil {
		return nil
	}
	s := settings{database: db}
	var unreadable error
	for _, setting := range s.table() {
		unreadable = errors.Join(unreadable, setting.read(pflag.NewFlagSet("", pflag.ContinueOnError)))
	}
	if err := errors.Join(unreadable, s.resolve(io.Discard)); err != nil {
		return usageError{err}
	}
	client, err := newSender(s)
	if err != nil {
		return err
	}
	keys, err := vault.OpenFor(ctx, a.session.pool, db.keysFile(), func(v *vault.Vault) bool { return a.session.commands.Directory.Decrypts(v) })
	if err != nil {
		return databaseError(err)
	}
	a.session.commands.Vault = keys
	to := a.session.commands.Attempter
	to.Sender, to.WithCertificate, to.Decrypter = client, client.WithCertificate, keys
	return nil
}

func verdictRow(v api.VerdictView, webhook string) []string {
	why := v.Reason
	if v.Field != "" {
		why = strings.TrimSpace(fmt.Sprintf("%s is %s, wanted %s; %s", v.Field, v.Got, v.Want, why))
	}
	if v.Error != nil && v.Verdict != projections.Verdict(domain.DeliveryDelivered) && v.Verdict != projections.Verdict(domain.DeliveryWithdrawn) {
		why = fmt.Sprintf("attempt %d: %s", v.Attempts, *v.Error)
	}
	return []string{webhook, v.WebhookName, string(v.Verdict), textOf(v.DeliveryID, ""), strings.TrimSuffix(why, ";")}
}

func newExplainCommand(db *databaseOptions) *cobra.Command {
	o := &apiOptions{database: db}
	c := &cobra.Command{
		Example: `  medilab-webhooks explain 0198f0a0-0000-7000-8000-000000000001`,
		Use:     "explain EVENT", Short: "Say why each webhook got an event, or did not",
		Args: argsThat(oneArg("EVENT"), isUUID, "EVENT must be an event's UUID, as `medilab-webhooks emit` prints it"),
		RunE: o.run(func(c *cobra.Command, a *apiClient, args []string) error {
			var page listPage
			if err := a.get(c.Context(), "/webhooks/events/"+url.PathEscape(args[0])+"/explain", nil, &page); err != nil {
				return err
			}
			return printItems(c, page.Items, []string{"WEBHOOK", "NAME", "VERDICT", "DELIVERY", "WHY"}, func(v api.VerdictView) []string {
				webhook := strconv.FormatInt(v.WebhookNumber, 10)
				if wantsIDs(c) {
					webhook = v.WebhookID.String()
				}
				return verdictRow(v, webhook)
			})
		}),
	}
	declare(c, c.Flags(), o.readingTable())
	addIDsFlag(c)
	return withJSON(c)
}

func newBacktestCommand(db *databaseOptions) *cobra.Command {
	o := &apiOptions{database: db}
	var events []string
	var filters string
	retries := map[string]*int{}
	c := &cobra.Command{
		Use: "backtest WEBHOOK", Short: "Try other events, filters or retries on recorded history; sends nothing", Args: webhookArg(oneArg("WEBHOOK")), ValidArgsFunction: o.webhookNumbers,
		Example: `  medilab-webhooks backtest 1 --filters '{"amount_min": 1000}' --from 2026-01-01
  medilab-webhooks backtest 1 --max-retries 6 --retry-delay 300`,
		RunE: func(c *cobra.Command, args []string) error {
			body := map[string]any{}
			if events != nil {
				body["events"] = events
			}
			if filters != "" {
				if !json.Valid([]byte(filters)) {
					return usageError{errors.New("--filters must be JSON")}
				}
				body["filters"] = json.RawMessage(filters)
			}
			for flag, n := range retries {
				if c.Flags().Changed(flag) {
					body[strings.ReplaceAll(flag, "-", "_")] = *n
				}
			}
			addTimes(body, c.Flags())
			return o.use(c, func(a *apiClient) error {
				var found json.RawMessage
				if err := a.post(c.Context(), "/webhooks/"+args[0]+"/backtest", body, &found); err != nil {
					return err
				}
				return printBacktest(c, found)
			})
		},
	}
	f := c.Flags()
	f.StringSliceVar(&events, "events", nil, "types or groups that it would subscribe to")
	f.StringVar(&filters, "filters", "", "filters that it would have, as JSON; null: none")
	retries["max-retries"] = f.Int("max-retries", 0, "retries that it would make (default: as it does)")
	retries["retry-delay"] = f.Int("retry-delay", 0, "seconds before the first of them (default: as it does)")
	retries["timeout"] = f.Int("timeout", 0, "seconds that it would wait for an answer (default: as it does)")
	f.Var(new(timeFlag), "from", "history at this time or later: RFC 3339, or a date (UTC)")
	f.Var(new(timeFlag), "to", "history before this time")
	declare(c, f, o.readingTable())
	completeFlag(c, "events", o.listOfTypes)
	return withJSON(c)
}

// printBacktest prints the result: as JSON, else what was counted, and a table of the samples.
func printBacktest(c *cobra.Command, result json.RawMessage) error {
	if wantsJSON(c) {
		return printJSON(c.OutOrStdout(), result)
	}
	var found projections.Backtest
	if err := json.Unmarshal(result, &found); err != nil {
		return err
	}
	out := c.OutOrStdout()
	say := newPaint(out).say
	row := func(name string, n int) []string { return []string{say(name), strconv.Itoa(n)} }
	counts := [][]string{row("considered", found.Considered), row("matched", found.Matched), row("gained", found.Gained), row("lost", found.Lost)}
	if r := found.Retries; r != nil {
		counts = append(counts, row("deliveries", r.Considered), row("delivered", r.Delivered), row("failed", r.Failed),
			row("delivered instead", r.DeliveredInstead), row("failed instead", r.FailedInstead), row("pending instead", r.PendingInstead),
			row("sooner", r.Sooner), row("later", r.Later), row("calls", r.Calls), row("calls instead", r.CallsInstead))
	}
	if err := printTable(out, counts); err != nil || len(found.Samples) == 0 {
		return err
	}
	if _, err := fmt.Fprintln(out); err != nil {
		return err
	}
	return printList(c, found.Samples, []string{"ACCEPTED", "TYPE", "EVENT", "CHANGE"}, func(s projections.BacktestSample) []string {
		return []string{formatTime(s.AcceptedAt), s.EventType, s.EventID.String(), string(s.Change)}
	})
}

// addTimes adds the range that flags name to a body.
func addTimes(body map[string]any, flags *pflag.FlagSet) {
	for _, name := range []string{"from", "to"} {
		if at := flags.Lookup(name).Value.String(); at != "" {
			body[name] = at
		}
	}
}
