package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/eventstore"
	"github.com/medilab/webhooks/migrations/filelock"
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
		RunE: db.run(func(c *cobra.Command, s *session, _ []string) error {
			end, err := s.log.Anchor(c.Context())
			if errors.Is(err, eventstore.ErrEmpty) {
				return errors.New("the log is empty: there is nothing to anchor yet")
			}
			if err != nil {
				return err
			}
			erased, err := s.commands.Erasures(c.Context())
			if err != nil {
				return err
			}
			anchor := anchorLine{end, erased}
			if path == "" {
				return printJSON(c.OutOrStdout(), anchor)
			}
			if err := appendAnchor(path, anchor); err != nil {
				return err
			}
			said := fmt.Sprintf("Anchored at position %d in %s; keep the file away from the database\n", anchor.Position, path)
			return printResult(c, nil, said, said)
		}),
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

// anchorFile is the file of anchors, to which the erasures that a process hears of are added.
type anchorFile struct {
	path  string
	wake  chan struct{} // a token: an erasure was heard of
	mu    sync.Mutex
	heard []commands.Erasure // and are not looked for in the file yet

	adding sync.Mutex // held while those that were heard of are added
}

func newAnchorFile(path string) *anchorFile {
	return &anchorFile{path: path, wake: make(chan struct{}, 1)}
}

// hear takes in an erasure; see commands.Directory.OnErasure.
func (f *anchorFile) hear(e commands.Erasure) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = append(f.heard, e)
	eventstore.Signal(f.wake)
}

const anchorTimeout, anchorPause = 5 * time.Second, 5 * time.Second

// keep adds the erasures to the file as they are heard of, until ctx ends. A file that cannot be
// written is no reason not to erase.
func (f *anchorFile) keep(ctx context.Context, log *eventstore.Log, logger *slog.Logger) {
	var again <-chan time.Time
	for ended := false; !ended; {
		warn := true
		select {
		case <-ctx.Done():
			ended = true // what was heard last is added still
		case <-f.wake:
		case <-again:
			warn = false
		}
		again = nil
		if err := f.addHeard(log); err != nil {
			again = time.After(anchorPause)
			if warn {
				logger.Warn("an erasure is not in the file of anchors: a backup that is restored would bring its data back; trying again", "file", f.path, "error", err)
			}
		}
	}
}

// addHeard adds the erasures to the file that were heard of; if that fails, the next call does.
func (f *anchorFile) addHeard(log *eventstore.Log) error {
	f.adding.Lock()
	defer f.adding.Unlock()
	heard := f.notAdded()
	err := within(anchorTimeout, func(ctx context.Context) error { return f.add(ctx, log, heard) })
	if err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.heard = f.heard[len(heard):]
	}
	return err
}

// notAdded returns the erasures that were heard of and may not be in the file.
func (f *anchorFile) notAdded() []commands.Erasure {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clip(f.heard)
}

// add adds the log's end, and those erasures that the file does not have. The file is locked
// meanwhile: other processes may add the same to it.
func (f *anchorFile) add(ctx context.Context, log *eventstore.Log, erasures []commands.Erasure) error {
	if len(erasures) == 0 {
		return nil
	}
	lock, err := lockAnchors(ctx, f.path)
	if err != nil {
		return err
	}
	defer lock.Close() //nolint:errcheck // nothing is written to it
	lines, _, err := readAnchors(f.path)
	if err != nil {
		return err
	}
	missing := commands.MissingErasures(erasures, erasuresIn(lines))
	if missing == nil {
		return nil
	}
	anchor, err := log.Anchor(ctx)
	if err != nil {
		return err
	}
	return appendAnchor(f.path, anchorLine{anchor, missing})
}

// lockAnchors locks the file, which it makes if there is none, until what it returns is closed.
// On a disk that knows no locks that is nil: at worst an erasure is then in the file twice.
func lockAnchors(ctx context.Context, path string) (*os.File, error) {
	const pause = 10 * time.Millisecond
	file, err := openAnchors(path)
	if err != nil {
		return nil, err
	}
	if err := file.Close(); err != nil {
		return nil, fmt.Errorf("write the anchor: %w", err)
	}
	for {
		lock, err := filelock.Lock(path, syscall.LOCK_EX)
		if !errors.Is(err, filelock.ErrLocked) {
			return lock, nil
		}
		if eventstore.Sleep(ctx, pause) != nil {
			return nil, fmt.Errorf("write the anchor: %w", err)
		}
	}
}

func erasuresIn(lines []anchorLine) (all []commands.Erasure) {
	for _, line := range lines {
		all = append(all, line.Erased...)
	}
	return all
}

// eraseAgain makes the erasures again that the log does not have: those in the file, and those that are
// to be added to it. Deliveries that wait are cancelled later.
func (s *server) eraseAgain(ctx context.Context) error {
	heard := s.anchors.notAdded() // first: what is added meanwhile is in the file
	lines, broken, err := readAnchors(s.anchors.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w; check MEDILAB_ANCHORS", err)
	}
	if broken > 0 {
		s.logger.Warn("a line of the file of anchors was cut off when it was written, and is left out", "file", s.anchors.path, "line", broken)
	}
	lost, err := s.commands.Lost(ctx, append(erasuresIn(lines), heard...))
	if err != nil {
		return err
	}
	if len(lost) > 0 {
		s.logger.Warn("the database was restored from an older backup: subjects that were erased since are erased again", "count", len(lost))
		cancel, err := s.commands.EraseAgain(ctx, commands.Caller{Actor: "system:restore"}, lost)
		if err != nil {
			return err
		}
		s.repairLater(repair{undone: "deliveries of subjects that were erased again are not cancelled", do: cancel})
	}
	return nil
}

// readAnchors returns the lines of the file of anchors. broken is the number of one that is no
// anchor, as the disk was full or the machine died; 0: there is none.
func readAnchors(path string) (lines []anchorLine, broken int, err error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, 0, fmt.Errorf("read the anchors: %w", err)
	}
	n := 0
	for text := range bytes.Lines(content) {
		n++
		var line anchorLine
		if err := json.Unmarshal(text, &line); err != nil || line.Position < 1 || len(line.Seal) == 0 {
			if len(bytes.TrimSpace(text)) > 0 {
				broken = n
			}
			continue
		}
		lines = append(lines, line)
	}
	return lines, broken, nil
}

// appendAnchor adds the anchor to the file's end, on a line of its own also when the line
// before was cut off.
func appendAnchor(path string, anchor anchorLine) (err error) {
	file, err := openAnchors(path)
	if err != nil {
		return err
	}
	var line bytes.Buffer
	if end, err := file.Seek(0, io.SeekEnd); err == nil && end > 0 {
		last := []byte{'\n'}
		if _, err := file.ReadAt(last, end-1); err != nil || last[0] != '\n' {
			line.WriteByte('\n')
		}
	}
	err = printJSON(&line, anchor)
	if err == nil {
		_, err = file.Write(line.Bytes())
	}
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write the anchor: %w", err)
	}
	return nil
}

func openAnchors(path string) (*os.File, error) {
	const readable = 0o644 // an anchor is not secret
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, readable)
	if err != nil {
		return nil, fmt.Errorf("write the anchor: %w", err)
	}
	return file, nil
}

// checkAnchors reports what contradicts the anchors in the file, which must have at least one.
func checkAnchors(ctx context.Context, log *eventstore.Log, path string, report func(at eventstore.Position, text string)) error {
	lines, broken, err := readAnchors(path)
	switch {
	case err != nil:
		return err
	case len(lines) == 0:
		return fmt.Errorf("%s holds no anchors as `audit anchor` writes them", path)
	case broken > 0:
		return fmt.Errorf("line %d of %s is no anchor as `audit anchor` writes them; take it out if it was cut off when it was written", broken, path)
	}
	for _, anchor := range lines {
		text, err := log.CheckAnchor(ctx, anchor.Anchor)
		if err != nil {
			return err
		}
		if text != "" {
			report(anchor.Position, text)
		}
	}
	return nil
}
