package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/commands"
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
				anchor, err := newAnchorLine(c.Context(), s)
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

// anchorLine is a line of a file of anchors: also the erasures that the log has, so that an
// older backup which is restored forgets them too.
type anchorLine struct {
	eventstore.Anchor
	Erased []commands.Erasure `json:"erased,omitempty"`
}

// newAnchorLine returns the log's present end, with all erasures.
func newAnchorLine(ctx context.Context, s *session) (line anchorLine, err error) {
	if line.Anchor, err = s.log.Anchor(ctx); err == nil {
		line.Erased, err = s.commands.Erasures(ctx)
	}
	return line, err
}

// anchorErasure adds the log's end, and the erasure, to the file. A file that cannot be
// written is no reason not to erase.
func anchorErasure(log *eventstore.Log, path string, logger *slog.Logger) func(commands.Erasure) {
	return func(erasure commands.Erasure) {
		ctx, cancel := context.WithTimeout(context.Background(), anchorTimeout)
		defer cancel()
		anchor, err := log.Anchor(ctx)
		if err == nil {
			err = appendAnchor(path, anchorLine{anchor, []commands.Erasure{erasure}})
		}
		if err != nil {
			logger.Warn("an erasure is not in the file of anchors: a backup that is restored would bring its data back", "file", path, "error", err)
		}
	}
}

const anchorTimeout = 5 * time.Second

// eraseAgain makes the erasures in the file again that the log does not have.
func (s *server) eraseAgain(ctx context.Context) error {
	file, err := os.Open(s.settings.database.anchorFile())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the anchors: %w; check MEDILAB_ANCHORS", err)
	}
	defer file.Close() //nolint:errcheck // nothing is written
	var erasures []commands.Erasure
	for lines := json.NewDecoder(bufio.NewReader(file)); ; {
		var line anchorLine
		err := lines.Decode(&line)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%s holds no anchors as `audit anchor` writes them; check MEDILAB_ANCHORS", file.Name())
		}
		erasures = append(erasures, line.Erased...)
	}
	lost, err := s.commands.Lost(ctx, erasures)
	if err != nil || len(lost) == 0 {
		return err
	}
	s.logger.Warn("the database was restored from an older backup: subjects that were erased since are erased again", "count", len(lost))
	return s.commands.EraseAgain(ctx, commands.Caller{Actor: "system:restore"}, lost)
}

// appendAnchor adds the anchor to the file's end.
func appendAnchor(path string, anchor anchorLine) (err error) {
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
		var anchor anchorLine
		err := anchors.Decode(&anchor)
		if errors.Is(err, io.EOF) && n > 0 {
			return nil
		}
		if err != nil || anchor.Position < 1 || len(anchor.Seal) == 0 {
			return fmt.Errorf("%s holds no anchors as `audit anchor` writes them", path)
		}
		text, err := log.CheckAnchor(ctx, anchor.Anchor)
		if err != nil {
			return err
		}
		if text != "" {
			report(anchor.Position, text)
		}
	}
}
