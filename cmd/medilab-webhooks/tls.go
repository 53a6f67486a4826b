package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificate is what HTTPS is served with. Its files may be replaced at any
// time: new connections get the new one within a second.
type certificate struct {
	certFile, keyFile string
	logger            *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	state   string    // of the files, as they were read last
	looked  time.Time // at the files
}

// loadCertificate fails when the files are no certificate and its key.
func loadCertificate(certFile, keyFile string, logger *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, logger: logger, looked: time.Now()}
	c.state = c.filesState()
	loaded, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("load the certificate to serve HTTPS with: %w", err)
	}
	c.current = &loaded
	return c, nil
}

// config is for a server that takes nothing older than TLS 1.2.
func (c *certificate) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: c.get}
}

// get looks whether the files were replaced. Files that cannot be used, as while
// only one of the two is replaced, leave what was.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	const pause = time.Second
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) < pause {
		return c.current, nil
	}
	c.looked = time.Now()
	state := c.filesState()
	if state == c.state {
		return c.current, nil
	}
	c.state = state
	loaded, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		c.logger.Error("the new certificate cannot be used; the one before stays", "error", err)
		return c.current, nil
	}
	c.logger.Info("serving with a new certificate", "file", c.certFile)
	c.current = &loaded
	return c.current, nil
}

// filesState changes whenever one of the files is replaced.
func (c *certificate) filesState() string {
	state := ""
	for _, path := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(path)
		if err != nil {
			state += err.Error()
			continue
		}
		state += fmt.Sprint(info.Size(), info.ModTime().UnixNano(), ";")
	}
	return state
}
