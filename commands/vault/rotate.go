package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
)

// Key is one key of the keyset, without the key itself.
type Key struct {
	ID uint32
	// Seals marks the one that seals. All of them open.
	Seals bool
	// Staged marks one that is newer than the one that seals.
	Staged bool
}

// Keys lists the keys, the oldest first.
func (v *Vault) Keys() []Key {
	v.mu.RLock()
	defer v.mu.RUnlock()
	info := v.handle.KeysetInfo()
	keys := make([]Key, len(info.GetKeyInfo()))
	staged := false
	for i, key := range info.GetKeyInfo() {
		keys[i] = Key{ID: key.GetKeyId(), Seals: key.GetKeyId() == info.GetPrimaryKeyId(), Staged: staged}
		staged = staged || keys[i].Seals
	}
	return keys
}

// ErrRotating says that another process rotates the keys.
var ErrRotating = errors.New("the keys are being rotated by another command")

// Stage adds a key that opens, and does not seal yet: the keyset can be brought
// to other machines before any of them meets what it sealed.
func (v *Vault) Stage() (Key, error) {
	return v.change(func(m *keyset.Manager, _ []Key) (uint32, error) { return m.Add(aead.AES256GCMKeyTemplate()) })
}

// Rotate makes the staged key seal from now on, or a new one when none is
// staged. The others go on opening.
func (v *Vault) Rotate() (Key, error) {
	return v.change(func(m *keyset.Manager, keys []Key) (uint32, error) {
		newest := keys[len(keys)-1]
		if !newest.Staged {
			var err error
			if newest.ID, err = m.Add(aead.AES256GCMKeyTemplate()); err != nil {
				return 0, err
			}
		}
		return newest.ID, m.SetPrimary(newest.ID)
	})
}

// change replaces the file before the keys count here. One process changes it at
// a time: a key that got lost would take what it sealed with it.
func (v *Vault) change(do func(m *keyset.Manager, keys []Key) (uint32, error)) (_ Key, err error) {
	if v.path != "" {
		unlock, err := lock(v.path + ".lock")
		if err != nil {
			return Key{}, err
		}
		defer func() {
			if unlockErr := unlock(); err == nil {
				err = unlockErr
			}
		}()
	}
	v.refresh()
	keys := v.Keys()
	v.mu.Lock()
	defer v.mu.Unlock()
	manager := keyset.NewManagerFromHandle(v.handle)
	id, err := do(manager, keys)
	if err != nil {
		return Key{}, fmt.Errorf("add a key: %w", err)
	}
	handle, err := manager.Handle()
	if err != nil {
		return Key{}, fmt.Errorf("add a key: %w", err)
	}
	if err := write(v.path, handle); err != nil {
		return Key{}, err
	}
	next, err := newVault(v.path, handle)
	if err != nil {
		return Key{}, err
	}
	v.handle, v.cipher, v.file = next.handle, next.cipher, next.file
	return Key{ID: id, Seals: handle.KeysetInfo().GetPrimaryKeyId() == id, Staged: handle.KeysetInfo().GetPrimaryKeyId() != id}, nil
}

func lock(path string) (unlock func() error, err error) {
	const ownerOnly = 0o600
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, ownerOnly)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%w; if none runs, remove %s", ErrRotating, path)
	}
	if err != nil {
		return nil, fmt.Errorf("write the keyset: %w", err)
	}
	return func() error { return errors.Join(file.Close(), os.Remove(path)) }, nil
}
