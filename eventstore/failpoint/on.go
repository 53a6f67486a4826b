//go:build failpoints

package failpoint

import (
	"os"
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
	if err := syscall.Kill(syscall.Getpid(), now.signal); err != nil {
		panic("failpoint: " + err.Error())
	}
}
