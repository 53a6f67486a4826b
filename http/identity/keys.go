package identity

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/medilab/webhooks/http/sender"
)

const (
	// A URL is fetched again after urlAge: with the time that a fetch takes, a withdrawn key
	// ends within ten minutes. An unknown key makes it be fetched sooner, but at most once in
	// fetchPause: anybody can name an unknown key.
	urlAge     = 10*time.Minute - 2*fetchTimeout
	fetchPause = 10 * time.Second
	// A file is cheap to read: a replaced one counts within fileAge.
	fileAge = time.Second
	// staleAge is how long keys are accepted while their source cannot be read.
	staleAge = 24 * time.Hour

	fetchTimeout   = 5 * time.Second
	maxKeySetBytes = 1 << 20
	maxKeys        = 100
	minRSABits     = 2048
)

// keyCache keeps the provider's public keys and follows their rotation.
type keyCache struct {
	read   func(ctx context.Context) ([]byte, error)
	maxAge time.Duration // of keys that are used without reading their source again
	now    func() time.Time

	reading sync.Mutex // held while the source is read; protects triedAt
	triedAt time.Time

	mu     sync.Mutex // protects what follows
	keys   []jose.JSONWebKey
	readAt time.Time
	err    error // of the last try; nil if it succeeded
}

// newKeyCache reads a file of keys at once. A URL is fetched for the first token.
func newKeyCache(location, caFile string) (*keyCache, error) {
	if !strings.Contains(location, "://") {
		c := &keyCache{maxAge: fileAge, now: time.Now, read: func(context.Context) ([]byte, error) { return os.ReadFile(location) }}
		c.refresh(context.Background(), true)
		if c.err == nil && len(c.keys) == 0 {
			c.err = errors.New("the file of the identity provider's keys has no public key to verify signatures with")
		}
		return c, c.err
	}
	u, err := url.Parse(location)
	switch {
	case err != nil || u.Host == "":
		return nil, errors.New("MEDILAB_JWT_JWKS is neither a file nor a URL")
	case !isSafe(u):
		return nil, errors.New("MEDILAB_JWT_JWKS must be an https URL: whoever could change the keys on their way could sign in as anybody")
	}
	client, err := newClient(caFile)
	if err != nil {
		return nil, err
	}
	return &keyCache{maxAge: urlAge, now: time.Now, read: func(ctx context.Context) ([]byte, error) { return fetch(ctx, client, location) }}, nil
}

// newClient returns the client that asks the provider, with the roots of the file if there is one.
func newClient(caFile string) (_ *http.Client, err error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if config.RootCAs, err = sender.RootCAs(caFile); err != nil {
		return nil, err
	}
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, DisableKeepAlives: true},
		Timeout:       fetchTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// isSafe reports whether nobody can change the answers of the URL on their way.
func isSafe(u *url.URL) bool {
	host := u.Hostname()
	return u.Scheme == "https" || u.Scheme == "http" && (host == "localhost" || net.ParseIP(host).IsLoopback())
}

func fetch(ctx context.Context, client *http.Client, location string) (data []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %d", req.URL.Host, resp.StatusCode)
	}
	return io.ReadAll(io.LimitReader(resp.Body, maxKeySetBytes))
}

// find returns the keys that may have signed a token: those with the id, or all of the
// algorithm if the id is empty. The source is read first if the keys are old or none matches;
// tokens of known keys do not wait while another caller reads it.
func (c *keyCache) find(ctx context.Context, id, algorithm string) ([]jose.JSONWebKey, error) {
	found, age, err := c.cached(id, algorithm)
	known := len(found) > 0 && age <= staleAge
	if !known || age >= c.maxAge {
		c.refresh(ctx, !known)
		found, age, err = c.cached(id, algorithm)
	}
	if age > staleAge {
		return nil, err
	}
	return found, nil
}

func (c *keyCache) cached(id, algorithm string) (found []jose.JSONWebKey, age time.Duration, lastErr error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range c.keys {
		if (id == "" || key.KeyID == id) && (key.Algorithm == "" || key.Algorithm == algorithm) {
			found = append(found, key)
		}
	}
	return found, c.now().Sub(c.readAt), c.err
}

// refresh reads the source, unless that was tried a moment ago; if that fails, the cached keys
// stay. If another caller is reading, refresh waits for it only if wait is set.
func (c *keyCache) refresh(ctx context.Context, wait bool) {
	if wait {
		c.reading.Lock()
	} else if !c.reading.TryLock() {
		return
	}
	defer c.reading.Unlock()
	now := c.now()
	if now.Sub(c.triedAt) < min(c.maxAge, fetchPause) {
		return
	}
	c.triedAt = now
	data, err := c.read(context.WithoutCancel(ctx)) // the keys are for all callers
	var keys []jose.JSONWebKey
	if err == nil {
		keys, err = parseKeys(data)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.err = fmt.Errorf("the keys of the identity provider cannot be read: %w", err)
		return
	}
	c.keys, c.readAt, c.err = keys, now, nil
}

// parseKeys returns the usable keys of a JSON Web Key Set: none, if the provider has withdrawn
// all of them. Other keys are ignored (RFC 7517, section 5).
func parseKeys(data []byte) ([]jose.JSONWebKey, error) {
	var set struct{ Keys *[]json.RawMessage }
	if err := json.Unmarshal(data, &set); err != nil || set.Keys == nil {
		return nil, errors.New("they are not a JSON Web Key Set")
	}
	var usable []jose.JSONWebKey
	for _, data := range *set.Keys {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(data) == nil && len(usable) < maxKeys && isUsable(key) {
			usable = append(usable, key)
		}
	}
	return usable, nil
}

// isUsable refuses shared secrets, private keys, keys for encryption and weak keys.
func isUsable(key jose.JSONWebKey) bool {
	if !key.Valid() || !key.IsPublic() || key.Use != "" && key.Use != "sig" {
		return false
	}
	public, isRSA := key.Key.(*rsa.PublicKey)
	return !isRSA || public.N.BitLen() >= minRSABits
}
