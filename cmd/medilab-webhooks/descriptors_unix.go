//go:build unix

package main

import (
	"math"
	"syscall"
)

// descriptorLimit returns how many files and connections this process may have open. At
// its start Go has raised the limit as far as it may.
func descriptorLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1024 // the usual one
	}
	return int(min(uint64(limit.Cur), math.MaxInt32)) //nolint:unconvert // signed on some systems
}
