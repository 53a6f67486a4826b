// Package identity accepts the JSON Web Tokens of the clinic's own identity
// provider beside our API tokens: who signs in there needs no token of ours.
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
	Audience string // must be among its aud
	// Keys is where the provider's JWKS is: an https URL or a file.
	Keys string
	// CAFile is a PEM bundle trusted for that URL beside the system's.
	CAFile string
	// Claim holds what the bearer may do, as scope or realm_access.roles; "" is scope.
	Claim string
	// Scopes says what the claim's values allow here. A value that is none of its
	// keys and is the name of a scope allows that scope, unless the map has keys:
	// then only what it lists counts.
	Scopes map[string][]domain.Scope
}

// Provider accepts tokens. Safe for concurrent use.
type Provider struct {
	config Config
	path   []string
	keys   *keySource
}

// algorithms are the ones with a public key: a token names its algorithm
// itself, so what it may name is fixed here (RFC 8725, section 3.1).
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// leeway is how far the provider's clock may be from ours.
const leeway = 30 * time.Second

// New checks the config. A file of keys must be readable; a URL is asked when
// the first token comes, so that the provider need not be up before us.
func New(config Config) (*Provider, error) {
	switch {
	case config.Issuer == "":
		return nil, errors.New("the issuer of JSON Web Tokens is not given (MEDILAB_JWT_ISSUER)")
	case config.Audience == "":
		return nil, errors.New("the audience of JSON Web Tokens is not given (MEDILAB_JWT_AUDIENCE): tokens made for other services would be accepted")
	case config.Keys == "":
		return nil, errors.New("the keys of JSON Web Tokens are not given (MEDILAB_JWT_JWKS: a file or an https URL)")
	}
	if config.Claim == "" {
		config.Claim = "scope"
	}
	keys, err := newKeySource(config.Keys, config.CAFile)
	if err != nil {
		return nil, err
	}
	return &Provider{config: config, path: strings.Split(config.Claim, "."), keys: keys}, nil
}

// ParseScopes reads a map as "clinic-admin=admin; crm=webhooks:read webhooks:write".
func ParseScopes(text string) (map[string][]domain.Scope, error) {
	scopes := map[string][]domain.Scope{}
	for entry := range strings.SplitSeq(text, ";") {
		if strings.TrimSpace(entry) == "" {
			continue
		}
		value, list, _ := strings.Cut(entry, "=")
		value = strings.TrimSpace(value)
		for _, name := range strings.FieldsFunc(list, isSeparator) {
			if !slices.Contains(domain.Scopes, domain.Scope(name)) {
				return nil, fmt.Errorf("%q is no scope", name)
			}
			scopes[value] = append(scopes[value], domain.Scope(name))
		}
		if value == "" || len(scopes[value]) == 0 {
			return nil, fmt.Errorf("%q is not as in clinic-admin=admin; crm=webhooks:read webhooks:write", strings.TrimSpace(entry))
		}
	}
	return scopes, nil
}

// IsToken tells a JSON Web Token from a token of ours, by its looks.
func IsToken(text string) bool {
	return strings.HasPrefix(text, "eyJ") && strings.Count(text, ".") == 2
}

// Bearer is who a token says calls, and what they may do.
type Bearer struct {
	Actor  string
	Scopes []domain.Scope
}

// ErrRefused is a token that is not accepted; its text says why and is safe to
// show. Any other error is that the keys cannot be had.
var ErrRefused = errors.New("the JSON Web Token is refused")

func refused(why string) error { return fmt.Errorf("%w: %s", ErrRefused, why) }

// Authenticate checks the token as of now.
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
	verified := false
	for _, key := range keys {
		if verified = token.Claims(key.Key, &claims, &all) == nil; verified {
			break
		}
	}
	if !verified {
		return Bearer{}, refused("it is signed by none of the provider's keys")
	}
	if err := p.check(claims, now); err != nil {
		return Bearer{}, err
	}
	return Bearer{Actor: "jwt:" + claims.Subject, Scopes: p.scopes(all)}, nil
}

func (p *Provider) check(claims jwt.Claims, now time.Time) error {
	const maxSubject = 200
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
	case claims.Subject == "" || len(claims.Subject) > maxSubject || strings.ContainsFunc(claims.Subject, isUnprintable):
		return refused("it does not say whose it is (sub)")
	}
	return nil
}

// scopes gives what the claim allows. A claim with dots in its name goes before
// a path with dots.
func (p *Provider) scopes(claims map[string]any) []domain.Scope {
	claim, found := claims[p.config.Claim]
	if !found {
		claim = claims
		for _, name := range p.path {
			object, _ := claim.(map[string]any)
			claim = object[name]
		}
	}
	var scopes []domain.Scope
	for _, value := range values(claim) {
		mapped := p.config.Scopes[value]
		if len(p.config.Scopes) == 0 && slices.Contains(domain.Scopes, domain.Scope(value)) {
			mapped = []domain.Scope{domain.Scope(value)}
		}
		scopes = append(scopes, mapped...)
	}
	return scopes
}

// values reads a claim as providers write it: a list, or words in one string.
func values(claim any) []string {
	var list []string
	switch c := claim.(type) {
	case string:
		return strings.Fields(c)
	case []any:
		for _, v := range c {
			if s, ok := v.(string); ok {
				list = append(list, s)
			}
		}
	}
	return list
}

// isUnprintable is of what may not stand in a name that people read in the log.
func isUnprintable(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }

func isSeparator(r rune) bool { return r == ' ' || r == ',' }
