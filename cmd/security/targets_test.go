package security

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
)

// spellings all mean, or try to mean, a place that webhooks may not call. The
// names are answered by a name server of the test's own.
var spellings = []string{
	// loopback
	"127.0.0.1", "127.0.0.2", "127.255.255.254", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "0177.1",
	"017700000001", "127.0.0.1.", "localhost", "LOCALHOST", "localhost.", "sub.localhost", "0.0.0.0", "0", "0x0",
	"[::1]", "[0:0:0:0:0:0:0:1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::127.0.0.1]", "[::1%25lo]",
	"%31%32%37.0.0.1", "①②⑦.⓪.⓪.①", "127。0。0。1",
	// IPv4 inside IPv6 by other ways
	"[64:ff9b::127.0.0.1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2002:a00:1::1]", "[2001:0:7f00:1::]",
	// private, shared, link-local, metadata
	"10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "100.64.0.1", "100.100.100.200", "169.254.169.254", "2852039166",
	"0xa9fea9fe", "[::ffff:169.254.169.254]", "168.63.129.16", "192.0.0.192", "[fd00:ec2::254]", "[fc00::1]", "[fe80::1]", "[fec0::1]",
	// multicast, broadcast, reserved
	"224.0.0.1", "239.255.255.250", "[ff02::1]", "255.255.255.255", "240.0.0.1", "198.18.0.1",
	// names that point inside
	"home.example", "six.example", "mapped.example", "private.example", "metadata.google.internal", "both.example",
}

var names = map[string][]string{
	"home.example": {"127.0.0.1"}, "six.example": {"::1"}, "mapped.example": {"::ffff:127.0.0.1"}, "private.example": {"10.0.0.1", "192.168.0.1"},
	"metadata.google.internal": {"169.254.169.254"}, "both.example": {"127.0.0.1", "::1"},
}

// canary listens on every address of this machine, and counts who comes.
func canary(t *testing.T) (port string, reached *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	reached = new(atomic.Int64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			reached.Add(1)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	_, port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	// A canary that cannot be reached proves nothing.
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); err != nil {
		t.Fatal(err)
	}
	if reached.Swap(0) != 1 {
		t.Fatal("the canary does not count")
	}
	return port, reached
}

// However a target is spelled, and whether it is called by a test or by an event,
// nothing private is reached, and the call log says by which rule and setting.
func TestNoSpellingReachesInside(t *testing.T) {
	port, reached := canary(t)
	server := serveNames(t, func(name string) []netip.Addr {
		var addrs []netip.Addr
		for _, a := range names[name] {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		if addrs == nil { // whatever else became a name points at home
			addrs = append(addrs, netip.MustParseAddr("127.0.0.1"))
		}
		return addrs
	})
	p := start(t, append(newDatabase(t), "MEDILAB_RESOLVER="+server)...)
	webhooks := map[string]string{}
	for _, host := range spellings {
		for _, scheme := range []string{"http", "https"} {
			url := scheme + "://" + host + ":" + port + "/hook"
			status, answer := p.as(adminToken, "POST", "/api/v1/webhooks/", fmt.Sprintf(`{"name":"w","url":%q,"events":["*"],"max_retries":0,"timeout":5}`, url))
			switch status {
			case http.StatusCreated:
				_, id, _ := strings.Cut(string(answer), `"id":"`)
				webhooks[url] = id[:36]
			case http.StatusUnprocessableEntity: // no URL at all
			default:
				t.Errorf("%s: %d %s", url, status, answer)
			}
		}
	}
	if len(webhooks) < 80 {
		t.Errorf("only %d webhooks are tried", len(webhooks))
	}
	for _, id := range webhooks {
		p.api(200, "POST", "/webhooks/"+id+"/test", `{"event_type":"patient.created","test_data":{}}`, nil)
	}
	p.api(202, "POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`, nil)
	named := 0
	for url, id := range webhooks {
		var calls []call
		p.Until("the attempts at "+url+" are recorded", func() bool { calls = p.calls(id); return len(calls) == 2 })
		for _, c := range calls {
			text := c.text()
			switch {
			case c.Status != "failed" || c.ResponseStatus != nil:
				t.Errorf("%s: %+v", url, c)
			case strings.Contains(text, "refused: ") && strings.Contains(text, " address; MEDILAB_ALLOW_TARGETS can allow it"):
				named++
			case !strings.Contains(text, "name"): // it never became an address
				t.Errorf("%s: %q names neither rule nor setting", url, text)
			}
		}
	}
	if named < 2*2*40 {
		t.Errorf("only %d refusals name their rule and setting", named)
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("%d connections reached the canary", n)
	}
}

// One address is allowed. Names that pointed there and then elsewhere, and
// redirects from there, reach nothing else.
func TestRebindingAndRedirectsReachNothing(t *testing.T) {
	port, reached := canary(t)
	allowed, err := net.Listen("tcp", "127.0.0.3:0")
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	receiver := &httptest.Server{Listener: allowed, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Connection", "close") // each call looks the name up again
		if r.URL.Path == "/redirect" {
			w.Header().Set("Location", "http://127.0.0.1:"+port+"/stolen")
			w.WriteHeader(http.StatusFound) // which clients follow also after a POST
		}
	})}}
	receiver.Start()
	t.Cleanup(receiver.Close)
	_, allowedPort, err := net.SplitHostPort(allowed.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	// The first answer is the allowed address, every later one the forbidden one:
	// a check before the connection's own lookup would be passed.
	var answers, moved atomic.Int64
	server := serveNames(t, func(name string) []netip.Addr {
		answers.Add(1)
		if name == "rebind.example" && moved.Load() == 0 {
			return []netip.Addr{netip.MustParseAddr("127.0.0.3")}
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	})
	p := start(t, append(newDatabase(t), "MEDILAB_RESOLVER="+server, "MEDILAB_ALLOW_TARGETS=127.0.0.3")...)
	test := func(webhook string) call {
		t.Helper()
		var c call
		p.api(200, "POST", "/webhooks/"+webhook+"/test", `{"event_type":"patient.created","test_data":{}}`, &c)
		return c
	}

	rebinding := p.register("http://rebind.example:"+allowedPort+"/", "")
	if c := test(rebinding); c.Status != "success" || asked.Load() != 1 {
		t.Fatalf("%+v", c)
	}
	moved.Store(1)
	if c := test(rebinding); c.Status != "failed" || !strings.Contains(c.text(), "127.0.0.1 is a loopback address") {
		t.Errorf("%+v: %s", c, c.text())
	}
	other := p.register("http://rebind.example:"+port+"/", "")
	if c := test(other); c.Status != "failed" || !strings.Contains(c.text(), "loopback") {
		t.Errorf("%+v: %s", c, c.text())
	}
	redirecting := p.register("http://"+allowed.Addr().String()+"/redirect", "")
	if c := test(redirecting); c.Status != "failed" || c.ResponseStatus == nil || *c.ResponseStatus != http.StatusFound {
		t.Errorf("%+v: %s", c, c.text())
	}
	p.api(202, "POST", "/webhooks/events/trigger", `{"event_type":"patient.created","event_data":{}}`, nil)
	for _, id := range []string{rebinding, other, redirecting} {
		p.Until("the attempts are recorded", func() bool {
			for _, c := range p.calls(id) {
				if !c.Test {
					return c.Status == "failed"
				}
			}
			return false
		})
	}
	if n := reached.Load(); n != 0 || answers.Load() == 0 {
		t.Errorf("%d connections reached the canary; names were asked for %d times", n, answers.Load())
	}
}
