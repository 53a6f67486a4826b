package postgres

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
)

const (
	// logBytes bounds postgres.log; one older file of that size is kept.
	logBytes = 10 << 20
	// lineBytes bounds the part of a line that is looked at.
	lineBytes = 8 << 10
)

// output receives what the server prints: it keeps it in a bounded file, notices that the server is
// ready, and remembers complaints until then, which explain a failed start.
//
// Postgres has a log collector of its own, but that one bounds a file by time only, and does not run
// yet when a start fails early.
type output struct {
	path  string
	log   *slog.Logger
	ready chan struct{}

	mu        sync.Mutex
	file      *os.File // nil until something is written
	size      int64
	failing   bool
	isReady   bool
	line      []byte
	complaint string
	all       strings.Builder // complaints and lines that tell causes apart
}

func newOutput(path string, log *slog.Logger) *output {
	return &output{path: path, log: log, ready: make(chan struct{})}
}

// Write never fails: the server must not stall or end because its log cannot be written.
func (w *output) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.scan(p)
	err := w.store(p)
	if err != nil && !w.failing {
		w.log.Warn("cannot write the database's log", "file", w.path, "error", err)
	}
	w.failing = err != nil
	return len(p), nil
}

// scan looks at each line until the server is ready.
func (w *output) scan(p []byte) {
	for !w.isReady {
		line, rest, found := bytes.Cut(p, []byte("\n"))
		w.line = append(w.line, line[:min(len(line), lineBytes-len(w.line))]...)
		if !found {
			return
		}
		w.look(string(w.line))
		w.line, p = w.line[:0], rest
	}
}

func (w *output) look(line string) {
	for _, level := range []string{"PANIC:  ", "FATAL:  ", "ERROR:  "} {
		if _, text, found := strings.Cut(line, level); found {
			w.complaint = text
			w.all.WriteString(text + "\n")
		}
	}
	switch {
	case strings.Contains(line, "database system is ready to accept"):
		w.isReady = true
		close(w.ready)
	case strings.Contains(line, "not properly shut down"):
		w.log.Info("recovering the database after a crash")
	case w.complaint == "" && !strings.Contains(line, "LOG:  "), // a dynamic linker or a shell prints no level
		strings.Contains(line, "could not bind"), strings.Contains(line, "could not create"):
		w.all.WriteString(line + "\n")
	}
}

// complaints returns the last complaint, and all that the server complained of before it was ready.
func (w *output) complaints() (last, all string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last, all = w.complaint, w.all.String()
	if last == "" {
		last = lastLine(all)
	}
	return last, all
}

// store appends p to the log file, and starts a new file when that is full.
func (w *output) store(p []byte) error {
	if w.file != nil && w.size+int64(len(p)) > logBytes {
		err := w.file.Close()
		w.file = nil
		if err := errors.Join(err, os.Rename(w.path, w.path+".1")); err != nil {
			return err
		}
	}
	if w.file == nil {
		file, err := os.OpenFile(w.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		w.file = file
		if w.size, err = file.Seek(0, io.SeekEnd); err != nil {
			return err
		}
	}
	n, err := w.file.Write(p)
	w.size += int64(n)
	return err
}

func (w *output) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return
	}
	if err := w.file.Close(); err != nil {
		w.log.Warn("cannot write the database's log", "file", w.path, "error", err)
	}
	w.file = nil
}

// firstComplaint returns the first line of a program's output that says what went wrong.
func firstComplaint(out string) string {
	for line := range strings.Lines(out) {
		for _, level := range []string{"PANIC:  ", "FATAL:  ", "error: ", "ERROR:  "} {
			if _, text, found := strings.Cut(line, level); found {
				return strings.TrimSpace(text)
			}
		}
	}
	return lastLine(out)
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}
