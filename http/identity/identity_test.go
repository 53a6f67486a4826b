package identity

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/medilab/webhooks/domain"
)

var now = time.Date(2026, 1, 15, 10, 0, 0, 0, time.UTC)

// signer is a provider's key pair.
type signer struct {
	id  string
	alg jose.SignatureAlgorithm
	key crypto.Signer
}

func newSigner(t *testing.T, id string) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer{id, jose.ES256, key}
}

func (s signer) public() jose.JSONWebKey {
	return jose.JSONWebKey{Key: s.key.Public(), KeyID: s.id, Algorithm: string(s.alg), Use: "sig"}
}

// sign makes a token of the claims.
func (s signer) sign(t *testing.T, claims map[string]any) string {
	t.Helper()
	with, err := jose.NewSigner(jose.SigningKey{Algorithm: s.alg, Key: jose.JSONWebKey{Key: s.key, KeyID: s.id}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := with.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func keySet(t *testing.T, keys ...jose.JSONWebKey) []byte {
	t.Helper()
	data, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func keyFile(t *testing.T, keys ...jose.JSONWebKey) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(path, keySet(t, keys...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// good gives claims that are accepted, with the changes; nil takes a claim out.
func good(changes map[string]any) map[string]any {
	claims := map[string]any{
		"iss": "https://id.clinic.example", "aud": []string{"medilab", "else"}, "sub": "anna",
		"exp": now.Add(time.Hour).Unix(), "scope": "openid webhooks:read events:write",
	}
	for name, value := range changes {
		claims[name] = value
		if value == nil {
			delete(claims, name)
		}
	}
	return claims
}

func newProvider(t *testing.T, keys string, change func(*Config)) *Provider {
	t.Helper()
	config := Config{Issuer: "https://id.clinic.example", Audience: "medilab", Keys: keys, Claim: "scope"}
	if change != nil {
		change(&config)
	}
	p, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestTokenOfTheProvider(t *testing.T) {
	key := newSigner(t, "1")
	p := newProvider(t, keyFile(t, key.public()), nil)
	text := key.sign(t, good(nil))
	if !IsToken(text) || IsToken("mlw_abc") || IsToken("eyJ.abc") {
		t.Error("a token is not told by its looks")
	}
	got, err := p.Authenticate(t.Context(), text, now)
	if err != nil || got.Actor != "jwt:anna" || !slices.Equal(got.Scopes, []domain.Scope{domain.ScopeWebhooksRead, domain.ScopeEventsWrite}) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestRefusedTokens(t *testing.T) {
	key, stranger := newSigner(t, "1"), newSigner(t, "1")
	p := newProvider(t, keyFile(t, key.public()), nil)
	for name, text := range map[string]string{
		"of another issuer":            key.sign(t, good(map[string]any{"iss": "https://id.clinic.example/"})),
		"of no issuer":                 key.sign(t, good(map[string]any{"iss": nil})),
		"for another service":          key.sign(t, good(map[string]any{"aud": "billing"})),
		"for nobody":                   key.sign(t, good(map[string]any{"aud": nil})),
		"expired":                      key.sign(t, good(map[string]any{"exp": now.Add(-time.Minute).Unix()})),
		"that never expires":           key.sign(t, good(map[string]any{"exp": nil})),
		"not valid yet":                key.sign(t, good(map[string]any{"nbf": now.Add(time.Minute).Unix()})),
		"from the future":              key.sign(t, good(map[string]any{"iat": now.Add(time.Minute).Unix()})),
		"of nobody":                    key.sign(t, good(map[string]any{"sub": nil})),
		"of a long name":               key.sign(t, good(map[string]any{"sub": strings.Repeat("a", 201)})),
		"of a name with a line break":  key.sign(t, good(map[string]any{"sub": "anna\nboris"})),
		"of a name that runs backward": key.sign(t, good(map[string]any{"sub": "anna\u202eboris"})),
		"of a name with a zero":        key.sign(t, good(map[string]any{"sub": "anna\x00"})),
		"by a stranger":                stranger.sign(t, good(nil)),
		"by an unknown key":            signer{"2", key.alg, key.key}.sign(t, good(nil)),
		"of another claim":             swapPayload(key.sign(t, good(nil)), `{"sub":"root"}`),
		"unsigned":                     unsigned(t, good(nil)),
		"signed with a public key as a shared secret": confused(t, key, good(nil)),
		"no token": "eyJ..",
	} {
		got, err := p.Authenticate(t.Context(), text, now)
		if !errors.Is(err, ErrRefused) || got.Actor != "" || len(got.Scopes) != 0 {
			t.Errorf("a token %s: %+v, %v", name, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "anna") {
			t.Errorf("a token %s: the refusal quotes it: %v", name, err)
		}
		// Ways of signing that are not ours are refused before any key is tried with them.
		byWay := strings.Contains(name, "signed") || name == "no token"
		if err != nil && byWay != strings.Contains(err.Error(), "signed in a way that is not accepted") {
			t.Errorf("a token %s: refused because %v", name, err)
		}
	}
}

func swapPayload(text, payload string) string {
	parts := strings.Split(text, ".")
	return parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + "." + parts[2]
}

func compact(t *testing.T, header string, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString(payload)
}

func unsigned(t *testing.T, claims map[string]any) string {
	return compact(t, `{"alg":"none","kid":"1"}`, claims) + "."
}

// confused is the old trick: HS256 by the text of the key that everybody knows.
func confused(t *testing.T, key signer, claims map[string]any) string {
	der, err := x509.MarshalPKIXPublicKey(key.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	text := compact(t, `{"alg":"HS256","kid":"1"}`, claims)
	mac := hmac.New(sha256.New, der)
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func TestScopesOfAClaim(t *testing.T) {
	key := newSigner(t, "1")
	file := keyFile(t, key.public())
	mapped := map[string][]domain.Scope{"clinic-admin": {domain.ScopeAdmin}, "crm": {domain.ScopeWebhooksRead, domain.ScopeEventsWrite}}
	for name, tt := range map[string]struct {
		claim  string
		scopes map[string][]domain.Scope
		claims map[string]any
		want   []domain.Scope
	}{
		"words":           {claims: map[string]any{"scope": "admin profile"}, want: []domain.Scope{domain.ScopeAdmin}},
		"none":            {claims: map[string]any{"scope": nil}},
		"a number":        {claims: map[string]any{"scope": 7}},
		"a list":          {claim: "roles", claims: map[string]any{"roles": []any{"audit:read", 3}}, want: []domain.Scope{domain.ScopeAuditRead}},
		"a path":          {claim: "realm_access.roles", claims: map[string]any{"realm_access": map[string]any{"roles": []string{"events:write"}}}, want: []domain.Scope{domain.ScopeEventsWrite}},
		"a name of dots":  {claim: "https://clinic.example/roles", claims: map[string]any{"https://clinic.example/roles": "admin"}, want: []domain.Scope{domain.ScopeAdmin}},
		"mapped":          {scopes: mapped, claims: map[string]any{"scope": "crm"}, want: []domain.Scope{domain.ScopeWebhooksRead, domain.ScopeEventsWrite}},
		"outside the map": {scopes: mapped, claims: map[string]any{"scope": "admin audit:read"}},
	} {
		p := newProvider(t, file, func(c *Config) { c.Claim, c.Scopes = cmp.Or(tt.claim, c.Claim), tt.scopes })
		got, err := p.Authenticate(t.Context(), key.sign(t, good(tt.claims)), now)
		if err != nil || !slices.Equal(got.Scopes, tt.want) {
			t.Errorf("%s: got %v, %v, want %v", name, got.Scopes, err, tt.want)
		}
	}
}

func TestParseScopes(t *testing.T) {
	got, err := ParseScopes("clinic-admin = admin; crm=webhooks:read, events:write;")
	if err != nil || len(got) != 2 || !slices.Equal(got["crm"], []domain.Scope{domain.ScopeWebhooksRead, domain.ScopeEventsWrite}) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"admin", "=admin", "crm=", "crm=root"} {
		if _, err := ParseScopes(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

// Keys that verify nothing, or that would let more people sign than the provider.
func TestUnusableKeys(t *testing.T) {
	key := newSigner(t, "1")
	weak, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // it must be refused
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]jose.JSONWebKey{
		"a shared secret":   {Key: []byte("0123456789abcdef0123456789abcdef"), KeyID: "1"},
		"a private key":     {Key: key.key, KeyID: "1"},
		"one to encrypt to": {Key: key.key.Public(), KeyID: "1", Use: "enc"},
		"a weak one":        {Key: weak.Public(), KeyID: "1"},
	} {
		if _, err := New(Config{Issuer: "i", Audience: "a", Keys: keyFile(t, bad)}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A key of a type that we do not know does not spoil the others.
func TestUnsupportedKeysAreIgnored(t *testing.T) {
	key := newSigner(t, "1")
	file := keyFile(t, key.public())
	set := strings.Replace(string(keySet(t, key.public())), "[", `[{"kty":"OKP","crv":"Ed448","x":"AA"},{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA"},`, 1)
	if err := os.WriteFile(file, []byte(set), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newProvider(t, file, nil).Authenticate(t.Context(), key.sign(t, good(nil)), now); err != nil {
		t.Error(err)
	}
}

func TestConfigsThatCannotBe(t *testing.T) {
	file := keyFile(t, newSigner(t, "1").public())
	for name, config := range map[string]Config{
		"no issuer":      {Audience: "a", Keys: file},
		"no audience":    {Issuer: "i", Keys: file},
		"no keys":        {Issuer: "i", Audience: "a"},
		"no such file":   {Issuer: "i", Audience: "a", Keys: "/nonexistent"},
		"no https":       {Issuer: "i", Audience: "a", Keys: "http://id.clinic.example/jwks"},
		"no host":        {Issuer: "i", Audience: "a", Keys: "https:///jwks"},
		"no such CA":     {Issuer: "i", Audience: "a", Keys: "https://id.clinic.example/jwks", CAFile: "/nonexistent"},
		"another scheme": {Issuer: "i", Audience: "a", Keys: "ftp://id.clinic.example/jwks"},
	} {
		if _, err := New(config); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestReplacedFile(t *testing.T) {
	old, fresh := newSigner(t, "1"), newSigner(t, "2")
	file := keyFile(t, old.public())
	p := newProvider(t, file, nil)
	at := time.Now()
	p.keys.now = func() time.Time { return at }
	if err := os.WriteFile(file, keySet(t, fresh.public()), 0o600); err != nil {
		t.Fatal(err)
	}
	at = at.Add(2 * fileAge)
	if _, err := p.Authenticate(t.Context(), fresh.sign(t, good(nil)), now); err != nil {
		t.Error(err)
	}
	if _, err := p.Authenticate(t.Context(), old.sign(t, good(nil)), now); !errors.Is(err, ErrRefused) {
		t.Errorf("the old key still counts: %v", err)
	}
}

// A provider that does not answer holds up those alone whose key is not known: nobody
// can make the others wait by naming a key.
func TestStrangersHoldNobodyUp(t *testing.T) {
	old, fresh := newSigner(t, "1"), newSigner(t, "2")
	keys := make(chan []byte) // an answer each
	asked := make(chan struct{}, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		if _, err := w.Write(<-keys); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	p := newProvider(t, server.URL, nil)
	at := time.Now()
	var mu sync.Mutex
	p.keys.now = func() time.Time { mu.Lock(); defer mu.Unlock(); return at }
	accepts := func(s signer) bool {
		_, err := p.Authenticate(t.Context(), s.sign(t, good(nil)), now)
		return err == nil
	}
	go func() { keys <- keySet(t, old.public()) }()
	if !accepts(old) {
		t.Fatal("not accepted")
	}
	<-asked

	mu.Lock()
	at = at.Add(fetchPause)
	mu.Unlock()
	waiting := make(chan bool, 2)
	go func() { waiting <- accepts(fresh) }()
	<-asked // and nothing answers
	go func() { waiting <- accepts(fresh) }()
	for range 3 {
		if !accepts(old) {
			t.Error("a known key is refused while the provider is asked for another")
		}
	}
	keys <- keySet(t, old.public(), fresh.public())
	for range 2 {
		if !<-waiting {
			t.Error("a new key is refused")
		}
	}
	if len(asked) > 0 {
		t.Error("the provider was asked by both")
	}

	// Nobody came for a day: the keys are too old, so that all wait for new ones.
	mu.Lock()
	at = at.Add(2 * staleAge)
	mu.Unlock()
	for range 2 {
		go func() { waiting <- accepts(old) }()
	}
	keys <- keySet(t, old.public())
	for range 2 {
		if !<-waiting {
			t.Error("a key is refused while the provider is asked after a long time")
		}
	}
}

// The provider rotates its keys, is down for a while, and is not asked for every
// stranger's token.
func TestKeysOfAURL(t *testing.T) {
	old, fresh := newSigner(t, "1"), newSigner(t, "2")
	var asked atomic.Int64
	var down atomic.Bool
	var keys atomic.Value
	keys.Store(keySet(t, old.public()))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		if down.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		if _, err := w.Write(keys.Load().([]byte)); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	p := newProvider(t, server.URL, nil)
	at := time.Now()
	p.keys.now = func() time.Time { return at }
	accepts := func(s signer) bool {
		t.Helper()
		_, err := p.Authenticate(t.Context(), s.sign(t, good(nil)), now)
		return err == nil
	}

	down.Store(true)
	if _, err := p.Authenticate(t.Context(), old.sign(t, good(nil)), now); err == nil || errors.Is(err, ErrRefused) {
		t.Errorf("without keys nothing is known of a token: %v", err)
	}
	down.Store(false)
	at = at.Add(fetchPause)
	if first, again := accepts(old), accepts(old); !first || !again || asked.Load() != 2 {
		t.Fatalf("asked %d times", asked.Load())
	}
	keys.Store(keySet(t, fresh.public()))
	if accepts(fresh) || asked.Load() != 2 {
		t.Error("the keys were asked for again at once")
	}
	at = at.Add(fetchPause)
	if !accepts(fresh) || accepts(old) || asked.Load() != 3 {
		t.Errorf("a new key is not found: asked %d times", asked.Load())
	}
	down.Store(true)
	at = at.Add(urlAge)
	if !accepts(fresh) || asked.Load() != 4 {
		t.Errorf("a provider that is down for a while locks everybody out: asked %d times", asked.Load())
	}
	at = at.Add(staleAge)
	if accepts(fresh) {
		t.Error("keys count for ever when the provider is down")
	}
}

// A provider that withdraws all its keys, in a set that is empty, or has unusable or unreadable
// keys, is obeyed at the next reading; an answer that is no key set says nothing.
func TestWithdrawnKeys(t *testing.T) {
	key := newSigner(t, "1")
	private := jose.JSONWebKey{Key: key.key, KeyID: "1"}
	for name, tt := range map[string]struct {
		answer    []byte
		withdrawn bool
	}{
		"no key":            {[]byte(`{"keys":[]}`), true},
		"a private key":     {keySet(t, private), true},
		"an unreadable key": {[]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},7]}`), true},
		"no key set":        {[]byte(`{}`), false},
		"no JSON":           {[]byte(`<html>`), false},
	} {
		file := keyFile(t, key.public())
		p := newProvider(t, file, nil)
		at := time.Now()
		p.keys.now = func() time.Time { return at }
		if err := os.WriteFile(file, tt.answer, 0o600); err != nil {
			t.Fatal(err)
		}
		at = at.Add(2 * fileAge)
		_, err := p.Authenticate(t.Context(), key.sign(t, good(nil)), now)
		if errors.Is(err, ErrRefused) != tt.withdrawn || !tt.withdrawn && err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if urlAge+fetchTimeout > 10*time.Minute {
		t.Error("keys of a URL count for more than ten minutes")
	}
}
