package main

import (
	"context"
	"crypto/tls"
	"net"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/http/sender"
)

// calls adapts the outbound client to commands.Sender.
type calls struct{ client *sender.Client }

func newSender(s settings) (calls, error) {
	client, err := sender.New(sender.Config{
		AllowTargets: s.targets, MaxInFlight: s.workers,
		CAFile: s.caFile, ClientCertFile: s.clientCert, ClientKeyFile: s.clientKey, Proxy: s.proxy, Resolver: resolverAt(s.resolver),
	})
	return calls{client}, err
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

// WithCertificate is commands.Attempter's.
func (c calls) WithCertificate(certificate tls.Certificate) commands.Sender {
	return calls{c.client.WithCertificate(certificate)}
}

// Send implements commands.Sender.
func (c calls) Send(ctx context.Context, call commands.Outgoing) commands.Answer {
	header := make([]sender.Field, len(call.Header))
	for i, h := range call.Header {
		header[i] = sender.Field(h)
	}
	r := c.client.Send(ctx, sender.Request{
		URL: call.URL, Header: header, Body: call.Body, Timeout: call.Timeout, Fresh: call.Fresh, Allowed: call.Allowed,
	})
	return commands.Answer{
		Outcome: domain.Outcome(r.Outcome), Status: r.Status, Header: r.Header, Body: r.Body, Truncated: r.Truncated,
		Duration: r.Duration, Error: r.Error, RetryAfter: r.RetryAfter,
	}
}
