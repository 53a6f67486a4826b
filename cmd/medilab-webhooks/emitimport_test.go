package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// An import records each line with the time that its field has, sends nothing, and is safe to run again.
func TestEmitImport(t *testing.T) {
	c := newCLI(t)
	dir := t.TempDir()
	write := func(name string, lines ...string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := []string{
		`{"event_type":"patient.created","event_data":{"n":1,"at":{"day":"2019-01-02T03:04:05Z"}}}`,
		`{"event_type":"patient.created","event_data":{"n":2},"at":{"day":"2019-01-02T03:04:05+03:00"}}`,
		`{"event_type":"patient.created","event_data":{"n":3},"occurred_at":"2018-01-01T00:00:00Z"}`,
	}
	bad := []string{
		`{"event_type":"patient.created","event_data":{"n":4}}`,
		`{"event_type":"patient.created","event_data":{"n":5,"at":{"day":"yesterday"}}}`,
		`{"event_type":"patient.created","event_data":{"n":6,"at":{"day":"2999-01-01T00:00:00Z"}}}`,
		`{"event_type":"patient.create","event_data":{"at":{"day":"2019-01-01T00:00:00Z"}},"at":1}`,
		`{"event_type":`,
	}
	file, rejects := write("past.ndjson", append(append([]string{}, good...), bad...)...), filepath.Join(dir, "rejects.ndjson")
	imports := func(code int, file string, more ...string) (out, notes string) {
		t.Helper()
		return c.run(code, "", append([]string{"emit", "--file", file, "--occurred-at-field", "at.day", "--no-deliver", "--rejects", rejects}, more...)...)
	}
	recorded := func() []string {
		t.Helper()
		log, _ := c.run(0, "", "audit", "log", "--type", "event.*", "--format", "ndjson")
		return strings.Split(strings.TrimSpace(log), "\n")
	}
	kept := func() string {
		t.Helper()
		text, err := os.ReadFile(rejects)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}

	out, _ := imports(1, file)
	c.matches("the result", out, `Accepted 3 events\nNothing was sent; a replay from \S+Z to \S+Z sends them\n`)
	log := recorded()
	for i, want := range []string{`"occurred_at":"2019-01-02T03:04:05Z","imported":true,"recipients":[],`, `"occurred_at":"2019-01-02T00:04:05Z","imported":true`, `"occurred_at":"2018-01-01T00:00:00Z","imported":true`} {
		if len(log) != 3 || !strings.Contains(log[i], want) {
			t.Fatalf("event %d of %d is not %s:\n%s", i, len(log), want, strings.Join(log, "\n"))
		}
	}
	want := ""
	for i, why := range []string{"at.day is missing.*", "at.day must be a time.*", "occurred_at must not be in the future", "event_type is not.*", ".*JSON.*"} {
		want += regexp.QuoteMeta(bad[i]) + "\t# line " + string(rune('4'+i)) + ": " + why + "\n"
	}
	c.matches("the refused lines", kept(), want)

	// Again, from the start and from the middle: nothing is recorded twice, nor is a line kept twice.
	for _, skip := range []string{"0", "2"} {
		imports(1, file, "--skip", skip)
		if n := len(recorded()); n != 3 {
			t.Errorf("after --skip %s the log has %d events", skip, n)
		}
	}
	if n := strings.Count(kept(), "\n"); n != 2*len(bad) { // the first of the two began a new file
		t.Errorf("%d lines are kept", n)
	}
	// Refused lines are mended where they are.
	mended := write("mended.ndjson", strings.ReplaceAll(strings.SplitAfter(kept(), "\n")[1], "yesterday", "2017-01-01T00:00:00Z"))
	out, _ = imports(0, mended, "--json")
	c.matches("the answer", out, `\{"accepted":1,"imported_from":"[^"]+","imported_to":"[^"]+","lines":2,"refused":0\}\n`)
	if kept() != "" || len(recorded()) != 4 {
		t.Errorf("it kept %q, and the log has %d events", kept(), len(recorded()))
	}

	// Without a time, equal lines are events of their own.
	alike := write("alike.ndjson", good[0], good[0])
	for range 2 {
		c.run(0, "", "emit", "--file", alike, "--no-deliver")
		if n := len(recorded()); n != 6 {
			t.Errorf("the log has %d events", n)
		}
	}
	c.run(0, "", "emit", "patient.created", "{}", "--occurred-at", "2016-05-06T07:08:09Z", "--no-deliver")
	if last := recorded()[6]; !strings.Contains(last, `"occurred_at":"2016-05-06T07:08:09Z","imported":true`) {
		t.Errorf("recorded as %s", last)
	}
	for _, wrong := range [][]string{{"patient.created", "{}", "--occurred-at", "2999-05-06T07:08:09Z"}, {"patient.created", "{}", "--occurred-at", "now"}, {"patient.created", "{}", "--rejects", "x"}, {"patient.created", "{}", "--skip", "3"}, {"--file", file, "--rejects", file}} {
		c.run(2, "", append([]string{"emit"}, wrong...)...)
	}
	if text, err := os.ReadFile(file); err != nil || len(text) == 0 {
		t.Errorf("the file that is read has %q, %v", text, err)
	}
}

// Refused lines behind the one to go on from are kept by the run that goes on.
func TestEmitKeepsRefusedLinesOnce(t *testing.T) {
	c := newCLI(t)
	const good, bad = `{"event_type":"patient.created","event_data":{}}` + "\n", `{"event_type":"patient.create"}` + "\n"
	rejects := filepath.Join(t.TempDir(), "rejects")
	all := strings.Repeat(good+bad, 700)
	ctx, cancel := context.WithCancel(t.Context())
	lines := strings.NewReader(all)
	in := io.MultiReader(io.LimitReader(lines, int64(len(all)/2+10)), readerFunc(func(to []byte) (int, error) {
		cancel()
		return lines.Read(to)
	}))
	var out, notes bytes.Buffer
	if code := run(ctx, []string{"emit", "--file", "-", "--rejects", rejects}, in, &out, &notes); code != 1 {
		t.Errorf("exit code %d", code)
	}
	said := regexp.MustCompile(`go on with --skip (\d+)\n`).FindStringSubmatch(notes.String())
	if said == nil {
		t.Fatalf("it says %s", &notes)
	}
	c.run(1, all, "emit", "--file", "-", "--rejects", rejects, "--skip", said[1])
	text, err := os.ReadFile(rejects)
	log, _ := c.run(0, "", "audit", "log", "--format", "ndjson")
	if n, m := bytes.Count(text, []byte("\n")), strings.Count(log, "event.triggered"); err != nil || n != 700 || m != 700 {
		t.Errorf("of 700 each, %d lines are kept and %d events recorded; %v", n, m, err)
	}
}
