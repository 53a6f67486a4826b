package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/domain"
)

// maxReceivedBody holds the largest event, 10 MB, and what version 2 wraps around it.
const maxReceivedBody = 12 << 20

// receiveOptions are how the inspector answers.
type receiveOptions struct {
	addr     string
	secret   string
	status   int
	delay    time.Duration
	failRate float64
	json     bool
}

// newReceiveCommand is the guide's webhook.site, offline: it prints each call, verifies its signatures
// and answers as the flags say.
func newReceiveCommand() *cobra.Command {
	var o receiveOptions
	c := &cobra.Command{
		Use:   "receive",
		Short: "Receive webhooks here, show each call and verify its signature",
		Example: `  medilab-webhooks receive --secret webhook-secret-key
  medilab-webhooks receive --status 503 --delay 2s
  medilab-webhooks receive --json | jq .body`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return usageError{err}
			}
			return receive(c.Context(), o, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.StringVar(&o.addr, "addr", "127.0.0.1:9000", "listen address")
	f.StringVar(&o.secret, "secret", "", "the webhook's secret (whsec_, whsk_ or text), to verify signatures")
	f.IntVar(&o.status, "status", http.StatusOK, "answer with this status")
	f.Var((*duration)(&o.delay), "delay", "answer after this long")
	f.Float64Var(&o.failRate, "fail-rate", 0, "answer 500 to this part of the calls, 0 to 1")
	f.BoolVar(&o.json, "json", false, "print one line of JSON a call")
	return c
}

func (o receiveOptions) check() error {
	switch {
	case o.status < 200 || o.status > 599:
		return errors.New("--status must be from 200 to 599")
	case o.failRate < 0 || o.failRate > 1:
		return errors.New("--fail-rate must be from 0 to 1")
	case o.delay < 0:
		return errors.New("--delay must not be negative")
	}
	return nil
}

// receive serves until ctx ends and prints calls to out, one after the other.
func receive(ctx context.Context, o receiveOptions, out, notes io.Writer) error {
	l, err := net.Listen("tcp", o.addr)
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w; choose another with --addr", o.addr, err)
	}
	in := &inspector{options: o, key: domain.NewSigningKey(domain.NewSecret(o.secret)), out: out}
	server := &http.Server{Handler: in, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	fmt.Fprintf(notes, "Receiving on http://%s (Ctrl-C ends)\n", l.Addr())

	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err = <-served:
	case <-ctx.Done():
		// Calls that wait for --delay end with ctx, so this ends soon too.
		err = within(5*time.Second, server.Shutdown)
		<-served
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	fmt.Fprintf(notes, "Received %d calls\n", in.count)
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	return in.failed
}

// verdict is the result of checking a signature.
type verdict string

const (
	valid       verdict = "valid"
	validBefore verdict = "valid by the secret before the rotation"
	wrong       verdict = "WRONG"
	missing     verdict = "missing"
	unchecked   verdict = "not checked"
	absent      verdict = "none"
)

// receivedCall is one call as it is printed.
type receivedCall struct {
	Number    int               `json:"number"`
	At        time.Time         `json:"received_at"`
	Method    string            `json:"method"`
	Path      string            `json:"path"`
	Headers   map[string]string `json:"headers"`
	Body      json.RawMessage   `json:"body,omitempty"`
	Text      string            `json:"text,omitempty"` // the body when it is not JSON
	Bytes     int               `json:"bytes"`
	Signature verdict           `json:"signature"`
	Standard  verdict           `json:"standard_signature"`
	Answered  int               `json:"answered"`

	raw []byte
}

// inspector is the handler.
type inspector struct {
	options receiveOptions
	key     *domain.SigningKey

	mu     sync.Mutex // held while a call is printed
	out    io.Writer
	count  int
	failed error // the first failure to print
}

// ServeHTTP prints the call and answers as the options say.
func (in *inspector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := time.Now()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReceivedBody))
	if err != nil {
		http.Error(w, "the body could not be read", http.StatusBadRequest)
		return
	}
	c := &receivedCall{
		At: at.UTC(), Method: r.Method, Path: r.URL.RequestURI(), Headers: make(map[string]string, len(r.Header)),
		Bytes: len(body), raw: body, Answered: in.options.status,
		Signature: in.verifyGuide(r.Header, body),
		Standard: in.verify(r.Header.Get("Webhook-Signature"), func(signature string) bool {
			return in.key.VerifyStandard(r.Header.Get("Webhook-Id"), r.Header.Get("Webhook-Timestamp"), body, signature)
		}),
	}
	for name, values := range r.Header {
		c.Headers[asSent(name)] = strings.Join(values, ", ")
	}
	if json.Valid(body) {
		c.Body = body
	} else {
		c.Text = string(body)
	}
	if rand.Float64() < in.options.failRate {
		c.Answered = http.StatusInternalServerError
	}
	select {
	case <-time.After(in.options.delay):
	case <-r.Context().Done():
	}
	in.print(c)
	w.WriteHeader(c.Answered)
}

// verifyGuide also accepts, during a rotation's overlap, the secret from before it.
func (in *inspector) verifyGuide(h http.Header, body []byte) verdict {
	matches := func(signature string) bool { return in.key.VerifyGuide(body, signature) }
	if in.key != nil && in.key.Asymmetric() {
		return absent
	}
	v := in.verify(h.Get("X-Webhook-Signature"), matches)
	if v == wrong && matches(h.Get("X-Webhook-Signature-Previous")) {
		return validBefore
	}
	return v
}

// sentNames are the headers whose names Go's server changes.
var sentNames = []string{"X-Webhook-ID", "X-Webhook-Event-ID", "X-Webhook-Delivery-ID", domain.HeaderStandardID, domain.HeaderStandardTimestamp, domain.HeaderStandardSignature}

// asSent returns a header's name as the service sends it.
func asSent(name string) string {
	for _, sent := range sentNames {
		if strings.EqualFold(sent, name) {
			return sent
		}
	}
	return name
}

func (in *inspector) verify(signature string, matches func(string) bool) verdict {
	switch {
	case signature == "" && in.key == nil:
		return absent
	case in.key == nil:
		return unchecked
	case signature == "":
		return missing
	case matches(signature):
		return valid
	}
	return wrong
}

func (in *inspector) print(c *receivedCall) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.count++
	c.Number = in.count
	var buf bytes.Buffer
	var err error
	if in.options.json {
		err = printJSON(&buf, c)
	} else {
		c.write(&buf, isTerminal(in.out))
	}
	if err == nil {
		_, err = in.out.Write(buf.Bytes())
	}
	if err != nil && in.failed == nil {
		in.failed = fmt.Errorf("cannot print calls: %w", err)
	}
}

// palette is the colours of a terminal, empty in a pipe.
type palette struct{ bold, dim, good, bad, off string }

func (c *receivedCall) write(b *bytes.Buffer, colour bool) {
	var p palette
	if colour {
		p = palette{bold: "\x1b[1m", dim: "\x1b[2m", good: "\x1b[32m", bad: "\x1b[31m", off: "\x1b[0m"}
	}
	answered := p.good
	if c.Answered >= 300 {
		answered = p.bad
	}
	fmt.Fprintf(b, "%s#%d %s %s%s  %s%s, %d bytes%s  %sanswered %d%s\n", p.bold, c.Number, sanitize(c.Method), sanitize(c.Path), p.off,
		p.dim, c.At.Local().Format("15:04:05.000"), c.Bytes, p.off, answered, c.Answered, p.off)
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		fmt.Fprintf(b, "  %s%s:%s %s\n", p.dim, sanitize(name), p.off, sanitize(c.Headers[name]))
	}
	fmt.Fprintf(b, "  signature: %s   standard webhooks: %s\n", p.mark(c.Signature), p.mark(c.Standard))
	var pretty bytes.Buffer
	if json.Indent(&pretty, c.raw, "  ", "  ") != nil {
		pretty.Reset()
		pretty.Write(c.raw)
	}
	fmt.Fprintf(b, "  %s\n\n", sanitize(pretty.String()))
}

func (p palette) mark(v verdict) string {
	switch v {
	case valid, validBefore:
		return p.good + string(v) + p.off
	case wrong, missing:
		return p.bad + string(v) + p.off
	}
	return string(v)
}
