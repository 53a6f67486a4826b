package sender

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/medilab/webhooks/domain"
)

// lackTexts are the words for outcomes of calls that were not made, because this server lacks
// something of its own. They say nothing of the receiver.
var lackTexts = map[Outcome]string{
	domain.LacksDescriptors: "nothing was sent: this server has no free file descriptor",
	domain.LacksPorts:       "nothing was sent: this server has no free port for the address",
	domain.LacksMemory:      "nothing was sent: this server has no memory for a connection",
	domain.LacksNameServer:  "nothing was sent: this server's name server does not answer",
	domain.LacksProxy:       "nothing was sent: this server's proxy (MEDILAB_PROXY) does not work",
}

// nameServerCheck tells a name server that does not work from one that has no answer for
// a receiver's domain, because the domain's own name servers fail.
type nameServerCheck struct {
	mu    sync.Mutex
	until time.Time // the result holds
	works bool
}

// work reports whether the resolver's name server answers a question that every one can
// answer, of the root. It asks at most once in some seconds.
func (n *nameServerCheck) work(ctx context.Context, resolver *net.Resolver) bool {
	const patience, holds = 2 * time.Second, 5 * time.Second
	n.mu.Lock()
	defer n.mu.Unlock()
	if time.Now().Before(n.until) {
		return n.works
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := resolver.LookupNS(ctx, ".")
	var dns *net.DNSError
	n.works = err == nil || errors.As(err, &dns) && dns.IsNotFound
	n.until = time.Now().Add(holds)
	return n.works
}

// lackErrors are the errors of system calls that mean a lack.
var lackErrors = []struct {
	errno   syscall.Errno
	outcome Outcome
}{
	{syscall.EMFILE, domain.LacksDescriptors}, {syscall.ENFILE, domain.LacksDescriptors}, {syscall.ENOMEM, domain.LacksMemory}, {syscall.ENOBUFS, domain.LacksMemory},
}

// proxyError is an answer of the proxy to CONNECT, or its 407 to a request.
type proxyError struct{ status int }

func (e proxyError) Error() string { return fmt.Sprintf("the proxy answered %d", e.status) }

// ownFailure returns the outcome of an error that happened on the way to the receiver
// because of this server or its proxy. It returns no outcome for any other error.
func ownFailure(err error) (Outcome, string) {
	var (
		dns     *net.DNSError
		op      *net.OpError
		refusal proxyError
		shake   handshakeError
	)
	isDNS, isOp := errors.As(err, &dns), errors.As(err, &op)
	// After the handshake the receiver may have seen something of the request.
	mayBeSent := isOp && (op.Op == "read" || op.Op == "write") && !errors.As(err, &shake)
	for _, lack := range lackErrors {
		// A DNSError keeps nothing of its cause but the text.
		if !mayBeSent && errors.Is(err, lack.errno) || isDNS && strings.Contains(dns.Err, lack.errno.Error()) {
			return lack.outcome, lackTexts[lack.outcome]
		}
	}
	switch {
	case isDNS && !dns.IsNotFound:
		return domain.LacksNameServer, lackTexts[domain.LacksNameServer] + ": " + explainDNS(dns)
	case isOp && op.Op == "proxyconnect":
		return domain.LacksProxy, lackTexts[domain.LacksProxy] + ": " + explainProxy(op)
	case isOp && op.Op == "socks connect" && strings.Contains(op.Err.Error(), "authentication"), errors.As(err, &refusal) && refusal.status == http.StatusProxyAuthRequired:
		return domain.LacksProxy, lackTexts[domain.LacksProxy] + ": it refuses the login"
	case isOp && op.Op == "socks connect":
		return Connect, "the proxy could not connect to the receiver: " + plain(op.Err.Error())
	case errors.As(err, &refusal):
		return Connect, fmt.Sprintf("the proxy could not connect to the receiver: it answered %d", refusal.status)
	case isOp && op.Op == "dial" && op.Addr != nil && errors.Is(err, syscall.EADDRNOTAVAIL) && reachableByUDP(op.Addr.String()):
		return domain.LacksPorts, lackTexts[domain.LacksPorts]
	}
	return "", ""
}

// explainProxy says why there is no connection to the proxy.
func explainProxy(e *net.OpError) string {
	var dial *net.OpError
	if errors.As(e.Err, &dial) && dial.Op == "dial" {
		return explainDial(dial)
	}
	return plain(e.Err.Error())
}

// reachableByUDP reports whether there is a local address from which to reach addr. TCP
// uses the same ones, so if it has none, its ports are what is lacking. Nothing is sent.
func reachableByUDP(addr string) bool {
	conn, err := net.DialTimeout("udp", addr, time.Second)
	if err != nil {
		return false
	}
	_ = conn.Close() // it was never used
	return true
}

// awaited is what of this server's own a call over the transport waits for. If the
// call's time is over meanwhile, that is what it lacked; the transport's error does not
// say so.
type awaited struct {
	outcome atomic.Value
	sent    atomic.Bool // the call has a connection
}

func (a *awaited) lack() Outcome {
	o, _ := a.outcome.Load().(Outcome)
	if a.sent.Load() {
		return ""
	}
	return o
}

// trace returns the context of a call that is watched.
func (a *awaited) trace(ctx context.Context, proxied bool) context.Context {
	trace := &httptrace.ClientTrace{
		DNSStart: func(httptrace.DNSStartInfo) { a.outcome.Store(domain.LacksNameServer) },
		DNSDone: func(done httptrace.DNSDoneInfo) {
			var dns *net.DNSError
			if !errors.As(done.Err, &dns) || !dns.IsTimeout { // else it is what took the time
				a.outcome.Store(Outcome(""))
			}
		},
		GotConn: func(httptrace.GotConnInfo) { a.sent.Store(true) },
	}
	if proxied {
		trace.ConnectStart = func(string, string) { a.outcome.Store(domain.LacksProxy) }
		trace.ConnectDone = func(_, _ string, err error) {
			if err == nil {
				a.outcome.Store(Outcome(""))
			}
		}
	}
	return httptrace.WithClientTrace(ctx, trace)
}

// ParseProxy returns the proxy's URL.
func ParseProxy(raw string) (*url.URL, error) {
	proxy, err := url.Parse(raw)
	if err != nil || proxy.Host == "" || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, proxy.Scheme) {
		return nil, errors.New("the proxy for outgoing calls (MEDILAB_PROXY) is not an http, https or socks5 URL such as http://proxy.local:3128")
	}
	return proxy, nil
}

// onProxyConnect is the transport's OnProxyConnectResponse.
func onProxyConnect(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode != http.StatusOK {
		return proxyError{resp.StatusCode}
	}
	return nil
}

var errNumericHost = errors.New("the url's host is neither a name nor an address as it is usually written")

// checkProxied checks all addresses of a host that a proxy will dial for us. The
// proxy resolves the name again: a name that rebinds is for the proxy to refuse.
func (c *Client) checkProxied(ctx context.Context, host string) error {
	if a, err := netip.ParseAddr(host); err == nil {
		return c.cfg.AllowTargets.check(a)
	}
	if endsInNumber(host) {
		return errNumericHost
	}
	if c.cfg.AllowTargets.all {
		return nil // the proxy may be the only one who knows the name
	}
	addrs, err := c.cfg.Resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if err := c.cfg.AllowTargets.check(a); err != nil {
			return err
		}
	}
	return nil
}

// endsInNumber reports whether resolvers may take the name for an IPv4 address, as they
// do with 127.1, 0x7f.1 and 2130706433 (WHATWG URL, "ends in a number").
func endsInNumber(host string) bool {
	host = strings.TrimSuffix(host, ".")
	last := strings.ToLower(host[strings.LastIndexByte(host, '.')+1:])
	digits, hex := strings.CutPrefix(last, "0x")
	return strings.Trim(last, "0123456789") == "" || hex && strings.Trim(digits, "0123456789abcdef") == ""
}
