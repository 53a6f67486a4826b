package sender

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
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
// follow no redirects, repeat nothing, and use no proxy unless cfg names one.
func newTransports(cfg Config) (*http.Transport, *http1, error) {
	tlsConfig, err := newTLSConfig(cfg)
	if err != nil {
		return nil, nil, err
	}
	dialer := &net.Dialer{KeepAlive: 30 * time.Second, Resolver: cfg.Resolver, Control: cfg.AllowTargets.control}
	t := &http.Transport{
		DialContext:            withCallLimits(dialer.DialContext),
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
	h := newHTTP1(dialer.DialContext, dialTLS(dialer, withoutHTTP2), cfg.MaxInFlight)
	if cfg.Proxy == "" {
		t.DialTLSContext = withCallLimits(dialTLS(dialer, tlsConfig))
		return t, h, nil
	}
	proxy, err := parseProxy(cfg.Proxy)
	if err != nil {
		return nil, nil, err
	}
	// The operator chose the proxy, which may be on a private network; what it is
	// asked to reach is checked before each call instead.
	dialer.Control = nil
	t.Proxy, t.OnProxyConnectResponse = http.ProxyURL(proxy), onProxyConnect
	t.TLSHandshakeTimeout = 30 * time.Second
	return t, h, nil
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
