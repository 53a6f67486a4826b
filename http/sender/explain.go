package sender

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
)

// explain turns an error of the transport into an outcome and a sentence that
// is safe to show: it names hosts and addresses, never a URL's query, a header
// or anything else that may be a secret.
func explain(err error) (Outcome, string) {
	var (
		refused   *RefusedError
		dns       *net.DNSError
		handshake *handshakeError
		op        *net.OpError
	)
	if errors.As(err, &refused) {
		return RefusedTarget, refused.Error()
	}
	if o, text, ok := explainTLS(err); ok {
		return o, text
	}
	switch {
	case errors.As(err, &dns):
		return DNS, explainDNS(dns)
	case errors.As(err, &handshake):
		return TLSFailed, "the TLS handshake failed: " + plain(handshake.Error())
	case errors.As(err, &op) && op.Op == "dial":
		return Connect, explainDial(op)
	case strings.HasPrefix(err.Error(), "net/http: invalid header field"):
		return InvalidRequest, "a header of the request cannot be sent: " + plain(err.Error())
	case isReset(err):
		return Reset, "the receiver closed the connection before its answer was complete"
	}
	if strings.Contains(err.Error(), "readLoopPeekFailLocked") {
		return BadResponse, "the receiver answered before it was asked"
	}
	return BadResponse, "the answer is not valid HTTP: " + reason(err)
}

func explainDial(e *net.OpError) string {
	if e.Addr == nil {
		return "could not connect: " + plain(cause(e.Err))
	}
	return fmt.Sprintf("could not connect to %s: %s", e.Addr, plain(cause(e.Err)))
}

func explainDNS(e *net.DNSError) string {
	switch {
	case e.IsNotFound:
		return fmt.Sprintf("the name %s has no address", plain(e.Name))
	case e.IsTimeout:
		return fmt.Sprintf("looking up the name %s took too long", plain(e.Name))
	default:
		return fmt.Sprintf("looking up the name %s failed", plain(e.Name))
	}
}

func explainTLS(err error) (Outcome, string, bool) {
	var (
		invalid   x509.CertificateInvalidError
		host      x509.HostnameError
		authority x509.UnknownAuthorityError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
	)
	text := err.Error()
	switch {
	case errors.As(err, &host):
		return TLSWrongHost, fmt.Sprintf("the certificate is not valid for %s", plain(host.Host)), true
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return TLSExpired, fmt.Sprintf("the certificate is valid from %s to %s only",
			invalid.Cert.NotBefore.UTC().Format("2006-01-02"), invalid.Cert.NotAfter.UTC().Format("2006-01-02")), true
	case errors.As(err, &authority):
		if c := authority.Cert; c != nil && bytes.Equal(c.RawIssuer, c.RawSubject) {
			return TLSSelfSigned, "the certificate is self-signed; add it to MEDILAB_CA_FILE to trust it", true
		}
		return TLSUntrusted, "the certificate is signed by an unknown authority; add that to MEDILAB_CA_FILE to trust it", true
	case errors.As(err, &verify):
		return TLSFailed, "the certificate is not valid: " + plain(verify.Err.Error()), true
	case strings.Contains(text, "protocol version not supported"), strings.Contains(text, "server selected unsupported protocol version"):
		return TLSOldProtocol, "the receiver speaks no TLS of version 1.2 or newer", true
	case errors.As(err, &record), strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return TLSFailed, "the receiver does not speak TLS on this port", true
	case strings.HasPrefix(text, "remote error: tls:"), strings.HasPrefix(text, "tls:"):
		// A receiver that asks for a client certificate refuses after the handshake.
		return TLSFailed, "the TLS connection failed: " + plain(text), true
	}
	return "", "", false
}

func isReset(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed) ||
		strings.Contains(err.Error(), "server closed idle connection") ||
		strings.Contains(err.Error(), "server sent GOAWAY and closed the connection") ||
		strings.Contains(err.Error(), "http2: client connection lost") ||
		strings.Contains(err.Error(), "stream error:") || strings.Contains(err.Error(), "Transport received Server's graceful shutdown")
}

// reason keeps what net/http says of a malformed answer and drops the bytes of
// the answer that it quotes.
func reason(err error) string {
	text := err.Error()
	if i := strings.IndexByte(text, '"'); i >= 0 {
		text = text[:i]
	}
	text = strings.TrimPrefix(text, "net/http: HTTP/1.x transport connection broken: ")
	return strings.TrimRight(plain(text), " :")
}

// cause is the innermost error's text: the outer ones repeat the address.
func cause(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

// plain makes foreign text fit for one line of a log.
func plain(s string) string {
	const limit = 200
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "..."
	}
	return s
}
