// Package vault encrypts secrets for storage, each bound to the webhook and the field
// that it belongs to.
package vault

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/medilab/webhooks/domain"
)

// Vault encrypts with the primary key of its keyset and decrypts with any of its keys.
// It notices that the keyset file was replaced when it is next used, for data keys within a
// moment, so that keys rotate under a running server. It is safe for concurrent use.
type Vault struct {
	path string

	mu      sync.RWMutex
	keys    keys
	checked time.Time // when the file was looked at
}

// ErrDecrypt means that a secret was encrypted with another keyset, or for another
// webhook or field.
var ErrDecrypt = errors.New("no key of the keyset decrypts this secret")

// Encrypt encrypts a field of a webhook. An empty text stays empty.
func (v *Vault) Encrypt(webhook domain.WebhookID, field, plain string) (domain.Sealed, error) {
	if plain == "" {
		return "", nil
	}
	v.refresh()
	v.mu.RLock()
	defer v.mu.RUnlock()
	data, err := v.keys.cipher.Encrypt([]byte(plain), associatedData(webhook, field))
	if err != nil {
		return "", fmt.Errorf("encrypt %s: %w", field, err)
	}
	return domain.Sealed(base64.StdEncoding.EncodeToString(data)), nil
}

// Decrypt returns what Encrypt was given for the same webhook and field, or ErrDecrypt.
func (v *Vault) Decrypt(webhook domain.WebhookID, field string, encrypted domain.Sealed) (string, error) {
	if encrypted == "" {
		return "", nil
	}
	data, err := base64.StdEncoding.DecodeString(string(encrypted))
	if err != nil {
		return "", fmt.Errorf("decrypt %s of webhook %s: %w", field, webhook, ErrDecrypt)
	}
	plain, err := v.decrypt(data, associatedData(webhook, field))
	if err != nil {
		return "", fmt.Errorf("decrypt %s of webhook %s: %w", field, webhook, ErrDecrypt)
	}
	return string(plain), nil
}

func (v *Vault) decrypt(data, associated []byte) ([]byte, error) {
	decrypt := func() ([]byte, error) {
		v.mu.RLock()
		defer v.mu.RUnlock()
		return v.keys.cipher.Decrypt(data, associated)
	}
	plain, err := decrypt()
	if err != nil && v.refresh() { // it may be encrypted with a newer key
		plain, err = decrypt()
	}
	return plain, err
}

// IsCurrent reports whether the text is encrypted with the primary key, or empty.
func (v *Vault) IsCurrent(encrypted domain.Sealed) bool {
	if encrypted == "" {
		return true
	}
	data, err := base64.StdEncoding.DecodeString(string(encrypted))
	return err == nil && v.isCurrent(data)
}

func (v *Vault) isCurrent(encrypted []byte) bool {
	// Tink's prefix: its version and the key's id.
	const prefix, version = 5, 1
	if len(encrypted) < prefix || encrypted[0] != version {
		return false
	}
	v.refresh()
	v.mu.RLock()
	defer v.mu.RUnlock()
	return binary.BigEndian.Uint32(encrypted[1:prefix]) == v.keys.handle.KeysetInfo().GetPrimaryKeyId()
}

// refresh reads the keyset again if its file was replaced, and reports whether it did.
// If the file cannot be read, the keys stay.
func (v *Vault) refresh() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.checked = time.Now()
	now, err := os.Stat(v.path)
	was := v.keys.file
	if err != nil || os.SameFile(now, was) && now.ModTime().Equal(was.ModTime()) && now.Size() == was.Size() {
		return false
	}
	keys, err := readKeys(v.path)
	if err != nil {
		return false
	}
	v.keys = keys
	return true
}

func associatedData(webhook domain.WebhookID, field string) []byte {
	return append(webhook[:], field...)
}
