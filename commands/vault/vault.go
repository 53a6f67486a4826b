// Package vault keeps secrets at rest: it encrypts what may not be in the
// database in clear, bound to the webhook and the field that it belongs to.
package vault

import (
	"encoding/base64"
	"errors"
	"fmt"
	"sync"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/medilab/webhooks/domain"
)

// Vault seals with the newest key of its keyset and opens with any. Safe for
// concurrent use.
type Vault struct {
	path string

	mu     sync.RWMutex
	handle *keyset.Handle
	cipher tink.AEAD
}

// ErrSealed says that no key of the keyset opens a sealed text: it was sealed
// with another keyset, or for another webhook or field.
var ErrSealed = errors.New("no key of the keyset opens this secret")

func newVault(path string, handle *keyset.Handle) (*Vault, error) {
	cipher, err := aead.New(handle)
	if err != nil {
		return nil, fmt.Errorf("use the keys of %s: %w", path, err)
	}
	return &Vault{path: path, handle: handle, cipher: cipher}, nil
}

// Seal encrypts the text for one field of one webhook; nowhere else does it open.
// No text is sealed as no text.
func (v *Vault) Seal(webhook domain.WebhookID, field, plain string) (domain.Sealed, error) {
	if plain == "" {
		return "", nil
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	sealed, err := v.cipher.Encrypt([]byte(plain), boundTo(webhook, field))
	if err != nil {
		return "", fmt.Errorf("seal %s: %w", field, err)
	}
	return domain.Sealed(base64.StdEncoding.EncodeToString(sealed)), nil
}

// Open gives the text back, or ErrSealed.
func (v *Vault) Open(webhook domain.WebhookID, field string, sealed domain.Sealed) (string, error) {
	if sealed == "" {
		return "", nil
	}
	data, err := base64.StdEncoding.DecodeString(string(sealed))
	if err != nil {
		return "", fmt.Errorf("open %s of webhook %s: %w", field, webhook, ErrSealed)
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	plain, err := v.cipher.Decrypt(data, boundTo(webhook, field))
	if err != nil {
		return "", fmt.Errorf("open %s of webhook %s: %w", field, webhook, ErrSealed)
	}
	return string(plain), nil
}

// boundTo is the associated data of a sealed text.
func boundTo(webhook domain.WebhookID, field string) []byte {
	return append(webhook[:], field...)
}

// Rotate adds a key that seals from now on, and keeps the others to open with.
// The file is replaced before the new key is used.
func (v *Vault) Rotate() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	handle, err := withNewKey(v.handle)
	if err != nil {
		return err
	}
	next, err := newVault(v.path, handle)
	if err != nil {
		return err
	}
	if err := write(v.path, handle); err != nil {
		return err
	}
	v.handle, v.cipher = next.handle, next.cipher
	return nil
}
