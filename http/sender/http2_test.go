package sender

import (
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
	"testing"
)

// Frame types and flags of RFC 9113.
const (
	frameData, frameHeaders, frameReset, frameSettings, frameGoAway = 0, 1, 3, 4, 7
	flagEndStream, flagAck, flagEndHeaders                          = 1, 1, 4
)

// frame is one HTTP/2 frame, written by hand: no server of a library breaks off
// where these tests want it to.
func frame(kind, flags byte, stream uint32, payload ...byte) []byte {
	n := len(payload)
	b := []byte{byte(n >> 16), byte(n >> 8), byte(n), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// http2Receiver answers the first request with a frame of first's and every
// later one with 200, and counts the requests that arrived whole.
func http2Receiver(t *testing.T, first func(stream uint32) []byte) (c *Client, url string, requests *atomic.Int64) {
	t.Helper()
	ca := newAuthority(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{leaf(t, ca, nil)}, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	requests = new(atomic.Int64)
	serve := func(conn net.Conn) error {
		if _, err := io.CopyN(io.Discard, conn, int64(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))); err != nil {
			return err
		}
		if _, err := conn.Write(frame(frameSettings, 0, 0)); err != nil {
			return err
		}
		for {
			var head [9]byte
			if _, err := io.ReadFull(conn, head[:]); err != nil {
				return err
			}
			size := int64(head[0])<<16 | int64(head[1])<<8 | int64(head[2])
			if _, err := io.CopyN(io.Discard, conn, size); err != nil {
				return err
			}
			kind, flags, stream := head[3], head[4], binary.BigEndian.Uint32(head[5:])
			var answer []byte
			switch {
			case kind == frameSettings && flags&flagAck == 0:
				answer = frame(frameSettings, flagAck, 0)
			case kind == frameData && flags&flagEndStream != 0 && requests.Add(1) == 1:
				answer = first(stream)
			case kind == frameData && flags&flagEndStream != 0:
				answer = frame(frameHeaders, flagEndStream|flagEndHeaders, stream, 0x88) // :status 200
			}
			if _, err := conn.Write(answer); err != nil {
				return err
			}
		}
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			go serve(conn) // ends, with an error, when either side closes
		}
	}()
	t.Cleanup(func() { l.Close() })
	c = newClient(t, Config{AllowTargets: allow(t, "loopback"), CAFile: writePEM(t, "CERTIFICATE", ca.cert.Raw)})
	return c, "https://" + l.Addr().String(), requests
}

// A request that the receiver says it has not processed is sent again at once;
// any other break is a failed call, as the receiver may have done its work.
func TestHTTP2RepeatsOnlyWhatWasNotProcessed(t *testing.T) {
	reset := func(code byte) func(uint32) []byte {
		return func(stream uint32) []byte { return frame(frameReset, 0, stream, 0, 0, 0, code) }
	}
	tests := []struct {
		name     string
		first    func(stream uint32) []byte
		want     Outcome
		requests int64
	}{
		{"answered", func(s uint32) []byte { return frame(frameHeaders, flagEndStream|flagEndHeaders, s, 0x88) }, Success, 1},
		{"going away before it", func(uint32) []byte { return frame(frameGoAway, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) }, Success, 2},
		{"refused stream", reset(7), Success, 2},
		{"protocol error", reset(1), Reset, 1},
		{"internal error", reset(2), Reset, 1},
		{"cancelled", reset(8), Reset, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, url, requests := http2Receiver(t, tt.first)
			res := c.Send(t.Context(), request(url))
			if res.Outcome != tt.want || requests.Load() != tt.requests {
				t.Errorf("%s (%s) after %d requests, want %s after %d", res.Outcome, res.Error, requests.Load(), tt.want, tt.requests)
			}
		})
	}
}
