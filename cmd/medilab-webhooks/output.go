package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/medilab/webhooks/domain"
)

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// addJSONFlag lets a command print JSON; see wantsJSON.
func addJSONFlag(c *cobra.Command) { c.Flags().Bool("json", false, "print JSON") }

func wantsJSON(c *cobra.Command) bool {
	asked, err := c.Flags().GetBool("json")
	return err == nil && asked
}

// printJSON prints v as one line, with nothing escaped for HTML.
func printJSON(out io.Writer, v any) error {
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// printResult prints v as JSON if that is wanted; else one text on a terminal and another in a pipe.
func printResult(c *cobra.Command, v any, onTerminal, inPipe string) error {
	out := c.OutOrStdout()
	if wantsJSON(c) {
		return printJSON(out, v)
	}
	text := inPipe
	if isTerminal(out) {
		text = onTerminal
	}
	_, err := io.WriteString(out, text)
	return err
}

// printList prints items as JSON if that is wanted, else as a table with a row for each.
func printList[T any](c *cobra.Command, items []T, heading []string, row func(T) []string) error {
	if wantsJSON(c) {
		return printJSON(c.OutOrStdout(), append([]T{}, items...)) // never null
	}
	rows := [][]string{heading}
	for _, item := range items {
		rows = append(rows, row(item))
	}
	return printTable(c.OutOrStdout(), rows)
}

// printTable prints rows in columns. It holds them all in memory.
func printTable(out io.Writer, rows [][]string) error {
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			row[i] = sanitizeLine(cell)
		}
		if _, err := fmt.Fprintln(table, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return table.Flush()
}

// sanitize keeps text of strangers from controlling the terminal.
func sanitize(s string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || domain.IsUnshowable(r) && r != '\n' && r != '\t' {
			return '\ufffd'
		}
		return r
	}, s)
}

// sanitizeLine is sanitize for text that must stay on its line.
func sanitizeLine(s string) string {
	return strings.NewReplacer("\n", " ", "\t", " ").Replace(sanitize(s))
}

// formatTime formats a time as the API does, the zero time as a dash.
func formatTime(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}

// progress shows on a terminal how far a command is; elsewhere it shows nothing.
type progress struct {
	bar     *progressbar.ProgressBar
	started time.Time
	done    int64
}

// newProgress starts a bar; a total of -1 is unknown.
func newProgress(c *cobra.Command, total int64, what string, options ...progressbar.Option) *progress {
	notes := c.ErrOrStderr()
	return &progress{started: time.Now(), bar: progressbar.NewOptions64(total, append([]progressbar.Option{
		progressbar.OptionSetWriter(notes),
		progressbar.OptionSetVisibility(isTerminal(notes)),
		progressbar.OptionSetDescription(what),
		progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(100 * time.Millisecond),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionSetPredictTime(true),
	}, options...)...)}
}

// A bar that cannot be drawn stops nothing: its errors are ignored.

// set shows done of total, which may grow meanwhile.
func (p *progress) set(done, total int64) {
	p.done = done
	if total > 0 {
		p.bar.ChangeMax64(total)
		_ = p.bar.Set64(done)
	}
}

func (p *progress) add(n int) { _ = p.bar.Add(n) }

func (p *progress) end() { _ = p.bar.Finish() }

// took returns the time since the start, to the millisecond.
func (p *progress) took() time.Duration { return time.Since(p.started).Round(time.Millisecond) }

// paint colours words on a terminal; elsewhere, and with NO_COLOR, it leaves them as they are.
type paint struct{ on bool }

func newPaint(out io.Writer) paint {
	return paint{isTerminal(out) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

func (p paint) red(s string) string    { return p.in("31", s) }
func (p paint) green(s string) string  { return p.in("32", s) }
func (p paint) yellow(s string) string { return p.in("33", s) }

func (p paint) in(colour, s string) string {
	if !p.on || s == "" {
		return s
	}
	return "\x1b[" + colour + "m" + s + "\x1b[0m"
}
