package main

import (
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"testing"
)

func TestHealthcheck(t *testing.T) {
	for _, name := range []string{"MEDILAB_TLS_CERT_FILE", "MEDILAB_TLS_KEY_FILE", "MEDILAB_TRUSTED_PROXIES", "MEDILAB_PROXY_PROTOCOL"} {
		t.Setenv(name, "")
	}
	answer := nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if r.URL.Path != "/healthz" {
			w.WriteHeader(nethttp.StatusServiceUnavailable)
			_, _ = io.WriteString(w, "migrations are not applied") // the command says so
		}
	})
	plain, secure := httptest.NewServer(answer), httptest.NewTLSServer(answer)
	defer plain.Close()
	defer secure.Close()
	c := cli{t}
	_, port, err := net.SplitHostPort(plain.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, addr := range []string{"127.0.0.1:", "0.0.0.0:", ":"} {
		c.run(0, "", "healthcheck", "--addr", addr+port)
	}
	_, notes := c.run(1, "", "healthcheck", "--ready", "--addr", "127.0.0.1:"+port)
	c.matches("the failure", notes, `medilab-webhooks: the server answers 503.*: migrations are not applied\n`)
	c.run(0, "", "healthcheck", "--addr", secure.Listener.Addr().String(), "--tls-cert", "a.pem", "--tls-key", "a.key")
	_, notes = c.run(1, "", "healthcheck", "--addr", "127.0.0.1:1")
	c.matches("the failure", notes, `medilab-webhooks: the server does not answer: .*\n`)

	behind := serveBehind(t, "127.0.0.0/8", nil)
	c.run(0, "", "healthcheck", "--addr", behind, "--proxy-protocol", "on", "--trusted-proxies", "127.0.0.0/8")
	c.run(1, "", "healthcheck", "--addr", behind)
}

func TestVersionNamesTheCommit(t *testing.T) {
	commit = "0123abc"
	defer func() { commit = "" }()
	c := cli{t}
	out, _ := c.run(0, "", "version", "--json=false")
	c.matches("the version", out, `medilab-webhooks dev \(commit 0123abc, go1\S+ \S+/\S+\)\n`)
}
