package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

// filterFlag is a flag whose value goes to a list of the API as a parameter.
type filterFlag struct{ name, param, usage string }

var (
	responseFlag  = filterFlag{"response-status", "response_status", "that were answered so: 404, or a class, as 5xx"}
	eventTypeFlag = filterFlag{"type", "event_type", "of events of this type"}
	timeFlags     = []filterFlag{{"from", "from", "at this time or later: RFC 3339, or a date (UTC)"}, {"to", "to", "before this time"}}
	callFlags     = append([]filterFlag{
		{"status", "status", "that ended so: success or failed"}, responseFlag, {"event", "event_id", "of this event (UUID)"},
		{"delivery", "delivery_id", "of this delivery (UUID)"}, {"correlation-id", "correlation_id", "of events with this correlation id"}, eventTypeFlag,
	}, timeFlags...)
	deliveryFlags = append([]filterFlag{
		{"state", "state", "that stand so: pending, delivered, failed or cancelled"}, {"webhook", "webhook", "to this webhook (number or UUID)"}, responseFlag,
		{"attempts-min", "attempts_min", "with so many attempts or more"}, eventTypeFlag,
	}, timeFlags...)
)

// listOptions are those of a command that prints a list of the API.
type listOptions struct {
	apiOptions
	filters []filterFlag
	limit   int
}

// newListCommand returns a command that prints a list.
func newListCommand(db *databaseOptions, c *cobra.Command, filters []filterFlag) *listOptions {
	o := &listOptions{apiOptions: apiOptions{database: db}, filters: filters}
	for _, f := range filters {
		if f.name == "from" || f.name == "to" {
			c.Flags().Var(new(timeFlag), f.name, f.usage)
		} else {
			c.Flags().String(f.name, "", f.usage)
		}
	}
	const usual = 50
	c.Flags().IntVar(&o.limit, "limit", usual, "print the newest of them, so many at most")
	declare(c, c.Flags(), o.table())
	if c.Flags().Lookup(eventTypeFlag.name) != nil {
		completeFlag(c, eventTypeFlag.name, o.listOfTypes)
	}
	withJSON(c)
	return o
}

// read runs f with the items of the list at the path. Below a webhook, it is of the one that
// args name, or of all.
func (o *listOptions) read(c *cobra.Command, args []string, path string, f func(a *apiClient, path string, query url.Values, items []json.RawMessage) error) error {
	if o.limit < 1 {
		return usageError{errors.New("--limit must be 1 or more")}
	}
	query := url.Values{}
	for _, f := range o.filters {
		if value := c.Flags().Lookup(f.name).Value.String(); value != "" {
			query.Set(f.param, value)
		}
	}
	if len(args) > 0 {
		path = strings.Replace(path, "/webhooks", "/webhooks/"+args[0], 1)
	}
	return o.use(c, func(a *apiClient) error {
		items, err := a.newest(c.Context(), path, query, o.limit)
		if err != nil {
			return err
		}
		return f(a, path, query, items)
	})
}

// listPage is a page of a list, each item as the server wrote it.
type listPage struct {
	Items []json.RawMessage `json:"items"`
	Next  *string           `json:"next_cursor"`
	// CoveredFrom is since when a list covers the log; nil: it covers all.
	CoveredFrom *time.Time `json:"covered_from"`
}

// newest reads the first items of a list, so many at most.
func (a *apiClient) newest(ctx context.Context, path string, query url.Values, limit int) (items []json.RawMessage, err error) {
	items, _, err = a.newestCovered(ctx, path, query, limit)
	return items, err
}

// newestCovered is newest, and says since when the list covers the log; nil: it covers all.
func (a *apiClient) newestCovered(ctx context.Context, path string, query url.Values, limit int) (items []json.RawMessage, from *time.Time, err error) {
	const mostOfPage = 1000
	for len(items) < limit {
		query.Set("limit", strconv.Itoa(min(limit-len(items), mostOfPage)))
		var page listPage
		if err := a.get(ctx, path, query, &page); err != nil {
			return nil, nil, err
		}
		items, from = append(items, page.Items...), page.CoveredFrom
		if page.Next == nil {
			break
		}
		query.Set("cursor", *page.Next)
	}
	return items, from, nil
}

// printItems prints items of the API: as they are as JSON, else as a table.
func printItems[T any](c *cobra.Command, items []json.RawMessage, heading []string, row func(T) []string) error {
	if wantsJSON(c) {
		return printJSON(c.OutOrStdout(), append([]json.RawMessage{}, items...))
	}
	read := make([]T, len(items))
	for i, item := range items {
		if err := json.Unmarshal(item, &read[i]); err != nil {
			return err
		}
	}
	return printList(c, read, heading, row)
}

var callHeading = []string{"TIME", "WEBHOOK", "NAME", "TYPE", "EVENT", "TRY", "STATUS", "ANSWER", "MS", "ERROR"}

func callRow(c projections.Call, whose labels) []string {
	webhook, name := whose.of(c.WebhookID, c.CreatedAt)
	took := "-"
	if c.DurationMS != nil {
		took = strconv.FormatFloat(*c.DurationMS, 'f', 1, 64)
	}
	return []string{formatTime(c.CreatedAt), webhook, name, c.EventType, c.EventID.String(), strconv.Itoa(c.Attempt), string(c.Status), textOf(c.ResponseStatus, "-"), took, textOf(c.Error, "")}
}

// labels name webhooks as people do: by number and name, or with --ids by id and name.
type labels struct {
	c     *cobra.Command
	api   *apiClient
	known map[string]shownWebhook
}

func newLabels(c *cobra.Command, a *apiClient) labels { return labels{c, a, map[string]shownWebhook{}} }

// of returns the names of a webhook, which may be deleted since, but was there at the time. One
// that cannot be read has its id alone.
func (l labels) of(webhookID domain.WebhookID, at time.Time) (webhook, name string) {
	id := webhookID.String()
	w, ok := l.known[id]
	if !ok {
		err := l.api.get(l.c.Context(), "/webhooks/"+id, nil, &w)
		if errors.Is(err, domain.KindNotFound) {
			_ = l.api.get(l.c.Context(), "/webhooks/"+id, url.Values{"as_of": {at.UTC().Format(time.RFC3339Nano)}}, &w)
		}
		l.known[id] = w
	}
	if w.Number == 0 || wantsIDs(l.c) {
		return id, cmp.Or(w.Name, "-")
	}
	return strconv.FormatInt(w.Number, 10), w.Name
}

// textOf returns what p points to as text, or the other if it is nil.
func textOf[T any](p *T, otherwise string) string {
	if p == nil {
		return otherwise
	}
	return fmt.Sprint(*p)
}

// orZero returns what p points to, or the zero value if it is nil.
func orZero[T any](p *T) (value T) {
	if p != nil {
		value = *p
	}
	return value
}

// tableOf returns the RunE of a command that prints the list at the path as a table.
func tableOf[T any](o *listOptions, path string, heading []string, row func(T, labels) []string) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		return o.read(c, args, path, func(a *apiClient, _ string, _ url.Values, items []json.RawMessage) error {
			whose := newLabels(c, a)
			return printItems(c, items, heading, func(item T) []string { return row(item, whose) })
		})
	}
}

func newCallsCommand(db *databaseOptions) *cobra.Command {
	follow := false
	c := &cobra.Command{
		Use:   "calls [WEBHOOK]",
		Short: "List the calls to receivers, newest first, or follow them",
		Example: `  medilab-webhooks calls --status failed
  medilab-webhooks calls 1 --response-status 5xx --from 2026-01-31
  medilab-webhooks calls --follow --json | jq .response_status`,
		Args: webhookArg(cobra.MaximumNArgs(1)),
	}
	c.Flags().BoolVar(&follow, "follow", false, "print the calls as they are made, oldest first, until interrupted")
	o := newListCommand(db, c, callFlags)
	addIDsFlag(c)
	const path = "/webhooks/calls"
	list := tableOf(o, path, callHeading, callRow)
	c.RunE = func(c *cobra.Command, args []string) error {
		if !follow {
			return list(c, args)
		}
		return o.read(c, args, path, func(a *apiClient, path string, query url.Values, items []json.RawMessage) error {
			return followCalls(c, a, path, query, items)
		})
	}
	c.ValidArgsFunction = o.webhookNumbers
	return c
}

func deliveryRow(d projections.Delivery, whose labels) []string {
	webhook, name := whose.of(d.WebhookID, d.CreatedAt)
	return []string{
		formatTime(d.CreatedAt), webhook, name, d.EventType, d.EventID.String(), d.ID.String(), string(d.State), strconv.Itoa(d.Attempts),
		formatTime(orZero(d.NextAttemptAt)), textOf(d.ResponseStatus, "-"), textOf(d.Error, "-"),
	}
}

func newDeliveriesCommand(db *databaseOptions) *cobra.Command {
	c := &cobra.Command{
		Use:   "deliveries",
		Short: "List deliveries across webhooks, the newest event first: what never arrived",
		Example: `  medilab-webhooks deliveries --state failed
  medilab-webhooks deliveries --state failed --webhook 1 --response-status 5xx --json`,
	}
	o := newListCommand(db, c, deliveryFlags)
	heading := []string{"EVENT TIME", "WEBHOOK", "NAME", "TYPE", "EVENT", "DELIVERY", "STATE", "TRIES", "NEXT", "ANSWER", "ERROR"}
	c.RunE = tableOf(o, "/webhooks/deliveries", heading, deliveryRow)
	addIDsFlag(c)
	completeFlag(c, "state", listOf([]domain.DeliveryState{domain.DeliveryPending, domain.DeliveryDelivered, domain.DeliveryFailed, domain.DeliveryWithdrawn}))
	completeFlag(c, "webhook", o.webhookNumbers)
	return c
}
