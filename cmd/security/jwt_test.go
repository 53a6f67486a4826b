package security

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Who signs in at the clinic's identity provider may do what its claim says, and
// stands in the log by name; everybody else stays out.
func TestTokensOfTheIdentityProvider(t *testing.T) {
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	key, stranger := newKey(), newKey()
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "1", Use: "sig", Algorithm: "ES256"}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(file, keys, 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, append(newDatabase(t), "MEDILAB_JWT_ISSUER=https://id.clinic.example", "MEDILAB_JWT_AUDIENCE=medilab", "MEDILAB_JWT_JWKS="+file,
		"MEDILAB_JWT_CLAIM=realm_access.roles", "MEDILAB_JWT_SCOPES=crm=webhooks:read webhooks:write")...)
	token := func(by *ecdsa.PrivateKey, role, audience string, expires time.Duration) string {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: by, KeyID: "1"}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := jwt.Signed(signer).Claims(map[string]any{
			"iss": "https://id.clinic.example", "aud": audience, "sub": "anna", "exp": time.Now().Add(expires).Unix(),
			"realm_access": map[string]any{"roles": []string{role}},
		}).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	const webhooks = "/api/v1/webhooks/"
	good := token(key, "crm", "medilab", time.Hour)
	if status, answer := p.as(good, "POST", webhooks, `{"name":"w","url":"https://crm.example/","events":["*"]}`); status != 201 {
		t.Errorf("a good token: %d %s", status, answer)
	}
	for name, tt := range map[string]struct {
		token string
		path  string
		want  int
	}{
		"beyond its scopes":   {good, "/api/v1/audit/events", 403},
		"of no role":          {token(key, "admin", "medilab", time.Hour), webhooks, 403},
		"for another service": {token(key, "crm", "billing", time.Hour), webhooks, 401},
		"expired":             {token(key, "crm", "medilab", -time.Hour), webhooks, 401},
		"by a stranger":       {token(stranger, "crm", "medilab", time.Hour), webhooks, 401},
	} {
		if status, answer := p.as(tt.token, "GET", tt.path, ""); status != tt.want {
			t.Errorf("a token %s: %d %s, want %d", name, status, answer, tt.want)
		}
	}
	log := p.command("audit", "log", "--type", "webhook.*", "--format", "ndjson")
	if !strings.Contains(log, `"actor":"jwt:anna"`) {
		t.Errorf("the log does not say who it was: %s", log)
	}
	if said := p.Said.String(); strings.Contains(said, good) || strings.Contains(said, strings.Split(good, ".")[2]) {
		t.Error("the token is in the server's output")
	}
}
