package sender

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/net/http2"
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
	if outcome, text := explainHTTP2(err); outcome != "" {
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
		alert     *net.OpError
	)
	alerted := errors.As(err, &alert) && (alert.Op == "remote error" || alert.Op == "local error")
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
	case alerted && alert.Err.Error() == alertProtocolVersion.Error(), strings.Contains(text, "server selected unsupported protocol version"):
		return TLSOldProtocol, "the receiver speaks no TLS of version 1.2 or newer"
	case errors.As(err, &record), strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return TLSFailed, "the receiver does not speak TLS on this port"
	case alerted, strings.HasPrefix(text, "tls:"):
		// A receiver that wants a client certificate refuses after the handshake.
		return TLSFailed, "the TLS connection failed: " + plain(text)
	}
	return "", ""
}

const alertProtocolVersion tls.AlertError = 70 // RFC 8446, section 6

const http11Required = "HTTP_1_1_REQUIRED"

// http2Texts say what a receiver means by an error code of RFC 9113, section 7.
var http2Texts = map[string]string{
	http11Required:      "the receiver requires HTTP/1.1, which the next call uses",
	"REFUSED_STREAM":    "the receiver refused the request before it processed it",
	"CANCEL":            "the receiver cancelled the request",
	"ENHANCE_YOUR_CALM": "the receiver gets more requests than it accepts",
}

// http2Codes finds the code in errors of HTTP/2 that have no type to find it in.
var http2Codes = regexp.MustCompile(`^http2: .*(?:ErrCode=|stream ID [0-9]+; )([A-Z0-9_]+)`)

// http2Code returns the name of the error code that the receiver sent, or the malformed
// answer that it sent instead.
func http2Code(err error) (code string, malformed error) {
	var stream http2.StreamError
	if errors.As(err, &stream) {
		if stream.Cause != nil && stream.Cause.Error() != "received from peer" {
			return "", stream.Cause
		}
		return stream.Code.String(), nil
	}
	if found := http2Codes.FindStringSubmatch(err.Error()); found != nil && found[1] != "NO_ERROR" {
		return found[1], nil
	}
	return "", nil
}

// explainHTTP2 returns no outcome if the receiver sent no error of HTTP/2.
func explainHTTP2(err error) (Outcome, string) {
	code, malformed := http2Code(err)
	switch {
	case malformed != nil && malformed.Error() == "header list too large":
		return BadResponse, "the answer is not valid HTTP: " + errEndlessInterim.Error()
	case malformed != nil:
		return BadResponse, "the answer is not valid HTTP: " + reason(malformed)
	case code == "":
		return "", ""
	}
	text := cmp.Or(http2Texts[code], "the receiver broke the request off")
	return Reset, text + " (HTTP/2 " + code + ")"
}

// resets and resetTexts are the errors of a connection that broke off. Those of
// HTTP/2 have no type.
var (
	resets     = []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed}
	resetTexts = []string{
		"server closed idle connection", "server sent GOAWAY and closed the connection", "http2: client connection lost",
		"Transport received Server's graceful shutdown",
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
