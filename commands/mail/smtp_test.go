package mail_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/medilab/webhooks/commands/mail"
)

// encrypted is a post that notes how each letter came.
type encrypted struct {
	post
	over chan bool // whether a connection was encrypted when its letter came
}

type encryptedSession struct {
	session
	over chan bool
	conn *smtp.Conn
}

func (e *encrypted) NewSession(c *smtp.Conn) (smtp.Session, error) {
	return &encryptedSession{session{post: &e.post}, e.over, c}, nil
}

func (s *encryptedSession) Mail(string, *smtp.MailOptions) error {
	_, over := s.conn.TLSConnectionState()
	s.over <- over
	return nil
}

// Letters go encrypted by STARTTLS and by smtps, and only to a server whose certificate is
// trusted.
func TestEncryptedServers(t *testing.T) {
	certified := httptest.NewTLSServer(nil)
	defer certified.Close()
	authorities := x509.NewCertPool()
	authorities.AddCert(certified.Certificate())
	for _, scheme := range []string{"smtp", "smtps"} {
		t.Run(scheme, func(t *testing.T) {
			e := &encrypted{over: make(chan bool, 10)}
			e.got = make(chan letter, 10)
			server := smtp.NewServer(e)
			server.TLSConfig = &tls.Config{Certificates: certified.TLS.Certificates}
			server.ErrorLog = silent{}
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			addr := listener.Addr().String()
			if scheme == "smtps" {
				listener = tls.NewListener(listener, server.TLSConfig)
			}
			var group sync.WaitGroup
			group.Go(func() { _ = server.Serve(listener) })
			defer group.Wait()
			defer server.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			send := func(trust *x509.CertPool) error {
				s, err := mail.ParseServer(scheme+"://alerts%40clinic.test:p%40ss@"+addr, "duty@clinic.test")
				if err != nil {
					t.Fatal(err)
				}
				s.Trust(trust)
				return s.Send(ctx, "An alert", "Something failed.")
			}
			if err := send(x509.NewCertPool()); err == nil || len(e.over) > 0 {
				t.Errorf("sent to a server with an unknown certificate: %v", err)
			}
			if err := send(authorities); err != nil {
				t.Fatal(err)
			}
			if !<-e.over {
				t.Error("the connection was not encrypted")
			}
			if got := <-e.got; got.user != "alerts@clinic.test" || got.to != " duty@clinic.test" || got.subject != "An alert" {
				t.Errorf("got %+v", got)
			}
		})
	}
}
