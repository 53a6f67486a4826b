package e2e

import (
	"bytes"
	"io"
	"net/http"
	"regexp"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"github.com/medilab/webhooks/cmd/e2e/harness"
)

// The server describes itself, what it answers is as described, and there is a page to
// try it that needs nothing from elsewhere.
func TestDescription(t *testing.T) {
	t.Parallel()
	in := harness.Receive(t, nil)
	p := start(t)
	fetch := func(path string) (*http.Response, []byte) {
		t.Helper()
		resp, err := http.Get("http://" + p.Addr + path) // as anybody: without a token
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close() //nolint:errcheck // it was read to its end
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, body
	}
	resp, text := fetch("/api/v1/openapi.json")
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("the description is answered %d %v", resp.StatusCode, resp.Header)
	}
	// The validator takes {} for any value but null.
	document, err := openapi3.NewLoader().LoadFromData(bytes.ReplaceAll(text, []byte(`":{}`), []byte(`":{"anyOf":[{},{"type":"null"}]}`)))
	if err != nil {
		t.Fatal(err)
	}
	if err := document.Validate(t.Context()); err != nil || document.OpenAPI[:3] != "3.1" {
		t.Errorf("OpenAPI %s: %v", document.OpenAPI, err)
	}

	w := p.register(in.URL, `{"secret":"s3cret","filters":{"a":1},"batch":{"max_events":2,"max_wait":1}}`)
	var replay struct {
		ID string `json:"replay_id"`
	}
	p.api(202, "POST", "/webhooks/1/replay", `{"from":"2020-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z"}`, &replay)
	event := p.trigger(`{"event_type":"visit.created","event_data":{"a":1}}`)
	c := p.awaitCalls(w.ID, 1)[0]
	p.command(0, "", "token", "create", "--name", "crm", "--scopes", "events:write")
	router, err := gorillamux.NewRouter(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []struct{ method, path, body string }{
		{"GET", "/webhooks", ""}, {"GET", "/webhooks/1", ""}, {"PATCH", "/webhooks/1", `{"name":"b"}`}, {"PATCH", "/webhooks/1", `{"name":""}`},
		{"GET", "/webhooks/1/stats?bucket=hour", ""}, {"GET", "/webhooks/system/stats", ""}, {"GET", "/webhooks/1/calls", ""}, {"GET", "/webhooks/1/calls/" + c.CallID, ""},
		{"GET", "/webhooks/1/history", ""}, {"POST", "/webhooks/1/test", `{"event_type":"visit.created"}`}, {"POST", "/webhooks/1/rotate-secret", `{}`},
		{"POST", "/webhooks/1/backtest", `{"filters":{"a":2}}`}, {"POST", "/webhooks/events/trigger", `{"event_type":"visit.created","event_data":{}}`},
		{"POST", "/webhooks/events/trigger", `{`}, {"POST", "/webhooks/events/trigger/batch", `{"events":[{"event_type":"visit.created","event_data":{}}]}`},
		{"GET", "/webhooks/events/types", ""}, {"GET", "/webhooks/events", ""}, {"GET", "/webhooks/events/" + event, ""}, {"GET", "/webhooks/events/" + event + "/deliveries", ""},
		{"GET", "/webhooks/events/" + event + "/explain", ""}, {"POST", "/webhooks/deliveries/" + c.DeliveryID + "/retry", ""}, {"GET", "/webhooks/alerts", ""},
		{"POST", "/webhooks/1/replay", `{"from":"2020-01-01T00:00:00Z","to":"2100-01-01T00:00:00Z","dry_run":true}`}, {"POST", "/webhooks/1/replay", `{}`},
		{"GET", "/webhooks/1/replays/" + replay.ID, ""}, {"GET", "/webhooks/1/replays", ""}, {"GET", "/webhooks/replays", ""}, {"GET", "/webhooks/replays/" + replay.ID, ""},
		{"POST", "/webhooks/deliveries/retry", `{"state":"failed","rate":0.5}`}, {"POST", "/webhooks/deliveries/retry", `{"state":"failed","dry_run":true}`}, {"POST", "/webhooks/deliveries/retry", `{}`},
		{"POST", "/webhooks/replays/" + replay.ID + "/cancel", ""}, {"POST", "/webhooks/deliveries/" + c.DeliveryID + "/cancel", ""},
		{"GET", "/webhooks/events/parked", ""}, {"POST", "/webhooks/events/parked/1/retry", ""}, {"POST", "/webhooks/events/parked/1/discard", ""},
		{"POST", "/webhooks/1/deactivate", ""}, {"POST", "/webhooks/1/activate", ""}, {"GET", "/webhooks/99", ""}, {"DELETE", "/webhooks/1", ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), r.method, "http://"+p.Addr+"/api/v1"+r.path, bytes.NewReader([]byte(r.body)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+p.token)
		if r.body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		resp.Body.Close() //nolint:errcheck // it was read to its end
		if err != nil {
			t.Fatal(err)
		}
		described := req.Clone(t.Context())
		described.URL.Scheme, described.URL.Host, described.Host = "", "", ""
		route, parameters, err := router.FindRoute(described)
		if err != nil {
			t.Errorf("%s %s is not described: %v", r.method, r.path, err)
			continue
		}
		options := &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true}
		check := &openapi3filter.ResponseValidationInput{
			RequestValidationInput: &openapi3filter.RequestValidationInput{Request: described, PathParams: parameters, Route: route, Options: options},
			Status:                 resp.StatusCode, Header: resp.Header, Options: options,
		}
		if err := openapi3filter.ValidateResponse(t.Context(), check.SetBodyBytes(answer)); err != nil {
			t.Errorf("%s %s answered %d, not as described: %v", r.method, r.path, resp.StatusCode, err)
		}
	}

	for _, path := range []string{"/docs", "/api/v1/docs"} {
		resp, page := fetch(path)
		links := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllSubmatch(page, -1)
		if resp.StatusCode != 200 || len(links) < 2 {
			t.Errorf("%s is answered %d %s", path, resp.StatusCode, page)
		}
		for _, link := range links {
			if bytes.HasPrefix(link[1], []byte("data:")) {
				continue // it brings its content
			}
			if asset, content := fetch(string(link[1])); link[1][0] != '/' || asset.StatusCode != 200 || len(content) == 0 {
				t.Errorf("%s needs %s: %d", path, link[1], asset.StatusCode)
			}
		}
	}
}
