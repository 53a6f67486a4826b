package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/medilab/webhooks/domain"
)

// tokenFile keeps the first token, in the data folder.
const tokenFile = "token"

// firstToken is the admin token that is accepted as it is.
type firstToken struct {
	secret domain.Secret
	isNew  bool // made by this start: to be shown once
}

// firstToken gives MEDILAB_TOKEN, or, with an embedded database, the token that
// the first start made. With a database of the user's own there is none.
func (s *server) firstToken() (firstToken, error) {
	if !s.settings.token.IsZero() || s.postgres == nil {
		return firstToken{secret: s.settings.token}, nil
	}
	path := filepath.Join(s.settings.database.dataDir, tokenFile)
	kept, err := os.ReadFile(path)
	if err == nil {
		token := strings.TrimSpace(string(kept))
		if len(token) < leastTokenLength {
			return firstToken{}, fmt.Errorf("the token in %s is too short; remove the file to have a new one made", path)
		}
		return firstToken{secret: domain.NewSecret(token)}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return firstToken{}, fmt.Errorf("read the first token: %w", err)
	}
	var random [32]byte
	if _, err := rand.Read(random[:]); err != nil {
		return firstToken{}, fmt.Errorf("make the first token: %w", err)
	}
	token := "mlw_" + base64.RawURLEncoding.EncodeToString(random[:])
	if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		return firstToken{}, fmt.Errorf("keep the first token: %w", err)
	}
	return firstToken{secret: domain.NewSecret(token), isNew: true}, nil
}
