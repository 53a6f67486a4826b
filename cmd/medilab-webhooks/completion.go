package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"math"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/domain"
	api "github.com/medilab/webhooks/http"
	"github.com/medilab/webhooks/migrations/postgres"
)

// completeFlag completes the flag's value. A failure completes nothing: there is nowhere to say it.
func completeFlag(c *cobra.Command, flag string, complete cobra.CompletionFunc) {
	cobra.CheckErr(c.RegisterFlagCompletionFunc(flag, complete)) // fails only for a missing flag
}

// listOf completes a comma-separated list of the words.
func listOf[T ~string](words []T) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, typed string) (found []string, _ cobra.ShellCompDirective) {
		before := typed[:strings.LastIndex(typed, ",")+1]
		for _, word := range words {
			found = append(found, before+string(word))
		}
		return found, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
}

// listOfTypes completes a comma-separated list of event types.
func (o *apiOptions) listOfTypes(c *cobra.Command, args []string, typed string) (found []string, _ cobra.ShellCompDirective) {
	catalog, err := o.database.catalog()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var types []domain.EventType
	for _, info := range catalog.Clinic() {
		types = append(types, info.Type)
	}
	return listOf(types)(c, args, typed)
}

// eventType completes a first argument that is an event type of the catalogue.
func (o *apiOptions) eventType(_ *cobra.Command, args []string, _ string) (found []string, _ cobra.ShellCompDirective) {
	catalog, err := o.database.catalog()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for _, info := range catalog.Clinic() {
		found = append(found, cobra.CompletionWithDesc(string(info.Type), info.EN))
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

// webhookNumbers completes the number of a webhook, with its name. It starts no database.
func (o *apiOptions) webhookNumbers(c *cobra.Command, _ []string, _ string) (found []string, _ cobra.ShellCompDirective) {
	client, err := o.remote()
	if o.server == "" {
		s, failed := o.database.session(c.Context(), slog.New(slog.DiscardHandler), func(ctx context.Context, p postgres.Options) (*postgres.Server, error) {
			return postgres.Attach(ctx, p.DataDir) // one that runs
		})
		if failed != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer s.close() //nolint:errcheck // nowhere to say it
		client, err = newLocalClient(s, api.Config{}), nil
	}
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	items, _ := client.newest(c.Context(), "/webhooks", url.Values{}, math.MaxInt)
	for _, item := range items {
		var w shownWebhook
		if json.Unmarshal(item, &w) == nil {
			found = append(found, cobra.CompletionWithDesc(strconv.FormatInt(w.Number, 10), sanitizeLine(w.Name)))
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}
