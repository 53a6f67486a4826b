package saga

import (
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
)

// workerPool is a Watermill handler that has each message handled by long-lived
// goroutines, so that a grown stack is reused: Watermill begins a goroutine a message,
// whose small stack a call grows and copies twice. The worker that was busy last goes
// first, as its stack is the least likely to have been shrunk since.
type workerPool struct {
	handler message.NoPublishHandlerFunc
	most    int // how many may be idle

	mu     sync.Mutex
	idle   []*worker // the one that was busy last stands last
	closed bool
}

// worker is taken by one caller at a time, who alone sends it work.
type worker struct {
	work chan *message.Message
	done chan error
}

func newWorkerPool(most int, handler message.NoPublishHandlerFunc) *workerPool {
	return &workerPool{handler: handler, most: most}
}

// handle has a worker handle the message and returns its result.
func (p *workerPool) handle(msg *message.Message) error {
	w := p.take()
	defer p.put(w)
	w.work <- msg
	return <-w.done
}

// close ends the workers that are idle, now and later.
func (p *workerPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, w := range p.idle {
		close(w.work)
	}
	p.idle = nil
}

func (p *workerPool) take() *worker {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		w := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		return w
	}
	w := &worker{work: make(chan *message.Message, 1), done: make(chan error, 1)}
	go func() {
		for msg := range w.work {
			w.done <- p.handler(msg)
		}
	}()
	return w
}

func (p *workerPool) put(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) >= p.most {
		close(w.work)
		return
	}
	p.idle = append(p.idle, w)
}
