package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	nethttp "net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/medilab/webhooks/http"
)

// writeCertificate puts a certificate with the serial number, and its key, into the files.
func writeCertificate(t *testing.T, certFile, keyFile string, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHTTPS(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	logger := slog.New(slog.DiscardHandler)
	if _, err := loadCertificate(certFile, keyFile, logger); err == nil {
		t.Fatal("files that are not there are a certificate")
	}
	writeCertificate(t, certFile, keyFile, 1)
	loaded, err := loadCertificate(certFile, keyFile, logger)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{certificate: loaded, logger: logger}
	web := &nethttp.Server{Handler: nethttp.NotFoundHandler(), ReadHeaderTimeout: time.Minute}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.listen(web, http.NewProbes(http.Config{}), listener) }()
	t.Cleanup(func() {
		if err := web.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})

	serial := func(most uint16) (int64, error) {
		//nolint:gosec // whose certificate it is, is what we want to know
		conn, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: most})
		if err != nil {
			return 0, err
		}
		defer conn.Close() //nolint:errcheck // nothing is written
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
	}
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		if _, err := serial(version); err == nil {
			t.Errorf("%s is spoken", tls.VersionName(version))
		}
	}
	if got, err := serial(tls.VersionTLS12); err != nil || got != 1 {
		t.Errorf("got %d, %v", got, err)
	}

	look := func() { // as if a second had passed
		loaded.mu.Lock()
		loaded.looked = time.Time{}
		loaded.mu.Unlock()
	}
	writeCertificate(t, certFile, keyFile, 2)
	look()
	if got, err := serial(tls.VersionTLS13); err != nil || got != 2 {
		t.Errorf("a replaced certificate is not served: got %d, %v", got, err)
	}
	if err := os.WriteFile(keyFile, []byte("half of a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	look()
	if got, err := serial(tls.VersionTLS13); err != nil || got != 2 {
		t.Errorf("a broken file ends service: got %d, %v", got, err)
	}

	// Whoever speaks no TLS gets no answer of ours.
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // its answer is all we want
	if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); err == nil && len(answer) > 0 && string(answer[9:12]) != "400" {
		t.Errorf("got %s", answer)
	}
}
