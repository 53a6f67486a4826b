package sender

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// The two benchmarks make the same calls to the same kind of receiver: the sender
// is to stay well ahead of the bare client (decision 10).

func benchReceiver(b *testing.B) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	b.Cleanup(s.Close)
	return s.URL
}

var benchHeader = []Field{
	{Name: "Content-Type", Value: "application/json"}, {Name: "User-Agent", Value: "MediLab-Webhook/1.0"}, {Name: "X-Webhook-Event", Value: "patient.created"},
	{Name: "X-Webhook-ID", Value: "550e8400-e29b-41d4-a716-446655440000"}, {Name: "X-Webhook-Attempt", Value: "1"},
	{Name: "X-Webhook-Event-ID", Value: "550e8400-e29b-41d4-a716-446655440000"}, {Name: "X-Webhook-Delivery-ID", Value: "550e8400-e29b-41d4-a716-446655440000"},
}

func BenchmarkSend(b *testing.B) {
	url := benchReceiver(b)
	c := newClient(b, Config{AllowTargets: allow(b, "loopback")})
	body := []byte(strings.Repeat("x", 500))
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if res := c.Send(b.Context(), Request{URL: url, Header: benchHeader, Body: body, Timeout: 30 * time.Second}); res.Outcome != Success {
				b.Error(res.Error)
			}
		}
	})
}

func BenchmarkBareClient(b *testing.B) {
	url := benchReceiver(b)
	c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 512}, Timeout: 30 * time.Second}
	body := []byte(strings.Repeat("x", 500))
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url, bytes.NewReader(body))
			if err != nil {
				b.Error(err)
				continue
			}
			req.Header = transportHeader(benchHeader)
			resp, err := c.Do(req)
			if err != nil {
				b.Error(err)
				continue
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil {
				b.Error(err)
			}
			if err := resp.Body.Close(); err != nil {
				b.Error(err)
			}
		}
	})
}
