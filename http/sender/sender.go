// Package sender makes the outgoing calls: attempts, tests and alerts alike go
// through one Client, so that what holds for one holds for all. Every call ends
// in a Result that names what happened; nothing a receiver does is an error of
// ours, and nothing it does holds more than its own call.
package sender

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

const (
	// MaxBody is how much of an answer is read and kept (contract section 3).
	MaxBody = 10 << 10
	// MaxHeaders and MaxHeaderBytes bound the answer's headers that are kept.
	MaxHeaders     = 50
	MaxHeaderBytes = 4 << 10

	defaultTimeout  = 30 * time.Second
	defaultInFlight = 512
	maxTargets      = 4096
)

// Config says how calls leave this process. The zero value allows public
// targets only, through no proxy.
type Config struct {
	AllowTargets Targets
	// CAFile is a PEM bundle trusted beside the system's authorities.
	CAFile string
	// ClientCertFile and ClientKeyFile are shown to receivers that ask.
	ClientCertFile, ClientKeyFile string
	// MaxInFlight sizes the pool of idle connections; 0 means 512.
	MaxInFlight int
	// Proxy is the URL of a forward proxy; empty means none, whatever the
	// environment says.
	Proxy string
	// Resolver looks names up; nil means the system's.
	Resolver *net.Resolver
}

// Field is one header field, named with the letter case it is sent in.
type Field struct{ Name, Value string }

// Request is one call: always a POST.
type Request struct {
	URL string
	// Header is sent as it is, names in their case and in this order, with
	// Accept-Encoding: identity and without the headers that are not a caller's to set.
	Header []Field
	// Body must not be changed later, also when Send has returned: the transport
	// may still be writing a request whose answer came early.
	Body []byte
	// Timeout bounds the whole call, the answer's body included; 0 means 30 s.
	Timeout time.Duration
	// Allowed is asked as late as can be before the request leaves: when it says
	// no, nothing is sent, and the call is Withheld. Nil allows.
	Allowed func() bool
}

// Result says how a call ended.
type Result struct {
	Outcome Outcome
	// Status is 0 when no answer's headers arrived.
	Status int
	// Header holds at most MaxHeaders values and MaxHeaderBytes.
	Header http.Header
	// Body is the beginning of the answer as it came, at most MaxBody bytes, cut
	// on a character boundary; Truncated says that there was more.
	Body      []byte
	Truncated bool
	Duration  time.Duration
	// Error is empty on success, else one safe sentence for the call log.
	Error string
	// RetryAfter is that header of a 429 or 503 answer, unparsed.
	RetryAfter string
}

// Client makes calls. It is safe for concurrent use.
type Client struct {
	transport *http.Transport
	http1     *http1
	guard     *guard
	resolver  *net.Resolver
	proxied   bool

	mu      sync.RWMutex
	targets map[string]*target // by URL; bounded by maxTargets
}

// target is a URL ready to be called: parsing it anew for each call is waste.
type target struct {
	http.Request        // what all its calls have in common
	addr         string // host and port; "": only the transport knows
	key          string // of its connections
	head         []byte // how its requests begin over HTTP/1.1
	speaksHTTP1  atomic.Bool
}

// New makes a client; it fails on files or a proxy that cannot be used.
func New(cfg Config) (*Client, error) {
	if cfg.MaxInFlight <= 0 {
		cfg.MaxInFlight = defaultInFlight
	}
	g := newGuard(cfg.AllowTargets)
	t, own, err := newTransport(cfg, g)
	if err != nil {
		return nil, err
	}
	resolver := cfg.Resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	return &Client{
		transport: t, http1: own, guard: g, resolver: resolver, proxied: cfg.Proxy != "",
		targets: make(map[string]*target),
	}, nil
}

// Close lets idle connections go.
func (c *Client) Close() {
	c.transport.CloseIdleConnections()
	c.http1.closeIdle()
}

// Send makes the call and waits for its end: the answer, the timeout, or the
// end of ctx. A receiver sees the request at most once, unless it said itself
// that it had not looked at it.
//
// The status decides when the headers have arrived, except that a 2xx whose
// body does not end in time is a timeout, and one that breaks off is a reset:
// such a receiver did not finish saying yes. Of an endless body MaxBody is read
// and the rest is left, which is a success.
func (c *Client) Send(ctx context.Context, r Request) Result {
	start := time.Now()
	timeout := r.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	deadline := start.Add(timeout)
	res := c.call(ctx, deadline, r)
	res.Duration = time.Since(start)
	if res.Outcome == Success || res.Outcome == HTTPStatus || res.Outcome == Withheld {
		return res
	}
	switch {
	case ctx.Err() != nil:
		res.Outcome, res.Error = Interrupted, "the call was cut off because this server is shutting down"
	case !time.Now().Before(deadline): // the dial has a timer of its own, which may be first
		res.Outcome, res.Error = Timeout, fmt.Sprintf("the call did not end within its timeout of %s", timeout)
		if res.Status != 0 {
			res.Error += fmt.Sprintf(": status %d came, but its body did not end", res.Status)
		}
	}
	return res
}

func (c *Client) call(ctx context.Context, deadline time.Time, r Request) Result {
	t, err := c.target(r.URL)
	if err != nil {
		return Result{Outcome: InvalidRequest, Error: err.Error()}
	}
	if !c.proxied && len(r.Body) <= maxHTTP1Body && t.speaksHTTP1.Load() {
		return c.http1.call(ctx, deadline, t, r)
	}
	timed, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if c.proxied {
		if err := c.checkProxied(timed, t.URL.Hostname()); err != nil {
			return failed(err)
		}
	}
	call := &callContext{Context: timed, deadline: deadline, allowed: r.Allowed}
	req := t.WithContext(call)
	req.Header = transportHeader(r.Header)
	req.ContentLength = int64(len(r.Body))
	resp, err := c.roundTrip(call, req, r.Body)
	if err != nil {
		return failed(err)
	}
	defer resp.Body.Close() // nothing can be done about a failure to stop reading
	if resp.ProtoMajor == 1 && t.addr != "" {
		t.speaksHTTP1.Store(true) // it was asked for HTTP/2 first
	}
	return read(resp)
}

func (c *Client) roundTrip(ctx *callContext, req *http.Request, body []byte) (resp *http.Response, err error) {
	const tries = 3
	for range tries {
		if !ctx.mayGo() {
			return nil, errWithheld
		}
		if len(body) > 0 {
			// A reader that net/http knows, so that headers and a small body leave in one
			// write. GetBody stays nil: with it the transport would repeat the POST.
			req.Body = io.NopCloser(bytes.NewReader(body))
		}
		if resp, err = c.transport.RoundTrip(req); err == nil || !notProcessed(err) {
			break
		}
	}
	return resp, err
}

// notProcessed reports that an HTTP/2 receiver declared the request untouched
// (RFC 9113, section 8.7: GOAWAY below its stream, or REFUSED_STREAM), as nginx
// does to what is in flight after every thousandth request. The transport would
// repeat these by itself, but with GetBody it repeats a PROTOCOL_ERROR too, and
// that says nothing of the kind. It has no type for them, hence the text.
func notProcessed(err error) bool {
	text, found := strings.CutPrefix(err.Error(), "http2: Transport: cannot retry err [")
	return found && (strings.HasPrefix(text, "http2: Transport received Server's graceful shutdown GOAWAY") ||
		strings.HasPrefix(text, "stream error:") && strings.Contains(text, "REFUSED_STREAM"))
}

func failed(err error) Result {
	if errors.Is(err, errWithheld) {
		return Result{Outcome: Withheld, Error: err.Error()}
	}
	outcome, text := explain(err)
	return Result{Outcome: outcome, Error: text}
}

// read takes what is kept of an answer.
func read(resp *http.Response) Result {
	res := Result{Status: resp.StatusCode, Header: boundHeaders(resp.Header)}
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable {
		res.RetryAfter = res.Header.Get("Retry-After")
	}
	ok := resp.StatusCode >= 200 && resp.StatusCode <= 299
	var err error
	// After 101 the connection speaks something else, and there is no body.
	if resp.StatusCode != http.StatusSwitchingProtocols && resp.ContentLength != 0 {
		res.Body, res.Truncated, err = readBody(resp.Body)
	}
	switch {
	case ok && err == nil:
		res.Outcome = Success
	case ok:
		res.Outcome, res.Error = explain(err)
		res.Truncated = true
	default:
		res.Outcome, res.Error = HTTPStatus, explainStatus(resp.StatusCode)
		res.Truncated = res.Truncated || err != nil
	}
	return res
}

func explainStatus(status int) string {
	switch {
	case status == http.StatusSwitchingProtocols:
		return "the receiver answered 101: a webhook call cannot switch protocols"
	case status >= 300 && status <= 399 && status != http.StatusNotModified:
		return fmt.Sprintf("the receiver answered %d: redirects are never followed; give the final address as the webhook's url", status)
	case status == http.StatusGone:
		return "the receiver answered 410: it wants this delivery no more"
	}
	return fmt.Sprintf("the receiver answered %d", status)
}

var buffers = sync.Pool{New: func() any { return new([MaxBody + 1]byte) }}

// readBody reads at most one byte more than is kept; that byte tells whether
// there is more, and where the last character ends.
func readBody(r io.Reader) (body []byte, truncated bool, err error) {
	buf := buffers.Get().(*[MaxBody + 1]byte)
	defer buffers.Put(buf)
	n := 0
	for n < len(buf) && err == nil {
		var k int
		k, err = r.Read(buf[n:])
		n += k
	}
	if err == io.EOF {
		err = nil
	}
	if n > MaxBody {
		return slices.Clone(buf[:cut(buf[:], MaxBody)]), true, nil
	}
	return slices.Clone(buf[:n]), false, err
}

// cut is the end of the last character that ends at or before limit; text that
// is not UTF-8 is cut at limit itself.
func cut(b []byte, limit int) int {
	for n := limit; n > limit-utf8.UTFMax && n > 0; n-- {
		if utf8.RuneStart(b[n]) {
			return n
		}
	}
	return limit
}

// boundHeaders is h itself unless it is too large, and then its first values
// by name that fit.
func boundHeaders(h http.Header) http.Header {
	count, size, clean := 0, 0, true
	for name, values := range h {
		count += len(values)
		for _, v := range values {
			size += len(name) + len(v)
			clean = clean && utf8.ValidString(v)
		}
	}
	if count <= MaxHeaders && size <= MaxHeaderBytes && clean {
		return h
	}
	kept := make(http.Header)
	count, size = 0, 0
	for _, name := range headerOrder(h) {
		for _, v := range h[name] {
			v = strings.ToValidUTF8(v, "\ufffd") // so that it can be stored as text
			if count == MaxHeaders || size+len(name)+len(v) > MaxHeaderBytes {
				continue
			}
			kept[name] = append(kept[name], v)
			count++
			size += len(name) + len(v)
		}
	}
	return kept
}

// headerOrder is by name, behind the headers that decide something.
func headerOrder(h http.Header) []string {
	names := slices.Sorted(maps.Keys(h))
	first := []string{"Retry-After", "Location", "Content-Type"}
	slices.SortStableFunc(names, func(a, b string) int {
		rank := func(s string) int {
			if i := slices.Index(first, s); i >= 0 {
				return i
			}
			return len(first)
		}
		return rank(a) - rank(b)
	})
	return names
}

// notTheirs are the headers that belong to the connection or would change how
// the request is sent. They are refused when a webhook is saved; this is the
// second line. Idempotency-Key would make the transport repeat a POST.
var notTheirs = []string{
	"Host", "Content-Length", "Content-Encoding", "Transfer-Encoding", "Connection",
	"Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Proxy-Authenticate",
	"TE", "Trailer", "Upgrade", "HTTP2-Settings", "Cookie", "Expect",
	"Idempotency-Key", "X-Idempotency-Key", "Accept-Encoding",
}

// notTheirsBySize holds them by their length: most names have the length of none
// or of one.
var notTheirsBySize = func() (bySize [24][]string) {
	for _, name := range notTheirs {
		bySize[len(name)] = append(bySize[len(name)], name)
	}
	return bySize
}()

// theirs tells whether a caller may set the header.
func theirs(name string) bool {
	if len(name) >= len(notTheirsBySize) {
		return true
	}
	for _, other := range notTheirsBySize[len(name)] {
		if strings.EqualFold(name, other) {
			return false
		}
	}
	return true
}

// transportHeader is the header as net/http takes it.
func transportHeader(list []Field) http.Header {
	h := make(http.Header, len(list)+1)
	for _, one := range list {
		if theirs(one.Name) {
			h[one.Name] = append(h[one.Name], one.Value) // as it is written, not as Go would
		}
	}
	h["Accept-Encoding"] = []string{"identity"}
	return h
}

func (c *Client) target(rawURL string) (*target, error) {
	c.mu.RLock()
	t := c.targets[rawURL]
	c.mu.RUnlock()
	if t != nil {
		return t, nil
	}
	u, err := url.Parse(rawURL)
	switch {
	case err != nil: // its text quotes the URL
		return nil, fmt.Errorf("the url cannot be read")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("the url is neither http nor https")
	case u.Hostname() == "":
		return nil, fmt.Errorf("the url has no host")
	case u.User != nil:
		return nil, fmt.Errorf("the url must not carry a user name or password")
	}
	t = newTarget(u)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.targets) >= maxTargets {
		clear(c.targets)
	}
	c.targets[rawURL] = t
	return t, nil
}

func newTarget(u *url.URL) *target {
	t := &target{Request: http.Request{Method: http.MethodPost, URL: u, Host: u.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}}
	if strings.ContainsFunc(u.Host, func(r rune) bool { return r > '~' || r == '%' }) {
		return t // an internationalised name, or an address with a zone
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	t.addr = net.JoinHostPort(u.Hostname(), port)
	t.key = u.Scheme + " " + t.addr
	t.head = []byte("POST " + u.RequestURI() + " HTTP/1.1\r\nHost: " + u.Host + "\r\n")
	t.speaksHTTP1.Store(u.Scheme == "http")
	return t
}

func (c *Client) checkProxied(ctx context.Context, host string) error {
	if a, err := netip.ParseAddr(host); err == nil {
		return c.guard.check(a)
	}
	addrs, err := c.resolver.LookupIPAddr(ctx, host)
	if err != nil {
		return err
	}
	return c.guard.checkHost(addrs)
}
