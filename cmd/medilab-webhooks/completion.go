package main

import (
	"context"
	"log/slog"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

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

// eventTypes completes a first argument that is an event type of the catalogue.
func eventTypes(file *string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) (found []string, _ cobra.ShellCompDirective) {
		catalog, err := loadCatalog(*file)
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		for _, info := range catalog.Clinic() {
			found = append(found, cobra.CompletionWithDesc(string(info.Type), info.EN))
		}
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

// webhookNumbers completes the number of a webhook, with its name. It starts no database.
func (o *databaseOptions) webhookNumbers(c *cobra.Command, _ []string, _ string) (found []string, _ cobra.ShellCompDirective) {
	attach := func(ctx context.Context, p postgres.Options) (*postgres.Server, error) {
		return postgres.Attach(ctx, p.DataDir)
	}
	db, err := o.open(c.Context(), slog.New(slog.DiscardHandler), attach)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	s, err := newSession(c.Context(), db, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer s.close() //nolint:errcheck // nowhere to say it
	for w := range s.commands.Directory.Newest() {
		if w.Exists() {
			found = append(found, cobra.CompletionWithDesc(strconv.FormatInt(w.Number, 10), sanitizeLine(w.Name)))
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}
