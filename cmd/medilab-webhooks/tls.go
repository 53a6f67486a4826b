package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// certificate is the one that HTTPS is served with. Its files may be replaced at any time: new
// connections get the new one within a second.
type certificate struct {
	certFile, keyFile string
	logger            *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	looked  time.Time // at the files
	problem string    // that was logged last
}

// loadCertificate fails if the files are not a certificate and its key. It returns nil if there are
// none.
func loadCertificate(certFile, keyFile string, logger *slog.Logger) (*certificate, error) {
	if certFile == "" {
		return nil, nil
	}
	loaded, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("load the certificate to serve HTTPS with: %w", err)
	}
	return &certificate{certFile: certFile, keyFile: keyFile, logger: logger, current: &loaded, looked: time.Now()}, nil
}

// config returns the configuration of a server that accepts TLS 1.2 and newer.
func (c *certificate) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: c.get}
}

// get reads the files again when a second has passed. Unusable files, as while only one of the two
// has been replaced, leave the certificate as it was.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	const pause = time.Second
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) < pause {
		return c.current, nil
	}
	c.looked = time.Now()
	problem := ""
	loaded, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		if problem = err.Error(); problem != c.problem {
			c.logger.Error("the new certificate cannot be used; the one before stays", "error", err)
		}
	} else if !slices.EqualFunc(loaded.Certificate, c.current.Certificate, bytes.Equal) {
		c.logger.Info("serving with a new certificate", "file", c.certFile)
		c.current = &loaded
	}
	c.problem = problem
	return c.current, nil
}
