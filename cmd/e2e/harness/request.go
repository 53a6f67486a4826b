package harness

import (
	"context"
	"encoding/json"

	"github.com/medilab/webhooks/cmd/testbed"
)

// Client is shared by all requests of a test binary.
var Client = testbed.Client

// Answer is what a request came to.
type Answer = testbed.Response

// Request makes a request with the token and reads the answer whole. An error says that none came.
func (p *Process) Request(ctx context.Context, token, method, path string, body []byte) (Answer, error) {
	return testbed.Request(ctx, token, method, "http://"+p.Addr+path, body)
}

// API makes a request of the API that must be answered with the status, and decodes the answer.
func (p *Process) API(want int, token, method, path string, body []byte, into any) {
	p.Helper()
	a, err := p.Request(p.Context(), token, method, "/api/v1"+path, body)
	if err != nil {
		p.Fatal(err)
	}
	if a.Status != want {
		p.Fatalf("%s %s of %s answered %d, want %d: %.500s", method, path, p.Label, a.Status, want, a.Body)
	}
	if into == nil {
		return
	}
	if err := json.Unmarshal(a.Body, into); err != nil {
		p.Fatalf("%s %s of %s answered %.500s: %v", method, path, p.Label, a.Body, err)
	}
}

// Status returns the status of a path outside the API, such as /readyz; 0 when nobody answers.
func (p *Process) Status(path string) int { return testbed.Status(p.Context(), "http://"+p.Addr+path) }
