package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/commands/archive"
	"github.com/medilab/webhooks/commands/receipts"
	"github.com/medilab/webhooks/commands/vault"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// archiving runs an export or an import, with a progress bar, and prints what it did.
func archiving(c *cobra.Command, db *databaseOptions, work func(*archive.Archiver) (archive.Result, error), said func(archive.Result) string) error {
	return db.use(c, func(s *session) error {
		keys, err := vault.OpenFor(c.Context(), s.pool, db.keysFile(), func(v *vault.Vault) bool { return s.commands.Directory.Decrypts(v) })
		if err != nil {
			return databaseError(err)
		}
		signer, err := receipts.Open(c.Context(), s.pool, keys)
		if err != nil {
			return databaseError(err)
		}
		bar := newProgress(c, -1, "archiving")
		result, err := work(&archive.Archiver{
			Log: s.log, Pool: s.pool, Signer: signer, ReadModels: s.queries(), Actor: caller().Actor,
			Progress: func(doing string, done, total eventstore.Position) {
				bar.bar.Describe(say(doing))
				bar.set(done, total)
			},
		})
		bar.end()
		if err != nil {
			return err
		}
		text := said(result)
		return printResult(c, result, fmt.Sprintf("%s in %s\n", text, bar.took()), text+"\n")
	})
}

func newArchiveExportCommand(db *databaseOptions) *cobra.Command {
	var to time.Time
	c := &cobra.Command{
		Use:   "export --to TIME DIR",
		Short: "Archive what was recorded before a time, and let the database drop it",
		Long: `Archive what was recorded before a time, and is not archived yet, as signed and compressed files, and
let the database drop what of it nothing needs any more. It works while servers run, and can be
interrupted: the same command goes on.

Events that are not delivered yet stay, with their deliveries, and so do webhooks, tokens and all
else that is no event of the clinic. Statistics keep their totals.`,
		Example: "  medilab-webhooks archive export --to 2026-01-01 /mnt/archive",
		Args:    oneArg("DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			if to.IsZero() {
				return usageError{errors.New("--to must say before which time: 2026-01-31, or 2026-01-31T15:04:05Z")}
			}
			return archiving(c, db, func(a *archive.Archiver) (archive.Result, error) {
				return a.Export(c.Context(), to, args[0])
			}, func(r archive.Result) string {
				return fmt.Sprintf("Archived positions %d to %d (%s) in %s: %d %s, of which the database keeps %d up to there; the log's table had %s and has %s, with room within for new entries",
					r.First, r.Last, formatTime(r.To), args[0], r.Entries+r.Earlier, domain.Plural(r.Entries+r.Earlier, "entry", "entries"), r.Kept, size(r.Before), size(r.After))
			})
		},
	}
	c.Flags().Var((*timeFlag)(&to), "to", "archive what was recorded before this time: RFC 3339, or a date (UTC)")
	return withJSON(c)
}

func newArchiveImportCommand(db *databaseOptions) *cobra.Command {
	return withJSON(&cobra.Command{
		Use:     "import DIR",
		Short:   "Put the newest archive back into the database, as it was",
		Example: "  medilab-webhooks archive import /mnt/archive",
		Args:    oneArg("DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			return archiving(c, db, func(a *archive.Archiver) (archive.Result, error) {
				return a.Import(c.Context(), args[0])
			}, func(r archive.Result) string {
				return fmt.Sprintf("Restored positions %d to %d (%s): %d %s", r.First, r.Last, formatTime(r.To), r.Entries+r.Earlier, domain.Plural(r.Entries+r.Earlier, "entry", "entries"))
			})
		},
	})
}

func newArchiveListCommand(db *databaseOptions) *cobra.Command {
	var keyFile string
	c := &cobra.Command{
		Use:     "list DIR",
		Short:   "Check the archives in a folder, and list them; needs no database",
		Example: "  medilab-webhooks archive list /mnt/archive --key medilab-receipts.json",
		Args:    oneArg("DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			key, err := db.publicKey(keyFile)
			if err != nil {
				return err
			}
			bar := newProgress(c, -1, "checking")
			list, err := archive.List(c.Context(), args[0], key, bar.set)
			bar.end()
			if err != nil {
				return err
			}
			if len(list) == 0 && !wantsJSON(c) {
				return printText(c.OutOrStdout(), fmt.Sprintf("There is no archive in %s\n", args[0]))
			}
			err = printList(c, list, []string{"FIRST", "LAST", "TO", "ENTRIES", "SIZE", "CREATED", "STATE"}, archiveRow)
			bad := len(slices.DeleteFunc(list, func(a archive.Listed) bool { return a.Problem == "" }))
			if err == nil && bad > 0 {
				err = fmt.Errorf("archives that are not as they were signed: %d; get them from a backup", bad)
			}
			return err
		},
	}
	c.Flags().StringVar(&keyFile, "key", "", "the public key: a JWK set (default: receipts.json in the data folder)")
	return withJSON(c)
}

func archiveRow(a archive.Listed) []string {
	bytes := int64(0)
	for _, f := range a.Files {
		bytes += f.Bytes
	}
	return []string{fmt.Sprint(a.First), fmt.Sprint(a.Last), formatTime(a.To), fmt.Sprint(a.Entries + a.Earlier), size(bytes), formatTime(a.CreatedAt), cmp.Or(a.Problem, "good")}
}

// size formats a number of bytes.
func size(bytes int64) string {
	const mebibyte = 1 << 20
	return fmt.Sprintf("%.1f MB", float64(bytes)/mebibyte)
}

// noteArchived says on the notes that the beginning of the log is archived.
func noteArchived(c *cobra.Command, s *session) error {
	cuts, _, err := s.log.Cuts(c.Context())
	if err != nil || len(cuts) == 0 {
		return err
	}
	last := cuts[len(cuts)-1]
	_, err = fmt.Fprintf(c.ErrOrStderr(), say("Positions up to %d (%s) are archived: of them only what the database keeps is shown\n"), last.Last, last.To.UTC().Format(time.RFC3339))
	return err
}
