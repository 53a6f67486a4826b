package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/projections"
)

// maxProblems bounds what a check prints: a log that is badly damaged would have no end of it.
const maxProblems = 1000

func newAuditVerifyCommand(db *databaseOptions) *cobra.Command {
	var asJSON bool
	var anchors string
	c := &cobra.Command{
		Use:   "verify",
		Short: "Check the whole log: gaps, seals, versions, decoding, read models, the queue",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return db.use(c, func(s *session) error {
				head, err := s.log.Head(c.Context())
				if err != nil {
					return err
				}
				problems, found := []projections.Problem{}, 0
				watch := newWatch(c, "verifying")
				report := func(p projections.Problem) {
					if found++; found <= maxProblems {
						problems = append(problems, p)
					}
				}
				err = s.queries().Verify(c.Context(), report, watch.progress)
				watch.end()
				if err == nil && anchors != "" {
					_, err = checkAnchors(c.Context(), s.log, anchors, func(at eventstore.Position, text string) {
						report(projections.Problem{Kind: "anchor", Position: at, Text: text})
					})
				}
				if err != nil {
					return fmt.Errorf("the check was not completed: %w", err)
				}
				if asJSON {
					err = printJSON(c.OutOrStdout(), map[string]any{"events": head, "problems": problems, "found": found})
				} else {
					err = printProblems(c, problems, found, int64(head), watch)
				}
				if err == nil && found > 0 {
					err = fmt.Errorf("found wrong: %d; a read model can be mended by `medilab-webhooks projections rebuild`, the log only from a backup", found)
				}
				return err
			})
		},
	}
	c.Flags().StringVar(&anchors, "anchor", "", "check against this file too, made by audit anchor")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printProblems(c *cobra.Command, problems []projections.Problem, found int, events int64, w *watch) error {
	if found == 0 {
		_, err := fmt.Fprintf(c.OutOrStdout(), "Verified %d events, nothing is wrong%s\n", events, w.took(c))
		return err
	}
	rows := [][]string{{"KIND", "POSITION", "STREAM", "PROBLEM"}}
	for _, p := range problems {
		position, stream := "-", "-"
		if p.Position > 0 {
			position = strconv.FormatInt(int64(p.Position), 10)
		}
		if p.Stream != "" {
			stream = p.Stream
		}
		rows = append(rows, []string{string(p.Kind), position, stream, p.Text})
	}
	if more := found - len(problems); more > 0 {
		rows = append(rows, []string{"...", "", "", fmt.Sprintf("and %d more", more)})
	}
	return printTable(c.OutOrStdout(), rows)
}
