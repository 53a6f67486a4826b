package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/medilab/webhooks/domain"
	api "github.com/medilab/webhooks/http"
)

const remoteToken = "the token of a remote server, which is long"

// apiCLI is a command line with a webhook, whose receiver answers with a status, and a server
// over TLS on the same database.
type apiCLI struct {
	cli
	remote *httptest.Server
	server string
	ca     string
}

func newAPICLI(t *testing.T, status int, with ...func(*api.Config)) apiCLI {
	t.Helper()
	c := apiCLI{cli: newCLI(t)}
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	t.Cleanup(receiver.Close)
	database := databaseOptions{url: os.Getenv("DATABASE_URL"), dataDir: t.TempDir()}
	t.Setenv("MEDILAB_DATA_DIR", database.dataDir)
	t.Setenv("MEDILAB_ALLOW_TARGETS", "loopback")
	s := openSession(t, database)
	local := newLocalClient(s, api.Config{})
	if err := local.sendFromHere(t.Context(), database); err != nil { // with a new keyset
		t.Fatal(err)
	}
	var made shownWebhook
	err := local.post(t.Context(), "/webhooks", map[string]any{"name": "CRM", "url": receiver.URL, "events": []string{"patient.created"}}, &made)
	if err != nil || made.Number != 1 {
		t.Fatalf("made %+v, %v", made, err)
	}
	config := api.Config{Commands: s.commands, Queries: s.queries(), AdminToken: domain.NewSecret(remoteToken)}
	for _, change := range with {
		change(&config)
	}
	front := api.NewServer(config)
	server := httptest.NewUnstartedServer(front.Handler())
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	c.remote, c.server, c.ca = server, server.URL, filepath.Join(t.TempDir(), "ca.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(c.ca, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// fold brings the read models to the log's head, as a server would.
func (c apiCLI) fold() {
	c.Helper()
	conn, err := pgx.Connect(c.Context(), os.Getenv("DATABASE_URL"))
	if err != nil {
		c.Fatal(err)
	}
	_, err = conn.Exec(c.Context(), `INSERT INTO medilab.readers (name, position) SELECT 'projections', position FROM medilab.log_head
		ON CONFLICT (name) DO UPDATE SET position = EXCLUDED.position`)
	if err := errors.Join(err, conn.Close(c.Context())); err != nil {
		c.Fatal(err)
	}
	c.run(0, "", "projections", "rebuild", "--all")
}

// both runs a command on the database and on the server, and fails the test when they differ.
func (c apiCLI) both(wantCode int, args ...string) string {
	c.Helper()
	local, localNotes := c.run(wantCode, "", args...)
	remote, remoteNotes := c.run(wantCode, "", append(args, "--server", c.server, "--token", remoteToken, "--ca-file", c.ca)...)
	if remote != local || localNotes != remoteNotes {
		c.Errorf("%q says on the database\n%s%s\nand on the server\n%s%s", args, local, localNotes, remote, remoteNotes)
	}
	return local
}

// Questions have the same answers from the database and from a server.
func TestQuestionsOnTheCommandLine(t *testing.T) {
	c := newAPICLI(t, 404)
	id, _ := c.run(0, "", "emit", "patient.created", `{"n":1}`, "--correlation-id", "run-1")
	id = strings.TrimSpace(id)
	sent, notes := c.run(1, "", "webhooks", "test", "1", "--json")
	if !strings.Contains(sent, "ivan@example.com") {
		t.Errorf("a test without data sends the type's example, not %s", sent)
	}
	if types, _ := c.run(0, "", "__complete", "webhooks", "test", "1", "--type", "payment.f"); !strings.Contains(types, "payment.failed\n") {
		t.Errorf("the types are completed by %s", types)
	}
	c.matches("the failed test", notes, "medilab-webhooks: the call failed: .*404.*\n")
	c.fold()

	c.matches("the list", c.both(0, "webhooks", "list"), `NUMBER +NAME +STATUS +EVENTS +URL\n1 +CRM +active +patient\.created +http://\S+\n`)
	c.matches("the webhook", c.both(0, "webhooks", "show", "1"), `id +\S{36}\nnumber +1\nname +CRM\n(.*\n)*`)
	c.matches("the calls", c.both(0, "calls"), `TIME +.*ERROR\n\S+Z +1 +CRM +patient\.created +\S{36} +1 +failed +404 +.*\n`)
	c.matches("the calls of 1", c.both(0, "calls", "1", "--status", "failed", "--response-status", "4xx", "--from", "2026-01-01", "--json"), `\[\{"call_id":.*\}\]\n`)
	c.matches("the ids", c.both(0, "calls", "--ids"), `TIME +.*ERROR\n\S+Z +\S{36} +CRM +patient\.created +\S{36} .*\n`)
	c.matches("no calls", c.both(0, "calls", "--response-status", "500", "--json"), `\[\]\n`)
	c.matches("what waits", c.both(0, "deliveries", "--state", "pending"), `EVENT TIME .*ERROR\n\S+Z +1 +CRM +patient\.created +\S{36} +\S{36} +pending +0 +\S+Z +- +-\n`)
	c.matches("what failed", c.both(0, "deliveries", "--state", "failed", "--attempts-min", "2", "--json"), `\[\]\n`)
	c.matches("why", c.both(0, "explain", id), `WEBHOOK +NAME +VERDICT +DELIVERY +WHY\n1 +CRM +pending +\S{36} *\n`)
	c.matches("the backtest", c.both(0, "backtest", "1", "--events", "patient.updated", "--json"), `\{"considered":1,"matched":0,"gained":0,"lost":1,.*\}\n`)
	c.matches("the backtest in a pipe", c.both(0, "backtest", "1", "--events", "patient.updated"),
		`considered +1\nmatched +0\ngained +0\nlost +1\n\nACCEPTED +TYPE +EVENT +CHANGE\n\S+Z +patient\.created +`+id+` +lost\n`)
	c.matches("a backtest of nothing", c.both(0, "backtest", "1", "--to", "2020-01-01"), `considered +0\nmatched +0\ngained +0\nlost +0\n`)
	c.matches("other retries", c.both(0, "backtest", "1", "--to", "2020-01-01", "--max-retries", "6"),
		`(.*\n){4}deliveries +0\ndelivered +0\nfailed +0\ndelivered instead +0\nfailed instead +0\npending instead +0\nsooner +0\nlater +0\ncalls +0\ncalls instead +0\n`)
	c.both(2, "backtest", "1", "--max-retries", "-1")
	_, notes = c.run(2, "", "backtest", "1", "--from", "2021-01-01", "--to", "2020-01-01", "--max-retries", "11")
	c.matches("the refusal", notes, "medilab-webhooks: --max-retries must be from 0 to 10; --to must not be before --from; .*\n")
	c.both(1, "webhooks", "show", "7")
	c.both(1, "explain", "0198f0a0-0000-7000-8000-000000000001")
	for _, wrong := range []string{
		"calls x", "calls --response-status 4", "calls --status lost", "calls --limit 0", "calls --from yesterday", "deliveries --state dead", "deliveries --webhook 9", "deliveries --attempts-min 0",
		"explain 1", "webhooks show x", "webhooks test 1 --data {", "backtest 1 --filters {", "backtest 1 --events nonsense",
	} {
		c.both(2, strings.Fields(wrong)...)
	}
}

// A verdict says what went wrong last, also to those who may not read calls.
func TestVerdictsSayWhatWentWrong(t *testing.T) {
	why := "the receiver answered 500"
	v := api.VerdictView{WebhookName: "CRM", Verdict: "failed", DeliveryID: &domain.DeliveryID{1}, Attempts: 4, Error: &why}
	if row := verdictRow(v, "1"); row[4] != "attempt 4: "+why {
		t.Errorf("it says %q", row)
	}
}

// Events are emitted to a server, and what it refuses is told as it is of the database.
func TestEmitToAServer(t *testing.T) {
	c := newAPICLI(t, 200)
	remote := []string{"--server", c.server + "/", "--token", remoteToken, "--ca-file", c.ca}
	out, _ := c.run(0, "", append([]string{"emit", "patient.created", `{"n":1}`, "--correlation-id", "run-1"}, remote...)...)
	c.matches("the id", out, `\S{36}\n`)
	lines := `{"event_type":"patient.created","event_data":{"n":2}}` + "\n" + `{"event_type":"nonsense","event_data":{}}` + "\n" +
		`{"event_type":"visit.created","event_data":{"n":3},"event_id":"` + strings.TrimSpace(out) + `"}` + "\n"
	out, notes := c.run(1, lines, append([]string{"emit", "--file", "-"}, remote...)...)
	c.matches("the count", out, "Accepted 1 event\n")
	c.matches("the refusals", notes, `line 2: .*\nline 3: .*\nmedilab-webhooks: refused lines: 2 of 3.*\n`)
	log, _ := c.run(0, "", "audit", "log", "--type", "event.triggered", "--format", "ndjson")
	if n := strings.Count(log, `"actor":"admin"`); n != 2 || !strings.Contains(log, `"source":"cli"`) || !strings.Contains(log, `"correlation_id":"run-1"`) {
		t.Errorf("the log has %s", log)
	}
	_, notes = c.run(1, "", append([]string{"emit", "nonsense", "{}"}, remote...)...)
	c.matches("the refusal", notes, "medilab-webhooks: event_type .*\n")
	c.run(2, "", "emit", "patient.created", "{}", "--server", c.server+"/api", "--token", "x")
	c.run(2, "", "calls", "--server", c.server)
	c.run(1, "", "calls", "--server", c.server, "--token", remoteToken) // an unknown certificate
	_, notes = c.run(1, "", "calls", "--server", c.server, "--token", "wrong", "--ca-file", c.ca)
	if strings.Contains(notes, "wrong\n") || !strings.Contains(notes, "token") {
		t.Errorf("a wrong token is told as %s", notes)
	}
}

// Calls are followed until the command is interrupted.
func TestCallsAreFollowed(t *testing.T) {
	c := newAPICLI(t, 200)
	ctx, interrupt := context.WithCancel(t.Context())
	lines, out := io.Pipe()
	ended := make(chan int)
	var notes bytes.Buffer
	go func() {
		code := run(ctx, []string{"calls", "1", "--follow", "--json"}, strings.NewReader(""), out, &notes)
		out.Close() //nolint:errcheck // it returns nil
		ended <- code
	}()
	followed := bufio.NewScanner(lines)
	for range 2 {
		c.run(0, "", "webhooks", "test", "1")
		c.fold()
		if !followed.Scan() || !strings.Contains(followed.Text(), `"status":"success"`) {
			t.Fatalf("followed is %q, %s", followed.Text(), &notes)
		}
	}
	interrupt()
	if code := <-ended; code != 0 || followed.Scan() {
		t.Errorf("it ends with %d, after %q: %s", code, followed.Text(), &notes)
	}
}

// Where a reason is required, a command that reads payloads takes it from its flag or the
// environment, and it is on record.
func TestReasonsOfReaders(t *testing.T) {
	c := newAPICLI(t, 200, func(config *api.Config) { config.ReasonRequired = true })
	t.Setenv("MEDILAB_ACCESS_REASON", "required")
	id, _ := c.run(0, "", "emit", "patient.created", `{"n":1}`)
	id = strings.TrimSpace(id)
	c.fold()
	for _, command := range []string{"explain " + id, "webhooks test 1", "backtest 1"} {
		args := strings.Fields(command)
		c.both(2, args...)
		_, notes := c.run(2, "", args...)
		c.matches("the refusal", notes, "medilab-webhooks: --reason is required here: say why .*\n")
		c.run(0, "", append(args, "--reason", "жалоба 17", "--server", c.server, "--token", remoteToken, "--ca-file", c.ca)...)
	}
	t.Setenv("MEDILAB_REASON", "жалоба 18")
	c.run(0, "", "webhooks", "test", "1")
	c.both(0, "calls")
	log, _ := c.run(0, "", "audit", "log", "--type", "data.read", "--format", "ndjson")
	if strings.Count(log, `"reason":"жалоба 17"`) != 1 || strings.Count(log, `"reason":"жалоба 18"`) != 1 {
		t.Errorf("the log has %s", log)
	}
}

// What an API says is in the language of the environment for people, and the same in every
// language in a pipe and as JSON.
func TestAnswersInRussian(t *testing.T) {
	c := newAPICLI(t, 404)
	c.run(1, "", "webhooks", "test", "1")
	c.fold()
	inPipe, asJSON := c.both(0, "calls"), c.both(0, "calls", "--json")
	t.Setenv("LC_ALL", "ru_RU.UTF-8")
	if c.both(0, "calls") != inPipe || c.both(0, "calls", "--json") != asJSON {
		t.Error("a pipe or JSON is in Russian")
	}
	for _, where := range [][]string{nil, {"--server", c.server, "--token", remoteToken, "--ca-file", c.ca}} {
		ask := func(args ...string) []string { return append(args, where...) }
		_, notes := c.run(1, "", ask("webhooks", "show", "7")...)
		c.matches("the error", notes, "medilab-webhooks: вебхук не найден; список: `medilab-webhooks webhooks list`\n")
		_, notes = c.run(2, "", ask("backtest", "1", "--events", "wrong")...)
		c.matches("the wrong field", notes, `medilab-webhooks: в запросе есть неверные поля: events\[0\] — такого типа .*\n`)
		c.matches("the calls", c.onTerminal(300, ask("calls")...), `ВРЕМЯ .*\n.*получатель ответил 404\n`)
		if out := c.onTerminal(300, ask("calls", "--json")...); !strings.Contains(out, "answered 404") {
			t.Errorf("JSON on a terminal is %s", out)
		}
	}
}
