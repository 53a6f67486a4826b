package vault

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// keys are a keyset, ready to be used.
type keys struct {
	handle *keyset.Handle
	cipher tink.AEAD
	file   fs.FileInfo // that they are in
}

// ErrMissing means that the keyset which the database's secrets need does not exist.
var ErrMissing = errors.New("the keyset is missing")

// Open reads the keyset in the file at path, a Tink keyset in clear JSON.
//
// If the file does not exist, it is made (mode 0600), unless holdsSecrets: a new keyset
// would hide that the one which encrypted the database's secrets is lost. That is
// ErrMissing.
func Open(path string, holdsSecrets bool) (*Vault, error) {
	keys, err := readKeys(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && holdsSecrets:
		return nil, fmt.Errorf("%w: the database holds secrets that were sealed with a keyset, and %s is not there; bring the file back, or name it with MEDILAB_KEYS", ErrMissing, path)
	case errors.Is(err, fs.ErrNotExist):
		return create(path)
	case err != nil:
		return nil, err
	}
	return &Vault{path: path, keys: keys}, nil
}

func create(path string) (*Vault, error) {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("write the keyset: %w", err)
	}
	keys, err := writeKeys(path, handle)
	if err != nil {
		return nil, err
	}
	return &Vault{path: path, keys: keys}, nil
}

func readKeys(path string) (keys, error) {
	file, err := os.Open(path)
	if err != nil {
		return keys{}, fmt.Errorf("read the keyset: %w", err)
	}
	defer file.Close() //nolint:errcheck // it was only read
	info, err := file.Stat()
	if err != nil {
		return keys{}, fmt.Errorf("read the keyset: %w", err)
	}
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(file))
	if err != nil {
		// The library's error is dropped: it may quote what it read.
		return keys{}, fmt.Errorf("the keyset in %s cannot be read: it must be a Tink keyset in JSON", path)
	}
	return newKeys(handle, info)
}

// writeKeys replaces the file at path in one step: after a crash the old keyset or the new one
// is on the disk.
func writeKeys(path string, handle *keyset.Handle) (keys, error) {
	info, err := replaceFile(path, handle)
	if err != nil {
		return keys{}, fmt.Errorf("write the keyset: %w", err)
	}
	return newKeys(handle, info)
}

func newKeys(handle *keyset.Handle, file fs.FileInfo) (keys, error) {
	cipher, err := aead.New(handle)
	if err != nil {
		return keys{}, fmt.Errorf("use the keyset: %w", err)
	}
	return keys{handle, cipher, file}, nil
}

func replaceFile(path string, handle *keyset.Handle) (fs.FileInfo, error) {
	file, err := os.CreateTemp(filepath.Dir(path), ".keys-*") // made with mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(file.Name()) //nolint:errcheck // renamed by then, unless something failed
	writeErr := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(file))
	info, statErr := file.Stat()
	if err := errors.Join(writeErr, file.Sync(), statErr, file.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return nil, err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	return info, errors.Join(dir.Sync(), dir.Close())
}
