package postgres

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"sync"
)

const (
	// logBytes bounds postgres.log; one older file of that size is kept beside it.
	logBytes = 10 << 20
	// lineBytes bounds what we keep of a line to look at.
	lineBytes = 8 << 10
)

// output reads what the server prints: it keeps it in a bounded file, notices that the server is
// ready, and remembers the last complaint, which explains why a start failed.
//
// Postgres has a log collector of its own, but that one bounds a file by time only, and a start that
// fails before it runs would go unexplained.
type output struct {
	path string
	log  *slog.Logger

	mu        sync.Mutex
	file      *os.File
	size      int64
	line      []byte
	complaint string
	all       strings.Builder // complaints of a start, for telling causes apart
	ready     chan struct{}
	isReady   bool
	failing   bool
}

func newOutput(path string, log *slog.Logger) *output {
	return &output{path: path, log: log, ready: make(chan struct{})}
}

// Write never fails: the server must not stall or end because its log cannot be written.
func (w *output) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range p {
		if b == '\n' {
			w.look(string(w.line))
			w.line = w.line[:0]
		} else if len(w.line) < lineBytes {
			w.line = append(w.line, b)
		}
	}
	err := w.keep(p)
	if err != nil && !w.failing {
		w.log.Warn("cannot write the database's log", "file", w.path, "error", err)
	}
	w.failing = err != nil
	return len(p), nil
}

func (w *output) look(line string) {
	if w.isReady {
		return
	}
	for _, level := range []string{"PANIC:  ", "FATAL:  ", "ERROR:  "} {
		if _, text, found := strings.Cut(line, level); found {
			w.complaint = text
			w.all.WriteString(text + "\n")
		}
	}
	switch {
	case strings.Contains(line, "database system is ready to accept connections"):
		w.isReady = true
		close(w.ready)
	case strings.Contains(line, "not properly shut down"):
		w.log.Info("recovering the database after a crash")
	case w.complaint == "" && !strings.Contains(line, "LOG:  "):
		w.all.WriteString(line + "\n") // a dynamic linker or a shell complains without a level
	case strings.Contains(line, "could not bind"), strings.Contains(line, "could not create"):
		w.all.WriteString(line + "\n")
	}
}

// complaints are the last complaint and everything that the server complained of before it was ready.
func (w *output) complaints() (last, all string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	last = w.complaint
	if last == "" {
		lines := strings.Split(strings.TrimSpace(w.all.String()), "\n")
		last = lines[len(lines)-1]
	}
	return last, w.all.String()
}

func (w *output) keep(p []byte) error {
	if w.file == nil {
		if err := w.open(); err != nil {
			return err
		}
	}
	if w.size+int64(len(p)) > logBytes {
		if err := w.rotate(); err != nil {
			return err
		}
	}
	// Whole lines are not needed here, only bytes in order.
	n, err := w.file.Write(p)
	w.size += int64(n)
	return err
}

func (w *output) open() error {
	file, err := os.OpenFile(w.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		_ = file.Close() // nothing was written through it
		return err
	}
	w.file, w.size = file, info.Size()
	return nil
}

func (w *output) rotate() error {
	err := w.file.Close()
	w.file = nil
	if err != nil {
		return err
	}
	if err := os.Rename(w.path, w.path+".1"); err != nil {
		return err
	}
	return w.open()
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

// firstLine is the first line of a program's output that says what went wrong.
func firstLine(out string) string {
	for _, line := range bytes.Split([]byte(out), []byte("\n")) {
		text := string(line)
		for _, mark := range []string{"PANIC:  ", "FATAL:  ", "error: ", "ERROR:  "} {
			if _, after, found := strings.Cut(text, mark); found {
				return strings.TrimSpace(after)
			}
		}
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}
