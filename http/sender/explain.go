package sender

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
)

// explain turns an error of a call into an outcome and a sentence that is safe to
// show: it may name hosts and addresses, but never a URL's query, a header or
// anything else that may be secret.
func explain(err error) (Outcome, string) {
	var (
		refused   *RefusedError
		dns       *net.DNSError
		handshake handshakeError
		op        *net.OpError
	)
	if errors.As(err, &refused) {
		return RefusedTarget, refused.Error()
	}
	if outcome, text := explainTLS(err); outcome != "" {
		return outcome, text
	}
	switch {
	case errors.As(err, &dns):
		return DNS, explainDNS(dns)
	case errors.As(err, &handshake):
		return TLSFailed, "the TLS handshake failed: " + plain(handshake.Error())
	case errors.As(err, &op) && op.Op == "dial":
		return Connect, explainDial(op)
	case isReset(err):
		return Reset, "the receiver closed the connection before its answer was complete"
	case strings.Contains(err.Error(), "readLoopPeekFailLocked"):
		return BadResponse, "the receiver answered before it was asked"
	}
	return BadResponse, "the answer is not valid HTTP: " + reason(err)
}

func explainDial(e *net.OpError) string {
	err := e.Err
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner // the outer ones repeat the address
	}
	if e.Addr == nil {
		return "could not connect: " + plain(err.Error())
	}
	return fmt.Sprintf("could not connect to %s: %s", e.Addr, plain(err.Error()))
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

// explainTLS returns no outcome if the error is not of TLS.
func explainTLS(err error) (Outcome, string) {
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
		return TLSWrongHost, "the certificate is not valid for " + plain(host.Host)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return TLSExpired, fmt.Sprintf("the certificate is valid from %s to %s only",
			invalid.Cert.NotBefore.UTC().Format("2006-01-02"), invalid.Cert.NotAfter.UTC().Format("2006-01-02"))
	case errors.As(err, &authority):
		if c := authority.Cert; c != nil && bytes.Equal(c.RawIssuer, c.RawSubject) {
			return TLSSelfSigned, "the certificate is self-signed; add it to MEDILAB_CA_FILE to trust it"
		}
		return TLSUntrusted, "the certificate is signed by an unknown authority; add that to MEDILAB_CA_FILE to trust it"
	case errors.As(err, &verify):
		return TLSFailed, "the certificate is not valid: " + plain(verify.Err.Error())
	case strings.Contains(text, "protocol version not supported"), strings.Contains(text, "server selected unsupported protocol version"):
		return TLSOldProtocol, "the receiver speaks no TLS of version 1.2 or newer"
	case errors.As(err, &record), strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return TLSFailed, "the receiver does not speak TLS on this port"
	case strings.HasPrefix(text, "remote error: tls:"), strings.HasPrefix(text, "tls:"):
		// A receiver that wants a client certificate refuses after the handshake.
		return TLSFailed, "the TLS connection failed: " + plain(text)
	}
	return "", ""
}

// resets and resetTexts are the errors of a connection that broke off. Those of
// HTTP/2 have no type.
var (
	resets     = []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed}
	resetTexts = []string{
		"server closed idle connection", "server sent GOAWAY and closed the connection", "http2: client connection lost",
		"stream error:", "Transport received Server's graceful shutdown",
	}
)

func isReset(err error) bool {
	return slices.ContainsFunc(resets, func(reset error) bool { return errors.Is(err, reset) }) ||
		slices.ContainsFunc(resetTexts, func(text string) bool { return strings.Contains(err.Error(), text) })
}

// reason returns what net/http says about a malformed answer, without the bytes of
// the answer that it quotes.
func reason(err error) string {
	text, _, _ := strings.Cut(err.Error(), `"`)
	text = strings.TrimPrefix(text, "net/http: HTTP/1.x transport connection broken: ")
	return strings.TrimRight(plain(text), " :")
}

// plain returns foreign text as one short line of valid UTF-8.
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
