package domain

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"log/slog"
	"strings"
	"unicode/utf8"

	"github.com/medilab/webhooks/domain/strictjson"
)

// The prefixes of what the Standard Webhooks specification writes in base64: a secret, and
// a private and a public key.
const (
	secretPrefix  = "whsec_"
	privatePrefix = "whsk_"
	publicPrefix  = "whpk_"
)

// MaxSecretBytes is the longest secret of a webhook (contract section 2).
const MaxSecretBytes = 256

// Masked stands wherever a secret or a header's value would be shown.
const Masked = "***"

// Secret holds a text that must not leave in clear. However it is printed, logged or
// encoded, it shows as Masked; only Reveal returns the text. The zero value is no secret.
//
// The text is behind a pointer because fmt prints the plain strings of unexported fields
// without asking their type; of a pointer it prints the address.
type Secret struct{ text *string }

// NewSecret hides a text. Of an empty text it makes the zero Secret.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{&text}
}

// GeneratedSecret makes a `whsec_` secret out of random bytes; the caller brings the
// randomness, 24 to 64 bytes of it.
func GeneratedSecret(random []byte) Secret {
	return NewSecret(secretPrefix + base64.StdEncoding.EncodeToString(random))
}

// CheckSecret returns what is wrong with a webhook's secret, under the name field: more
// than 256 bytes, not UTF-8, the mask, or a `whsec_` secret that no Standard Webhooks library could
// read. No secret at all is fine: the webhook is unsigned.
func CheckSecret(field string, secret Secret) []FieldError {
	text := secret.Reveal()
	if len(text) > MaxSecretBytes {
		return []FieldError{{Field: field, Message: fmt.Sprintf("must be at most %d bytes", MaxSecretBytes)}}
	}
	if !utf8.ValidString(text) {
		return []FieldError{{Field: field, Message: "must be UTF-8"}}
	}
	if text == Masked {
		return []FieldError{{Field: field, Message: hasMask}}
	}
	encoded := strings.HasPrefix(text, secretPrefix) || strings.HasPrefix(text, privatePrefix)
	if encoded && strings.ContainsAny(text, "\r\n") { // which Go's base64 skips, and other libraries do not
		return []FieldError{{Field: field, Message: "must be one line"}}
	}
	if _, err := standardKey(text); err != nil {
		return []FieldError{{Field: field, Message: "starts with whsec_, so the rest must be base64 with padding"}}
	}
	if _, err := privateKey(text); err != nil {
		return []FieldError{{Field: field, Message: "starts with whsk_, so the rest must be base64 of an ed25519 private key: 64 bytes, the seed and the public key that belongs to it"}}
	}
	return nil
}

// PublicKey returns the `whpk_` key that verifies what a `whsk_` secret signs; "" of any
// other secret.
func (s Secret) PublicKey() string {
	private, err := privateKey(s.Reveal())
	if err != nil || private == nil {
		return ""
	}
	return publicPrefix + base64.StdEncoding.EncodeToString(private.Public().(ed25519.PublicKey))
}

// Reveal returns the text, to sign or to encrypt with. Nothing else does.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s.text == nil }

// String is Masked, or nothing for no secret.
func (s Secret) String() string {
	if s.IsZero() {
		return ""
	}
	return Masked
}

// GoString keeps %#v from showing the text.
func (s Secret) GoString() string { return fmt.Sprintf("domain.Secret(%q)", s.String()) }

// Format keeps every verb of fmt from showing the text.
func (s Secret) Format(f fmt.State, verb rune) {
	text := s.String()
	if verb == 'v' && f.Flag('#') {
		text = s.GoString()
	}
	if verb == 'q' {
		text = fmt.Sprintf("%q", text)
	}
	// A state that fails to take bytes is fmt's to report; there is no way to tell it.
	_, _ = f.Write([]byte(text))
}

// MarshalJSON is Masked as a JSON string, or null for no secret.
func (s Secret) MarshalJSON() ([]byte, error) {
	if s.IsZero() {
		return []byte("null"), nil
	}
	return strictjson.AppendString(nil, s.String()), nil
}

// MarshalText keeps text encoders, and JSON object keys, from showing the text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue keeps log/slog from showing the text.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
