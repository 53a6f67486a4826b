package domain

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"
)

// AuthType is a way in which calls say who makes them.
type AuthType string

// The types.
const (
	AuthOAuth2      AuthType = "oauth2"      // an access token for client credentials (RFC 6749, section 4.4)
	AuthCertificate AuthType = "certificate" // a client certificate of TLS
)

// Credentials are what a webhook's calls say who makes them with. S is how secrets are held.
type Credentials[S comparable] struct {
	Type         AuthType `json:"type"`
	TokenURL     string   `json:"token_url,omitempty"`
	ClientID     string   `json:"client_id,omitempty"`
	ClientSecret S        `json:"client_secret,omitzero"`
	Scope        string   `json:"scope,omitempty"`
	Certificate  S        `json:"certificate,omitzero"` // PEM: the client's, then those up to its authority
	PrivateKey   S        `json:"private_key,omitzero"` // PEM
}

// Auth holds credentials as they are stored, AuthSpec as they are asked for.
type (
	Auth     = Credentials[Sealed]
	AuthSpec = Credentials[Secret]
)

// CredentialSecret is a secret of credentials.
type CredentialSecret[S comparable] struct {
	Name  string
	Value *S
}

// Secrets returns the secrets that credentials of this type have.
func (c *Credentials[S]) Secrets() []CredentialSecret[S] {
	if c.Type == AuthCertificate {
		return []CredentialSecret[S]{{"certificate", &c.Certificate}, {"private_key", &c.PrivateKey}}
	}
	return []CredentialSecret[S]{{"client_secret", &c.ClientSecret}}
}

// MaskedAuth returns the credentials as callers may see them.
func MaskedAuth(a *Auth) *Auth {
	if a == nil {
		return nil
	}
	shown := *a
	for _, s := range shown.Secrets() {
		*s.Value = Masked
	}
	return &shown
}

const (
	maxAuthText   = 1000
	maxAuthSecret = 32 << 10 // a chain of certificates
)

// auth checks credentials. What only shows when masks are replaced, CheckCertificate and
// CheckAuthHeader say.
func (c *specCheck) auth(a AuthSpec) {
	if a.Type != AuthOAuth2 && a.Type != AuthCertificate {
		c.add(FieldError{Field: "auth.type", Message: `must be "oauth2" or "certificate"`})
		return
	}
	for _, f := range []struct {
		name  string
		given bool
		of    AuthType
	}{
		{"token_url", a.TokenURL != "", AuthOAuth2}, {"client_id", a.ClientID != "", AuthOAuth2}, {"scope", a.Scope != "", AuthOAuth2},
		{"client_secret", !a.ClientSecret.IsZero(), AuthOAuth2},
		{"certificate", !a.Certificate.IsZero(), AuthCertificate}, {"private_key", !a.PrivateKey.IsZero(), AuthCertificate},
	} {
		switch {
		case f.given && f.of != a.Type:
			c.add(FieldError{Field: "auth." + f.name, Message: fmt.Sprintf("is not a field of the type %q", a.Type)})
		case !f.given && f.of == a.Type && f.name != "scope":
			c.add(FieldError{Field: "auth." + f.name, Message: isRequired})
		}
	}
	if message := checkURL(a.TokenURL); a.TokenURL != "" && message != "" {
		c.add(FieldError{Field: "auth.token_url", Message: message})
	}
	c.text("auth.client_id", Ask(a.ClientID), 0, maxAuthText)
	c.text("auth.scope", Ask(a.Scope), 0, maxAuthText)
	for _, s := range a.Secrets() {
		switch text := s.Value.Reveal(); {
		case len(text) > maxAuthSecret:
			c.add(FieldError{Field: "auth." + s.Name, Message: fmt.Sprintf("must be at most %d bytes", maxAuthSecret)})
		case text == Masked && c.creating:
			c.add(FieldError{Field: "auth." + s.Name, Message: hasMask})
		}
	}
	if certificate, key := a.Certificate.Reveal(), a.PrivateKey.Reveal(); certificate != "" && certificate != Masked && key != "" && key != Masked {
		_, refused := ParseCertificate(certificate, key, time.Time{})
		c.add(refused...)
	}
}

// ParseCertificate returns a client certificate, or what is wrong with it at the time: it or
// its key is not in PEM form, the key is another's, or it has expired.
func ParseCertificate(certificate, key string, now time.Time) (tls.Certificate, []FieldError) {
	for rest := []byte(certificate); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil || block.Type != "CERTIFICATE" {
			return tls.Certificate{}, []FieldError{{Field: "auth.certificate", Message: "must hold nothing but certificates in PEM form"}}
		}
	}
	if !strings.Contains(certificate, "-----BEGIN CERTIFICATE-----") {
		return tls.Certificate{}, []FieldError{{Field: "auth.certificate", Message: "must be a certificate in PEM form"}}
	}
	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	switch {
	case err != nil:
		return pair, []FieldError{{Field: "auth.private_key", Message: "must be the private key of the certificate, in PEM form and without a passphrase"}}
	case pair.Leaf.NotAfter.Before(now):
		return pair, []FieldError{{Field: "auth.certificate", Message: "expired on " + pair.Leaf.NotAfter.UTC().Format(time.DateOnly)}}
	}
	return pair, nil
}

// CheckAuthHeader refuses what makes two Authorization headers, of the webhook after the
// change: an access token is sent in one.
func (a ApprovedSpec) CheckAuthHeader(stored Webhook) error {
	oauth2, field := stored.Auth != nil && stored.Auth.Type == AuthOAuth2, ""
	own := slices.ContainsFunc(stored.Headers, func(h SealedHeader) bool { return isAuthorization(h.Name) })
	if a.spec.Auth.Given {
		oauth2, field = a.Auth().Type == AuthOAuth2, "auth"
	}
	if a.spec.Headers.Given {
		own, field = slices.ContainsFunc(a.Headers(), func(h Header) bool { return isAuthorization(h.Name) }), "headers."+HeaderAuthorization
	}
	if !oauth2 || !own || field == "" {
		return nil
	}
	return Invalid(field, "the header Authorization cannot be set with auth of the type oauth2, which sends its access token in it")
}

func isAuthorization(name string) bool { return strings.EqualFold(name, HeaderAuthorization) }
