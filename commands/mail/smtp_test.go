package mail_test

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
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
				return errors.Join(s.Send(ctx, s.Recipients(), "An alert", "Something failed.")...)
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

// crude starts a server that answers each line as it is told: 250 where answer returns "",
// and hangs up on "hang up". The first line is "", before the greeting.
func crude(t *testing.T, answer func(line string) string) *mail.Server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(t.Context(), func() { _ = conn.Close() })
			group.Go(func() {
				defer func() { _ = conn.Close() }()
				lines := bufio.NewScanner(conn)
				for inData, line := false, ""; ; line = lines.Text() {
					if !inData || line == "." {
						says := answer(line)
						if says == "hang up" {
							return
						}
						if inData = line == "DATA"; inData {
							says = "354 go on"
						}
						_, _ = fmt.Fprintf(conn, "%s\r\n", cmp.Or(says, "250 fine"))
					}
					if !lines.Scan() {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		group.Wait()
	})
	s, err := mail.ParseServer("smtp://"+listener.Addr().String(), "duty@clinic.test")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What the server has accepted is sent, whatever goes wrong after it.
func TestAcceptedIsSent(t *testing.T) {
	for after, says := range map[string]string{"QUIT": "hang up", "RSET": "502 unknown"} {
		s := crude(t, func(line string) string {
			switch line {
			case "":
				return "220 hello"
			case after:
				return says
			}
			return ""
		})
		if err := errors.Join(s.Send(t.Context(), s.Recipients(), "An alert", "Something failed.")...); err != nil {
			t.Errorf("%s answered with %q: %v", after, says, err)
		}
	}
}

// A server that hangs does not hold up the end of the process.
func TestSendEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	released := make(chan struct{})
	s := crude(t, func(line string) string {
		if line == "" {
			return "220 hello"
		}
		cancel()
		<-released
		return "hang up"
	})
	if err := errors.Join(s.Send(ctx, s.Recipients(), "An alert", "Something failed.")...); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("sent with %v", err)
	}
	close(released)
}
