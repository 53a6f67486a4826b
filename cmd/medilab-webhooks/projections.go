package main

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

// queries returns the read models of the session's database.
func (s *session) queries() *projections.Projections {
	return projections.New(s.pool, s.log, slog.New(slog.DiscardHandler))
}

func newProjectionsListCommand(db *databaseOptions) *cobra.Command {
	return withJSON(&cobra.Command{
		Use:     "list",
		Short:   "Show how far each read model has followed the log",
		Example: "  medilab-webhooks projections list",
		RunE: db.run(func(c *cobra.Command, s *session, _ []string) error {
			list, err := s.queries().List(c.Context())
			if err != nil {
				return err
			}
			return printList(c, list, []string{"NAME", "POSITION", "HEAD", "BEHIND", "STATE"}, func(m projections.Status) []string {
				return []string{m.Name, fmt.Sprint(m.Position), fmt.Sprint(m.Head), fmt.Sprint(m.LagEvents), stateOf(m)}
			})
		}),
	})
}

func stateOf(m projections.Status) string {
	switch {
	case m.Rebuilding && m.Rebuilt != nil:
		return fmt.Sprint("being rebuilt, at ", *m.Rebuilt)
	case m.Rebuilding:
		return "being rebuilt"
	case m.Outdated:
		return "outdated: rebuild it"
	}
	return "live"
}

func newProjectionsRebuildCommand(db *databaseOptions) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "rebuild NAME... | --all",
		Short: "Rebuild read models from the log, while they serve",
		Example: `  medilab-webhooks projections rebuild stats
  medilab-webhooks projections rebuild --all`,
		ValidArgs: projections.Names(),
		Args: func(_ *cobra.Command, names []string) error {
			if all == (len(names) > 0) {
				return errors.New("give the names of read models (" + strings.Join(projections.Names(), ", ") + "), or --all")
			}
			return nil
		},
		RunE: db.run(func(c *cobra.Command, s *session, names []string) error {
			bar := newProgress(c, -1, "rebuilding")
			err := s.queries().Rebuild(c.Context(), names, bar.set)
			bar.end()
			if errors.Is(err, domain.KindInvalid) {
				return usageError{errors.New("a read model's " + problem(err))}
			}
			if err != nil {
				return err
			}
			if all {
				names = projections.Names()
			}
			list := strings.Join(names, ", ")
			if err := s.commands.Record(c.Context(), caller(), domain.AdminReadModelRebuilt, list); err != nil {
				return err
			}
			text := fmt.Sprintf("Rebuilt %s from %d %s", list, bar.done, domain.Plural(bar.done, "event", "events"))
			return printResult(c, map[string]any{"rebuilt": names, "events": bar.done}, fmt.Sprintf("%s in %s\n", text, bar.took()), text+"\n")
		}),
	}
	c.Flags().BoolVar(&all, "all", false, "rebuild all of them")
	return withJSON(c)
}
