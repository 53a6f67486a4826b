package vault

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"

	"github.com/medilab/webhooks/migrations/filelock"
)

// Key describes a key of the keyset, without the key itself.
type Key struct {
	ID uint32 `json:"id"`
	// Primary marks the key that encrypts. All keys decrypt.
	Primary bool `json:"primary"`
	// Staged marks a key that is newer than the primary one.
	Staged bool `json:"staged"`
}

// Keys returns the keys, oldest first.
func (v *Vault) Keys() []Key {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return describe(v.keys.handle)
}

func describe(handle *keyset.Handle) []Key {
	info := handle.KeysetInfo()
	keys := make([]Key, len(info.GetKeyInfo()))
	staged := false
	for i, key := range info.GetKeyInfo() {
		keys[i] = Key{ID: key.GetKeyId(), Primary: key.GetKeyId() == info.GetPrimaryKeyId(), Staged: staged}
		staged = staged || keys[i].Primary
	}
	return keys
}

// ErrRotating means that another process is changing the keyset.
var ErrRotating = errors.New("the keys are being rotated by another command")

// Stage adds a key that decrypts but does not encrypt yet: the keyset can be copied to
// other machines before any of them meets what the key encrypted.
func (v *Vault) Stage() (Key, error) {
	return v.change(func(m *keyset.Manager, _ Key) error {
		_, err := m.Add(aead.AES256GCMKeyTemplate())
		return err
	})
}

// Rotate makes the staged key the primary one, or a new key if none is staged. The
// others go on decrypting.
func (v *Vault) Rotate() (Key, error) {
	return v.change(func(m *keyset.Manager, newest Key) error {
		if newest.Staged {
			return m.SetPrimary(newest.ID)
		}
		id, err := m.Add(aead.AES256GCMKeyTemplate())
		if err != nil {
			return err
		}
		return m.SetPrimary(id)
	})
}

// change changes the keyset and returns its newest key. The file is replaced before the
// keys are used here, and by one process at a time: what a lost key has encrypted is
// lost with it.
func (v *Vault) change(do func(m *keyset.Manager, newest Key) error) (_ Key, err error) {
	locked, err := filelock.Lock(v.path+".lock", syscall.LOCK_EX)
	if errors.Is(err, filelock.ErrLocked) {
		return Key{}, ErrRotating
	}
	if err != nil {
		return Key{}, fmt.Errorf("write the keyset: %w", err)
	}
	defer func() { err = errors.Join(err, locked.Close()) }()
	v.mu.Lock()
	defer v.mu.Unlock()
	now, err := readKeys(v.path)
	if err != nil { // a file that cannot be read is not replaced: its keys would be lost
		return Key{}, err
	}
	v.keys = now
	manager := keyset.NewManagerFromHandle(v.keys.handle)
	if err := do(manager, newest(v.keys.handle)); err != nil {
		return Key{}, fmt.Errorf("add a key: %w", err)
	}
	handle, err := manager.Handle()
	if err != nil {
		return Key{}, fmt.Errorf("add a key: %w", err)
	}
	changed, err := writeKeys(v.path, handle)
	if err != nil {
		return Key{}, err
	}
	v.keys = changed
	return newest(handle), nil
}

func newest(handle *keyset.Handle) Key {
	keys := describe(handle)
	return keys[len(keys)-1]
}
