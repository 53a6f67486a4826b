package http

import (
	"bytes"
	"errors"
	"net/http/httptest"
	"testing"

	"golang.org/x/sync/semaphore"

	"github.com/medilab/webhooks/domain"
)

func TestLargeBodiesAreBounded(t *testing.T) {
	before := largeBodies
	largeBodies = semaphore.NewWeighted(5 << 20)
	t.Cleanup(func() { largeBodies = before })
	read := func(size int) (*body, error) {
		b := bodies.Get().(*body)
		err := b.read(httptest.NewRequest("POST", "/", bytes.NewReader(make([]byte, size))), maxEventBody)
		if err != nil {
			b.release()
		}
		return b, err
	}
	large, err := read(3 << 20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := read(2 << 20); !errors.Is(err, domain.KindThrottled) {
		t.Errorf("beyond the budget: %v", err)
	}
	small, err := read(maxKeptBody / 2)
	if err != nil {
		t.Fatalf("a small one waits for the large ones: %v", err)
	}
	small.release()
	large.release()
	if !largeBodies.TryAcquire(5 << 20) {
		t.Error("some bytes are never given back")
	}
	largeBodies.Release(5 << 20)
	if large, err = read(2 << 20); err != nil {
		t.Fatal(err)
	}
	large.release()
}
