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
	"golang.org/x/sync/errgroup"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// maxReceivedBody holds the largest event, 10 MB, and what version 2 wraps around it.
const maxReceivedBody = 12 << 20

// receiveOptions are how the inspector answers.
type receiveOptions struct {
	addr     string
	web      string
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
  medilab-webhooks receive --web 127.0.0.1:9001
  medilab-webhooks receive --json | jq .body`,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return usageError{err}
			}
			return receive(c.Context(), o, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.StringVar(&o.addr, "addr", "127.0.0.1:9000", "listen address")
	f.StringVar(&o.web, "web", "", "show the calls in a browser at this address too")
	f.StringVar(&o.secret, "secret", "", "the webhook's secret (whsec_, whsk_ or text) or public key (whpk_), to verify signatures")
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
	case !(o.failRate >= 0 && o.failRate <= 1): // NaN too
		return errors.New("--fail-rate must be from 0 to 1")
	case o.delay < 0:
		return errors.New("--delay must not be negative")
	}
	return domain.CheckFields(domain.CheckVerifyingKey("--secret", domain.NewSecret(o.secret)))
}

// receive serves until ctx ends and prints calls to out, one after the other.
func receive(ctx context.Context, o receiveOptions, out, notes io.Writer) error {
	l, err := net.Listen("tcp", o.addr)
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w; choose another with --addr", o.addr, err)
	}
	in := newInspector(o, out)
	servers := []listening{{l, in}}
	fmt.Fprintf(notes, say("Receiving on http://%s (Ctrl-C ends)\n"), l.Addr())
	if o.web != "" {
		web, err := net.Listen("tcp", o.web)
		if err != nil {
			return errors.Join(fmt.Errorf("cannot listen on %s: %w; choose another with --web", o.web, err), l.Close())
		}
		in.view = newReceiveView()
		servers = append(servers, listening{web, in.view.handler(web.Addr().String())})
		fmt.Fprintf(notes, say("Watch the calls at http://%s\n"), web.Addr())
	}
	err = serveAll(ctx, servers)
	in.mu.Lock()
	defer in.mu.Unlock()
	fmt.Fprintf(notes, say(domain.Plural(in.count, "Received %d call\n", "Received %d calls\n")), in.count)
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	return in.failed
}

type listening struct {
	net.Listener
	handler http.Handler
}

// serveAll serves until ctx ends or one fails. What waits, for --delay or for more calls to
// show, ends with ctx.
func serveAll(ctx context.Context, all []listening) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range all {
		server := &http.Server{Handler: l.handler, ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
		group.Go(func() error {
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
		group.Go(func() error {
			<-ctx.Done()
			return within(5*time.Second, server.Shutdown)
		})
	}
	return group.Wait()
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
	paint  paint
	view   *receiveView // nil: none
	count  int
	firsts map[string]int // the numbers of the deliveries' first calls
	failed error          // the first failure to print
}

func newInspector(o receiveOptions, out io.Writer) *inspector {
	return &inspector{options: o, key: domain.NewVerifyingKey(domain.NewSecret(o.secret)), out: out, paint: newPaint(out)}
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
	_ = eventstore.Sleep(r.Context(), in.options.delay)
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
		c.write(&buf, in.paint, in.first(c))
	}
	if in.view != nil {
		in.view.add(c)
	}
	if err == nil {
		_, err = in.out.Write(buf.Bytes())
	}
	if err != nil && in.failed == nil {
		in.failed = fmt.Errorf("cannot print calls: %w", err)
	}
}

// first returns the number of the delivery's first call; 0: this is it. Only people on a
// terminal see calls grouped.
func (in *inspector) first(c *receivedCall) int {
	const most = 10_000
	delivery := c.delivery()
	if delivery == "" || !isTerminal(in.out) {
		return 0
	}
	first := in.firsts[delivery]
	if len(in.firsts) >= most || in.firsts == nil {
		in.firsts = map[string]int{}
	}
	if first == 0 {
		in.firsts[delivery] = c.Number
	}
	return first
}

// delivery returns what is the same in all attempts of a delivery.
func (c *receivedCall) delivery() string { return c.Headers["X-Webhook-Delivery-ID"] }

// write writes the call for people: another attempt of a delivery in two lines, below the first.
func (c *receivedCall) write(b *bytes.Buffer, p paint, first int) {
	answered := green
	if c.Answered >= 300 {
		answered = red
	}
	heading := fmt.Sprintf("#%d %s %s", c.Number, sanitize(c.Method), sanitize(c.Path))
	if first > 0 {
		heading = fmt.Sprintf(p.say("  #%d attempt %s of #%d"), c.Number, sanitizeLine(c.Headers["X-Webhook-Attempt"]), first)
	}
	fmt.Fprintf(b, "%s  %s  %s\n", p.in(bold, heading),
		p.in(dim, fmt.Sprintf(p.say("%s, %d bytes"), c.At.Local().Format("15:04:05.000"), c.Bytes)), p.in(answered, fmt.Sprintf(p.say("answered %d"), c.Answered)))
	for _, name := range slices.Sorted(maps.Keys(c.Headers)) {
		if first == 0 {
			fmt.Fprintf(b, "  %s %s\n", p.in(dim, sanitize(name)+":"), sanitize(c.Headers[name]))
		}
	}
	fmt.Fprintf(b, p.say("  signature: %s   standard webhooks: %s\n"), p.in(verdictColours[c.Signature], p.say(string(c.Signature))), p.in(verdictColours[c.Standard], p.say(string(c.Standard))))
	if first == 0 {
		fmt.Fprintf(b, "  %s\n\n", sanitize(pretty(c.raw, "  ")))
	}
}

var verdictColours = map[verdict]string{valid: green, validBefore: green, wrong: red, missing: red}
