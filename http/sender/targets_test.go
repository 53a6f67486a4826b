package sender

import (
	"context"
	"encoding/binary"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
)

// nameServer is a DNS server of ours: answers gives the next address of a name.
type nameServer struct {
	conn net.PacketConn
}

// newNameServer answers A and AAAA questions with what answer gives, and
// "no such name" when answer is nil or gives nothing. Questions of the dropped types
// are left unanswered.
func newNameServer(t *testing.T, answer func(name string) []netip.Addr, dropped ...uint16) *nameServer {
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
			if reply := dnsReply(buf[:n], answer, dropped...); reply != nil {
				if _, err := conn.WriteTo(reply, from); err != nil {
					return
				}
			}
		}
	}()
	return &nameServer{conn: conn}
}

func (s *nameServer) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", s.conn.LocalAddr().String())
	}}
}

// dnsReply copies the question and appends the addresses of its type.
func dnsReply(q []byte, answer func(string) []netip.Addr, dropped ...uint16) []byte {
	if len(q) < 12 {
		return nil
	}
	var labels []string
	i := 12
	for i < len(q) && q[i] != 0 {
		end := i + 1 + int(q[i])
		if end > len(q) {
			return nil
		}
		labels = append(labels, string(q[i+1:end]))
		i = end
	}
	if i+5 > len(q) {
		return nil
	}
	kind := binary.BigEndian.Uint16(q[i+1:])
	if slices.Contains(dropped, kind) {
		return nil
	}
	question := q[12 : i+5]
	var addrs []netip.Addr
	if answer != nil {
		addrs = answer(strings.ToLower(strings.Join(labels, ".")))
	}
	var records []byte
	count := 0
	for _, a := range addrs {
		if (kind == 1) != a.Is4() || (kind != 1 && kind != 28) {
			continue
		}
		count++
		records = append(records, 0xc0, 12)
		records = binary.BigEndian.AppendUint16(records, kind)
		records = append(records, 0, 1, 0, 0, 0, 0)
		records = binary.BigEndian.AppendUint16(records, uint16(a.BitLen()/8))
		records = append(records, a.AsSlice()...)
	}
	head := []byte{q[0], q[1], 0x81, 0x80, 0, 1, 0, byte(count), 0, 0, 0, 0}
	if len(addrs) == 0 {
		head[3] |= 3 // no such name
	}
	return append(append(head, question...), records...)
}

// canaries listen wherever a confused client might end up on this machine.
func canaries(t *testing.T) (port string, reached func() int64) {
	t.Helper()
	l := listen(t, "127.0.0.1:0")
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	all := []*receiver{serveOn(t, l, say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))}
	for _, addr := range []string{"[::1]:" + port, "127.0.0.2:" + port} {
		if l, err := net.Listen("tcp", addr); err == nil {
			all = append(all, serveOn(t, l, say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")))
		}
	}
	return port, func() (n int64) {
		for _, r := range all {
			n += r.conns.Load()
		}
		return n
	}
}

// spellings are ways to write an address that webhooks may not call.
var spellings = []string{
	// loopback
	"127.0.0.1", "127.0.0.2", "127.1", "127.0.1", "127.255.255.254", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1",
	"017700000001", "127.000.000.001", "0x7f.1", "localhost", "LOCALHOST", "localhost.", "127.0.0.1.nip.io", "localtest.me",
	"①②⑦.⓪.⓪.①", "127。0。0。1", "[::1]", "[0:0:0:0:0:0:0:1]", "[0000::0001]",
	// unspecified
	"0", "0.0.0.0", "0.0.0.1", "[::]",
	// IPv4 inside IPv6
	"[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::127.0.0.1]", "[::ffff:0:127.0.0.1]",
	"[64:ff9b::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2001:0:7f00:1::]", "[::ffff:169.254.169.254]",
	// private, shared, link-local, metadata
	"10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "100.64.0.1", "100.100.100.200",
	"169.254.169.254", "169.254.0.1", "2852039166", "168.63.129.16", "192.0.0.192", "[fd00:ec2::254]", "[fc00::1]", "[fd12:3456::1]",
	"[fe80::1]", "[fe80::1%25lo]", "[fec0::1]", "metadata.google.internal",
	// multicast, broadcast, reserved, documentation
	"224.0.0.1", "239.255.255.250", "[ff02::1]", "[ff01::1%25lo]", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.1",
	"198.18.0.1", "[2001:db8::1]", "[100::1]",
}

func TestNoSpellingReachesAPrivateAddress(t *testing.T) {
	port, reached := canaries(t)
	// Whatever is not an address by Go's reading is a name that points at home.
	names := newNameServer(t, func(string) []netip.Addr {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1"), netip.MustParseAddr("::ffff:127.0.0.1")}
	})
	c := newClient(t, Config{Resolver: names.resolver()})
	for _, host := range spellings {
		for _, url := range []string{"http://" + host + ":" + port + "/", "https://" + host + ":" + port + "/"} {
			res := c.Send(t.Context(), request(url))
			switch res.Outcome {
			case RefusedTarget:
				if !strings.Contains(res.Error, Setting) {
					t.Errorf("%s: %q does not name the setting", url, res.Error)
				}
			case InvalidRequest, DNS: // never became an address
			default:
				t.Errorf("%s: %s, status %d (%s)", url, res.Outcome, res.Status, res.Error)
			}
		}
	}
	if n := reached(); n != 0 {
		t.Errorf("%d connections reached the canary", n)
	}
	if len(spellings) < 40 {
		t.Errorf("only %d spellings", len(spellings))
	}
}

func TestRefusalNamesItsRule(t *testing.T) {
	c := newClient(t, Config{})
	for addr, rule := range map[string]string{
		"127.0.0.1": "loopback", "10.1.2.3": "private", "169.254.169.254": "link-local", "100.64.0.1": "shared", "224.0.0.1": "multicast",
		"0.0.0.0": "unspecified", "255.255.255.255": "broadcast", "[64:ff9b::1]": "NAT64", "[2002::1]": "6to4", "[2001::1]": "Teredo",
		"[::127.0.0.1]": "IPv4-compatible", "168.63.129.16": "cloud metadata", "[fc00::1]": "private", "[::ffff:10.0.0.1]": "private",
	} {
		if res := c.Send(t.Context(), request("http://"+addr+":1/")); !strings.Contains(res.Error, rule) {
			t.Errorf("%s: %q does not name the rule %q", addr, res.Error, rule)
		}
	}
}

func TestPublicAddressesAreAllowed(t *testing.T) {
	for _, a := range []string{"1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1"} {
		if err := (Targets{}).check(netip.MustParseAddr(a)); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	port, reached := canaries(t)
	// Also where the redirect leads to is allowed: it is not for receivers to say who gets data.
	c := newClient(t, Config{AllowTargets: allow(t, "loopback")})
	for _, status := range []int{301, 302, 303, 307, 308} {
		r := serveOn(t, listen(t, "127.0.0.3:0"), say("HTTP/1.1 %d Moved\r\nLocation: http://127.0.0.1:%s/\r\nContent-Length: 0\r\n\r\n", status, port))
		for _, body := range []string{"", "{}"} { // one without a body would be repeated by any client
			req := request(r.url)
			req.Body = []byte(body)
			res := c.Send(t.Context(), req)
			if res.Outcome != HTTPStatus || res.Status != status || res.Header.Get("Location") != "http://127.0.0.1:"+port+"/" {
				t.Errorf("%s, status %d, headers %v", res.Outcome, res.Status, res.Header)
			}
		}
	}
	if n := reached(); n != 0 {
		t.Errorf("%d connections followed the redirect", n)
	}
}

// A name that is allowed when it is looked up first and private the next time
// reaches nothing: the address that is dialled is the one that is checked.
func TestRebindingNameReachesNothing(t *testing.T) {
	port, reached := canaries(t)
	allowed := serveOn(t, listen(t, "127.0.0.3:"+port), sayAndClose("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"))
	var mu sync.Mutex
	now := netip.MustParseAddr("127.0.0.3")
	names := newNameServer(t, func(string) []netip.Addr {
		mu.Lock()
		defer mu.Unlock()
		return []netip.Addr{now}
	})
	c := newClient(t, Config{AllowTargets: allow(t, "127.0.0.3/32"), Resolver: names.resolver()})
	url := "http://rebind.example:" + port + "/"
	if res := c.Send(t.Context(), request(url)); res.Outcome != Success {
		t.Fatalf("%s: %s", res.Outcome, res.Error)
	}
	mu.Lock()
	now = netip.MustParseAddr("127.0.0.1")
	mu.Unlock()
	if res := c.Send(t.Context(), request(url)); res.Outcome != RefusedTarget {
		t.Errorf("%s: %s", res.Outcome, res.Error)
	}
	if n := reached(); n != 0 || allowed.requests.Load() != 1 {
		t.Errorf("canary saw %d connections, the allowed receiver %d requests", n, allowed.requests.Load())
	}
}

func TestParseTargets(t *testing.T) {
	tests := []struct{ in, allowed, refused string }{
		{"", "1.1.1.1", "127.0.0.1"},
		{"none", "1.1.1.1", "127.0.0.1 10.0.0.1"},
		{"loopback", "127.0.0.9 ::1 ::ffff:127.0.0.1", "10.0.0.1 0.0.0.0"},
		{"private", "10.0.0.1 172.20.1.1 192.168.9.9 fd00::1", "127.0.0.1 169.254.169.254 fd00:ec2::254 100.64.0.1 fe80::1"},
		{" Private , 100.64.0.0/10 ", "10.0.0.1 100.64.0.1", "127.0.0.1"},
		{"10.1.0.0/16", "10.1.2.3", "10.2.0.1"},
		{"10.1.2.3/16", "10.1.9.9", "10.2.0.1"},
		{"10.1.2.3", "10.1.2.3", "10.1.2.4"},
		{"168.63.129.16,fd00:ec2::/32", "168.63.129.16 fd00:ec2::254", "127.0.0.1"},
		{"all", "127.0.0.1 0.0.0.0 169.254.169.254 ff02::1", ""},
	}
	for _, tt := range tests {
		targets, err := ParseTargets(tt.in)
		if err != nil {
			t.Errorf("%q: %v", tt.in, err)
			continue
		}
		for _, a := range strings.Fields(tt.allowed) {
			if err := targets.check(netip.MustParseAddr(a)); err != nil {
				t.Errorf("%q: %v", tt.in, err)
			}
		}
		for _, a := range strings.Fields(tt.refused) {
			if targets.check(netip.MustParseAddr(a)) == nil {
				t.Errorf("%q allows %s", tt.in, a)
			}
		}
	}
	for _, bad := range []string{"everything", "10.0.0.0/33", "10.0.0", "loopback;private", "http://10.0.0.1"} {
		if _, err := ParseTargets(bad); err == nil || !strings.Contains(err.Error(), Setting) {
			t.Errorf("%q: %v, want an error that names the setting", bad, err)
		}
	}
}

// A proxy dials for us, so what it is asked for is checked before.
func TestProxiedTargetsAreChecked(t *testing.T) {
	port, reached := canaries(t)
	proxy := newReceiver(t, func(c net.Conn, req *http.Request, quit <-chan struct{}) bool {
		if req.URL.Host != "1.1.1.1" {
			return false
		}
		return say("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nproxied")(c, req, quit)
	})
	names := newNameServer(t, func(string) []netip.Addr { return []netip.Addr{netip.MustParseAddr("127.0.0.1")} })
	c := newClient(t, Config{Proxy: proxy.url, Resolver: names.resolver()})
	if res := c.Send(t.Context(), request("http://1.1.1.1/")); res.Outcome != Success || string(res.Body) != "proxied" {
		t.Errorf("%s: %s", res.Outcome, res.Error)
	}
	for _, host := range []string{"127.0.0.1", "home.example"} {
		if res := c.Send(t.Context(), request("http://"+host+":"+port+"/")); res.Outcome != RefusedTarget {
			t.Errorf("%s: %s: %s", host, res.Outcome, res.Error)
		}
	}
	if n := reached(); n != 0 || proxy.requests.Load() != 1 {
		t.Errorf("canary saw %d connections, the proxy %d requests", n, proxy.requests.Load())
	}
}

func TestProxyOfTheEnvironmentIsIgnored(t *testing.T) {
	proxy := newReceiver(t, say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	t.Setenv("HTTP_PROXY", proxy.url)
	t.Setenv("http_proxy", proxy.url)
	r := serveOn(t, listen(t, "127.0.0.3:0"), say("HTTP/1.1 204 No Content\r\n\r\n"))
	// By a name: net/http asks no proxy for what is spelled as this machine.
	names := newNameServer(t, func(string) []netip.Addr { return []netip.Addr{netip.MustParseAddr("127.0.0.3")} })
	c := newClient(t, Config{AllowTargets: allow(t, "loopback"), Resolver: names.resolver()})
	_, port, err := net.SplitHostPort(strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if res := c.Send(t.Context(), request("http://receiver.example:"+port)); res.Status != 204 || proxy.conns.Load() != 0 {
		t.Errorf("status %d (%s), the proxy saw %d connections", res.Status, res.Error, proxy.conns.Load())
	}
	// net/http reads the environment once in a process, and somebody may have been first.
	if c.transport.Proxy != nil {
		t.Error("there is a proxy")
	}
}
