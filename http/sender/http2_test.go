package sender

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/medilab/webhooks/cmd/testbed/testcert"
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

// oneConn is a listener that accepts one connection.
type oneConn struct {
	conn net.Conn
	once sync.Once
}

func (l *oneConn) Accept() (conn net.Conn, err error) {
	err = net.ErrClosed
	l.once.Do(func() { conn, err = l.conn, nil })
	return conn, err
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

// http2Receiver answers the first requests with frames of first's and every later one
// with 200, and counts the requests that arrived whole. It speaks HTTP/1.1 as well.
func http2Receiver(t *testing.T, first ...func(stream uint32) []byte) (c *Client, url string, requests *atomic.Int64) {
	t.Helper()
	ca := testcert.NewAuthority(t, "Test CA")
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{testcert.New(t, ca, nil)}, NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	requests = new(atomic.Int64)
	http1 := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Proto", r.Proto) })}
	t.Cleanup(func() { http1.Close() })
	serve := func(conn net.Conn) error {
		over := conn.(*tls.Conn)
		if err := over.Handshake(); err != nil {
			return err
		}
		if over.ConnectionState().NegotiatedProtocol != "h2" {
			return http1.Serve(&oneConn{conn: conn})
		}
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
			case kind == frameData && flags&flagEndStream != 0:
				answer = frame(frameHeaders, flagEndStream|flagEndHeaders, stream, 0x88) // :status 200
				if n := int(requests.Add(1)); n <= len(first) {
					answer = first[n-1](stream)
				}
			}
			if _, err := conn.Write(answer); err != nil {
				return err
			}
			if len(answer) > 9 && answer[3] == frameGoAway && answer[len(answer)-1] != 0 {
				return conn.Close() // it goes away with an error
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
	c = newClient(t, Config{AllowTargets: allow(t, "loopback"), CAFile: writePEM(t, "CERTIFICATE", ca.Certificate.Raw)})
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
		says     string
	}{
		{"answered", func(s uint32) []byte { return frame(frameHeaders, flagEndStream|flagEndHeaders, s, 0x88) }, Success, 1, ""},
		{"going away before it", func(uint32) []byte { return frame(frameGoAway, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) }, Success, 2, ""},
		{"refused stream", reset(7), Success, 2, ""},
		{"protocol error", reset(1), Reset, 1, "PROTOCOL_ERROR"},
		{"internal error", reset(2), Reset, 1, "INTERNAL_ERROR"},
		{"cancelled", reset(8), Reset, 1, "cancelled the request (HTTP/2 CANCEL)"},
		{"too many", reset(11), Reset, 1, "ENHANCE_YOUR_CALM"},
		{"too many, for all streams", func(uint32) []byte { return frame(frameGoAway, 0, 0, 0, 0, 0, 1, 0, 0, 0, 11) }, Reset, 1, "ENHANCE_YOUR_CALM"},
		{"no status", func(s uint32) []byte { return frame(frameHeaders, flagEndStream|flagEndHeaders, s) }, BadResponse, 1, "missing status"},
		{"endless 1xx", func(s uint32) []byte {
			hints := frame(frameHeaders, flagEndHeaders, s, append([]byte{0x08, 3, '1', '0', '3', 0x00, 4, 'l', 'i', 'n', 'k', 100}, bytes.Repeat([]byte("a"), 100)...)...)
			return bytes.Repeat(hints, 1000)
		}, BadResponse, 1, "1xx answers"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, url, requests := http2Receiver(t, tt.first)
			res := c.Send(t.Context(), request(url))
			if res.Outcome != tt.want || requests.Load() != tt.requests || !strings.Contains(res.Error, tt.says) {
				t.Errorf("%s (%s) after %d requests, want %s (%s) after %d", res.Outcome, res.Error, requests.Load(), tt.want, tt.says, tt.requests)
			}
		})
	}
}

// A receiver that refuses every request is called refusing, however often it was asked.
func TestHTTP2RefusalHasAName(t *testing.T) {
	refuse := func(stream uint32) []byte { return frame(frameReset, 0, stream, 0, 0, 0, 7) }
	c, url, requests := http2Receiver(t, refuse, refuse, refuse)
	if res := c.Send(t.Context(), request(url)); res.Outcome != Reset || !strings.Contains(res.Error, "REFUSED_STREAM") {
		t.Errorf("%s (%s) after %d requests", res.Outcome, res.Error, requests.Load())
	}
}

// A receiver that requires HTTP/1.1 is asked over HTTP/2 once.
func TestHTTP11Required(t *testing.T) {
	for name, refuse := range map[string]func(stream uint32) []byte{
		"of the stream":     func(stream uint32) []byte { return frame(frameReset, 0, stream, 0, 0, 0, 13) },
		"of the connection": func(uint32) []byte { return frame(frameGoAway, 0, 0, 0, 0, 0, 1, 0, 0, 0, 13) },
	} {
		t.Run(name, func(t *testing.T) {
			c, url, requests := http2Receiver(t, refuse)
			if res := c.Send(t.Context(), request(url)); res.Outcome != Reset || !strings.Contains(res.Error, "requires HTTP/1.1") {
				t.Fatalf("%s (%s)", res.Outcome, res.Error)
			}
			for range 2 {
				if res := c.Send(t.Context(), request(url)); res.Outcome != Success || res.Header.Get("Proto") != "HTTP/1.1" {
					t.Fatalf("%s (%s) %v", res.Outcome, res.Error, res.Header)
				}
			}
			if n := requests.Load(); n != 1 {
				t.Errorf("%d requests over HTTP/2, want 1", n)
			}
		})
	}
}
