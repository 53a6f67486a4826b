package identity

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
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
)

const (
	// A URL is asked again after urlAge; a key that is not known makes it be asked
	// sooner, at most once in askPause, since anybody can name such a key.
	urlAge   = 10 * time.Minute
	askPause = 10 * time.Second
	// A file costs nothing: a replaced one counts within fileAge.
	fileAge = time.Second
	// staleAge is how long keys count when their source cannot be read.
	staleAge = 24 * time.Hour

	fetchTime  = 5 * time.Second
	maxKeySet  = 1 << 20
	leastRSA   = 2048 // bits
	maxKeys    = 100
	unreadable = "the keys of the identity provider cannot be read"
)

// keySource keeps the provider's public keys, and follows their rotation.
type keySource struct {
	read func(ctx context.Context) ([]byte, error)
	age  time.Duration // how long keys count unasked
	now  func() time.Time

	mu     sync.Mutex
	keys   []jose.JSONWebKey
	last   time.Time // when they were read
	tried  time.Time
	err    error         // of the last try
	asking chan struct{} // closed when the try under way has ended; nil: none is
}

func newKeySource(location, caFile string) (*keySource, error) {
	if !strings.Contains(location, "://") {
		s := &keySource{age: fileAge, now: time.Now, read: func(context.Context) ([]byte, error) { return os.ReadFile(location) }}
		return s, s.start()
	}
	u, err := url.Parse(location)
	switch {
	case err != nil || u.Host == "":
		return nil, errors.New("MEDILAB_JWT_JWKS is neither a file nor a URL")
	case u.Scheme != "https" && !(u.Scheme == "http" && isLoopback(u.Hostname())): //nolint:staticcheck // as it is said
		return nil, errors.New("MEDILAB_JWT_JWKS must be an https URL: whoever could change the keys on their way could sign in as anybody")
	}
	client, err := newClient(caFile)
	if err != nil {
		return nil, err
	}
	return &keySource{age: urlAge, now: time.Now, read: func(ctx context.Context) ([]byte, error) { return fetch(ctx, client, location) }}, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback() || host == "localhost"
}

func newClient(caFile string) (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("read the CA bundle: %w", err)
		}
		if config.RootCAs, err = x509.SystemCertPool(); err != nil {
			return nil, fmt.Errorf("load the system's certificate authorities: %w", err)
		}
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("the CA bundle %s holds no certificate in PEM form", caFile)
		}
	}
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, DisableKeepAlives: true},
		Timeout:       fetchTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

func fetch(ctx context.Context, client *http.Client, location string) (data []byte, err error) {
	// Whoever's request it is may go: the keys are for all.
	req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), http.MethodGet, location, nil)
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
	return io.ReadAll(io.LimitReader(resp.Body, maxKeySet))
}

// find gives the keys that may have signed a token: the named one, or any of its
// algorithm when it names none.
func (s *keySource) find(ctx context.Context, id, algorithm string) ([]jose.JSONWebKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	found := s.matching(id, algorithm)
	if len(found) == 0 || now.Sub(s.last) >= s.age {
		s.renew(ctx, now, len(found) > 0)
		found = s.matching(id, algorithm)
	}
	if now.Sub(s.last) > staleAge {
		if s.err == nil {
			return nil, errors.New(unreadable + ": they were read too long ago")
		}
		return nil, s.err
	}
	return found, nil
}

func (s *keySource) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renew(context.Background(), s.now(), false)
	return s.err
}

// renew reads the keys, or waits for who does, and leaves them as they are when they
// cannot be read or were asked for a moment ago. The caller holds the lock, which is
// let go meanwhile: a provider that does not answer holds up nobody whose key is
// known, whatever keys strangers name. known is that an old key would do: then a
// provider that did not answer before is not waited for.
func (s *keySource) renew(ctx context.Context, now time.Time, known bool) {
	switch {
	case s.asking != nil && known && s.err != nil:
	case s.asking != nil:
		asking := s.asking
		s.mu.Unlock()
		select {
		case <-asking:
		case <-ctx.Done():
		}
		s.mu.Lock()
	case now.Sub(s.tried) >= min(s.age, askPause):
		asking := make(chan struct{})
		s.asking, s.tried = asking, now
		s.mu.Unlock()
		keys, err := s.load(ctx)
		s.mu.Lock()
		s.asking, s.err = nil, err
		if err == nil {
			s.keys, s.last = keys, now
		}
		close(asking)
	}
}

func (s *keySource) load(ctx context.Context) ([]jose.JSONWebKey, error) {
	data, err := s.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", unreadable, err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("%s: they are no JSON Web Key Set", unreadable)
	}
	var usable []jose.JSONWebKey
	for _, key := range set.Keys {
		if len(usable) < maxKeys && isUsable(key) {
			usable = append(usable, key)
		}
	}
	if len(usable) == 0 {
		return nil, fmt.Errorf("%s: there is no public key to verify signatures with", unreadable)
	}
	return usable, nil
}

// isUsable refuses shared secrets, private keys, keys for encryption and weak ones.
func isUsable(key jose.JSONWebKey) bool {
	if !key.Valid() || !key.IsPublic() || key.Use != "" && key.Use != "sig" {
		return false
	}
	public, isRSA := key.Key.(*rsa.PublicKey)
	return !isRSA || public.N.BitLen() >= leastRSA
}

func (s *keySource) matching(id, algorithm string) []jose.JSONWebKey {
	var found []jose.JSONWebKey
	for _, key := range s.keys {
		if (id == "" || key.KeyID == id) && (key.Algorithm == "" || key.Algorithm == algorithm) {
			found = append(found, key)
		}
	}
	return found
}
