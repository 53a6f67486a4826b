package main

import (
	"context"
	"net"

	"github.com/medilab/webhooks/http/sender"
)

func newSender(s settings) (*sender.Client, error) {
	return sender.New(sender.Config{
		AllowTargets: s.targets, MaxInFlight: s.workers,
		CAFile: s.caFile, ClientCertFile: s.clientCert, ClientKeyFile: s.clientKey, Proxy: s.proxy, Resolver: resolverAt(s.resolver),
	})
}

// resolverAt returns a resolver that asks one name server, or nil for the system's.
func resolverAt(addr string) *net.Resolver {
	if addr == "" {
		return nil
	}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
}
