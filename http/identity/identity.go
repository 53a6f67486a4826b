// Package identity authenticates callers by JSON Web Tokens of the clinic's own
// identity provider, who then need no API token of ours.
package identity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/medilab/webhooks/domain"
)

// Config says whose tokens are accepted and what they allow.
type Config struct {
	Issuer   string // the iss that a token must have
	Audience string // must be in a token's aud
	// Keys is the provider's JWKS: an https URL or a file.
	Keys string
	// CAFile is a PEM bundle trusted for that URL in addition to the system's
	// authorities; may be empty.
	CAFile string
	// Claim names the claim that holds the bearer's rights, such as scope or
	// realm_access.roles.
	Claim string
	// Scopes maps the claim's values to scopes. If it is empty, values that are
	// names of scopes allow those scopes.
	Scopes map[string][]domain.Scope
}

// Provider authenticates tokens. It is safe for concurrent use.
type Provider struct {
	config Config
	keys   *keyCache
}

// algorithms are the accepted ones, all with public keys: a token names its
// algorithm itself (RFC 8725, section 3.1).
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// leeway is how far the provider's clock may differ from ours.
const leeway = 30 * time.Second

// New returns a provider. A file of keys must be readable; a URL is fetched for
// the first token, so that the provider need not be up before us.
func New(config Config) (*Provider, error) {
	switch {
	case config.Issuer == "":
		return nil, errors.New("the issuer of JSON Web Tokens is not given (MEDILAB_JWT_ISSUER)")
	case config.Audience == "":
		return nil, errors.New("the audience of JSON Web Tokens is not given (MEDILAB_JWT_AUDIENCE): tokens made for other services would be accepted")
	case config.Keys == "":
		return nil, errors.New("the keys of JSON Web Tokens are not given (MEDILAB_JWT_JWKS: a file or an https URL)")
	}
	keys, err := newKeyCache(config.Keys, config.CAFile)
	if err != nil {
		return nil, err
	}
	return &Provider{config: config, keys: keys}, nil
}

// ParseScopes parses a map such as "clinic-admin=admin; crm=webhooks:read webhooks:write".
func ParseScopes(text string) (map[string][]domain.Scope, error) {
	scopes := map[string][]domain.Scope{}
	for entry := range strings.SplitSeq(text, ";") {
		if strings.TrimSpace(entry) == "" {
			continue
		}
		value, list, _ := strings.Cut(entry, "=")
		value = strings.TrimSpace(value)
		for _, name := range strings.FieldsFunc(list, func(r rune) bool { return r == ' ' || r == ',' }) {
			if !slices.Contains(domain.Scopes, domain.Scope(name)) {
				return nil, fmt.Errorf("%q is not a scope", name)
			}
			scopes[value] = append(scopes[value], domain.Scope(name))
		}
		if value == "" || len(scopes[value]) == 0 {
			return nil, fmt.Errorf("%q is not as in clinic-admin=admin; crm=webhooks:read webhooks:write", strings.TrimSpace(entry))
		}
	}
	return scopes, nil
}

// IsToken reports whether the text looks like a JSON Web Token rather than an
// API token of ours.
func IsToken(text string) bool {
	return strings.HasPrefix(text, "eyJ") && strings.Count(text, ".") == 2
}

// Bearer is the caller that a token names, and what they may do.
type Bearer struct {
	Actor     string
	Scopes    []domain.Scope
	ExpiresAt time.Time // of the token
}

func actorOf(subject string) string { return "jwt:" + subject }

// ErrRefused is a token that is not accepted; its text says why and is safe to show.
var ErrRefused = errors.New("the JSON Web Token is refused")

func refused(why string) error { return fmt.Errorf("%w: %s", ErrRefused, why) }

// Authenticate verifies the token as of now. An error other than ErrRefused means
// that the provider's keys could not be read.
func (p *Provider) Authenticate(ctx context.Context, text string, now time.Time) (Bearer, error) {
	token, err := jwt.ParseSigned(text, algorithms)
	if err != nil || len(token.Headers) != 1 {
		return Bearer{}, refused("it cannot be read, or is signed in a way that is not accepted")
	}
	header := token.Headers[0]
	keys, err := p.keys.find(ctx, header.KeyID, header.Algorithm)
	if err != nil {
		return Bearer{}, err
	}
	var claims jwt.Claims
	var all map[string]any
	verifies := func(key jose.JSONWebKey) bool { return token.Claims(key.Key, &claims, &all) == nil }
	if !slices.ContainsFunc(keys, verifies) {
		return Bearer{}, refused("it is signed by none of the provider's keys")
	}
	if err := p.check(claims, now); err != nil {
		return Bearer{}, err
	}
	return Bearer{Actor: actorOf(claims.Subject), Scopes: p.config.scopes(all), ExpiresAt: claims.Expiry.Time()}, nil
}

func (p *Provider) check(claims jwt.Claims, now time.Time) error {
	err := claims.ValidateWithLeeway(jwt.Expected{Issuer: p.config.Issuer, AnyAudience: jwt.Audience{p.config.Audience}, Time: now}, leeway)
	switch {
	case errors.Is(err, jwt.ErrInvalidIssuer):
		return refused("it is of another issuer")
	case errors.Is(err, jwt.ErrInvalidAudience):
		return refused("it is for another audience")
	case errors.Is(err, jwt.ErrExpired):
		return refused("it is expired")
	case err != nil:
		return refused("it is not valid yet")
	case claims.Expiry == nil:
		return refused("it never expires")
	case !isName(claims.Subject):
		return refused("it does not say whose it is (sub)")
	}
	return nil
}

// isName reports whether the subject can stand in the log as an actor: people read it there.
func isName(subject string) bool {
	const longest = 200
	unprintable := func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
	return subject != "" && len(subject) <= longest && !strings.ContainsFunc(subject, unprintable)
}

// scopes returns what the claim allows. The claim's name is a path of dots unless
// there is a claim of that very name.
func (c Config) scopes(claims map[string]any) []domain.Scope {
	claim, found := claims[c.Claim]
	if !found {
		claim = claims
		for name := range strings.SplitSeq(c.Claim, ".") {
			object, _ := claim.(map[string]any)
			claim = object[name]
		}
	}
	var scopes []domain.Scope
	for _, value := range values(claim) {
		mapped := c.Scopes[value]
		if len(c.Scopes) == 0 && slices.Contains(domain.Scopes, domain.Scope(value)) {
			mapped = []domain.Scope{domain.Scope(value)}
		}
		scopes = append(scopes, mapped...)
	}
	return scopes
}

// values returns the values of a claim: a list, or a string of words.
func values(claim any) (list []string) {
	if words, ok := claim.(string); ok {
		return strings.Fields(words)
	}
	items, _ := claim.([]any)
	for _, item := range items {
		if s, ok := item.(string); ok {
			list = append(list, s)
		}
	}
	return list
}
