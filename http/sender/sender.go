// Package sender makes the outgoing calls: attempts, tests and alerts all go through
// one Client. Every call ends in a Result that says what happened. Nothing that a
// receiver does is an error of ours, or delays any call but its own.
package sender

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
)

const (
	// MaxBody is how many bytes of an answer's body are read and kept.
	MaxBody = 10 << 10
	// MaxHeaders and MaxHeaderBytes bound the headers of an answer that are kept.
	MaxHeaders     = 50
	MaxHeaderBytes = 4 << 10

	defaultTimeout  = 30 * time.Second
	defaultInFlight = 512
)

// Config says how calls leave this process. The zero value allows only public
// targets, without a proxy.
type Config struct {
	AllowTargets Targets
	// CAFile is a PEM bundle trusted in addition to the system's authorities.
	CAFile string
	// ClientCertFile and ClientKeyFile are presented to receivers that ask.
	ClientCertFile, ClientKeyFile string
	// MaxInFlight sizes the pool of idle connections; 0 means 512.
	MaxInFlight int
	// Proxy is the URL of a forward proxy; empty means none. The environment is
	// ignored.
	Proxy string
	// Resolver looks up names; nil means the system's.
	Resolver *net.Resolver
}

// What calls are asked for by, and how they end.
type (
	Field   = domain.Header
	Request = commands.Outgoing
	Result  = commands.Answer
)

// Client makes calls. It is safe for concurrent use.
type Client struct {
	cfg       Config
	tls       *tls.Config
	proxy     *url.URL // nil: none
	transport *http.Transport
	http1     *http1
	names     nameServerCheck

	mu        sync.RWMutex
	endpoints map[string]*endpoint // by URL, at most maxEndpoints
}

// New returns a client. It fails if a file or the proxy of cfg cannot be used.
func New(cfg Config) (*Client, error) {
	if cfg.MaxInFlight <= 0 {
		cfg.MaxInFlight = defaultInFlight
	}
	if cfg.Resolver == nil {
		cfg.Resolver = net.DefaultResolver
	}
	// Loaded once and now: when file descriptors run out, they could not be read for good.
	_, _ = x509.SystemCertPool()
	c := &Client{cfg: cfg}
	var err error
	if c.tls, err = newTLSConfig(cfg); err != nil {
		return nil, err
	}
	if cfg.Proxy != "" {
		if c.proxy, err = ParseProxy(cfg.Proxy); err != nil {
			return nil, err
		}
	}
	return c.connected(), nil
}

// connected sets up transports that c shares with no other client, and returns c.
func (c *Client) connected() *Client {
	c.transport, c.http1 = newTransports(c.cfg, c.tls, c.proxy)
	c.endpoints = make(map[string]*endpoint)
	return c
}

// WithCertificate returns a client that presents the certificate to receivers that ask for
// one. It shares neither connections nor TLS sessions with any other client: both stand for
// who made them. It may be dropped without Close: idle connections close by themselves.
func (c *Client) WithCertificate(certificate tls.Certificate) commands.Sender {
	config := c.tls.Clone()
	config.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil }
	return (&Client{cfg: c.cfg, tls: config, proxy: c.proxy}).connected()
}

// Close closes idle connections.
func (c *Client) Close() {
	c.transport.CloseIdleConnections()
	c.http1.closeIdle(0)
}

// Send makes the call and waits for its end: the answer, the timeout, or the end
// of ctx. A receiver sees the request at most once, unless it said that it did not
// process it.
//
// The status decides once the headers have arrived, with one exception: a 2xx whose
// body does not end in time is a timeout, and one whose body breaks off is a reset,
// because such a receiver did not finish saying yes. Only MaxBody bytes of a longer
// body are read, which is a success.
func (c *Client) Send(ctx context.Context, r Request) Result {
	start := time.Now()
	timeout := r.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	deadline := start.Add(timeout)
	res := c.call(ctx, deadline, &r)
	res.Duration = time.Since(start)
	if res.Outcome == Success || res.Outcome == HTTPStatus || res.Outcome == commands.OutcomeWithheld {
		return res
	}
	switch {
	case ctx.Err() != nil:
		res.Outcome, res.Error = Interrupted, "the call was cut off because this server is shutting down"
	case res.Outcome == domain.LacksNameServer && c.names.work(ctx, c.cfg.Resolver):
		res.Outcome, res.Error = DNS, "the name servers of the receiver's domain do not answer"
	case res.Outcome.IsLack(): // also if it took all of the time
		if res.Outcome != domain.LacksNameServer && res.Outcome != domain.LacksProxy {
			c.Close() // idle connections hold what is lacking
		}
	case !time.Now().Before(deadline): // ctx of the dial may end first, with another error
		res.Outcome, res.Error = Timeout, fmt.Sprintf("the call did not end within its timeout of %s", timeout.Round(time.Millisecond))
		if res.Status != 0 {
			res.Error += fmt.Sprintf(": status %d came, but its body did not end", res.Status)
		}
	}
	return res
}

func (c *Client) call(ctx context.Context, deadline time.Time, r *Request) Result {
	e, err := c.endpoint(r.URL)
	if err = cmp.Or(err, checkHeader(r.Header)); err != nil {
		return Result{Outcome: InvalidRequest, Error: err.Error()}
	}
	proxied := c.cfg.Proxy != ""
	if !proxied && e.speaksHTTP1.Load() {
		return c.http1.call(ctx, deadline, e, r)
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if proxied {
		if err := c.checkProxied(ctx, e.URL.Hostname()); err != nil {
			return failed(err)
		}
	}
	var own awaited
	ctx = own.trace(ctx, proxied)
	req := e.WithContext(context.WithValue(ctx, callLimitsKey{}, callLimits{deadline, r.Allowed}))
	req.Header = transportHeader(r.Header)
	req.ContentLength = int64(len(r.Body))
	resp, err := c.roundTrip(req, r)
	if lack := own.lack(); err != nil && lack != "" && ctx.Err() != nil {
		return Result{Outcome: lack, Error: lackTexts[lack] + ": it took too long"}
	}
	if err != nil {
		if code, _ := http2Code(err); code == http11Required {
			e.speaksHTTP1.Store(true)
		}
		return failed(err)
	}
	defer resp.Body.Close() // a failure to stop reading changes nothing
	if proxied && e.URL.Scheme == "http" && resp.StatusCode == http.StatusProxyAuthRequired {
		return failed(proxyError{resp.StatusCode})
	}
	if resp.ProtoMajor == 1 {
		e.speaksHTTP1.Store(true) // it chose so although HTTP/2 was offered
	}
	return readResponse(resp)
}

func (c *Client) roundTrip(req *http.Request, r *Request) (resp *http.Response, err error) {
	const tries = 3
	for range tries {
		if !allows(r.Allowed) {
			return nil, errWithheld
		}
		if len(r.Body) > 0 {
			// A reader that net/http knows, so that headers and a small body are sent in
			// one write. GetBody stays nil: with it the transport would repeat the POST.
			req.Body = io.NopCloser(bytes.NewReader(r.Body))
		}
		if resp, err = c.transport.RoundTrip(req); err == nil || !notProcessed(err) {
			break
		}
	}
	return resp, err
}

// notProcessed reports whether an HTTP/2 receiver declared the request unprocessed
// (RFC 9113, section 8.7: GOAWAY below its stream, or REFUSED_STREAM), as nginx
// does to what is in flight after every thousandth request. With GetBody the
// transport would repeat these, but also a PROTOCOL_ERROR, which says nothing of the
// kind. It has no type for them, so their text is compared.
func notProcessed(err error) bool {
	text, found := strings.CutPrefix(err.Error(), "http2: Transport: cannot retry err [")
	return found && (strings.HasPrefix(text, "http2: Transport received Server's graceful shutdown GOAWAY") ||
		strings.HasPrefix(text, "stream error:") && strings.Contains(text, "REFUSED_STREAM"))
}

// failed returns the result of a call that ended without an answer.
func failed(err error) Result {
	if errors.Is(err, errWithheld) {
		return Result{Outcome: commands.OutcomeWithheld, Error: err.Error()}
	}
	if errors.Is(err, errNumericHost) {
		return Result{Outcome: InvalidRequest, Error: err.Error()}
	}
	outcome, text := ownFailure(err)
	if outcome == "" {
		outcome, text = explain(err)
	}
	return Result{Outcome: outcome, Error: text}
}
