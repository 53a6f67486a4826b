//go:build failpoints

package failpoint

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

type armed struct {
	point  Point
	signal syscall.Signal
	left   atomic.Int64
}

var now = parse(os.Getenv(Variable))

func parse(text string) *armed {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return &armed{}
	}
	n, err := strconv.ParseInt(parts[2], 10, 64)
	if err != nil {
		panic("failpoint: " + err.Error())
	}
	a := &armed{point: Point(parts[0]), signal: syscall.SIGKILL}
	if parts[1] == "stop" {
		a.signal = syscall.SIGSTOP
	}
	a.left.Store(n)
	return a
}

// Pass ends or stops the process when the point is armed and its count has come.
func Pass(p Point) {
	if p != now.point || now.left.Add(-1) != 0 {
		return
	}
	// To this very thread, which takes it before it goes on: one to the process may be
	// another thread's to take, while this one passes the point.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := syscall.Tgkill(syscall.Getpid(), syscall.Gettid(), now.signal); err != nil {
		panic("failpoint: " + err.Error())
	}
}
