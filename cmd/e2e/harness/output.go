package harness

import (
	"bytes"
	"sync"
)

// Output collects what a process says.
type Output struct {
	// Most bounds what is kept, the last of it, within a factor of two; 0: all.
	Most int

	mu sync.Mutex
	b  []byte
}

// Write never fails.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.b = append(o.b, p...)
	if o.Most > 0 && len(o.b) > 2*o.Most {
		o.b = append(o.b[:0], o.b[len(o.b)-o.Most:]...)
	}
	return len(p), nil
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.b)
}

// Tail is the last lines, for a test that failed.
func (o *Output) Tail() string {
	const most = 16 << 10
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(bytes.ToValidUTF8(o.b[max(0, len(o.b)-most):], nil))
}
