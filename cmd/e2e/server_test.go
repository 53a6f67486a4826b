// Package e2e drives the product as its users do: the built binary on a real Postgres,
// over HTTP and its command line, against real receivers.
package e2e

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/migrations/testdb"
)

// adminToken is long enough for MEDILAB_TOKEN.
const adminToken = "e2e-admin-token-0123456789-0123456789"

const patience = harness.Patience

// TestMain lets tests run side by side: they mostly wait.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// product is one data folder and the process that serves it.
type product struct {
	*harness.Process
	dataDir  string
	database string   // DATABASE_URL; "": an embedded Postgres in the data folder
	token    string   // MEDILAB_TOKEN; "": the product makes its own
	extra    []string // further settings, as NAME=value
}

// start serves a database of its own on the Postgres that tests share, with further settings as
// NAME=value.
func start(t testing.TB, settings ...string) *product {
	t.Helper()
	p := prepareOn(t, testdb.New(t))
	p.extra = append([]string{"MEDILAB_ALLOW_TARGETS=loopback"}, settings...)
	p.start()
	return p
}

// startEmbedded serves a new data folder with an embedded Postgres.
func startEmbedded(t testing.TB, settings ...string) *product {
	t.Helper()
	p := prepare(t)
	p.extra = settings
	p.start()
	return p
}

// prepareOn is prepare for a database, which is dropped after the server has ended.
func prepareOn(t testing.TB, database string) *product {
	t.Helper()
	p := prepare(t)
	p.database = database
	return p
}

// prepare makes a new data folder, to be served.
func prepare(t testing.TB) *product {
	t.Helper()
	dir := harness.ShortDir(t)
	return &product{Process: harness.NewProcess(t, "the server", harness.Program(t)), dataDir: dir, token: adminToken}
}

// start serves the data folder, and waits until the server is ready.
func (p *product) start() {
	p.Helper()
	p.Env = p.environment()
	p.Start()
}

func (p *product) environment() []string {
	settings := []string{"MEDILAB_DATA_DIR=" + p.dataDir, "MEDILAB_ADDR=" + p.Addr, "DATABASE_URL=" + p.database}
	if p.token != "" {
		settings = append(settings, "MEDILAB_TOKEN="+p.token)
	}
	return harness.Environment(append(settings, p.extra...)...)
}

// stop ends the server as an operator does, and checks that it ends well.
func (p *product) stop() {
	p.Helper()
	if code := p.Term(); code != 0 {
		p.Errorf("after SIGTERM the server ended with %d:\n%s", code, p.Said)
	}
}

// request makes a request of the API with the admin token.
func (p *product) request(method, path, body string) (status int, answer []byte) {
	p.Helper()
	a, err := p.Request(p.Context(), p.token, method, path, []byte(body))
	if err != nil {
		p.Fatal(err)
	}
	return a.Status, a.Body
}

// api calls the API, checks the status and decodes the answer.
func (p *product) api(want int, method, path, body string, into any) {
	p.Helper()
	p.API(want, p.token, method, path, []byte(body), into)
}

// command runs another command of the product while the server runs, and returns its standard output.
func (p *product) command(wantCode int, stdin string, args ...string) string {
	p.Helper()
	out, notes, err := harness.Run(p.Context(), p.Program, p.environment(), stdin, args...)
	code := 0
	if ended := (*exec.ExitError)(nil); errors.As(err, &ended) {
		code = ended.ExitCode()
	} else if err != nil {
		code = -1
	}
	if code != wantCode {
		p.Fatalf("%v ended with %v, want code %d:\n%s%s", args, err, wantCode, out, notes)
	}
	return out
}

// webhook is what the tests look at of a webhook.
type webhook struct {
	ID      string `json:"id"`
	Number  int    `json:"number"`
	URL     string `json:"url"`
	Version int    `json:"version"`
}

// call is what the tests look at of an entry of the call log.
type call struct {
	CallID         string     `json:"call_id"`
	DeliveryID     string     `json:"delivery_id"`
	EventID        string     `json:"event_id"`
	Attempt        int        `json:"attempt"`
	URL            string     `json:"url"`
	Status         string     `json:"status"`
	Outcome        string     `json:"outcome"`
	DurationMS     float64    `json:"duration_ms"`
	ResponseStatus *int       `json:"response_status"`
	Error          *string    `json:"error"`
	Payload        string     `json:"payload"`
	Test           bool       `json:"test"`
	CreatedAt      time.Time  `json:"created_at"`
	NextAttemptAt  *time.Time `json:"next_attempt_at"`
}

// calls lists all of the webhook's calls, oldest first.
func (p *product) calls(webhook string) []call {
	p.Helper()
	var all []call
	cursor := ""
	for {
		var page struct {
			Items      []call  `json:"items"`
			NextCursor *string `json:"next_cursor"`
		}
		p.api(200, "GET", "/webhooks/"+webhook+"/calls?limit=100"+cursor, "", &page)
		all = append(all, page.Items...)
		if page.NextCursor == nil {
			break
		}
		cursor = "&cursor=" + *page.NextCursor
	}
	for i, j := 0, len(all)-1; i < j; i, j = i+1, j-1 {
		all[i], all[j] = all[j], all[i]
	}
	return all
}

// trigger triggers an event and returns its id.
func (p *product) trigger(body string) string {
	p.Helper()
	var accepted struct {
		EventID string `json:"event_id"`
	}
	p.api(202, "POST", "/webhooks/events/trigger", body, &accepted)
	return accepted.EventID
}
