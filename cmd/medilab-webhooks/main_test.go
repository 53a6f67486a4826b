package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A command whose reader went away has done its work, and one whose database went
// away has not, though both may end with the same error number.
func TestReaderGone(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintln(w, "to nobody")
	if err == nil || !readerGone(fmt.Errorf("print: %w", err)) {
		t.Errorf("a reader that has had enough: %v", err)
	}

	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // nothing is listened to any more
	conn, err := net.Dial("unix", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // it is broken
	peer, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := peer.Close(); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = io.WriteString(conn, "to a server that is gone")
	}
	if readerGone(fmt.Errorf("rebuild: %w", err)) {
		t.Errorf("a database that is gone passes for a reader: %v", err)
	}
}
