package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/eventstore"
)

func newAuditAnchorCommand(db *databaseOptions) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "anchor [--file FILE]",
		Short: "Write down the log's present seal, to be kept elsewhere",
		Long: `Write down the log's present seal as a line of JSON, to be kept where nobody who can change the
database can change it: on another machine, on paper, in a mail. With --file the line is added
to the file's end.

audit verify --anchor FILE then finds also what the database alone cannot tell: a log whose end
was cut off, and one that was rewritten and sealed again.`,
		Example: "  medilab-webhooks audit anchor --file /mnt/worm/anchors.ndjson",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return db.use(c, func(s *session) error {
				anchor, err := s.log.Anchor(c.Context())
				if errors.Is(err, eventstore.ErrEmpty) {
					return errors.New("the log is empty: there is nothing to anchor yet")
				}
				if err != nil {
					return err
				}
				if path == "" {
					return printJSON(c.OutOrStdout(), anchor)
				}
				if err := appendAnchor(path, anchor); err != nil {
					return err
				}
				_, err = fmt.Fprintf(c.OutOrStdout(), "Anchored at position %d in %s; keep the file away from the database\n", anchor.Position, path)
				return err
			})
		},
	}
	c.Flags().StringVar(&path, "file", "", "add the anchor to this file (default: print it)")
	return c
}

// appendAnchor adds the anchor to the file's end.
func appendAnchor(path string, anchor eventstore.Anchor) (err error) {
	const readable = 0o644 // an anchor is not secret
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, readable)
	if err == nil {
		err = errors.Join(printJSON(file, anchor), file.Sync(), file.Close())
	}
	if err != nil {
		return fmt.Errorf("write the anchor: %w", err)
	}
	return nil
}

// checkAnchors reports what contradicts the anchors in the file, which must have at least one.
func checkAnchors(ctx context.Context, log *eventstore.Log, path string, report func(at eventstore.Position, text string)) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read the anchors: %w", err)
	}
	defer file.Close() //nolint:errcheck // nothing is written
	anchors := json.NewDecoder(bufio.NewReader(file))
	for n := 0; ; n++ {
		var anchor eventstore.Anchor
		err := anchors.Decode(&anchor)
		if errors.Is(err, io.EOF) && n > 0 {
			return nil
		}
		if err != nil || anchor.Position < 1 || len(anchor.Seal) == 0 {
			return fmt.Errorf("%s holds no anchors as `audit anchor` writes them", path)
		}
		text, err := log.CheckAnchor(ctx, anchor)
		if err != nil {
			return err
		}
		if text != "" {
			report(anchor.Position, text)
		}
	}
}
