package sender

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/medilab/webhooks/cmd/testbed/testcert"
)

// One name in one spelling is looked up, shown to TLS, and sent as the host.
func TestNamesHaveOneSpelling(t *testing.T) {
	const idn, ascii = "bücher.example", "xn--bcher-kva.example"
	for name, tt := range map[string]struct{ host, want string }{
		"upper case":        {"Receiver.EXAMPLE", "receiver.example"},
		"beyond ASCII":      {idn, ascii},
		"upper-case umlaut": {"BÜCHER.example", ascii},
		"decomposed":        {"bu\u0308cher.example", ascii},
		"ideographic stop":  {"bücher。example", ascii},
		"full width":        {"ｒｅｃｅｉｖｅｒ.example", "receiver.example"},
		"percent-encoded":   {"b%C3%BCcher.example", ascii},
		"underscore":        {"My_Receiver.example", "my_receiver.example"},
	} {
		t.Run(name, func(t *testing.T) {
			var asked, hosts, shown sync.Map
			names := newNameServer(t, func(name string) []netip.Addr {
				asked.Store(name, true)
				return []netip.Addr{netip.MustParseAddr("127.0.0.1")}
			})
			answer := func(c net.Conn, req *http.Request, quit <-chan struct{}) bool {
				hosts.Store(req.Host, true)
				return say(empty200)(c, req, quit)
			}
			ca := testcert.NewAuthority(t, "Test CA")
			cert := testcert.New(t, ca, func(c *x509.Certificate) { c.DNSNames = []string{tt.want} })
			plain := serveOn(t, listen(t, "127.0.0.1:0"), answer)
			secure := serveOn(t, tls.NewListener(listen(t, "127.0.0.1:0"), &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				shown.Store(hello.ServerName, true)
				return &cert, nil
			}}), answer)
			c := newClient(t, Config{AllowTargets: allow(t, "loopback"), Resolver: names.resolver(), CAFile: writePEM(t, "CERTIFICATE", ca.Certificate.Raw)})
			wantHosts := []string{}
			for range 2 { // over TLS by the transport first, then by ours
				for scheme, r := range map[string]*receiver{"http://": plain, "https://": secure} {
					_, port, _ := net.SplitHostPort(strings.TrimPrefix(r.url, "http://"))
					if res := c.Send(t.Context(), request(scheme+tt.host+":"+port+"/")); res.Outcome != Success {
						t.Fatalf("%s (%s)", res.Outcome, res.Error)
					}
					wantHosts = append(wantHosts, tt.want+":"+port)
				}
			}
			slices.Sort(wantHosts)
			wantHosts = slices.Compact(wantHosts)
			if got := keysOf(&hosts); !slices.Equal(got, wantHosts) {
				t.Errorf("hosts %q, want %q", got, wantHosts)
			}
			if got := keysOf(&asked); !slices.Equal(got, []string{tt.want}) {
				t.Errorf("looked up %q, want %q", got, tt.want)
			}
			if got := keysOf(&shown); !slices.Equal(got, []string{tt.want}) {
				t.Errorf("TLS server name %q, want %q", got, tt.want)
			}
		})
	}
}

func keysOf(m *sync.Map) (keys []string) {
	m.Range(func(k, _ any) bool { keys = append(keys, k.(string)); return true })
	slices.Sort(keys)
	return keys
}

func TestNamesThatAreNone(t *testing.T) {
	c := newClient(t, Config{AllowTargets: allow(t, "all")})
	for _, host := range []string{"a／b.example", "bü_cher.example", "xn--a.bücher.example", "bü cher.example"} {
		if res := c.Send(t.Context(), request("http://"+host+"/")); res.Outcome != InvalidRequest {
			t.Errorf("%q: %s (%s)", host, res.Outcome, res.Error)
		}
	}
}

// Nothing in a URL is sent raw that a request line cannot hold.
func TestQueryIsEscaped(t *testing.T) {
	got := make(chan string, 1)
	l := listen(t, "127.0.0.1:0")
	r := serveOn(t, l, func(c net.Conn, req *http.Request, quit <-chan struct{}) bool {
		got <- req.RequestURI
		return say(empty200)(c, req, quit)
	})
	c := newClient(t, Config{AllowTargets: allow(t, "loopback")})
	for in, want := range map[string]string{
		"/?q=ключ&a=%C3%BC": "/?q=%D0%BA%D0%BB%D1%8E%D1%87&a=%C3%BC",
		"/путь?a b":         "/%D0%BF%D1%83%D1%82%D1%8C?a%20b",
		"?é":                "/?%C3%A9",
		"/a%2Fb?x=%zz+1":    "/a%2Fb?x=%zz+1",
	} {
		if res := c.Send(t.Context(), request(r.url+in)); res.Outcome != Success {
			t.Errorf("%s: %s (%s)", in, res.Outcome, res.Error)
		} else if uri := <-got; uri != want {
			t.Errorf("%s was sent as %s, want %s", in, uri, want)
		}
	}
}

// A name server that drops one kind of question delays no call.
func TestNameServerThatDropsQuestions(t *testing.T) {
	for name, tt := range map[string]struct {
		drops  uint16
		listen string
	}{"AAAA": {28, "127.0.0.1:0"}, "A": {1, "[::1]:0"}} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", tt.listen)
			if err != nil {
				t.Skip("no IPv6 here:", err)
			}
			r := serveOn(t, l, say(empty200))
			_, port, _ := net.SplitHostPort(l.Addr().String())
			names := newNameServer(t, func(string) []netip.Addr {
				return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}
			}, tt.drops)
			c := newClient(t, Config{AllowTargets: allow(t, "loopback"), Resolver: names.resolver()})
			req := request("http://receiver.example:" + port)
			// The resolver gives a question up after twice its timeout of 5 s.
			req.Timeout = 9 * time.Second
			if res := c.Send(t.Context(), req); res.Outcome != Success || r.requests.Load() != 1 {
				t.Errorf("%s (%s)", res.Outcome, res.Error)
			}
		})
	}
}

// What a call over the transport waits for is not the other family's addresses.
func TestSilentReceiverIsNoLackOfANameServer(t *testing.T) {
	asked := make(chan struct{})
	var once sync.Once
	names := newNameServer(t, func(string) []netip.Addr { return []netip.Addr{netip.MustParseAddr("127.0.0.1")} }, 28)
	dialer := &net.Dialer{Resolver: names.resolver(), ControlContext: func(ctx context.Context, network, _ string, _ syscall.RawConn) error {
		once.Do(func() { close(asked) })
		<-ctx.Done() // the connection is never made
		return ctx.Err()
	}}
	var own awaited
	ctx, cancel := context.WithTimeout(own.trace(t.Context(), false), 3*familyDelay)
	defer cancel()
	_, err := dialFamilies(dialer)(ctx, "tcp", "receiver.example:443")
	<-asked
	if lack := own.lack(); err == nil || lack != "" {
		t.Errorf("lack %q, error %v", lack, err)
	}
	if outcome, _ := ownFailure(err); outcome != "" {
		t.Errorf("%s: %v", outcome, err)
	}
}

// The error is of the family in which the name has addresses.
func TestErrorOfANameWithOneFamily(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	for name, tt := range map[string]struct {
		addrs []netip.Addr
		drops uint16
		want  Outcome
	}{
		"IPv4":                  {[]netip.Addr{netip.MustParseAddr("127.0.0.1")}, 0, Connect},
		"IPv6":                  {[]netip.Addr{netip.MustParseAddr("::1")}, 0, Connect},
		"IPv4, AAAA is dropped": {[]netip.Addr{netip.MustParseAddr("127.0.0.1")}, 28, Connect},
		"refused":               {[]netip.Addr{netip.MustParseAddr("10.0.0.1")}, 0, RefusedTarget},
		"none":                  {nil, 0, DNS},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			names := newNameServer(t, func(string) []netip.Addr { return tt.addrs }, tt.drops)
			c := newClient(t, Config{AllowTargets: allow(t, "loopback"), Resolver: names.resolver()})
			req := request("http://receiver.example:" + port)
			req.Timeout = 9 * time.Second
			if res := c.Send(t.Context(), req); res.Outcome != tt.want {
				t.Errorf("%s (%s), want %s", res.Outcome, res.Error, tt.want)
			}
		})
	}
}

// linkLocal returns a link-local address of this machine with its zone.
func linkLocal(t *testing.T) netip.Addr {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		addrs, _ := i.Addrs()
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
				return p.Addr().WithZone(i.Name)
			}
		}
	}
	return netip.Addr{}
}

// An address with a zone is in the networks that its address is in.
func TestZonedTargets(t *testing.T) {
	zoned := netip.MustParseAddr("fe80::1%eth0")
	if err := allow(t, "fe80::/10").check(zoned); err != nil {
		t.Error(err)
	}
	for _, targets := range []string{"none", "private", "loopback", "10.0.0.0/8"} {
		if err := allow(t, targets).check(zoned); err == nil || !strings.Contains(err.Error(), "link-local") {
			t.Errorf("%s: %v", targets, err)
		}
	}
	// ::1%lo is what every machine with IPv6 has.
	addr, targets := linkLocal(t), "fe80::/10"
	if !addr.IsValid() {
		addr, targets = netip.MustParseAddr("::1%lo"), "::1/128"
	}
	l, err := net.Listen("tcp", net.JoinHostPort(addr.String(), "0"))
	if err != nil {
		t.Skip("no IPv6 here:", err)
	}
	got := make(chan string, 1)
	serveOn(t, l, func(c net.Conn, req *http.Request, quit <-chan struct{}) bool {
		got <- req.Host
		return say(empty200)(c, req, quit)
	})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	c := newClient(t, Config{AllowTargets: allow(t, targets)})
	host := strings.Replace(addr.String(), "%", "%25", 1)
	if res := c.Send(t.Context(), request("http://["+host+"]:"+port+"/")); res.Outcome != Success {
		t.Fatalf("%s (%s)", res.Outcome, res.Error)
	}
	if want := "[" + addr.WithZone("").String() + "]:" + port; want != <-got {
		t.Errorf("the host is not %s", want)
	}
}

// A receiver of TLS 1.2 may ask for the client certificate when it has the request.
func TestRenegotiationForAClientCertificate(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no server that renegotiates: openssl is not installed")
	}
	ca := testcert.NewAuthority(t, "Test CA")
	server, client := testcert.New(t, ca, nil), testcert.New(t, ca, nil)
	caFile := writePEM(t, "CERTIFICATE", ca.Certificate.Raw)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, openssl, "s_server", "-accept", "127.0.0.1:0", "-tls1_2", "-CAfile", caFile,
		"-cert", writePEM(t, "CERTIFICATE", server.Certificate[0]), "-key", writePEM(t, "PRIVATE KEY", keyOf(t, server)))
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	said := &script{r: stdout}
	addr := strings.TrimSpace(said.after(t, "ACCEPT ", "\n"))
	c := newClient(t, Config{
		AllowTargets: allow(t, "loopback"), CAFile: caFile,
		ClientCertFile: writePEM(t, "CERTIFICATE", client.Certificate[0]), ClientKeyFile: writePEM(t, "PRIVATE KEY", keyOf(t, client)),
	})
	speakHTTP1(t, c, "https://"+addr)
	results := make(chan Result, 1)
	go func() { results <- c.Send(ctx, request("https://"+addr)) }()
	said.after(t, "patient.created", "}")
	if _, err := io.WriteString(stdin, "R\n"); err != nil {
		t.Fatal(err)
	}
	said.after(t, "depth=0", "verify return:1") // the client's certificate
	said.after(t, "SSL_do_handshake", "\n")
	if _, err := io.WriteString(stdin, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if res := <-results; res.Outcome != Success {
		t.Errorf("%s (%s)", res.Outcome, res.Error)
	}
}

// script reads what a program says.
type script struct {
	r    io.Reader
	text string
}

// after waits for start and then for end, and returns what is between them.
func (s *script) after(t *testing.T, start, end string) string {
	t.Helper()
	for {
		if _, rest, found := strings.Cut(s.text, start); found {
			if between, rest, found := strings.Cut(rest, end); found {
				s.text = rest
				return between
			}
		}
		buf := make([]byte, 4096)
		n, err := s.r.Read(buf)
		s.text += string(buf[:n])
		if err != nil {
			t.Fatalf("%v; before that: %s", err, s.text)
		}
	}
}
