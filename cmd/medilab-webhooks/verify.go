package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/commands/archive"
	"github.com/medilab/webhooks/commands/receipts"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
	api "github.com/medilab/webhooks/http"
	"github.com/medilab/webhooks/projections"
)

func newAuditVerifyCommand(db *databaseOptions) *cobra.Command {
	var anchors string
	c := &cobra.Command{
		Use:     "verify",
		Short:   "Check the whole log: gaps, seals, versions, decoding, read models, the queue",
		Example: "  medilab-webhooks audit verify --anchor anchor.json",
		RunE: db.run(func(c *cobra.Command, s *session, _ []string) error {
			head, err := s.log.Head(c.Context())
			if err != nil {
				return err
			}
			result := api.Verified{Events: head, Problems: []projections.Problem{}}
			bar := newProgress(c, -1, "verifying")
			err = verify(c.Context(), s, &result, db.receiptKeyFile(), anchors, bar)
			bar.end()
			switch {
			case err != nil && result.Found == 0:
				return err
			case wantsJSON(c):
				err = errors.Join(err, printJSON(c.OutOrStdout(), result))
			case result.Found == 0:
				text := fmt.Sprintf("Verified %d %s, nothing is wrong", head, domain.Plural(head, "event", "events"))
				return printResult(c, nil, fmt.Sprintf("%s in %s\n", text, bar.took()), text+"\n")
			default: // of a check that was not completed too
				err = errors.Join(err, printTable(c.OutOrStdout(), problemRows(result)))
			}
			if err == nil && result.Found > 0 {
				err = fmt.Errorf("found wrong: %d; a read model can be mended by `medilab-webhooks projections rebuild`, the log only from a backup", result.Found)
			}
			return err
		}),
	}
	c.Flags().StringVar(&anchors, "anchor", "", "check against this file too, made by audit anchor")
	return withJSON(c)
}

// verify checks all that there is, and the anchors in the file, if it is named.
func verify(ctx context.Context, s *session, result *api.Verified, keyFile, anchors string, bar *progress) error {
	report := func(kind projections.ProblemKind) func(eventstore.Position, string) {
		return func(at eventstore.Position, text string) {
			result.Report(projections.Problem{Kind: kind, Position: at, Text: text})
		}
	}
	var err error
	if s.standby == nil {
		err = s.queries().Verify(ctx, saga.Queue{}, result.Report, bar.set)
	} else {
		err = verifyBesideStandby(ctx, s, result, bar)
	}
	if err == nil {
		err = checkArchives(ctx, s.log, keyFile, report(projections.ProblemKind(eventstore.FlawSeal)))
	}
	if err == nil && anchors != "" {
		err = checkAnchors(ctx, s.log, anchors, report("anchor"))
	}
	if err != nil {
		return fmt.Errorf("the check was not completed: %w", err)
	}
	return nil
}

// verifyBesideStandby lets the standby check the log while the primary compares the read models.
func verifyBesideStandby(ctx context.Context, s *session, result *api.Verified, bar *progress) error {
	var ofLog api.Verified
	err := s.queries().VerifyBeside(ctx, func(ctx context.Context, progress projections.Progress) error {
		_, err := projections.Ask(ctx, s.queries(), s.standby, func(ctx context.Context, q *projections.Projections) (struct{}, error) {
			ofLog = api.Verified{} // the primary begins again if the standby fails
			return struct{}{}, q.VerifyLog(ctx, ofLog.Report, progress)
		})
		return err
	}, saga.Queue{}, result.Report, bar.set)
	result.Add(ofLog)
	return err
}

// checkArchives reports archived ranges that this service did not sign, if the data folder has
// its public key: who owns the database can make up an archive, and cannot sign it.
func checkArchives(ctx context.Context, log *eventstore.Log, keyFile string, report func(at eventstore.Position, text string)) error {
	cuts, _, err := log.Cuts(ctx)
	if err != nil || len(cuts) == 0 {
		return err
	}
	key, err := os.ReadFile(keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the public key: %w", err)
	}
	for _, cut := range cuts {
		var m archive.Manifest
		if err := receipts.VerifyArchive(cut.Manifest, key, &m); err != nil {
			report(cut.Last, fmt.Sprintf("positions %d to %d are said to be archived: %v", cut.First, cut.Last, err))
		} else if m.First != cut.First || m.Last != cut.Last || !bytes.Equal(m.SealBefore, cut.SealBefore) || !bytes.Equal(m.Seal, cut.Seal) {
			report(cut.Last, fmt.Sprintf("positions %d to %d are said to be archived, and the signed archive is of %d to %d", cut.First, cut.Last, m.First, m.Last))
		}
	}
	return nil
}

func problemRows(result api.Verified) [][]string {
	rows := [][]string{{"KIND", "POSITION", "STREAM", "PROBLEM"}}
	for _, p := range result.Problems {
		position := "-"
		if p.Position > 0 {
			position = fmt.Sprint(p.Position)
		}
		rows = append(rows, []string{string(p.Kind), position, cmp.Or(p.Stream, "-"), p.Text})
	}
	if more := result.Found - len(result.Problems); more > 0 {
		rows = append(rows, []string{"...", "", "", fmt.Sprintf("and %d more", more)})
	}
	return rows
}
