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
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/migrations/postgres"
	"github.com/medilab/webhooks/migrations/testdb"
)

// cli runs command lines against a database of the test's own.
type cli struct{ testing.TB }

func newCLI(t *testing.T) cli {
	t.Helper()
	t.Setenv("DATABASE_URL", testdb.New(t))
	return cli{t}
}

// run gives what the command line prints, and fails the test when it exits with another code.
func (c cli) run(wantCode int, stdin string, args ...string) (out, notes string) {
	c.Helper()
	var o, n bytes.Buffer
	if code := run(c.Context(), args, strings.NewReader(stdin), &o, &n); code != wantCode {
		c.Fatalf("%q exits %d, want %d\n%s%s", args, code, wantCode, &o, &n)
	}
	return o.String(), n.String()
}

func (c cli) matches(what, text, pattern string) {
	c.Helper()
	if !regexp.MustCompile("^" + pattern + "$").MatchString(text) {
		c.Errorf("%s is\n%s\nwant\n%s", what, text, pattern)
	}
}

func TestTokenCommands(t *testing.T) {
	c := newCLI(t)
	token, _ := c.run(0, "", "token", "create", "--name", "crm", "--scopes", "webhooks:read, events:write", "--expires", "720h")
	c.matches("the token", token, `mlw_[A-Za-z0-9_-]{43}\n`)
	out, _ := c.run(0, "", "token", "create", "--name", "for ever", "--scopes", "admin", "--json")
	var made shownToken
	if err := json.Unmarshal([]byte(out), &made); err != nil || made.Token == "" || made.ExpiresAt != nil || made.State != "valid" {
		t.Errorf("made is %s: %v", out, err)
	}

	out, _ = c.run(0, "", "token", "list")
	c.matches("the list", out, `ID +NAME +TOKEN +SCOPES +STATE +CREATED +EXPIRES\n`+
		`[0-9a-f-]{36} +crm +mlw_.{4}\.\.\. +webhooks:read,events:write +valid +\S+Z +\S+Z\n`+
		`[0-9a-f-]{36} +for ever +mlw_.{4}\.\.\. +admin +valid +\S+Z +-\n`)
	out, _ = c.run(0, "", "token", "revoke", made.ID)
	if want := "Token " + made.ID + " is revoked\n"; out != want {
		t.Errorf("revoking says %q, want %q", out, want)
	}
	c.run(0, "", "token", "revoke", made.ID) // again: nothing to do
	out, _ = c.run(0, "", "token", "list", "--json")
	var listed []shownToken
	if err := json.Unmarshal([]byte(out), &listed); err != nil || len(listed) != 2 || listed[1].State != "revoked" || strings.Contains(out, made.Token) {
		t.Errorf("the list is %s: %v", out, err)
	}
	log, _ := c.run(0, "", "audit", "log", "--format", "ndjson")
	if strings.Contains(log, made.Token) || strings.Contains(log, strings.TrimSpace(token)) {
		t.Errorf("a token is in the log: %s", log)
	}
	if n := strings.Count(log, "token.revoked"); n != 1 {
		t.Errorf("revoked %d times", n)
	}

	_, notes := c.run(1, "", "token", "revoke", "0198f0a0-0000-7000-8000-000000000001")
	c.matches("the failure", notes, "medilab-webhooks: there is no token .*\n")
	for _, wrong := range [][]string{
		{"create"}, {"create", "--name", "x"}, {"create", "--name", "x", "--scopes", "root"}, {"create", "--name", "", "--scopes", "admin"},
		{"create", "--name", "x", "--scopes", "admin", "--expires", "0s"}, {"create", "--name", "x", "--scopes", "admin", "--expires", "-1h"},
		{"create", "--name", strings.Repeat("x", 201), "--scopes", "admin"}, {"revoke"}, {"revoke", "1"}, {"revoke", made.ID, made.ID}, {"steal"},
	} {
		_, notes := c.run(2, "", append([]string{"token"}, wrong...)...)
		c.matches("wrong usage", notes, "medilab-webhooks: .*\n")
	}
	for group, below := range map[string]string{"token": "create, list, revoke", "audit": "anchor, log, verify", "projections": "list, rebuild", "keys": "list, rewrap, rotate"} {
		out, notes := c.run(2, "", group)
		if c.matches("a group alone", notes, "medilab-webhooks: "+group+" needs to know what: .*\n"); out != "" || !strings.Contains(notes, below) {
			t.Errorf("%s says %q and %q", group, out, notes)
		}
	}
}

func TestEmitOne(t *testing.T) {
	c := newCLI(t)
	const data = `{ "n":1.0,  "a":"\u0000<>"}`
	id, _ := c.run(0, "", "emit", "patient.created", data, "--correlation-id", "c-1")
	c.matches("the id", id, `[0-9a-f-]{36}\n`)
	out, _ := c.run(0, "", "emit", "patient.created", data, "--json", "--event-id", "0198F0A0-0000-7000-8000-000000000001", "--source", "s")
	c.matches("the answer", out, `\{"accepted_at":"[^"]*Z","event_id":"0198f0a0-0000-7000-8000-000000000001","event_type":"patient.created"\}\n`)
	c.run(0, "", "emit", "patient.created", data, "--event-id", "0198f0a0-0000-7000-8000-000000000001", "--source", "s")
	_, notes := c.run(1, "", "emit", "patient.created", "{}", "--event-id", "0198f0a0-0000-7000-8000-000000000001", "--source", "s")
	c.matches("the conflict", notes, "medilab-webhooks: .*accepted before with another content\n")

	log, _ := c.run(0, "", "audit", "log", "--json")
	lines := strings.Split(strings.TrimSpace(log), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], `"event_data":`+data+`}`) || !strings.Contains(lines[0], `"correlation_id":"c-1"`) || !strings.Contains(lines[0], `"source":"cli"`) {
		t.Errorf("the log is\n%s", log)
	}
	for _, wrong := range [][]string{
		{}, {"patient.created"}, {"patient.created", "{}", "x"}, {"patient.created", "{"},
		{"patient.created", `{"a":1,"a":2}`}, {"patient.created", "{}", "--event-id", "7"}, {"patient.created", "{}", "--event-id", "00000000-0000-0000-0000-000000000000"},
		{"patient.created", "{}", "--file", "x"}, {"--file", "-", "--skip", "-1"},
	} {
		c.run(2, "", append([]string{"emit"}, wrong...)...)
	}
	for _, refused := range [][]string{
		{"patient.created", "[]"}, {"patient.create", "{}"}, {"patient.create", "{}", "--occurred-at", "2999-01-01"},
	} {
		_, notes := c.run(1, "", append([]string{"emit"}, refused...)...)
		c.matches("the refusal", notes, "medilab-webhooks: event_(type|data) .*\n")
	}
	_, notes = c.run(1, "", "emit", "--file", filepath.Join(t.TempDir(), "missing"))
	c.matches("the failure", notes, "medilab-webhooks: open the events: .*; check --file\n")

	types := filepath.Join(t.TempDir(), "types.json")
	if err := os.WriteFile(types, []byte(`[{"type":"lab.result_ready","en":"A result is ready"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	c.run(0, "", "emit", "lab.result_ready", "{}", "--event-types", types)
	t.Setenv("MEDILAB_EVENT_TYPES", types)
	c.run(0, "", "emit", "lab.result_ready", "{}")
}

// What breaks an enforced schema is refused by line, and the lines around it are accepted.
func TestEmitChecksSchemas(t *testing.T) {
	c := newCLI(t)
	types := filepath.Join(t.TempDir(), "types.json")
	t.Setenv("MEDILAB_EVENT_TYPES", types)
	write := func(entry string) {
		if err := os.WriteFile(types, []byte("[\n"+entry+"]"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"type":"patient.created","enforce":true}`)
	_, notes := c.run(1, "", "emit", "patient.created", `{"name":"x"}`)
	c.matches("the refusal", notes, "medilab-webhooks: event_data.patient_id is required\n")
	lines := `{"event_type":"patient.created","event_data":{"patient_id":1}}
{"event_type":"patient.created","event_data":{"patient_id":1.5}}
{"event_type":"patient.created","event_data":{"patient_id":"a"}}
`
	out, notes := c.run(1, lines, "emit", "--file", "-")
	if out != "Accepted 2 events\n" || !strings.Contains(notes, "line 2: event_data.patient_id must be of type integer or string\n") {
		t.Errorf("it says %q and %q", out, notes)
	}
	write(`{"type":"patient.created","schema":{"type":"objekt"}}`)
	_, notes = c.run(1, "", "emit", "patient.created", `{"patient_id":1}`)
	c.matches("the failure", notes, `medilab-webhooks: read the event types in .*: \[0\]\.schema is not a JSON Schema .*: type .* \(line 2\)\n`)
}

func TestEmitFile(t *testing.T) {
	c := newCLI(t)
	var file strings.Builder
	for i := range 1200 {
		fmt.Fprintf(&file, `{"event_type":"patient.created","event_data":{"n":%d}}`+"\n", i)
	}
	file.WriteString(strings.Join([]string{
		``,
		` {"event_data":{"n": 1200 },"event_type":"visit.created","event_id":"0198f0a0-0000-7000-8000-000000000001","source":"crm","correlation_id":"c"}` + "\r",
		`{"event_type":"patient.create","event_data":{}}`, // line 1203
		`{"event_type":"patient.created"}`,
		`{"event_type":"patient.created","event_data":{},"data":1}`,
		`{"event_type":"patient.created","event_data":{},"source":1}`,
		`{"event_type":"patient.created","event_data":{`,
		`[]`,
		`{"event_type":"patient.created","event_data":{"a":"` + strings.Repeat("x", longestLine) + `"}}`,
		`{"event_type":"patient.created","event_data":{},"event_id":"0198f0a0-0000-7000-8000-000000000001"}`, // line 1210
		`{"event_type":"patient.created","event_data":{"last":1},"source":null}`,
	}, "\n"))
	path := filepath.Join(t.TempDir(), "events.ndjson")
	if err := os.WriteFile(path, []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, notes := c.run(1, "", "emit", "--file", path)
	if out != "Accepted 1202 events\n" {
		t.Errorf("it says %q", out)
	}
	c.matches("the notes", notes, `line 1203: event_type is not a known event type.*\n`+
		`line 1204: event_data is required\n`+
		`line 1205: data is not a field of an event\n`+
		`line 1206: source must be text\n`+
		`line 1207: the JSON ends too early.*\n`+
		`line 1208: the JSON is not an object\n`+
		`line 1209: the line is longer than 10 MB\n`+
		`line 1210: .*accepted before with another content\n`+
		`medilab-webhooks: refused lines: 8 of 1210.*\n`)
	log, _ := c.run(0, "", "audit", "log", "--type", "event.*", "--format", "ndjson")
	lines := strings.Split(strings.TrimSpace(log), "\n")
	if len(lines) != 1202 || !strings.Contains(lines[1199], `{"n":1199}`) || !strings.Contains(lines[1201], `{"last":1}`) ||
		!strings.Contains(lines[1200], `"source":"crm","correlation_id":"c","recipients":[],"event_data":{"n": 1200 }`) {
		t.Errorf("the log has %d events, the last of them\n%s", len(lines), strings.Join(lines[1199:], "\n"))
	}

	// Going on: by --skip, or by ids that make emitting again harmless.
	out, _ = c.run(0, file.String(), "emit", "--file", "-", "--skip", "1210", "--json")
	if out != `{"accepted":1,"lines":1211,"refused":0}`+"\n" {
		t.Errorf("it says %q", out)
	}
}

// An interrupted file says where to go on.
func TestEmitFileInterrupted(t *testing.T) {
	c := newCLI(t)
	ctx, cancel := context.WithCancel(t.Context())
	in, feed := io.Pipe()
	ended := make(chan struct{})
	var out, notes bytes.Buffer
	go func() {
		defer close(ended)
		if code := run(ctx, []string{"emit", "--file", "-"}, in, &out, &notes); code != 1 {
			t.Errorf("exit code %d", code)
		}
	}()
	const line = `{"event_type":"patient.created","event_data":{}}` + "\n"
	for range 3 { // each is taken when the one before is durable
		if _, err := io.WriteString(feed, line); err != nil {
			t.Fatal(err)
		}
	}
	harness.Until(t, "the events arrive", func() bool { return strings.Count(first(c.run(0, "", "audit", "log")), "event.triggered") >= 3 })
	cancel()
	if err := feed.CloseWithError(errors.New("cut off")); err != nil {
		t.Fatal(err)
	}
	<-ended
	if out.String() != "Accepted 3 events\n" || !strings.Contains(notes.String(), "go on with --skip 3") {
		t.Errorf("it says %q and %q", &out, &notes)
	}
}

// An interruption in the middle of a file ends after a whole batch, and says where to go on.
func TestEmitFileInterruptedMidway(t *testing.T) {
	c := newCLI(t)
	ctx, cancel := context.WithCancel(t.Context())
	const line = `{"event_type":"patient.created","event_data":{}}` + "\n"
	lines := strings.NewReader(strings.Repeat(line, 3000))
	in := io.MultiReader(io.LimitReader(lines, int64(1300*len(line))), readerFunc(func(to []byte) (int, error) {
		cancel()
		return lines.Read(to)
	}))
	var out, notes bytes.Buffer
	if code := run(ctx, []string{"emit", "--file", "-"}, in, &out, &notes); code != 1 {
		t.Errorf("exit code %d", code)
	}
	said := regexp.MustCompile(`^medilab-webhooks: interrupted after line (\d+); go on with --skip (\d+)\n$`).FindStringSubmatch(notes.String())
	log, _ := c.run(0, "", "audit", "log", "--format", "ndjson")
	if n := fmt.Sprint(strings.Count(log, "event.triggered")); said == nil || said[1] != n || said[2] != n || n == "0" {
		t.Errorf("%s lines are in the log, and it says %s%s", n, &out, &notes)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(to []byte) (int, error) { return f(to) }

func first(out, _ string) string { return out }

// entries counts lines of the log, without those on record of its readings.
func entries(log string) int {
	return strings.Count(log, "\n") - strings.Count(log, `"type":"data.read"`)
}

// Reading what events hold is on record, and only that.
func TestAuditLogIsOnRecord(t *testing.T) {
	c := newCLI(t)
	event := strings.Fields(first(c.run(0, "", "emit", "patient.created", `{"a":1}`)))
	readings := func() string { return first(c.run(0, "", "audit", "log", "--type", "data.*", "--json")) }
	c.run(0, "", "audit", "log", "--type", "webhook.*")
	if got := readings(); got != "" {
		t.Errorf("what holds no data of events is on record: %s", got)
	}
	c.run(0, "", "audit", "log", "--after", "0", "--reason", "жалоба")
	if got := readings(); entries(got) != 0 || strings.Count(got, "data.read") != 1 || !strings.Contains(got, `"what":"audit log","ids":[],"asked":{"after":"0"},"reason":"жалоба"`) || !strings.Contains(got, `"actor":"command line (`) {
		t.Errorf("after %v: %s", event, got)
	}
	t.Setenv("MEDILAB_ACCESS_REASON", "required")
	out, notes := c.run(2, "", "audit", "log", "--json")
	if c.matches("the refusal", notes, "medilab-webhooks: say by --reason .*\n"); out != "" {
		t.Errorf("it shows %s", out)
	}
	c.run(0, "", "audit", "log", "--reason", "x")
	t.Setenv("MEDILAB_ACCESS_REASON", "perhaps")
	c.run(2, "", "audit", "log")
}

func TestAuditLog(t *testing.T) {
	c := newCLI(t)
	for _, kind := range []string{"patient.created", "visit.created"} {
		c.run(0, "", "emit", kind, `{"a":"`+"\u009b"+`31m"}`)
	}
	c.run(0, "", "token", "create", "--name", "x", "--scopes", "admin")
	out, _ := c.run(0, "", "audit", "log")
	c.matches("the table", out, `POSITION .*\n`+
		` +1  \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z  event.triggered +event-\S+ v1  \{.*"event_data":\{"a":"`+"\ufffd"+`31m"\}\}\n`+
		` +2  .*\n +3  .*token.created .*\n`)
	c.run(0, "", "emit", "patient.created", `{"a":"`+strings.Repeat("я", 50_000)+`"}`, "--correlation-id", "c-1")
	out, _ = c.run(0, "", "audit", "log", "--after", "3", "--type", "event.*")
	if line := strings.Split(out, "\n")[1]; utf8.RuneCountInString(line) != pipedWidth || !strings.HasSuffix(line, "я…") {
		t.Errorf("a long line has %d characters: %.300s", utf8.RuneCountInString(line), line)
	}
	id := regexp.MustCompile(`event-(\S{36})`).FindStringSubmatch(out)[1]
	for filter, want := range map[string]int{
		"--event " + id: 1, "--correlation-id c-1": 1, "--correlation-id c": 0, "--actor nobody": 0, "--to 2100-01-01": 4,
	} {
		out, _ := c.run(0, "", append([]string{"audit", "log", "--json"}, strings.Fields(filter)...)...)
		if got := entries(out); got != want || want == 1 && len(out) < 100_000 {
			t.Errorf("%s gives %d events, want %d", filter, got, want)
		}
	}
	for filter, want := range map[string]int{
		"--type event.triggered": 3, "--type token.*": 1, "--type nothing": 0, "--after 2": 2, "--from 2020-01-01 --to 2021-01-01": 0,
		"--from 2020-01-01T00:00:00+03:00": 4, "--from 2020-01-01t00:00:00z": 4, "--stream nothing": 0, "--json": 4,
	} {
		out, _ := c.run(0, "", append([]string{"audit", "log", "--format", "ndjson"}, strings.Fields(filter)...)...)
		if got := entries(out); got != want {
			t.Errorf("%s gives %d events, want %d", filter, got, want)
		}
	}
	for _, wrong := range []string{"--format xml", "--from yesterday", "--to 1", "--after -1", "--from 2024-01-02 --to 2024-01-01", "--from 2024-01-15T1:30", "--to 2024-01-15T10:30:00+24:00", "--webhook x", "--event x", "--webhook 1 --stream x", "extra"} {
		c.run(2, "", append([]string{"audit", "log"}, strings.Fields(wrong)...)...)
	}
	_, notes := c.run(1, "", "audit", "log", "--webhook", "1")
	c.matches("the failure", notes, "medilab-webhooks: there was never a webhook 1; .*\n")
}

// A reader that has seen enough, as head does, is no failure.
func TestAuditLogIntoAClosedPipe(t *testing.T) {
	c := newCLI(t)
	c.run(0, "", "emit", "patient.created", "{}")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.Close()); err != nil {
		t.Fatal(err)
	}
	defer w.Close() //nolint:errcheck // nothing was written
	var notes bytes.Buffer
	if code := run(t.Context(), []string{"audit", "log"}, strings.NewReader(""), w, &notes); code != 0 || notes.Len() > 0 {
		t.Errorf("exit code %d, and it says %s", code, &notes)
	}
}

func TestMigrate(t *testing.T) {
	t.Setenv("DATABASE_URL", testdb.NewEmpty(t))
	c := cli{t}
	out, _ := c.run(0, "", "migrate")
	c.matches("the first time", out, `(Applied \d{4}_\w+\.sql\n)+`)
	if out, _ := c.run(0, "", "migrate"); out != "Nothing to apply, the database is up to date\n" {
		t.Errorf("the second time it says %q", out)
	}
	if out, _ := c.run(0, "", "migrate", "--json"); out != `{"applied":[],"up_to_date":true}`+"\n" {
		t.Errorf("the third time it says %q", out)
	}
}

func TestDatabase(t *testing.T) {
	c := cli{t}
	t.Setenv("DATABASE_URL", "postgres://nobody:hidden@127.0.0.1:1/none")
	for _, line := range []string{"token list", "migrate", "audit log", "emit patient.created {}"} {
		_, notes := c.run(1, "", strings.Fields(line)...)
		c.matches("the failure", notes, "medilab-webhooks: .*; check DATABASE_URL, and that the server runs\n")
		if strings.Contains(notes, "hidden") || strings.Count(notes, "refused") != 1 {
			t.Errorf("%s shows the password, or not the failure once: %s", line, notes)
		}
	}
	for _, url := range []string{"postgres://nobody:hidden@127.0.0.1:x/none", "postgres://nobody:hid den@[/"} {
		_, notes := c.run(1, "", "migrate", "--database-url", url)
		if strings.Contains(notes, "hid") && !strings.Contains(notes, "hidden: it") {
			t.Errorf("the password shows: %s", notes)
		}
	}
	// What is wrong with a file that the URL names is said.
	dir := t.TempDir()
	empty, missing := filepath.Join(dir, "empty.pem"), filepath.Join(dir, "missing.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]string{
		"sslrootcert=" + missing:            "names a file that is not readable, " + missing + ": no such file",
		"sslrootcert=" + empty:              "sslrootcert holds no certificate",
		"sslcert=" + empty:                  `TLS that cannot be set up: both "sslcert" and "sslkey" are required`,
		"sslmode=bogus":                     "TLS that cannot be set up: sslmode is invalid",
		"password=hidden&connect_timeout=x": "cannot be read",
	} {
		url := "postgres://nobody:hidden@127.0.0.1:1/none?" + query
		for env, code := range map[string]int{"DATABASE_URL": 1, "MEDILAB_READ_URL": 2} {
			t.Run(env+" "+query, func(t *testing.T) {
				t.Setenv(env, url)
				_, notes := cli{t}.run(code, "", "token", "list")
				if !strings.Contains(notes, want) || strings.Contains(notes, "hidden@") || strings.Contains(notes, "=hidden") || !strings.Contains(notes, env) {
					t.Errorf("it says %s", notes)
				}
			})
		}
	}
	// A new database gets its tables with the first command.
	t.Setenv("DATABASE_URL", "")
	c.run(0, "", "token", "list", "--database-url", testdb.NewEmpty(t))
	// The help does not show what the environment holds.
	t.Setenv("DATABASE_URL", "postgres://nobody:hidden@127.0.0.1:1/none")
	if out, _ := c.run(0, "", "token", "list", "--help"); strings.Contains(out, "hidden") {
		t.Errorf("the help shows the password: %s", out)
	}
}

// No command but serve makes a database, or the folder of one.
func TestCommandsMakeNoDatabase(t *testing.T) {
	c := cli{t}
	t.Setenv("DATABASE_URL", "")
	missing, empty := filepath.Join(t.TempDir(), "data"), t.TempDir()
	for _, dir := range []string{missing, empty} {
		t.Setenv("MEDILAB_DATA_DIR", dir)
		for _, args := range [][]string{
			{"emit", "patient.created", "{}"}, {"token", "list"}, {"token", "create", "--name", "x", "--scopes", "admin"}, {"migrate"},
			{"audit", "log"}, {"audit", "verify"}, {"projections", "list"},
		} {
			_, notes := c.run(1, "", args...)
			c.matches("the failure", notes, "medilab-webhooks: no database: DATABASE_URL is not set, .*MEDILAB_DATA_DIR.*\n")
		}
		if out, _ := c.run(0, "", "__complete", "audit", "log", "--webhook", ""); !strings.HasPrefix(out, ":") {
			t.Errorf("completed without a database: %s", out)
		}
	}
	if _, err := os.Stat(missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is there: %v", err)
	}
	if made, err := filepath.Glob(filepath.Join(empty, "postgres*")); err != nil || len(made) > 0 {
		t.Errorf("made were %v, %v", made, err)
	}
}

// What is typed wrong is named in words of the command line, and days are a duration.
func TestFlags(t *testing.T) {
	c := newCLI(t)
	for _, line := range []string{
		"serve --workers many", "emit --file x --skip 1x", "token create --name x --scopes admin --expires 30days", "token create --name x --scopes admin --expires d",
		"token create --name x --scopes admin --expires -1d", "serve --alert-success-rate much", "token list --json=7", "help nonsense", "completion tcsh", "completion",
		"serve --addr 8000", "serve --addr 127.0.0.1:99999", "serve --proxy ftp://proxy.local",
	} {
		_, notes := c.run(2, "", strings.Fields(line)...)
		c.matches("wrong usage", notes, "medilab-webhooks: .*\n")
		if strings.Contains(notes, "strconv") || strings.Contains(notes, "invalid syntax") {
			t.Errorf("%s: %s", line, notes)
		}
	}
	for text, want := range map[string]time.Duration{"30d": 30 * 24 * time.Hour, "1d12h": 36 * time.Hour, "90m": 90 * time.Minute} {
		out, _ := c.run(0, "", "token", "create", "--name", "x", "--scopes", "admin", "--json", "--expires", text)
		var made shownToken
		if err := json.Unmarshal([]byte(out), &made); err != nil || made.ExpiresAt.Sub(made.CreatedAt).Round(time.Minute) != want {
			t.Errorf("%s: %s, %v", text, out, err)
		}
	}
}

func TestCompletion(t *testing.T) {
	c := newCLI(t)
	if out, _ := c.run(0, "", "help"); !strings.Contains(out, "\n  completion ") {
		t.Errorf("the help has no completion: %s", out)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		c.run(0, "", "completion", shell)
	}
	for _, x := range []struct{ line, want string }{
		{"emit |", "patient.created\t"}, {"token create --scopes |", "webhooks:read\n"}, {"token create --scopes admin,|", "admin,events:write\n"},
		{"serve --roles api,|", "api,worker\n"},
	} {
		out, _ := c.run(0, "", append([]string{"__complete"}, strings.Split(strings.TrimSuffix(x.line, "|"), " ")...)...)
		if !strings.Contains(out, x.want) {
			t.Errorf("%s completes %s", x.line, out)
		}
	}
}

func TestProjectionsCommands(t *testing.T) {
	c := newCLI(t)
	c.run(0, "", "emit", "patient.created", "{}")
	out, _ := c.run(0, "", "projections", "list")
	c.matches("the list", out, `NAME +POSITION +HEAD +BEHIND +STATE\n((webhooks|calls|events|stats|deliveries|alerts|access|replays|subjects) +0 +1 +1 +live\n)+`)
	out, _ = c.run(0, "", "projections", "list", "--json")
	var listed []struct {
		Name      string `json:"name"`
		Head      int64  `json:"head"`
		LagEvents int64  `json:"lag_events"`
	}
	if err := json.Unmarshal([]byte(out), &listed); err != nil || len(listed) == 0 || listed[0].Head != 1 || listed[0].LagEvents != 1 {
		t.Errorf("the list is %s: %v", out, err)
	}
	out, _ = c.run(0, "", "projections", "rebuild", "--all")
	c.matches("the rebuild", out, `Rebuilt webhooks, .* from \d+ events\n`)
	out, _ = c.run(0, "", "projections", "rebuild", "calls", "stats", "--json")
	c.matches("the rebuild", out, `\{"events":\d+,"rebuilt":\["calls","stats"\]\}\n`)
	for _, wrong := range []string{"", "nonsense", "calls --all"} {
		c.run(2, "", append([]string{"projections", "rebuild"}, strings.Fields(wrong)...)...)
	}
}

func TestAuditVerify(t *testing.T) {
	c := newCLI(t)
	for range 3 {
		c.run(0, "", "emit", "patient.created", `{"n":1}`)
	}
	out, _ := c.run(0, "", "audit", "verify")
	if out != "Verified 3 events, nothing is wrong\n" {
		t.Errorf("it says %q", out)
	}
	out, _ = c.run(0, "", "audit", "verify", "--json")
	if out != `{"events":3,"found":0,"problems":[]}`+"\n" {
		t.Errorf("it says %q", out)
	}

	// What the database's owner can do to a log, and not unnoticed.
	conn, err := pgx.Connect(t.Context(), os.Getenv("DATABASE_URL"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(t.Context(), `ALTER TABLE medilab.events DISABLE TRIGGER USER;
		UPDATE medilab.events SET data = data || ' '::bytea WHERE position = 2`)
	if err := errors.Join(err, conn.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	out, notes := c.run(1, "", "audit", "verify")
	c.matches("the problems", out, `KIND +POSITION +STREAM +PROBLEM\n(.+\n)*seal +.*\n(.+\n)*`)
	c.matches("the failure", notes, `medilab-webhooks: found wrong: \d+; .*\n`)
}

// openSession returns a session on the database, which ends with the test.
func openSession(t *testing.T, o databaseOptions) *session {
	t.Helper()
	s, err := o.session(t.Context(), slog.New(slog.DiscardHandler), postgres.Open)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
