package sources

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/medilab/webhooks/cmd/testbed/testcert"
)

// A RabbitMQ that accepts a connection and says nothing is given up.
func TestSilentRabbitMQ(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close() //nolint:errcheck // nothing is lost with it
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close() //nolint:errcheck // nothing is lost with it
	sources, err := Parse("amqp://" + silent.Addr().String() + "," + other.Addr().String() + "/?queue=q")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := subscribeAMQP(sources[0], environment{})
		ended <- err
	}()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("there is a subscription")
		}
	case <-time.After(time.Minute):
		t.Fatal("it waits for ever")
	}

	// The next connection begins with the other host.
	connected := make(chan error, 1)
	go func() {
		conn, err := other.Accept()
		if err == nil {
			err = conn.Close()
		}
		connected <- err
	}()
	if _, err := subscribeAMQP(sources[0], environment{}); err == nil {
		t.Error("there is a subscription")
	}
	select {
	case err := <-connected:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("the other host is not tried")
	}
}

// With amqps:// nothing is said before the server has shown its certificate, and none
// without it.
func TestRabbitMQOverTLS(t *testing.T) {
	t.Parallel()
	ca := testcert.NewAuthority(t, "clinic")
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate)
	env := environment{tls: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	right := testcert.New(t, ca, nil)
	wrong := testcert.New(t, ca, func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"other.example"} })
	for want, cert := range map[string]tls.Certificate{"AMQP": right, "": wrong} {
		server, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
		if err != nil {
			t.Fatal(err)
		}
		heard := make(chan string, 1)
		go func() {
			conn, err := server.Accept()
			if err != nil {
				heard <- err.Error()
				return
			}
			start := make([]byte, 4)
			n, _ := io.ReadFull(conn, start)
			heard <- string(start[:n])
			_ = conn.Close()
		}()
		sources, err := Parse("amqps://clinic:password@" + server.Addr().String() + "/?queue=q")
		if err != nil {
			t.Fatal(err)
		}
		_, err = subscribeAMQP(sources[0], env)
		if got := <-heard; got != want || err == nil || want == "" && !strings.Contains(err.Error(), "certificate") {
			t.Errorf("a server with the certificate of %v hears %q, want %q: %v", cert.Leaf.DNSNames, got, want, err)
		}
		_ = server.Close()
	}
}
