package mail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	gomail "github.com/wneessen/go-mail"
)

// Server is an SMTP server, and who gets what is sent by it.
type Server struct {
	host    string
	options []gomail.Option
	secure  bool // from the connection's beginning
	tls     *tls.Config
	from    string
	to      []string
}

// ParseServer reads a URL as smtp://user:password@host:port, or smtps:// for a connection
// that is encrypted from its beginning, and addresses, with commas between them. The query
// from= is the sender's address. Its errors hold no password.
func ParseServer(text, recipients string) (*Server, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Scheme != "smtp" && u.Scheme != "smtps" {
		return nil, errors.New("must be a URL as smtp://user:password@mail.example.com:587 or smtps://")
	}
	s := &Server{host: u.Hostname(), secure: u.Scheme == "smtps", from: u.Query().Get("from")}
	user, port := u.User.Username(), 25
	switch {
	case u.Port() != "":
		port, err = strconv.Atoi(u.Port())
	case u.Scheme == "smtps":
		port = 465
	case user != "":
		port = 587
	}
	if err != nil {
		return nil, errors.New("has no port that is a number")
	}
	s.options = append(s.options, gomail.WithPort(port), gomail.WithTimeout(sendTimeout/4), gomail.WithTLSPolicy(gomail.TLSOpportunistic))
	s.Trust(nil)
	if user != "" {
		password, _ := u.User.Password()
		s.options = append(s.options, gomail.WithSMTPAuth(authOf(s.host)), gomail.WithUsername(user), gomail.WithPassword(password))
	}
	if s.from == "" && strings.Contains(user, "@") {
		s.from = user
	} else if s.from == "" {
		s.from = "medilab-webhooks@" + s.host
	}
	list, err := netmail.ParseAddressList(recipients)
	if err != nil {
		return nil, errors.New("needs addresses of recipients, with commas between them")
	}
	for _, a := range list {
		if !slices.Contains(s.to, a.String()) {
			s.to = append(s.to, a.String())
		}
	}
	return s, nil
}

// authOf returns how to authenticate: without encryption a password goes to this machine only.
func authOf(host string) gomail.SMTPAuthType {
	if addr, err := netip.ParseAddr(host); host == "localhost" || err == nil && addr.IsLoopback() {
		return gomail.SMTPAuthPlainNoEnc
	}
	return gomail.SMTPAuthAutoDiscover
}

// Trust makes the server's certificate be checked by these authorities.
func (s *Server) Trust(authorities *x509.CertPool) {
	s.tls = &tls.Config{ServerName: s.host, RootCAs: authorities, MinVersion: tls.VersionTLS12}
}

// dial returns how to connect. The connection ends with ctx, which go-mail heeds only until
// it is connected.
func (s *Server) dial(ctx context.Context) gomail.DialContextFunc {
	dial := new(net.Dialer).DialContext
	if s.secure {
		dial = (&tls.Dialer{Config: s.tls}).DialContext
	}
	return func(limited context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(limited, network, addr)
		if err == nil {
			context.AfterFunc(ctx, func() { _ = conn.Close() })
		}
		return conn, err
	}
}

// Recipients implements Sender.
func (s *Server) Recipients() []string { return s.to }

// Send implements Sender.
func (s *Server) Send(ctx context.Context, to []string, subject, text string) []error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := func(err error) []error { return slices.Repeat([]error{err}, len(to)) }
	client, err := gomail.NewClient(s.host, append(slices.Clip(s.options), gomail.WithTLSConfig(s.tls), gomail.WithDialContextFunc(s.dial(ctx)))...)
	if err != nil {
		return failed(err)
	}
	conn, err := client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return failed(err)
	}
	errs := make([]error, len(to))
	for i, address := range to {
		m, err := s.message(address, subject, text)
		if err == nil {
			err = client.SendWithSMTPClient(conn, m)
		}
		if !m.IsDelivered() { // if it is, an error is of what follows it
			errs[i] = err
		}
	}
	_ = client.CloseWithSMTPClient(conn)
	return errs
}

func (s *Server) message(to, subject, text string) (*gomail.Msg, error) {
	m := gomail.NewMsg()
	if err := m.From(s.from); err != nil {
		return m, fmt.Errorf("the sender's address: %w", err)
	}
	if err := m.To(to); err != nil {
		return m, fmt.Errorf("a recipient's address: %w", err)
	}
	m.Subject(subject)
	m.SetGenHeader("Auto-Submitted", "auto-generated")
	m.SetBodyString(gomail.TypeTextPlain, text)
	return m, nil
}

// refused reports whether the server refused an e-mail for good.
func refused(err error) bool {
	var e *gomail.SendError
	return errors.As(err, &e) && e.ErrorCode() >= 500
}

// textRefused reports whether it was the text that the server refused for good.
func textRefused(err error) bool {
	var e *gomail.SendError
	return errors.As(err, &e) && e.ErrorCode() >= 500 && e.Reason == gomail.ErrSMTPDataClose
}
