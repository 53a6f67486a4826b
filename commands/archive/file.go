package archive

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"

	"github.com/medilab/webhooks/commands/receipts"
	"github.com/medilab/webhooks/eventstore"
)

// Manifest says what an archive holds. It is a file of its own, signed by the key of
// receipts, and stands in the log.
type Manifest struct {
	First      eventstore.Position `json:"first"` // position of the range
	Last       eventstore.Position `json:"last"`
	To         time.Time           `json:"to"`          // when its last entry was recorded
	SealBefore eventstore.Seal     `json:"seal_before"` // of the log before the range
	// ResealedBefore is that of entries before the range which were encrypted since, if any were.
	ResealedBefore eventstore.Seal `json:"resealed_before,omitempty"`

	Seal      eventstore.Seal `json:"seal"` // of the log up to its end
	Entries   int64           `json:"entries"`
	Earlier   int64           `json:"earlier"` // entries before the range, which archives before it left
	CreatedAt time.Time       `json:"created_at"`
	Files     []File          `json:"files"`
}

// File is one file of an archive: lines of JSON, compressed by zstd.
type File struct {
	Name    string `json:"name"`
	Earlier bool   `json:"earlier,omitempty"` // it holds entries before the range, without seals
	Entries int64  `json:"entries"`
	Bytes   int64  `json:"bytes"`
	SHA256  string `json:"sha256"`
}

const suffix = ".manifest.jws"

// name is that of the manifest's file.
func (m *Manifest) name() string { return fmt.Sprintf("log-%012d-%012d%s", m.First, m.Last, suffix) }

// chain begins where the archive does.
func (m *Manifest) chain() *eventstore.Chain {
	return eventstore.NewChain(m.First, m.SealBefore, m.ResealedBefore)
}

// line is an entry of the log, or the seal of those before it.
type line struct {
	Position   eventstore.Position `json:"position,omitempty"`
	Stream     string              `json:"stream,omitempty"`
	Version    int64               `json:"version,omitempty"`
	Type       string              `json:"type,omitempty"`
	Data       string              `json:"data,omitempty"`       // as a text, as its bytes matter
	Raw        []byte              `json:"data_bytes,omitempty"` // in place of data that is not UTF-8
	Metadata   string              `json:"metadata,omitempty"`
	RecordedAt time.Time           `json:"recorded_at,omitzero"`
	Seal       *eventstore.SealRow `json:"seal,omitempty"`
}

// fileEntries is about how many entries a file has.
const fileEntries = 100_000

// writer writes the files of an archive.
type writer struct {
	dir      string
	manifest *Manifest
	earlier  bool

	file   *os.File // nil: none is open
	packed *zstd.Encoder
	lines  *json.Encoder
	sum    hash.Hash
	of     File
}

func newWriter(dir string, m *Manifest) (*writer, error) {
	const private = 0o700
	if err := os.MkdirAll(dir, private); err != nil {
		return nil, fmt.Errorf("make the archive's folder: %w", err)
	}
	return &writer{dir: dir, manifest: m}, nil
}

func (w *writer) open() (err error) {
	w.of = File{Name: fmt.Sprintf("log-%012d-%012d.%04d.ndjson.zst", w.manifest.First, w.manifest.Last, len(w.manifest.Files)+1), Earlier: w.earlier}
	const private = 0o600
	w.file, err = os.OpenFile(filepath.Join(w.dir, w.of.Name+".tmp"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, private)
	if err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	w.sum = sha256.New()
	if w.packed, err = zstd.NewWriter(io.MultiWriter(w.file, w.sum)); err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	w.lines = json.NewEncoder(w.packed)
	w.lines.SetEscapeHTML(false)
	return nil
}

// entry writes an entry.
func (w *writer) entry(e *eventstore.Event) error {
	if w.file == nil {
		if err := w.open(); err != nil {
			return err
		}
	}
	l := line{Position: e.Position, Stream: e.Stream, Version: e.Version, Type: e.Type, Metadata: string(e.Metadata), RecordedAt: e.RecordedAt}
	if utf8.Valid(e.Data) {
		l.Data = string(e.Data)
	} else {
		l.Raw = e.Data
	}
	w.of.Entries++
	if w.earlier {
		w.manifest.Earlier++
	} else {
		w.manifest.Entries++
	}
	return w.write(l)
}

// seal writes the seal of what was written since the one before.
func (w *writer) seal(s eventstore.SealRow) error {
	if err := w.write(line{Seal: &s}); err != nil || w.of.Entries < fileEntries {
		return err
	}
	return w.end()
}

func (w *writer) write(l line) error {
	return eventstore.Doing("write the archive", w.lines.Encode(l))
}

// end ends the open file.
func (w *writer) end() error {
	if w.file == nil {
		return nil
	}
	err := errors.Join(w.packed.Close(), w.file.Sync())
	if info, stat := w.file.Stat(); stat == nil {
		w.of.Bytes = info.Size()
	}
	err = errors.Join(err, w.file.Close())
	w.file, w.of.SHA256 = nil, hex.EncodeToString(w.sum.Sum(nil))
	if err == nil {
		path := filepath.Join(w.dir, w.of.Name)
		err = os.Rename(path+".tmp", path)
	}
	if err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	w.manifest.Files = append(w.manifest.Files, w.of)
	return nil
}

// abandon removes the open file, if there is one.
func (w *writer) abandon() {
	if w.file != nil {
		_ = w.packed.Close() // what was cut off is of no use
		_ = w.file.Close()
		_ = os.Remove(w.file.Name())
	}
}

// publish puts a file into the folder, whole or not at all, after what is there already.
func publish(dir, name string, content []byte) error {
	path := filepath.Join(dir, name)
	const private = 0o600
	file, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, private)
	if err == nil {
		_, err = file.Write(content)
		err = errors.Join(err, file.Sync(), file.Close())
	}
	if err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err == nil {
		err = syncFolder(dir)
	}
	return eventstore.Doing("write the archive", err)
}

func syncFolder(dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// read calls yield for each line of a file that is as the manifest says.
func read(ctx context.Context, dir string, f File, yield func(*eventstore.Event, *eventstore.SealRow) error) error {
	if filepath.Base(f.Name) != f.Name {
		return fmt.Errorf("%s is not in the folder", f.Name)
	}
	file, err := os.Open(filepath.Join(dir, f.Name))
	if err != nil {
		return fmt.Errorf("read the archive: %w", err)
	}
	defer file.Close() //nolint:errcheck // nothing is written
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return fmt.Errorf("read the archive: %w", err)
	}
	if hex.EncodeToString(sum.Sum(nil)) != f.SHA256 {
		return fmt.Errorf("%s is not the file that was signed: it was changed", f.Name)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read the archive: %w", err)
	}
	unpacked, err := zstd.NewReader(bufio.NewReader(file))
	if err != nil {
		return fmt.Errorf("read %s: %w", f.Name, err)
	}
	defer unpacked.Close()
	lines := json.NewDecoder(unpacked)
	for ctx.Err() == nil {
		var l line
		if err := lines.Decode(&l); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("read %s: %w", f.Name, err)
		}
		e := eventstore.Event{Position: l.Position, Stream: l.Stream, Version: l.Version, Type: l.Type, Data: []byte(l.Data), Metadata: []byte(l.Metadata), RecordedAt: l.RecordedAt}
		if l.Raw != nil {
			e.Data = l.Raw
		}
		if err := yield(&e, l.Seal); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return context.Cause(ctx)
}

// check compares the files with the manifest, and the entries with their seals.
func check(ctx context.Context, dir string, m *Manifest, progress func(done, total eventstore.Position)) error {
	chain := m.chain()
	entries, earlier := int64(0), int64(0)
	for _, f := range m.Files {
		err := read(ctx, dir, f, func(e *eventstore.Event, s *eventstore.SealRow) error {
			switch {
			case f.Earlier && s == nil && e.Position < m.First:
				earlier++
				return nil
			case f.Earlier:
				return errors.New("holds what does not belong there")
			case s != nil:
				progress(s.Last-m.First+1, m.Last-m.First+1)
				return chain.Close(*s)
			}
			entries++
			return chain.Add(e)
		})
		if err != nil {
			return err
		}
	}
	if entries != m.Entries || earlier != m.Earlier || !chain.Ends(m.Last, m.Seal) {
		return fmt.Errorf("%s does not hold what it says", m.name())
	}
	return nil
}

// Listed is an archive that a folder holds.
type Listed struct {
	Manifest
	Problem string `json:"problem,omitempty"` // why it is not what was archived
}

// List checks all archives of a folder, without a database, by the public keys of receipts.
func List(ctx context.Context, dir string, keys []byte, progress func(done, total eventstore.Position)) ([]Listed, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		return nil, err
	}
	if _, err := os.ReadDir(dir); err != nil {
		return nil, fmt.Errorf("read the archives: %w", err)
	}
	slices.Sort(names)
	var list []Listed
	for _, name := range names {
		var one Listed
		signed, err := os.ReadFile(name)
		if err == nil {
			err = receipts.VerifyArchive(strings.TrimSpace(string(signed)), keys, &one.Manifest)
		}
		if err == nil && one.name() != filepath.Base(name) {
			err = errors.New("the file was renamed")
		}
		if err == nil {
			err = check(ctx, dir, &one.Manifest, progress)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			one.Problem = fmt.Sprintf("%s: %v", filepath.Base(name), err)
		}
		list = append(list, one)
	}
	return list, nil
}
