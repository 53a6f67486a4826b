package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/commands/outbox"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations"
)

func newMigrateCommand(db *databaseOptions) *cobra.Command {
	var asJSON bool
	var eventTypes string
	c := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database's tables up to date",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			catalog, err := loadCatalog(eventTypes)
			if err != nil {
				return err
			}
			d, err := db.open(c.Context(), slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, d.close()) }()
			applied, err := migrations.Up(c.Context(), d.url)
			// What was applied before a failure stays applied, so it is said in any case.
			if said := sayApplied(c.OutOrStdout(), applied, asJSON, err == nil); said != nil || err != nil {
				return errors.Join(databaseError(err), said)
			}
			pool, err := eventstore.OpenPool(c.Context(), d.url, 1)
			if err != nil {
				return err
			}
			defer pool.Close()
			return outbox.SyncEventTypes(c.Context(), pool, catalog)
		},
	}
	c.Flags().StringVar(&eventTypes, "event-types", fromEnvironment("MEDILAB_EVENT_TYPES", ""), "file that adds event types (environment MEDILAB_EVENT_TYPES)")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func sayApplied(out io.Writer, applied []string, asJSON, all bool) error {
	if asJSON {
		return printJSON(out, map[string]any{"applied": append([]string{}, applied...), "up_to_date": all})
	}
	for _, name := range applied {
		if _, err := fmt.Fprintln(out, "Applied", name); err != nil {
			return err
		}
	}
	if all && len(applied) == 0 {
		_, err := fmt.Fprintln(out, "Nothing to apply, the database is up to date")
		return err
	}
	return nil
}
