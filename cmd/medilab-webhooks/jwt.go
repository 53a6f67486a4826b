package main

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/medilab/webhooks/http/identity"
)

// jwtOptions say whose JSON Web Tokens are accepted. All empty: nobody's.
type jwtOptions struct {
	issuer, audience, keys, claim, scopes string
}

func (o *jwtOptions) register(f *pflag.FlagSet) {
	f.StringVar(&o.issuer, "jwt-issuer", fromEnvironment("MEDILAB_JWT_ISSUER", ""), "accept JSON Web Tokens of this issuer (MEDILAB_JWT_ISSUER)")
	f.StringVar(&o.audience, "jwt-audience", fromEnvironment("MEDILAB_JWT_AUDIENCE", ""), "that are made for this audience (MEDILAB_JWT_AUDIENCE)")
	f.StringVar(&o.keys, "jwt-jwks", fromEnvironment("MEDILAB_JWT_JWKS", ""), "signed by a key of this JWKS: a file or an https URL (MEDILAB_JWT_JWKS)")
	f.StringVar(&o.claim, "jwt-claim", fromEnvironment("MEDILAB_JWT_CLAIM", "scope"), "claim with the rights, as scope or realm_access.roles (MEDILAB_JWT_CLAIM)")
	f.StringVar(&o.scopes, "jwt-scopes", fromEnvironment("MEDILAB_JWT_SCOPES", ""), "what its values allow, as \"clinic-admin=admin; crm=webhooks:read events:write\" (MEDILAB_JWT_SCOPES; default: values that are scopes)")
}

// provider is nil when no identity provider was named.
func (o jwtOptions) provider(caFile string) (*identity.Provider, error) {
	if o.issuer == "" && o.audience == "" && o.keys == "" {
		if o.scopes != "" {
			return nil, errors.New("MEDILAB_JWT_SCOPES is given, and no MEDILAB_JWT_ISSUER")
		}
		return nil, nil
	}
	scopes, err := identity.ParseScopes(o.scopes)
	if err != nil {
		return nil, fmt.Errorf("MEDILAB_JWT_SCOPES: %w", err)
	}
	return identity.New(identity.Config{
		Issuer: o.issuer, Audience: o.audience, Keys: o.keys, CAFile: caFile, Claim: o.claim, Scopes: scopes,
	})
}
