package commands

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/html/charset"

	"github.com/medilab/webhooks/domain"
)

// maxUnpacked bounds what is decompressed of an answer.
const maxUnpacked = 10 << 10

// AnswerText returns what an answer's body says, decompressed and in UTF-8, as its
// header and the document itself declare. The body may end anywhere; what cannot be
// decoded is returned as far as it can be read. It reports whether it unpacks to more.
func AnswerText(header []domain.HeaderField, body []byte) (text string, more bool) {
	for _, h := range header {
		if strings.EqualFold(h.Name, "Content-Encoding") {
			body, more = unpack(h.Value, body)
		}
	}
	if !isPlainText(body) {
		body = decode(header, body)
	}
	return strings.TrimPrefix(strings.ToValidUTF8(string(body), "\uFFFD"), "\uFEFF"), more
}

// unpack returns the body as it is if it is not compressed so.
func unpack(encoding string, body []byte) (unpacked []byte, more bool) {
	var (
		r   io.Reader
		err error
	)
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "gzip", "x-gzip":
		r, err = gzip.NewReader(bytes.NewReader(body))
	case "deflate":
		if r, err = zlib.NewReader(bytes.NewReader(body)); err != nil { // many leave its header out
			r, err = flate.NewReader(bytes.NewReader(body)), nil
		}
	default:
		return body, false
	}
	if err != nil {
		return body, false
	}
	unpacked, _ = io.ReadAll(io.LimitReader(r, maxUnpacked+1)) // of a cut body, the beginning
	if len(unpacked) == 0 {
		return body, false
	}
	return unpacked[:min(len(unpacked), maxUnpacked)], len(unpacked) > maxUnpacked
}

// isPlainText reports whether the body is UTF-8 without control characters, which
// other charsets have (UTF-16, ISO-2022-JP). It may be cut inside a character.
func isPlainText(body []byte) bool {
	for rest := body; len(rest) > 0; {
		r, size := utf8.DecodeRune(rest)
		if r == utf8.RuneError && size == 1 && utf8.FullRune(rest) || r < ' ' && !strings.ContainsRune("\t\n\r", r) {
			return false
		}
		rest = rest[size:]
	}
	return true
}

// xmlEncoding is the charset that an XML declaration names.
var xmlEncoding = regexp.MustCompile(`^\s*<\?xml[^>]*\sencoding\s*=\s*["']([A-Za-z0-9._-]+)["']`)

// decode returns the body in UTF-8 if its charset is known.
func decode(header []domain.HeaderField, body []byte) []byte {
	contentType := ""
	for _, h := range header {
		if strings.EqualFold(h.Name, "Content-Type") {
			contentType = h.Value
		}
	}
	if declared := xmlEncoding.FindSubmatch(body); declared != nil && !strings.Contains(strings.ToLower(contentType), "charset=") {
		contentType = "text/xml; charset=" + string(declared[1])
	}
	found, name, certain := charset.DetermineEncoding(body, contentType)
	if !certain && name == "windows-1252" && !strings.Contains(contentType, "html") {
		return body // a guess, where nothing is declared
	}
	decoded, err := found.NewDecoder().Bytes(body)
	if err != nil {
		return body
	}
	return decoded
}
