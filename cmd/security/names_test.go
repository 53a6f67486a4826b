package security

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// serveNames answers questions for addresses, and gives where.
func serveNames(t *testing.T, answer func(name string) []netip.Addr) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = conn.Close(); <-done })
	go func() {
		defer close(done)
		question := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(question)
			if err != nil {
				return
			}
			if reply := reply(question[:n], answer); reply != nil {
				if _, err := conn.WriteTo(reply, from); err != nil {
					return
				}
			}
		}
	}()
	return conn.LocalAddr().String()
}

// reply copies the question and appends the addresses of its type (RFC 1035, section 4).
func reply(message []byte, answer func(string) []netip.Addr) []byte {
	const header, typeA, typeAAAA = 12, 1, 28
	var labels []string
	i := header
	for i < len(message) && message[i] != 0 {
		end := i + 1 + int(message[i])
		if end > len(message) {
			return nil
		}
		labels = append(labels, string(message[i+1:end]))
		i = end
	}
	if i+5 > len(message) {
		return nil
	}
	kind := binary.BigEndian.Uint16(message[i+1:])
	var records []byte
	count := uint16(0)
	for _, a := range answer(strings.ToLower(strings.Join(labels, "."))) {
		if kind != typeA && kind != typeAAAA || (kind == typeA) != a.Is4() {
			continue
		}
		count++
		records = append(records, 0xc0, header) // the question's name
		records = binary.BigEndian.AppendUint16(records, kind)
		records = append(records, 0, 1, 0, 0, 0, 0) // the Internet's, for no time
		records = binary.BigEndian.AppendUint16(records, uint16(len(a.AsSlice())))
		records = append(records, a.AsSlice()...)
	}
	out := append([]byte(nil), message[:2]...)
	out = append(out, 0x81, 0x80, 0, 1)
	out = binary.BigEndian.AppendUint16(out, count)
	out = append(out, 0, 0, 0, 0)
	out = append(out, message[header:i+5]...)
	return append(out, records...)
}
