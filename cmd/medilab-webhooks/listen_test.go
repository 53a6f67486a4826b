package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/medilab/webhooks/domain"
)

// forwarded is a call as a receiver gets it.
type forwarded struct {
	header http.Header
	body   []byte
}

// listening starts the command, and returns the lines that it prints and what ends it with 0.
func (c apiCLI) listening(args ...string) (lines *bufio.Scanner, interrupt func()) {
	c.Helper()
	ctx, cancel := context.WithCancel(c.Context())
	read, out := io.Pipe()
	ended := make(chan int)
	var notes bytes.Buffer
	go func() {
		code := run(ctx, append([]string{"listen"}, args...), strings.NewReader(""), out, &notes)
		out.Close() //nolint:errcheck // it returns nil
		ended <- code
	}()
	return bufio.NewScanner(read), func() {
		cancel()
		if code := <-ended; code != 0 {
			c.Errorf("interrupted, it ends with %d: %s", code, &notes)
		}
	}
}

// Events are printed as they come and posted as a webhook would, over the API and without.
func TestListen(t *testing.T) {
	c := newAPICLI(t, 200)
	got := make(chan forwarded, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- forwarded{r.Header, body}
		w.WriteHeader(http.StatusTeapot)
	}))
	t.Cleanup(receiver.Close)
	for _, where := range [][]string{nil, {"--server", c.server, "--token", remoteToken, "--ca-file", c.ca}} {
		lines, interrupt := c.listening(append([]string{"--events", "visit.*, patient.updated", "--forward-to", receiver.URL}, where...)...)
		lines.Scan()
		secret, ok := strings.CutPrefix(lines.Text(), "Secret: ")
		if !ok {
			t.Fatalf("it begins with %q", lines.Text())
		}
		verifier, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		lines.Scan()
		if lines.Text() != "Listening (Ctrl-C ends)" {
			t.Fatalf("%q follows", lines.Text())
		}
		c.run(0, "", "emit", "patient.created", `{"n":1}`)
		c.run(0, "", "emit", "visit.completed", `{"n": 0}`, "--no-deliver")
		id, _ := c.run(0, "", "emit", "visit.completed", `{"n": 2.0}`)
		c.fold()
		lines.Scan()
		c.matches("an imported event", lines.Text(), `\S+Z  visit\.completed  \S{36}  \{"n": 0\}`)
		call := <-got
		if err := verifier.Verify(call.body, call.header); err != nil {
			t.Error(err)
		}
		if !domain.NewSigningKey(domain.NewSecret(secret)).VerifyGuide(call.body, call.header.Get("X-Webhook-Signature")) {
			t.Error("the guide's signature is wrong")
		}
		var body map[string]json.RawMessage
		if err := json.Unmarshal(call.body, &body); err != nil || len(body) != 5 || string(body["event_data"]) != `{"n": 2.0}` || string(body["attempt"]) != "1" {
			t.Errorf("posted %s, %v", call.body, err)
		}
		if h := call.header; h.Get("X-Webhook-Event") != "visit.completed" || h.Get("X-Webhook-Event-ID") != strings.TrimSpace(id) || h.Get("X-Webhook-Payload-Version") != "1" {
			t.Errorf("the headers are %v", h)
		}
		lines.Scan()
		c.matches("the event", lines.Text(), `\S+Z  visit\.completed  `+strings.TrimSpace(id)+`  418  \S+ ms  .*418.*\{"n": 2\.0\}`)
		interrupt()
	}
	if out, _ := c.run(0, "", "webhooks", "list", "--json"); strings.Count(out, `"number"`) != 1 {
		t.Errorf("it made a webhook: %s", out)
	}
	blind, _ := c.run(0, "", "token", "create", "--name", "blind", "--scopes", "webhooks:read")
	_, notes := c.run(1, "", "listen", "--server", c.server, "--token", strings.TrimSpace(blind), "--ca-file", c.ca)
	c.matches("the refusal", notes, "medilab-webhooks: the token may not see what events hold: .*payloads:read\n")
	c.run(2, "", "listen", "--events", "patient.none")
	c.run(2, "", "listen", "--events", "")
	for url, want := range map[string]string{
		"ftp://localhost": "must begin with http:// or https://", "localhost:9000": "must begin with http:// or https://", "http://:9000/hook": "must name a host",
	} {
		_, notes := c.run(2, "", "listen", "--forward-to", url)
		c.matches(url, notes, "medilab-webhooks: --forward-to "+want+"; .*\n")
	}
	c.run(2, "", "listen", "--secret", "whsec_!")
}

// A connection that is lost loses nothing.
func TestListenResumes(t *testing.T) {
	c := newAPICLI(t, 200)
	lines, interrupt := c.listening("--server", c.server, "--token", remoteToken, "--ca-file", c.ca)
	defer interrupt()
	for lines.Scan() && lines.Text() != "Listening (Ctrl-C ends)" {
	}
	for _, n := range []string{"1", "2", "3"} {
		c.remote.CloseClientConnections()
		c.run(0, "", "emit", "patient.created", `{"n":`+n+`}`)
		c.fold()
		if lines.Scan(); !strings.HasSuffix(lines.Text(), `{"n":`+n+`}`) {
			t.Fatalf("it prints %s", lines.Text())
		}
	}
}
