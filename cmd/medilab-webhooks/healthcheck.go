package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/medilab/webhooks/http"
)

// newHealthcheckCommand asks the server of this machine, for containers that hold nothing but
// this binary.
func newHealthcheckCommand() *cobra.Command {
	var s settings
	var ready bool
	c := &cobra.Command{
		Use:     "healthcheck",
		Short:   "Ask the server on this machine whether it lives",
		Example: "  medilab-webhooks healthcheck --ready",
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if s.proxies, err = http.ParseProxies(s.proxiesText); err != nil {
				return usageError{fmt.Errorf("MEDILAB_TRUSTED_PROXIES: %w", err)}
			}
			path := "/healthz"
			if ready {
				path = "/readyz"
			}
			return s.checkHealth(c.Context(), path)
		},
	}
	used := []string{"MEDILAB_ADDR", "MEDILAB_TLS_CERT_FILE", "MEDILAB_TLS_KEY_FILE", "MEDILAB_TRUSTED_PROXIES", "MEDILAB_PROXY_PROTOCOL"}
	declare(c, c.Flags(), slices.DeleteFunc(s.table(), func(of setting) bool { return !slices.Contains(used, of.env) }))
	c.Flags().BoolVar(&ready, "ready", false, "ask whether it can serve")
	return c
}

// checkHealth returns an error unless the server answers 200.
func (s *settings) checkHealth(ctx context.Context, path string) error {
	const patience = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	scheme := "http"
	if s.certFile != "" {
		scheme = "https"
	}
	request, err := nethttp.NewRequestWithContext(ctx, nethttp.MethodGet, scheme+"://"+localAddress(s.addr)+path, nil)
	if err != nil {
		return err
	}
	transport := &nethttp.Transport{
		DialContext:       s.dialAsProxy,
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // it is this machine's own, under another name
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("the server does not answer: %w", err)
	}
	defer response.Body.Close() //nolint:errcheck // nothing is left to read
	if response.StatusCode == nethttp.StatusOK {
		return nil
	}
	const longest = 4 << 10
	body, err := io.ReadAll(io.LimitReader(response.Body, longest))
	if err != nil {
		return fmt.Errorf("read the server's answer: %w", err)
	}
	return fmt.Errorf("the server answers %s: %s", response.Status, body)
}

// localAddress is where a server that listens on the address is reached from its own machine.
func localAddress(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen // the setting's rule refuses it
	}
	if addr, err := netip.ParseAddr(host); host == "" || err == nil && addr.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// dialAsProxy connects, and begins as a trusted proxy does that asks for itself.
func (s *settings) dialAsProxy(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil && s.proxyHeader == "on" && s.proxies.Trust(conn.LocalAddr()) {
		_, err = io.WriteString(conn, "PROXY UNKNOWN\r\n")
	}
	return conn, err
}
