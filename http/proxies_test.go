package http

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestClientBehindProxies(t *testing.T) {
	proxies, err := ParseProxies("10.0.0.0/8, 192.0.2.1,fd00::/8")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		peer      string
		forwarded []string
		want      string
	}{
		{"10.0.0.1:999", []string{"203.0.113.7"}, "203.0.113.7:0"},
		{"[::ffff:10.0.0.1]:999", []string{"203.0.113.7"}, "203.0.113.7:0"},
		{"10.0.0.1:999", []string{"203.0.113.7:1234"}, "203.0.113.7:0"},
		{"[fd00::1]:999", []string{"[2001:db8::7]:1234"}, "[2001:db8::7]:0"},
		{"10.0.0.1:999", []string{"1.1.1.1, 203.0.113.7, 192.0.2.1"}, "203.0.113.7:0"}, // 1.1.1.1 is the client's word
		{"10.0.0.1:999", []string{"1.1.1.1", "203.0.113.7,10.2.3.4"}, "203.0.113.7:0"},
		{"10.0.0.1:999", []string{"203.0.113.7, unknown, 10.2.3.4"}, "10.2.3.4:0"},
		{"10.0.0.1:999", []string{"10.9.9.9"}, "10.9.9.9:0"},
		{"10.0.0.1:999", []string{"unknown"}, "10.0.0.1:0"},
		{"10.0.0.1:999", nil, "10.0.0.1:999"},
		{"203.0.113.9:999", []string{"127.0.0.1"}, "203.0.113.9:999"},
		{"192.0.2.2:999", []string{"127.0.0.1"}, "192.0.2.2:999"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr, r.Header = c.peer, http.Header{}
		for _, line := range c.forwarded {
			r.Header.Add("X-Forwarded-For", line)
		}
		reset := proxies.client(r)
		if r.RemoteAddr != c.want {
			t.Errorf("%s forwards for %q: the client is %s, want %s", c.peer, c.forwarded, r.RemoteAddr, c.want)
		}
		if reset(); r.RemoteAddr != c.peer {
			t.Errorf("the next request of the connection is from %s", r.RemoteAddr)
		}
	}
	for _, wrong := range []string{"10.0.0.0/33", "loadbalancer", "10.0.0.1:80"} {
		if _, err := ParseProxies(wrong); err == nil {
			t.Errorf("%s is accepted", wrong)
		}
	}
}
