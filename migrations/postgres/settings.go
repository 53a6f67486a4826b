package postgres

import (
	"fmt"
	"maps"
	"slices"
)

const megabyte = 1 << 20

// settings are the server's command line, as name=value. What a user writes into postgresql.conf
// stands behind them.
func (o Options) settings(socketDir string, port int) []string {
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
		// The queue's rows live for moments: dead ones must go before a claim has to step over
		// them, and before their places are so many that the queue grows on the disk.
		"autovacuum_naptime": "2s",

		// An event that was answered is on the disk.
		"fsync":              "on",
		"synchronous_commit": "on",
		"full_page_writes":   "on",

		// The log names no patient: no statement, no parameter, whatever fails.
		"logging_collector":                 "off", // we read its stderr
		"log_destination":                   "stderr",
		"log_line_prefix":                   "%m [%p] ",
		"lc_messages":                       "C", // we read what it says
		"log_statement":                     "none",
		"log_duration":                      "off",
		"log_min_duration_statement":        "-1",
		"log_min_error_statement":           "panic",
		"log_parameter_max_length":          "0",
		"log_parameter_max_length_on_error": "0",
		"log_error_verbosity":               "terse", // DETAIL of a constraint quotes the row

		// So that ps, and a person who looks, can tell whose server this is.
		"medilab.data_dir": o.DataDir,
	}
	if socketDir != "" {
		all["unix_socket_directories"] = socketDir
		all["unix_socket_permissions"] = "0700"
		all["listen_addresses"] = ""
	} else {
		all["unix_socket_directories"] = ""
		all["listen_addresses"] = "127.0.0.1"
	}
	all["port"] = fmt.Sprint(port)
	if o.Disposable {
		maps.Copy(all, map[string]string{
			"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off",
			"shared_buffers": "64MB", "max_connections": "300", "max_wal_size": "1GB",
		})
	}
	maps.Copy(all, o.Settings)
	args := make([]string, 0, 2*len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		args = append(args, "-c", name+"="+all[name])
	}
	return args
}

// sharedBuffers is 256 MB, or an eighth of a small machine's memory; total is 0 when unknown.
func sharedBuffers(total uint64) uint64 {
	const most, least = 256 * megabyte, 16 * megabyte
	if total == 0 {
		return most
	}
	return min(most, max(least, total/8))
}
