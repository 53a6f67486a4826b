package sender

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/idna"
)

// endpoint is a parsed URL, ready to be called.
type endpoint struct {
	http.Request        // what all its calls have in common
	addr         string // host and port
	key          string // of its idle connections: scheme and address
	head         []byte // the beginning of its requests over HTTP/1.1
	speaksHTTP1  atomic.Bool
}

const maxEndpoints = 4096

// endpoint returns the endpoint of a URL, from the cache if it is there.
func (c *Client) endpoint(rawURL string) (*endpoint, error) {
	c.mu.RLock()
	e := c.endpoints[rawURL]
	c.mu.RUnlock()
	if e != nil {
		return e, nil
	}
	u, err := url.Parse(rawURL)
	switch {
	case err != nil: // its text quotes the URL
		return nil, errors.New("the url cannot be read")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("the url is neither http nor https")
	case u.Hostname() == "":
		return nil, errors.New("the url has no host")
	case u.User != nil:
		return nil, errors.New("the url must not carry a user name or password")
	}
	if e, err = newEndpoint(u); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.endpoints) >= maxEndpoints {
		clear(c.endpoints)
	}
	c.endpoints[rawURL] = e
	return e, nil
}

// newEndpoint normalizes u, so that name lookup, TLS and the Host header go by one
// ASCII name.
func newEndpoint(u *url.URL) (*endpoint, error) {
	host, err := asciiHost(u.Hostname())
	if err != nil {
		return nil, err
	}
	port := u.Port()
	suffix := ""
	if port != "" {
		suffix = ":" + port
	} else {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	address, _, _ := strings.Cut(host, "%") // the zone means nothing to the receiver
	u.Host, u.RawQuery = bracketed(host)+suffix, escapeQuery(u.RawQuery)
	e := &endpoint{Request: http.Request{Method: http.MethodPost, URL: u, Host: bracketed(address) + suffix, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}}
	e.addr = net.JoinHostPort(host, port)
	e.key = u.Scheme + " " + e.addr
	e.head = []byte("POST " + u.RequestURI() + " HTTP/1.1\r\nHost: " + e.Host + "\r\n")
	e.speaksHTTP1.Store(u.Scheme == "http")
	return e, nil
}

// asciiHost returns the name in lower-case ASCII (RFC 5891). A zone keeps its case.
func asciiHost(host string) (string, error) {
	if !strings.ContainsFunc(host, func(r rune) bool { return r > '~' }) {
		address, zone, zoned := strings.Cut(host, "%")
		if address = strings.ToLower(address); zoned {
			address += "%" + zone
		}
		return address, nil
	}
	ascii, err := idna.Lookup.ToASCII(host)
	if err != nil {
		return "", errors.New("the url's host is not a valid internationalized name")
	}
	return ascii, nil
}

func bracketed(host string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

// escapeQuery returns the query with every byte that cannot stand in a request line
// percent-encoded.
func escapeQuery(query string) string {
	var b strings.Builder
	for i := range len(query) {
		if c := query[i]; c > ' ' && c <= '~' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// reservedHeaders belong to the connection or would change how the request is sent:
// with Idempotency-Key the transport would repeat a POST. They are refused when a
// webhook is saved; dropping them here is the second line of defence.
var reservedHeaders = []string{
	"Host", "Content-Length", "Content-Encoding", "Transfer-Encoding", "Connection",
	"Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Proxy-Authenticate",
	"TE", "Trailer", "Upgrade", "HTTP2-Settings", "Cookie", "Expect",
	"Idempotency-Key", "X-Idempotency-Key", "Accept-Encoding",
}

// isReserved reports whether a caller may not set the header.
func isReserved(name string) bool {
	return slices.ContainsFunc(reservedHeaders, func(reserved string) bool {
		return len(name) == len(reserved) && strings.EqualFold(name, reserved)
	})
}

// checkHeader refuses what is not a header field (RFC 9110, section 5).
func checkHeader(fields []Field) error {
	for _, f := range fields {
		if !httpguts.ValidHeaderFieldName(f.Name) {
			return errors.New("a header of the request cannot be sent: its name is not valid")
		}
		if !httpguts.ValidHeaderFieldValue(f.Value) {
			return errors.New("a header of the request cannot be sent: its value holds a control character")
		}
	}
	return nil
}

// transportHeader returns the header as the transport takes it.
func transportHeader(fields []Field) http.Header {
	h := make(http.Header, len(fields)+1)
	for _, f := range fields {
		if !isReserved(f.Name) {
			h[f.Name] = append(h[f.Name], f.Value) // in the letter case given
		}
	}
	h["Accept-Encoding"] = []string{"identity"}
	return h
}
