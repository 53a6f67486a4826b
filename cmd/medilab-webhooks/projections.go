package main

import (
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/projections"
)

// newProjectionsCommand groups what an operator does with the read models.
func newProjectionsCommand(db *databaseOptions) *cobra.Command {
	c := &cobra.Command{Use: "projections", Short: "List and rebuild the read models"}
	c.AddCommand(newProjectionsListCommand(db), newProjectionsRebuildCommand(db))
	return c
}

// queries gives the read models of the session's database.
func (s *session) queries() *projections.Projections {
	return projections.New(s.pool, s.log, slog.New(slog.DiscardHandler))
}

func newProjectionsListCommand(db *databaseOptions) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "Say how far each read model has followed the log",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return db.use(c, func(s *session) error {
				list, err := s.queries().List(c.Context())
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(c.OutOrStdout(), list)
				}
				rows := [][]string{{"NAME", "POSITION", "HEAD", "BEHIND", "STATE"}}
				for _, m := range list {
					rows = append(rows, []string{m.Name, showPosition(m.Position), showPosition(m.Head), fmt.Sprint(m.LagEvents), stateOf(m)})
				}
				return printTable(c.OutOrStdout(), rows)
			})
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func showPosition(p eventstore.Position) string { return strconv.FormatInt(int64(p), 10) }

func stateOf(m projections.Status) string {
	switch {
	case m.Rebuilding && m.Rebuilt != nil:
		return "being rebuilt, at " + showPosition(*m.Rebuilt)
	case m.Rebuilding:
		return "being rebuilt"
	case m.Outdated:
		return "outdated: rebuild it"
	}
	return "live"
}

func newProjectionsRebuildCommand(db *databaseOptions) *cobra.Command {
	var all, asJSON bool
	c := &cobra.Command{
		Use:   "rebuild NAME... | --all",
		Short: "Fill read models anew from the log, while they serve",
		Example: `  medilab-webhooks projections rebuild stats
  medilab-webhooks projections rebuild --all`,
		ValidArgs: projections.Names(),
		Args: func(_ *cobra.Command, names []string) error {
			if all == (len(names) > 0) {
				return errors.New("give the names of read models (" + strings.Join(projections.Names(), ", ") + "), or --all")
			}
			return nil
		},
		RunE: func(c *cobra.Command, names []string) error {
			return db.use(c, func(s *session) error {
				watch := newWatch(c, "rebuilding")
				err := s.queries().Rebuild(c.Context(), names, watch.progress)
				watch.end()
				if errors.Is(err, domain.KindInvalid) {
					return usageError{errors.New("a read model's " + problem(err))}
				}
				if err != nil {
					return err
				}
				if all {
					names = projections.Names()
				}
				if err := s.commands.Record(c.Context(), caller(), domain.AdminReadModelRebuilt, strings.Join(names, ", ")); err != nil {
					return err
				}
				if asJSON {
					return printJSON(c.OutOrStdout(), map[string]any{"rebuilt": names, "events": watch.done})
				}
				_, err = fmt.Fprintf(c.OutOrStdout(), "Rebuilt %s from %d events%s\n", strings.Join(names, ", "), watch.done, watch.took(c))
				return err
			})
		},
	}
	c.Flags().BoolVar(&all, "all", false, "rebuild all of them")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// watch shows how far work on the log has come.
type watch struct {
	bar     *progressbar.ProgressBar
	started time.Time
	done    eventstore.Position
}

func newWatch(c *cobra.Command, what string) *watch {
	return &watch{bar: newProgress(c.ErrOrStderr(), -1, what), started: time.Now()}
}

// progress takes what the work tells. The log may grow meanwhile.
func (w *watch) progress(done, total eventstore.Position) {
	w.done = done
	if total > 0 {
		w.bar.ChangeMax64(int64(total))
		w.bar.Set64(int64(done)) //nolint:errcheck // a bar that cannot be drawn stops nothing
	}
}

func (w *watch) end() {
	w.bar.Finish() //nolint:errcheck // as above
}

// took says how long it took, to people.
func (w *watch) took(c *cobra.Command) string {
	if !isTerminal(c.OutOrStdout()) {
		return ""
	}
	return " in " + time.Since(w.started).Round(time.Millisecond).String()
}
