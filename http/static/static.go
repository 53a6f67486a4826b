// Package static serves pages and the files they need, all embedded: the files
// under paths that name their content, the pages under a strict policy.
package static

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

// Files serves files under a path that holds the hash of all of them: a browser
// may keep each for ever, and never sees an old one beside a new one, relative
// imports included. Safe for concurrent use.
type Files struct {
	root  string
	files map[string]*file
}

type file struct {
	contentType string
	plain       []byte
	zipped      func() []byte
}

// New reads all files of a tree, to be served below the path prefix.
func New(prefix string, tree fs.FS) (*Files, error) {
	f := &Files{files: map[string]*file{}}
	sum := sha256.New()
	err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := fs.ReadFile(tree, name)
		if err != nil {
			return err
		}
		fmt.Fprintf(sum, "%s %d ", name, len(data))
		sum.Write(data)
		f.files[name] = &file{contentType: typeOf(name), plain: data, zipped: sync.OnceValue(func() []byte { return zip(data) })}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the files of %s: %w", prefix, err)
	}
	const enough = 12 // hexadecimal digits: nobody chooses our content against us
	f.root = prefix + "/" + hex.EncodeToString(sum.Sum(nil))[:enough] + "/"
	return f, nil
}

// Must is New for embedded trees, whose reading cannot fail.
func Must(prefix string, tree fs.FS) *Files {
	f, err := New(prefix, tree)
	if err != nil {
		panic(err)
	}
	return f
}

// Root is the path under which the files are now; it ends with a slash.
func (f *Files) Root() string { return f.root }

// ServeHTTP answers GET and HEAD of a file's path; everything else is 404 or 405.
func (f *Files) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	if !Reading(w, r) {
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, f.root)
	one := f.files[name]
	if !ok || one == nil {
		NotFound(w)
		return
	}
	header.Set("Cache-Control", "public, max-age=31536000, immutable")
	header.Set("Content-Type", one.contentType)
	header.Set("Vary", "Accept-Encoding")
	body := one.plain
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		if zipped := one.zipped(); len(zipped) < len(body) {
			header.Set("Content-Encoding", "gzip")
			body = zipped
		}
	}
	write(w, r, http.StatusOK, body)
}

// Page answers with HTML under a Content-Security-Policy. Nothing may keep it:
// it names the files of one version of the program.
func Page(w http.ResponseWriter, r *http.Request, policy string, html []byte) {
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Cache-Control", "no-store")
	header.Set("Content-Security-Policy", policy)
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	write(w, r, http.StatusOK, html)
}

// Reading tells whether the request only reads; it answers all others with 405.
func Reading(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	refuse(w, http.StatusMethodNotAllowed)
	return false
}

// NotFound answers 404.
func NotFound(w http.ResponseWriter) { refuse(w, http.StatusNotFound) }

// refuse answers with a problem (RFC 9457) that its status says all about. That a
// reader is gone is nobody's error.
func refuse(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"type":"about:blank","title":%q,"status":%d}`+"\n", http.StatusText(status), status)
}

// write sends a whole answer. That a reader is gone is nobody's error.
func write(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

// typeOf knows our own files only, so that no file of the machine's decides.
func typeOf(name string) string {
	switch path.Ext(name) {
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	default:
		return "text/plain; charset=utf-8"
	}
}

func zip(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, writing := w.Write(data)
	if closing := w.Close(); writing != nil || closing != nil {
		return data // a buffer refuses nothing; the plain file is right anyway
	}
	return b.Bytes()
}
