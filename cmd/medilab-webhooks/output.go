package main

import (
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// withJSON lets a command print JSON, and returns it; see wantsJSON.
func withJSON(c *cobra.Command) *cobra.Command {
	c.Flags().Bool("json", false, "print JSON")
	return c
}

func wantsJSON(c *cobra.Command) bool { return isSet(c, "json") }

// isSet reports whether the command has the flag, and it is set.
func isSet(c *cobra.Command, flag string) bool {
	set, err := c.Flags().GetBool(flag)
	return err == nil && set
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
	if isTerminal(out) {
		inPipe = onTerminal
	}
	return printText(out, inPipe)
}

// printText prints lines, on a terminal in the language of the environment.
func printText(out io.Writer, text string) error {
	if isTerminal(out) {
		said := strings.TrimRight(text, "\n")
		text = sayError(said) + text[len(said):]
	}
	_, err := io.WriteString(out, text)
	return err
}

// printList prints items as JSON if that is wanted, else as a table with a row for each. On a
// terminal the table fits in, and shows ids that people do not type with --ids alone.
func printList[T any](c *cobra.Command, items []T, heading []string, row func(T) []string) error {
	out := c.OutOrStdout()
	if wantsJSON(c) {
		return printJSON(out, append([]T{}, items...)) // never null
	}
	rows := [][]string{slices.Clone(heading)}
	for _, item := range items {
		rows = append(rows, row(item))
	}
	if c.Flags().Lookup(idsFlag) != nil && isTerminal(out) && !wantsIDs(c) {
		for i := range rows {
			rows[i] = withoutIDs(heading, rows[i])
		}
	}
	return printColumns(out, rows, terminalWidth(out))
}

const idsFlag = "ids"

func addIDsFlag(c *cobra.Command) {
	c.Flags().Bool(idsFlag, false, "show ids: of webhooks instead of their numbers, and of events and deliveries")
}

func wantsIDs(c *cobra.Command) bool { return isSet(c, idsFlag) }

// withoutIDs returns the cells of a row that are not below EVENT or DELIVERY.
func withoutIDs(heading, row []string) (kept []string) {
	for i, cell := range row {
		if heading[i] != "EVENT" && heading[i] != "DELIVERY" {
			kept = append(kept, cell)
		}
	}
	return kept
}

// printTable prints rows in columns, however wide.
func printTable(out io.Writer, rows [][]string) error { return printColumns(out, rows, 0) }

// printColumns prints rows in columns, the widest of which are cut until a row has the width;
// 0: no limit. It holds all rows in memory.
func printColumns(out io.Writer, rows [][]string, width int) error {
	if len(rows) == 0 {
		return nil
	}
	for _, row := range rows {
		for i := range row {
			row[i] = sanitizeLine(row[i])
		}
	}
	const gap = 2
	paint := newPaint(out)
	colours := paint.translate(rows)
	widths := fit(rows, width-gap*(len(rows[0])-1), width > 0)
	var b strings.Builder
	for _, row := range rows {
		for i, cell := range row {
			cell = truncate(cell, widths[i])
			if i == 0 { // a name
				b.WriteString(cell)
			} else {
				b.WriteString(paint.in(colours[cell], cell))
			}
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+gap))
			}
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// translate puts the heading and the states of a table into the language of the environment, and
// returns the colours of states.
func (p paint) translate(rows [][]string) map[string]string {
	colours := map[string]string{}
	for state, colour := range stateColours {
		colours[p.say(state)] = colour
	}
	for i, heading := range rows[0] {
		for _, row := range rows[1:] {
			if own := heading + " " + row[i]; p.say(own) != own { // a word of this column
				row[i] = p.say(own)
			} else if slices.Contains([]string{"STATE", "STATUS", "KIND", "VERDICT", "CHANGE"}, heading) {
				row[i] = p.say(row[i])
			}
		}
		rows[0][i] = p.say(heading)
	}
	return colours
}

// fit returns the widths of columns. When they are limited, and wider than that together, it
// shortens times, and then makes the widest columns narrower, but none that says nothing when
// it is cut.
func fit(rows [][]string, width int, limited bool) []int {
	widths, used := measure(rows)
	if !limited || used <= width {
		return widths
	}
	for _, row := range rows {
		for i := range row {
			row[i] = shortTime(row[i])
		}
	}
	const least = 6
	whole := []string{"ID", "EVENT", "DELIVERY", "WEBHOOK", "TIME", "EVENT TIME", "ACCEPTED", "NEXT", "CREATED", "EXPIRES"}
	for widths, used = measure(rows); used > width; used-- {
		widest := -1
		for i, w := range widths {
			if !slices.ContainsFunc(whole, func(heading string) bool { return say(heading) == rows[0][i] }) && w > least && (widest < 0 || w > widths[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
	}
	return widths
}

// measure returns the widest cells of columns, and all their widths together.
func measure(rows [][]string) (widths []int, used int) {
	widths = make([]int, len(rows[0]))
	for i := range widths {
		for _, row := range rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
		used += widths[i]
	}
	return widths, used
}

// shortTime shortens a time that formatTime wrote: to the minute and second of this year, or to
// the date. Other text stays.
func shortTime(cell string) string {
	at, err := time.Parse(time.RFC3339, cell)
	switch {
	case err != nil:
		return cell
	case at.Year() == time.Now().UTC().Year():
		return at.Format("01-02 15:04:05")
	}
	return at.Format(time.DateOnly)
}

// terminalWidth returns how many characters a line of the terminal has; 0: it is none.
func terminalWidth(out io.Writer) int {
	f, ok := out.(*os.File)
	if !ok {
		return 0
	}
	width, _, _ := term.GetSize(int(f.Fd())) // 0: not a terminal
	return width
}

// truncate shortens text to width characters; 0 means no limit.
func truncate(text string, width int) string {
	if width <= 0 || utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:width-1]) + "…"
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
	return t.UTC().Format(time.RFC3339)
}

// progress shows on a terminal how far a command is; elsewhere it shows nothing.
type progress struct {
	bar     *progressbar.ProgressBar
	started time.Time
	done    eventstore.Position
}

// newProgress starts a bar; a total of -1 is unknown.
func newProgress(c *cobra.Command, total int64, what string, options ...progressbar.Option) *progress {
	notes := c.ErrOrStderr()
	return &progress{started: time.Now(), bar: progressbar.NewOptions64(total, append([]progressbar.Option{
		progressbar.OptionSetWriter(notes),
		progressbar.OptionSetVisibility(isTerminal(notes)),
		progressbar.OptionSetDescription(say(what)),
		progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(100 * time.Millisecond),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionSetPredictTime(true),
	}, options...)...)}
}

// A bar that cannot be drawn stops nothing: its errors are ignored.

// set shows done of total, which may grow meanwhile.
func (p *progress) set(done, total eventstore.Position) {
	p.done = done
	if total > 0 {
		p.bar.ChangeMax64(int64(total))
		_ = p.bar.Set64(int64(done))
	}
}

func (p *progress) add(n int) { _ = p.bar.Add(n) }

func (p *progress) end() { _ = p.bar.Finish() }

// took returns the time since the start, to the millisecond.
func (p *progress) took() time.Duration { return time.Since(p.started).Round(time.Millisecond) }

// paint colours words on a terminal; elsewhere, and with NO_COLOR, it leaves them as they are.
// On a terminal it says them in the language of the environment.
type paint struct{ on, terminal bool }

func newPaint(out io.Writer) paint {
	terminal := isTerminal(out)
	return paint{terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb", terminal}
}

// The colours of a terminal, and of what is the state of something.
const red, green, yellow, bold, dim = "31", "32", "33", "1", "2"

var stateColours = map[string]string{
	"success": green, "delivered": green, "active": green, "completed": green, "failed": red, "cancelled": red,
	"pending": yellow, "paused": yellow, "inactive": yellow,
}

// say is say for what people read on a terminal: what programs read never changes.
func (p paint) say(text string) string {
	if !p.terminal {
		return text
	}
	return sayError(text)
}

// in returns the text in the colour; "": in none.
func (p paint) in(colour, s string) string {
	if !p.on || s == "" || colour == "" {
		return s
	}
	return "\x1b[" + colour + "m" + s + "\x1b[0m"
}
