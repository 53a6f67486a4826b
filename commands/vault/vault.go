// Package vault keeps secrets at rest: it encrypts what may not be in the
// database in clear, bound to the webhook and the field that it belongs to.
package vault

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/medilab/webhooks/domain"
)

// Vault seals with the newest key of its keyset and opens with any. A keyset
// file that was replaced counts from the next secret on that needs it, so that
// keys rotate under a running server. Safe for concurrent use.
type Vault struct {
	path string

	mu     sync.RWMutex
	handle *keyset.Handle
	cipher tink.AEAD
	file   fs.FileInfo // as it was read; nil: there is none
}

// ErrSealed says that no key of the keyset opens a sealed text: it was sealed
// with another keyset, or for another webhook or field.
var ErrSealed = errors.New("no key of the keyset opens this secret")

func newVault(path string, handle *keyset.Handle) (*Vault, error) {
	cipher, err := aead.New(handle)
	if err != nil {
		return nil, fmt.Errorf("use the keys of %s: %w", path, err)
	}
	v := &Vault{path: path, handle: handle, cipher: cipher}
	if path != "" {
		if v.file, err = os.Stat(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read the keyset: %w", err)
		}
	}
	return v, nil
}

// refresh reads the keyset anew if its file was replaced, and tells whether it
// was. A file that cannot be read leaves the keys as they are.
func (v *Vault) refresh() bool {
	if v.path == "" {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	now, err := os.Stat(v.path)
	if err != nil || v.file != nil && os.SameFile(now, v.file) && now.ModTime().Equal(v.file.ModTime()) && now.Size() == v.file.Size() {
		return false
	}
	fresh, err := Open(v.path, true)
	if err != nil {
		return false
	}
	v.handle, v.cipher, v.file = fresh.handle, fresh.cipher, fresh.file
	return true
}

// Seal encrypts the text for one field of one webhook; nowhere else does it open.
// No text is sealed as no text.
func (v *Vault) Seal(webhook domain.WebhookID, field, plain string) (domain.Sealed, error) {
	if plain == "" {
		return "", nil
	}
	v.refresh()
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
	plain, err := v.decrypt(data, boundTo(webhook, field))
	if err != nil && v.refresh() { // it may be sealed with a key that came later
		plain, err = v.decrypt(data, boundTo(webhook, field))
	}
	if err != nil {
		return "", fmt.Errorf("open %s of webhook %s: %w", field, webhook, ErrSealed)
	}
	return string(plain), nil
}

func (v *Vault) decrypt(data, bound []byte) ([]byte, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.cipher.Decrypt(data, bound)
}

// IsCurrent tells whether the text is sealed with the key that seals now. No
// text is.
func (v *Vault) IsCurrent(sealed domain.Sealed) bool {
	if sealed == "" {
		return true
	}
	data, err := base64.StdEncoding.DecodeString(string(sealed))
	// Tink's prefix: its version and the key's id.
	const prefix, version = 5, 1
	if err != nil || len(data) < prefix || data[0] != version {
		return false
	}
	v.refresh()
	v.mu.RLock()
	defer v.mu.RUnlock()
	return binary.BigEndian.Uint32(data[1:prefix]) == v.handle.KeysetInfo().GetPrimaryKeyId()
}

// boundTo is the associated data of a sealed text.
func boundTo(webhook domain.WebhookID, field string) []byte {
	return append(webhook[:], field...)
}
