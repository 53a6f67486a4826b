package sender

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/medilab/webhooks/domain"
)

// failingNames is a resolver whose server answers every question with the code, or not
// at all if it is below zero.
func failingNames(t *testing.T, code int) *net.Resolver { return namesFailing(t, code, false) }

func namesFailing(t *testing.T, code int, answersRoot bool) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply := dnsReply(buf[:n], nil); code >= 0 && reply != nil {
				if isRoot := buf[12] == 0; !isRoot || !answersRoot {
					reply[3] = reply[3]&0xf0 | byte(code)
				}
				_, _ = conn.WriteTo(reply, from)
			}
		}
	}()
	return (&nameServer{conn: conn}).resolver()
}

// closedAddr is an address that refuses connections.
func closedAddr(t *testing.T) string {
	t.Helper()
	l := listen(t, "127.0.0.1:0")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

func TestNameServerThatFailsIsALackOfOurs(t *testing.T) {
	const serverFailure, nameError, refused, silent = 2, 3, 5, -1
	for _, c := range []struct {
		name     string
		resolver *net.Resolver
		want     Outcome
	}{
		{"SERVFAIL", failingNames(t, serverFailure), domain.LacksNameServer},
		{"REFUSED", failingNames(t, refused), domain.LacksNameServer},
		{"no answer", failingNames(t, silent), domain.LacksNameServer},
		{"nothing listens", &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", closedAddr(t))
		}}, domain.LacksNameServer},
		{"SERVFAIL for this name alone", namesFailing(t, serverFailure, true), DNS},
		{"NXDOMAIN", failingNames(t, nameError), DNS},
	} {
		for _, scheme := range []string{"http", "https"} {
			client := newClient(t, Config{Resolver: c.resolver})
			r := request(scheme + "://receiver.example/")
			if c.name == "no answer" {
				r.Timeout = 100 * time.Millisecond
			}
			if res := client.Send(t.Context(), r); res.Outcome != c.want || res.Error == "" {
				t.Errorf("%s, %s: %s (%s), want %s", c.name, scheme, res.Outcome, res.Error, c.want)
			}
		}
	}
}

func TestMissingDescriptorsAreALackOfOurs(t *testing.T) {
	r := newReceiver(t, say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	idle := newReceiver(t, say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	c := newClient(t, Config{AllowTargets: allow(t, "loopback"), Resolver: failingNames(t, 3)})
	if res := c.Send(t.Context(), request(idle.url)); res.Outcome != Success {
		t.Fatalf("%s: %s", res.Outcome, res.Error)
	}
	for _, url := range []string{r.url, "http://receiver.example/", "https://127.0.0.1:1/", "https://receiver.example/"} {
		restore := takeDescriptors(t)
		res := c.Send(t.Context(), request(url))
		restore()
		if res.Outcome != domain.LacksDescriptors {
			t.Errorf("%s: %s: %s", url, res.Outcome, res.Error)
		}
	}
	if c.http1.count != 0 {
		t.Error("idle connections keep their descriptors")
	}
	if res := c.Send(t.Context(), request(r.url)); res.Outcome != Success {
		t.Errorf("with descriptors: %s: %s", res.Outcome, res.Error)
	}
}

// takeDescriptors leaves none to this process until restore is called.
func takeDescriptors(t *testing.T) (restore func()) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	lowest, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer lowest.Close()
	none := syscall.Rlimit{Cur: uint64(lowest.Fd()), Max: limit.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	restore = func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}
	return restore
}

func TestErrorsOfTheKernelAreLacksOfOurs(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	defer l.Close()
	dial := func(addr net.Addr, errno syscall.Errno) error {
		return &net.OpError{Op: "dial", Net: "tcp", Addr: addr, Err: os.NewSyscallError("connect", errno)}
	}
	for _, c := range []struct {
		err  error
		want Outcome
	}{
		{dial(l.Addr(), syscall.EADDRNOTAVAIL), domain.LacksPorts},
		// No local address leads there, as to ::1 on a machine without IPv6.
		{dial(&net.TCPAddr{IP: net.ParseIP("fe80::1"), Port: 1}, syscall.EADDRNOTAVAIL), Connect},
		{dial(l.Addr(), syscall.ENFILE), domain.LacksDescriptors},
		{dial(l.Addr(), syscall.ENOBUFS), domain.LacksMemory},
		{dial(l.Addr(), syscall.ENOMEM), domain.LacksMemory},
		{dial(l.Addr(), syscall.ECONNREFUSED), Connect},
		{&net.OpError{Op: "write", Net: "tcp", Err: os.NewSyscallError("write", syscall.ENOBUFS)}, BadResponse}, // part of it may be out
	} {
		if res := failed(c.err); res.Outcome != c.want {
			t.Errorf("%v: %s (%s), want %s", c.err, res.Outcome, res.Error, c.want)
		}
	}
}

func TestProxyThatFailsIsALackOfOurs(t *testing.T) {
	wantsLogin := newReceiver(t, sayAndClose("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"))
	cannotConnect := newReceiver(t, sayAndClose("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"))
	socks := listen(t, "127.0.0.1:0")
	defer socks.Close()
	go func() {
		for {
			conn, err := socks.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 8))
			_, _ = conn.Write([]byte{5, 0xff}) // no acceptable method
			_ = conn.Close()
		}
	}()
	for _, c := range []struct {
		name, proxy, target string
		want                Outcome
	}{
		{"down", "http://" + closedAddr(t), "http://1.1.1.1/", domain.LacksProxy},
		{"down", "http://" + closedAddr(t), "https://1.1.1.1/", domain.LacksProxy},
		{"down", "socks5://" + closedAddr(t), "https://1.1.1.1/", domain.LacksProxy},
		{"unknown", "http://proxy.example:3128", "https://1.1.1.1/", domain.LacksProxy},
		{"407", wantsLogin.url, "http://1.1.1.1/", domain.LacksProxy},
		{"407", wantsLogin.url, "https://1.1.1.1/", domain.LacksProxy},
		{"no TLS", strings.Replace(wantsLogin.url, "http:", "https:", 1), "https://1.1.1.1/", domain.LacksProxy},
		{"socks login", "socks5://" + socks.Addr().String(), "http://1.1.1.1/", domain.LacksProxy},
		{"502", cannotConnect.url, "https://1.1.1.1/", Connect},
		{"502", cannotConnect.url, "http://1.1.1.1/", HTTPStatus}, // it may be the receiver's
	} {
		client := newClient(t, Config{Proxy: c.proxy, Resolver: newNameServer(t, nil).resolver()})
		if res := client.Send(t.Context(), request(c.target)); res.Outcome != c.want || res.Error == "" {
			t.Errorf("%s, %s: %s (%s), want %s", c.name, c.target, res.Outcome, res.Error, c.want)
		}
	}
	direct := newClient(t, Config{AllowTargets: allow(t, "loopback")})
	if res := direct.Send(t.Context(), request(wantsLogin.url)); res.Outcome != HTTPStatus {
		t.Errorf("407 of a receiver: %s", res.Outcome)
	}
}

func TestProxyThatNeverAcceptsIsALackOfOurs(t *testing.T) {
	c := newClient(t, Config{Proxy: "http://proxy.example:3128", AllowTargets: allow(t, "all"), Resolver: failingNames(t, -1)})
	r := request("https://receiver.example/")
	r.Timeout = 100 * time.Millisecond
	if res := c.Send(t.Context(), r); res.Outcome != domain.LacksNameServer {
		t.Errorf("%s: %s", res.Outcome, res.Error)
	}
}

// A network may know the names outside at its proxy alone.
func TestProxyResolvesNamesIfAllTargetsAreAllowed(t *testing.T) {
	proxy := newReceiver(t, func(c net.Conn, req *http.Request, quit <-chan struct{}) bool {
		return say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")(c, req, quit)
	})
	var asked atomic.Int64
	names := newNameServer(t, func(string) []netip.Addr { asked.Add(1); return nil })
	c := newClient(t, Config{Proxy: proxy.url, AllowTargets: allow(t, "all"), Resolver: names.resolver()})
	if res := c.Send(t.Context(), request("http://receiver.example/")); res.Outcome != Success || asked.Load() != 0 {
		t.Errorf("%s (%s), %d questions", res.Outcome, res.Error, asked.Load())
	}
	for _, host := range []string{"127.1", "0x7f.1", "2130706433", "0x7f000001", "127.0.0.1.", "１２７.1", "0177.0.0.1", "017700000001"} {
		if res := c.Send(t.Context(), request("http://"+host+"/")); res.Outcome != InvalidRequest && res.Outcome != RefusedTarget {
			t.Errorf("%s: %s (%s)", host, res.Outcome, res.Error)
		}
	}
	if n := proxy.requests.Load(); n != 1 {
		t.Errorf("the proxy saw %d requests", n)
	}
	for _, host := range []string{"receiver.example", "7seven.example", "0xbad.example", "1.example."} {
		if endsInNumber(host) {
			t.Errorf("%s is a name", host)
		}
	}
}

func TestProxySetting(t *testing.T) {
	for _, proxy := range []string{"ftp://proxy:21", "proxy:3128", "//proxy", "http://", "file:///etc/passwd", "http://%zz"} {
		if _, err := New(Config{Proxy: proxy}); err == nil || !strings.Contains(err.Error(), "MEDILAB_PROXY") {
			t.Errorf("%s: %v", proxy, err)
		}
	}
	for _, proxy := range []string{"http://proxy:3128", "https://user:pass@proxy", "socks5://proxy:1080"} {
		if _, err := New(Config{Proxy: proxy}); err != nil {
			t.Errorf("%s: %v", proxy, err)
		}
	}
}
