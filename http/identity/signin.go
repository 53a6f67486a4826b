package identity

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/sync/singleflight"

	"github.com/medilab/webhooks/domain"
)

// SignInConfig says how people sign in at the provider: OpenID Connect, by an authorization
// code with PKCE.
type SignInConfig struct {
	Config       // Issuer, CAFile, Claim and Scopes count
	ClientID     string
	ClientSecret domain.Secret // none for a public client
	Ask          string        // scopes of the provider to ask for besides openid
}

// SignIn signs people in. It is safe for concurrent use.
type SignIn struct {
	config SignInConfig
	client *http.Client

	asking   singleflight.Group
	provider atomic.Pointer[oidc.Provider] // nil: not asked yet
}

// NewSignIn returns a SignIn. The provider is asked for its addresses by the first who signs
// in, so that it need not be up before us.
func NewSignIn(config SignInConfig) (*SignIn, error) {
	issuer, err := url.Parse(config.Issuer)
	if err != nil || issuer.Host == "" || !isSafe(issuer) {
		return nil, errors.New("MEDILAB_JWT_ISSUER must be the https URL of the identity provider for people to sign in there")
	}
	client, err := newClient(config.CAFile)
	return &SignIn{config: config, client: client}, err
}

// Flow is what a browser keeps while somebody signs in with it.
type Flow struct{ State, Nonce, Verifier string }

// NewFlow returns the secrets of a flow.
func NewFlow() Flow {
	return Flow{oauth2.GenerateVerifier(), oauth2.GenerateVerifier(), oauth2.GenerateVerifier()}
}

// Begin returns the provider's page to sign in at, which leads back to the address.
func (s *SignIn) Begin(ctx context.Context, flow Flow, back string) (string, error) {
	provider, err := s.discover(ctx)
	if err != nil {
		return "", err
	}
	return s.oauth(provider, back).AuthCodeURL(flow.State, oidc.Nonce(flow.Nonce), oauth2.S256ChallengeOption(flow.Verifier)), nil
}

// Finish returns who has signed in, by what the provider's page led back with. An error other
// than ErrRefused means that the provider could not be asked.
func (s *SignIn) Finish(ctx context.Context, flow Flow, back string, answer url.Values, now func() time.Time) (Bearer, error) {
	if flow.State == "" || subtle.ConstantTimeCompare([]byte(flow.State), []byte(answer.Get("state"))) != 1 || answer.Get("code") == "" {
		return Bearer{}, refused("the sign-in was not completed, or was begun in another browser")
	}
	provider, err := s.discover(ctx)
	if err != nil {
		return Bearer{}, err
	}
	ctx = oidc.ClientContext(ctx, s.client)
	tokens, err := s.oauth(provider, back).Exchange(ctx, answer.Get("code"), oauth2.VerifierOption(flow.Verifier))
	var no *oauth2.RetrieveError
	switch {
	case errors.As(err, &no) && no.Response.StatusCode < http.StatusInternalServerError:
		return Bearer{}, refused("the provider refused the sign-in code: " + no.ErrorCode)
	case err != nil:
		return Bearer{}, fmt.Errorf("the identity provider issued no token: %w", err)
	}
	text, _ := tokens.Extra("id_token").(string)
	token, err := provider.VerifierContext(ctx, &oidc.Config{ClientID: s.config.ClientID, Now: now}).Verify(ctx, text)
	if err != nil || subtle.ConstantTimeCompare([]byte(token.Nonce), []byte(flow.Nonce)) != 1 || !isName(token.Subject) {
		return Bearer{}, refused("the id token is not valid")
	}
	var claims map[string]any
	if err := token.Claims(&claims); err != nil {
		return Bearer{}, refused("the id token cannot be read")
	}
	scopes := s.config.scopes(claims)
	if len(scopes) == 0 { // some providers have them there alone
		claims = nil
		info, err := provider.UserInfo(ctx, oauth2.StaticTokenSource(tokens))
		if err == nil && info.Subject == token.Subject && info.Claims(&claims) == nil {
			scopes = s.config.scopes(claims)
		}
	}
	return Bearer{Actor: actorOf(token.Subject), Scopes: scopes, ExpiresAt: token.Expiry}, nil
}

func (s *SignIn) oauth(provider *oidc.Provider, back string) *oauth2.Config {
	return &oauth2.Config{
		ClientID: s.config.ClientID, ClientSecret: s.config.ClientSecret.Reveal(), Endpoint: provider.Endpoint(), RedirectURL: back,
		Scopes: append([]string{oidc.ScopeOpenID}, strings.Fields(s.config.Ask)...),
	}
}

// discover returns the provider, which is asked once for all who sign in meanwhile.
func (s *SignIn) discover(ctx context.Context) (*oidc.Provider, error) {
	if provider := s.provider.Load(); provider != nil {
		return provider, nil
	}
	_, err, _ := s.asking.Do("", func() (any, error) {
		provider, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), s.client), s.config.Issuer)
		if err == nil {
			s.provider.Store(provider)
		}
		return nil, err
	})
	if err != nil {
		return nil, fmt.Errorf("the identity provider cannot be asked: %w", err)
	}
	return s.provider.Load(), nil
}
