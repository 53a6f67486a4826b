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

// firstToken is an admin token that is accepted without being in the log.
type firstToken struct {
	secret domain.Secret
	isNew  bool // made by this start: to be shown once
}

// firstToken returns MEDILAB_TOKEN or, with an embedded database, the token that its first start
// made. Otherwise there is none.
func (s *server) firstToken() (firstToken, error) {
	if !s.settings.token.IsZero() || s.embedded == nil {
		return firstToken{secret: s.settings.token}, nil
	}
	path := filepath.Join(s.settings.database.dataDir, tokenFile)
	kept, err := os.ReadFile(path)
	token, isNew := strings.TrimSpace(string(kept)), errors.Is(err, fs.ErrNotExist)
	if isNew {
		var random [32]byte
		rand.Read(random[:]) //nolint:errcheck // it never fails, see crypto/rand
		token = "mlw_" + base64.RawURLEncoding.EncodeToString(random[:])
		err = os.WriteFile(path, []byte(token+"\n"), 0o600)
	}
	if err != nil {
		return firstToken{}, fmt.Errorf("keep the first token: %w", err)
	}
	if !canBeToken(token) {
		return firstToken{}, fmt.Errorf("the token in %s must have %s; remove the file to have a new one made", path, tokenRule)
	}
	return firstToken{domain.NewSecret(token), isNew}, nil
}
