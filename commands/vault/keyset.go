package vault

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
)

// ErrMissing says that there is no keyset where the database's secrets need one.
var ErrMissing = errors.New("the keyset is missing")

// Open reads the keyset in the file at path, a Tink keyset in clear JSON.
//
// When there is no file, holdsSecrets decides: a database without secrets gets a
// new keyset (mode 0600); one with secrets needs the keyset they were sealed
// with, and a new one would hide that it is lost, so that is ErrMissing.
func Open(path string, holdsSecrets bool) (*Vault, error) {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && holdsSecrets:
		return nil, fmt.Errorf("%w: the database holds secrets that were sealed with a keyset, and %s is not there; bring the file back, or name it with MEDILAB_KEYS", ErrMissing, path)
	case errors.Is(err, fs.ErrNotExist):
		return create(path)
	case err != nil:
		return nil, fmt.Errorf("read the keyset: %w", err)
	}
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(data)))
	if err != nil {
		// The library's error is not repeated: it may quote what it read.
		return nil, fmt.Errorf("the keyset in %s cannot be read: it must be a Tink keyset in JSON", path)
	}
	return newVault(path, handle)
}

// Ephemeral is a vault with a key of its own that is kept nowhere: for tests,
// and for trying the product out.
func Ephemeral() (*Vault, error) {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return newVault("", handle)
}

func create(path string) (*Vault, error) {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("keep the keyset: %w", err)
	}
	if err := write(path, handle); err != nil {
		return nil, err
	}
	return newVault(path, handle)
}

// write replaces the file in one step: a crash leaves the old keyset or the new
// one, on the disk, never half of one.
func write(path string, handle *keyset.Handle) error {
	if path == "" {
		return nil
	}
	var b bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&b)); err != nil {
		return fmt.Errorf("write the keyset: %w", err)
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".keys-*") // made with mode 0600
	if err != nil {
		return fmt.Errorf("write the keyset: %w", err)
	}
	defer os.Remove(file.Name()) //nolint:errcheck // renamed away when all went well
	_, err = file.Write(b.Bytes())
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write the keyset: %w", err)
	}
	return nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
