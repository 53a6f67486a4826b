package main

import (
	"errors"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/commands/outbox"
	"github.com/medilab/webhooks/migrations/postgres"
)

func newMigrateCommand(db *databaseOptions) *cobra.Command {
	c := &cobra.Command{
		Use:     "migrate",
		Short:   "Bring the database's tables up to date",
		Example: "  medilab-webhooks migrate --database-url postgres://medilab@db.clinic.example/medilab",
		RunE: func(c *cobra.Command, _ []string) (err error) {
			catalog, err := db.catalog()
			if err != nil {
				return err
			}
			logger := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			d, err := db.open(c.Context(), logger, postgres.Open)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, d.close()) }()
			if err := d.connect(c.Context(), sessionConnections); err != nil {
				return err
			}
			applied, err := d.migrate(c.Context(), logger)
			// Files before the one that failed stay applied, so they are reported in any case.
			if err := errors.Join(err, printApplied(c, applied, err == nil)); err != nil {
				return err
			}
			return outbox.SyncEventTypes(c.Context(), d.pool, catalog)
		},
	}
	declare(c, c.Flags(), []setting{db.eventTypesSetting()})
	return withJSON(c)
}

func printApplied(c *cobra.Command, applied []string, upToDate bool) error {
	text := ""
	for _, name := range applied {
		text += "Applied " + name + "\n"
	}
	if text == "" && upToDate {
		text = "Nothing to apply, the database is up to date\n"
	}
	return printResult(c, map[string]any{"applied": append([]string{}, applied...), "up_to_date": upToDate}, text, text)
}
