package sender

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	// Receivers close idle connections after five seconds at the earliest (Node,
	// uvicorn). A request that crosses such a close is lost and must not be
	// repeated, so ours are closed sooner.
	idleTimeout = 4 * time.Second
	// maxResponseHeader bounds all headers of an answer, 1xx answers included.
	maxResponseHeader = 64 << 10
)

// newTransports returns the two connection pools, which dial in the same way. They
// follow no redirects, repeat nothing, and use no proxy unless there is one.
func newTransports(cfg Config, tlsConfig *tls.Config, proxy *url.URL) (*http.Transport, *http1) {
	dialer := &net.Dialer{KeepAlive: 30 * time.Second, Resolver: cfg.Resolver, Control: cfg.AllowTargets.control}
	dial := dialFamilies(dialer)
	t := &http.Transport{
		DialContext:            withCallLimits(dial),
		TLSClientConfig:        tlsConfig,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // a compressed answer is kept as it came
		MaxIdleConns:           2 * cfg.MaxInFlight,
		MaxIdleConnsPerHost:    cfg.MaxInFlight,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxResponseHeader,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
	}
	withoutHTTP2 := tlsConfig.Clone()
	withoutHTTP2.NextProtos = []string{"http/1.1"}
	h := newHTTP1(dial, dialTLS(dial, withoutHTTP2), cfg.MaxInFlight)
	if proxy == nil {
		t.DialTLSContext = withCallLimits(dialTLS(dial, tlsConfig))
		// Of HTTP/1.1 only: http1 knows better when a connection can be reused.
		t.MaxIdleConnsPerHost = -1
		return t, h
	}
	// The operator chose the proxy, which may be on a private network; what it is
	// asked to reach is checked before each call instead.
	dialer.Control = nil
	t.Proxy, t.OnProxyConnectResponse = http.ProxyURL(proxy), onProxyConnect
	t.TLSHandshakeTimeout = 30 * time.Second
	return t, h
}

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// callLimits bound the dial of a call. They are passed as a context value: the
// transport detaches dials from the request's deadline, so that a receiver which
// never completes a handshake would hold a socket for ever.
type callLimits struct {
	deadline time.Time
	allowed  func() bool
}

type callLimitsKey struct{}

func withCallLimits(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		limits, ok := ctx.Value(callLimitsKey{}).(callLimits)
		if !ok {
			return dial(ctx, network, addr)
		}
		ctx, cancel := context.WithDeadline(ctx, limits.deadline)
		defer cancel()
		conn, err := dial(ctx, network, addr)
		if err == nil && !allows(limits.allowed) { // resolving, connecting and handshakes may take long
			return nil, errors.Join(errWithheld, conn.Close())
		}
		return conn, err
	}
}

// errWithheld means that Request.Allowed returned false.
var errWithheld = errors.New("nothing was sent: this process may not make the call any more")

func allows(allowed func() bool) bool { return allowed == nil || allowed() }

const (
	// familyDelay is how long IPv4 may take until IPv6 is tried as well.
	familyDelay = 300 * time.Millisecond
	// familyWait is how long IPv6 may take after IPv4 has failed.
	familyWait = 3 * time.Second
)

type dialed struct {
	network string
	conn    net.Conn
	err     error
}

// dialFamilies returns a dial that looks up and calls a name's addresses of each
// family on its own, IPv4 first, and returns the first connection: a name server that
// drops questions for one family delays no call for long (compare RFC 8305).
func dialFamilies(dialer *net.Dialer) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if _, notAddress := netip.ParseAddr(host); err != nil || notAddress == nil {
			return dialer.DialContext(ctx, network, addr)
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		results, done := make(chan dialed), make(chan struct{})
		defer close(done)
		start := func(ctx context.Context, network string) {
			conn, err := dialer.DialContext(ctx, network, addr)
			select {
			case results <- dialed{network, conn, err}:
			case <-done:
				if err == nil {
					_ = conn.Close() // the other was faster
				}
			}
		}
		go start(ctx, "tcp4")
		return firstDialed(results, func() { go start(untraced{ctx}, "tcp6") })
	}
}

// untraced hides the values of a context, so that what a call waits for goes by the
// dial of its first family.
type untraced struct{ context.Context }

func (untraced) Value(any) any { return nil }

// firstDialed returns the first connection, or the error that says most.
func firstDialed(results <-chan dialed, startIPv6 func()) (net.Conn, error) {
	timer := time.NewTimer(familyDelay)
	defer timer.Stop()
	start := sync.OnceFunc(startIPv6)
	var failed []dialed
	for {
		select {
		case d := <-results:
			if d.err == nil {
				return d.conn, nil
			}
			if failed = append(failed, d); len(failed) == 2 {
				return nil, moreTelling(failed[0], failed[1])
			}
			start()
			if d.network == "tcp4" && stage(d.err) > 0 {
				timer.Reset(familyWait)
			} else {
				timer.Stop()
			}
		case <-timer.C:
			if len(failed) > 0 {
				return nil, failed[0].err
			}
			start()
		}
	}
}

// moreTelling returns the error of the family in which the name has addresses, of IPv4
// if both have.
func moreTelling(a, b dialed) error {
	if b.network == "tcp4" {
		a, b = b, a
	}
	if stage(b.err) > stage(a.err) {
		return b.err
	}
	return a.err
}

// stage returns how far a dial came: 0 if the name has no address of the family, 1 if
// its lookup failed, 2 if an address was tried.
func stage(err error) int {
	var (
		dns  *net.DNSError
		addr *net.AddrError // the file of hosts has another family's
	)
	switch {
	case errors.As(err, &addr), errors.As(err, &dns) && dns.IsNotFound:
		return 0
	case errors.As(err, &dns):
		return 1
	}
	return 2
}

func dialTLS(dial dialFunc, base *tls.Config) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		raw, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		config := base.Clone()
		config.ServerName, _, _ = strings.Cut(host, "%") // certificates know no zones
		conn := tls.Client(newSocket(raw, true), config)
		if err := conn.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(handshakeError{err}, raw.Close())
		}
		return conn, nil
	}
}

// handshakeError is an error of the TLS handshake, as opposed to one of the call.
type handshakeError struct{ error }

func (e handshakeError) Unwrap() error { return e.error }

func newTLSConfig(cfg Config) (*tls.Config, error) {
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"h2", "http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(1024),
		// IIS asks for a client certificate when it has seen the path, in TLS 1.2.
		Renegotiation: tls.RenegotiateOnceAsClient,
	}
	var err error
	if c.RootCAs, err = RootCAs(cfg.CAFile); err != nil {
		return nil, err
	}
	if cfg.ClientCertFile != "" || cfg.ClientKeyFile != "" {
		cert, err := tls.LoadX509KeyPair(cfg.ClientCertFile, cfg.ClientKeyFile)
		if err != nil {
			return nil, fmt.Errorf("load the client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c, nil
}

// RootCAs returns the system's certificate authorities and those of a PEM bundle. Without one it
// returns nil, which stands for the system's.
func RootCAs(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the CA bundle: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("load the system's certificate authorities: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("the CA bundle %s holds no certificate in PEM form", file)
	}
	return pool, nil
}
