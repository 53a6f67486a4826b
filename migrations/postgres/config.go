package postgres

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

const (
	megabyte = 1 << 20
	// dataDirSetting shows in ps whose server this is.
	dataDirSetting = "medilab.data_dir"
)

// arguments returns the server's settings for its command line, which override postgresql.conf. It
// listens on a socket in socketDir, or on the loopback port if that is empty.
func (o Options) arguments(socketDir string, port int) []string {
	all := map[string]string{
		"max_connections":    "100",
		"shared_buffers":     fmt.Sprintf("%dMB", sharedBuffers(memory())/megabyte),
		"huge_pages":         "try",
		"jit":                "off", // our statements are short: compiling them costs more than it saves
		"timezone":           "UTC",
		"log_timezone":       "UTC",
		"max_wal_size":       "4GB", // few checkpoints while events pour in
		"checkpoint_timeout": "15min",
		"wal_compression":    "off",
		"track_io_timing":    "off",

		// An acknowledged event is on disk.
		"fsync":              "on",
		"synchronous_commit": "on",
		"full_page_writes":   "on",

		// The log names no patient: no statement, no parameter, whatever fails.
		"logging_collector":                 "off", // we read its stderr
		"log_destination":                   "stderr",
		"log_line_prefix":                   "%m [%p] ",
		"lc_messages":                       "C", // we parse its messages
		"log_statement":                     "none",
		"log_duration":                      "off",
		"log_min_duration_statement":        "-1",
		"log_min_error_statement":           "panic",
		"log_parameter_max_length":          "0",
		"log_parameter_max_length_on_error": "0",
		"log_error_verbosity":               "terse", // DETAIL of a constraint quotes the row

		dataDirSetting:            o.DataDir,
		"port":                    strconv.Itoa(port),
		"listen_addresses":        "127.0.0.1",
		"unix_socket_directories": "",
	}
	if socketDir != "" {
		all["listen_addresses"] = ""
		all["unix_socket_directories"] = `"` + strings.ReplaceAll(socketDir, `"`, `""`) + `"`
		all["unix_socket_permissions"] = "0700"
	}
	if o.Disposable {
		maps.Copy(all, map[string]string{
			"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off",
			"shared_buffers": "64MB", "max_connections": "300", "max_wal_size": "1GB",
			"autovacuum": "off", // it visits each of many databases that live for seconds
		})
	}
	maps.Copy(all, o.Settings)
	args := make([]string, 0, 2*len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		args = append(args, "-c", name+"="+all[name])
	}
	return args
}

// sharedBuffers returns 256 MB, or an eighth of a small machine's memory; total is 0 if unknown.
func sharedBuffers(total uint64) uint64 {
	const most, least = 256 * megabyte, 16 * megabyte
	if total == 0 {
		return most
	}
	return min(most, max(least, total/8))
}
