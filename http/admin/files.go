package admin

import (
	"bytes"
	"cmp"
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

// files are served under a path that holds the hash of all of them: a browser may keep
// each for ever, and never mixes files of two versions, relative imports included. Safe
// for concurrent use.
type files struct {
	root   string // with a slash at its end
	byName map[string]*file
}

type file struct {
	contentType string
	plain       []byte
	zipped      func() []byte
}

// newFiles reads all files of an embedded tree, to be served below the path prefix.
func newFiles(prefix string, tree fs.FS) *files {
	f := &files{byName: map[string]*file{}}
	sum := sha256.New()
	err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := fs.ReadFile(tree, name)
		fmt.Fprintf(sum, "%s %d ", name, len(data))
		sum.Write(data)
		f.byName[name] = &file{contentType: cmp.Or(contentTypes[path.Ext(name)], "text/plain; charset=utf-8"), plain: data, zipped: sync.OnceValue(func() []byte { return zip(data) })}
		return err
	})
	if err != nil {
		panic(err) // an embedded tree can be read
	}
	const enough = 12 // hexadecimal digits: nobody forges our own content
	f.root = prefix + "/" + hex.EncodeToString(sum.Sum(nil))[:enough] + "/"
	return f
}

// ServeHTTP answers GET and HEAD of a file's path; everything else is 404 or 405.
func (f *files) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	if !reading(w, r) {
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, f.root)
	one := f.byName[name]
	if !ok || one == nil {
		refuse(w, http.StatusNotFound)
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
	write(w, r, body)
}

// reading reports whether the request only reads; it answers all others with 405.
func reading(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	w.Header().Set("Allow", "GET, HEAD")
	refuse(w, http.StatusMethodNotAllowed)
	return false
}

// refuse answers with a problem (RFC 9457) that is fully described by its status.
func refuse(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"type":"about:blank","title":%q,"status":%d}`+"\n", http.StatusText(status), status)
}

// write writes a whole answer. A client that is gone is no error.
func write(w http.ResponseWriter, r *http.Request, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

// contentTypes knows our own files only, so that the machine's MIME table has no say.
var contentTypes = map[string]string{".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}

func zip(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(data) // a buffer refuses nothing
	_ = w.Close()
	return b.Bytes()
}
