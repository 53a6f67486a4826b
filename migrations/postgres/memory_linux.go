package postgres

import (
	"os"
	"strconv"
	"strings"
)

// memory is how many bytes this machine or container has, 0 when that cannot be told.
func memory() uint64 {
	total := uint64(0)
	if info, err := os.ReadFile("/proc/meminfo"); err == nil {
		fields := strings.Fields(string(info)) // "MemTotal: 16384 kB ..."
		if len(fields) > 1 {
			if kb, err := strconv.ParseUint(fields[1], 10, 64); err == nil {
				total = kb << 10
			}
		}
	}
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		content, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		limit, err := strconv.ParseUint(strings.TrimSpace(string(content)), 10, 64)
		if err == nil && (total == 0 || limit < total) { // "max" is no number: no limit
			total = limit
		}
	}
	return total
}
