// Package security attacks the product from outside: the built binary, as it is
// started, over the network, and what it leaves on the disk.
package security

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/medilab/webhooks/cmd/e2e/harness"
	"github.com/medilab/webhooks/migrations/testdb"
)

const adminToken = "canary-admin-token-0123456789-0123456789"

// product is a process that serves.
type product struct{ *harness.Process }

// newDatabase is the environment of servers that share a Postgres of the test's
// own, and the keys of its secrets.
func newDatabase(t testing.TB) []string {
	t.Helper()
	return []string{"DATABASE_URL=" + testdb.New(t), "MEDILAB_KEYS=" + filepath.Join(t.TempDir(), "keys.json")}
}

// start serves until the test ends. Nothing of our own settings reaches it but
// what finds Postgres.
func start(t testing.TB, environment ...string) *product {
	t.Helper()
	p := &product{harness.NewProcess(t, "the server", harness.Program(t))}
	settings := append([]string{"MEDILAB_ADDR=" + p.Addr, "MEDILAB_TOKEN=" + adminToken, "MEDILAB_LOG=json,debug"}, environment...)
	p.Env = harness.Environment(settings...)
	p.Start()
	return p
}

// as makes a request with the token and gives the answer whole.
func (p *product) as(token, method, path, body string) (status int, answer []byte) {
	p.Helper()
	a, err := p.Request(p.Context(), token, method, path, []byte(body))
	if err != nil {
		p.Fatal(err)
	}
	return a.Status, a.Body
}

// api calls the API as an administrator, checks the status and decodes the answer.
func (p *product) api(want int, method, path, body string, into any) {
	p.Helper()
	p.API(want, adminToken, method, path, []byte(body), into)
}

// register makes a webhook for all events and gives its id.
func (p *product) register(url, more string) string {
	p.Helper()
	var made struct {
		ID string `json:"id"`
	}
	p.api(201, "POST", "/webhooks/", fmt.Sprintf(`{"name":"w","url":%q,"events":["*"],"max_retries":0,"timeout":5%s}`, url, more), &made)
	return made.ID
}

// call is an entry of the call log.
type call struct {
	Status         string  `json:"status"`
	ResponseStatus *int    `json:"response_status"`
	Error          *string `json:"error"`
	Test           bool    `json:"test"`
}

func (c call) text() string {
	if c.Error == nil {
		return ""
	}
	return *c.Error
}

func (p *product) calls(webhook string) []call {
	p.Helper()
	var page struct {
		Items []call `json:"items"`
	}
	p.api(200, "GET", "/webhooks/"+webhook+"/calls", "", &page)
	return page.Items
}

// command runs another command of the product beside the server.
func (p *product) command(args ...string) string {
	p.Helper()
	out, notes, err := harness.Run(p.Context(), p.Program, p.Env, "", args...)
	if err != nil {
		p.Fatalf("%v: %v\n%s%s", args, err, out, notes)
	}
	return out
}

func decode(t testing.TB, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
}
