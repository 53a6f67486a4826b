package sender

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

const (
	// Receivers close idle connections after five seconds at the earliest (Node,
	// uvicorn). A request that crosses such a close is lost and must not be
	// repeated unasked, so ours end sooner.
	idleTimeout = 4 * time.Second
	// All header lines of an answer together, 1xx included.
	maxResponseHeader = 64 << 10
)

// newTransport makes the two connection pools, which dial the same way. No
// redirects and no retries live in them, and no proxy unless cfg names one.
func newTransport(cfg Config, g *guard) (*http.Transport, *http1, error) {
	tlsConfig, err := newTLSConfig(cfg)
	if err != nil {
		return nil, nil, err
	}
	dialer := &net.Dialer{KeepAlive: 30 * time.Second, Resolver: cfg.Resolver, Control: g.control}
	t := &http.Transport{
		DialContext:            withDeadline(dialer.DialContext),
		TLSClientConfig:        tlsConfig,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true, // a compressed answer is kept as it came, never inflated
		MaxIdleConns:           2 * cfg.MaxInFlight,
		MaxIdleConnsPerHost:    cfg.MaxInFlight,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxResponseHeader,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
	}
	withoutHTTP2 := tlsConfig.Clone()
	withoutHTTP2.NextProtos = []string{"http/1.1"}
	own := newHTTP1(dialer.DialContext, dialTLS(dialer, withoutHTTP2), cfg.MaxInFlight)
	if cfg.Proxy == "" {
		t.DialTLSContext = withDeadline(dialTLS(dialer, tlsConfig))
		return t, own, nil
	}
	proxy, err := url.Parse(cfg.Proxy)
	if err != nil || proxy.Host == "" {
		return nil, nil, errors.New("the proxy for outgoing calls is not a URL such as http://proxy.local:3128")
	}
	// The proxy is the operator's own choice and may stand on a private network;
	// what it is asked to reach is checked before each call instead.
	dialer.Control = nil
	t.Proxy = http.ProxyURL(proxy)
	t.TLSHandshakeTimeout = 30 * time.Second
	return t, own, nil
}

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// callContext carries a call's deadline to its dial: the transport detaches
// dials from the request's cancellation and keeps only its values, so without
// this a receiver that never completes a handshake would hold a socket for ever.
type callContext struct {
	context.Context
	deadline time.Time
	allowed  func() bool
}

// errWithheld: the caller may not send any more.
var errWithheld = errors.New("nothing was sent: this process may not make the call any more")

func (c *callContext) mayGo() bool { return mayGo(c.allowed) }

func mayGo(allowed func() bool) bool { return allowed == nil || allowed() }

type callContextKey struct{}

// Value answers for the call's own key, else asks the context below.
func (c *callContext) Value(key any) any {
	if _, ok := key.(callContextKey); ok {
		return c
	}
	return c.Context.Value(key)
}

func withDeadline(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, ok := ctx.Value(callContextKey{}).(*callContext)
		if !ok {
			return dial(ctx, network, addr)
		}
		ctx, cancel := context.WithDeadline(ctx, c.deadline)
		defer cancel()
		conn, err := dial(ctx, network, addr)
		if err == nil && !c.mayGo() { // names, connects and handshakes may take long
			return nil, errors.Join(errWithheld, conn.Close())
		}
		return conn, err
	}
}

func dialTLS(dialer *net.Dialer, base *tls.Config) dialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		raw, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		config := base.Clone()
		config.ServerName = host
		conn := tls.Client(raw, config)
		if err := conn.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(&handshakeError{err}, raw.Close())
		}
		return conn, nil
	}
}

// handshakeError tells a connection that broke during the TLS handshake from
// one that broke during the call.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

func newTLSConfig(cfg Config) (*tls.Config, error) {
	c := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"h2", "http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(1024),
	}
	if cfg.CAFile != "" {
		pool, err := RootCAs(cfg.CAFile)
		if err != nil {
			return nil, err
		}
		c.RootCAs = pool
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

// RootCAs returns the system's certificate authorities and those of a PEM bundle.
func RootCAs(file string) (*x509.CertPool, error) {
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
