package http

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/medilab/webhooks/http/sender"
)

// Proxies are the networks of load balancers, which are trusted to say who their clients are.
type Proxies []netip.Prefix

// ParseProxies parses networks and addresses, separated by commas.
func ParseProxies(text string) (Proxies, error) {
	var proxies Proxies
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		prefix, err := sender.ParsePrefix(word)
		if err != nil {
			return nil, fmt.Errorf("%q is not a network such as 10.0.0.0/8, nor an address", word)
		}
		proxies = append(proxies, prefix)
	}
	return proxies, nil
}

// Trust reports whether the peer is one of the proxies.
func (p Proxies) Trust(peer net.Addr) bool { return p.trust(addrOf(peer.String())) }

func (p Proxies) trust(addr netip.Addr) bool {
	return slices.ContainsFunc(p, func(network netip.Prefix) bool { return network.Contains(addr) })
}

// addrOf parses an address with or without a port. It returns the zero Addr, which is in no
// network, for anything else.
func addrOf(text string) netip.Addr {
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return ap.Addr().Unmap().WithZone("")
	}
	addr, err := netip.ParseAddr(strings.Trim(text, "[]"))
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}

// client sets the request's RemoteAddr to the client that trusted proxies forward for, until
// reset is called: requests of a connection may share their Request.
//
// Each proxy appends the peer that it saw to X-Forwarded-For. What stands before the last one
// that is no trusted proxy is the client's own word.
func (p Proxies) client(r *http.Request) (reset func()) {
	remote, client := r.RemoteAddr, addrOf(r.RemoteAddr)
	lines := r.Header["X-Forwarded-For"]
	if len(lines) == 0 || !p.trust(client) {
		return func() {}
	}
	hops := strings.Split(strings.Join(lines, ","), ",")
	for _, hop := range slices.Backward(hops) {
		addr := addrOf(strings.TrimSpace(hop))
		if !addr.IsValid() {
			break
		}
		if client = addr; !p.trust(addr) {
			break
		}
	}
	r.RemoteAddr = netip.AddrPortFrom(client, 0).String()
	return func() { r.RemoteAddr = remote }
}
