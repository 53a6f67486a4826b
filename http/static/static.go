// Package static serves a page and the files it needs, all embedded: the files under paths
// that name their content, the page under a strict policy.
package static

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

// Render returns the HTML of a page, and may set headers of the response.
type Render func(header http.Header, r *http.Request) []byte

// Handler serves a page at whatever path ending in path it is mounted, and the folder
// assets of the tree below it. page gets the path of the files, ending with a slash.
func Handler(path string, tree fs.FS, policy string, page func(root string) Render) http.Handler {
	assets, err := fs.Sub(tree, "assets")
	if err != nil {
		panic(err) // the name is ours
	}
	files := Must(path+"/assets", assets)
	render := page(files.Root())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, path+"/assets/"):
			files.ServeHTTP(w, r)
		case !strings.HasSuffix(strings.TrimSuffix(r.URL.Path, "/"), path):
			refuse(w, http.StatusNotFound)
		case reading(w, r):
			writePage(w, r, policy, render(w.Header(), r))
		}
	})
}

// Execute returns the HTML of an embedded template.
func Execute(text string, data any) []byte {
	var b bytes.Buffer
	if err := template.Must(template.New("page").Parse(text)).Execute(&b, data); err != nil {
		panic(err) // the template is ours
	}
	return b.Bytes()
}

// Files serves files under a path that holds the hash of all of them: a browser may keep
// each for ever, and never mixes files of two versions, relative imports included. Safe
// for concurrent use.
type Files struct {
	root  string
	files map[string]*file
}

type file struct {
	contentType string
	plain       []byte
	zipped      func() []byte
}

// Must reads all files of an embedded tree, to be served below the path prefix.
func Must(prefix string, tree fs.FS) *Files {
	f := &Files{files: map[string]*file{}}
	sum := sha256.New()
	err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := fs.ReadFile(tree, name)
		fmt.Fprintf(sum, "%s %d ", name, len(data))
		sum.Write(data)
		f.files[name] = &file{contentType: typeOf(name), plain: data, zipped: sync.OnceValue(func() []byte { return zip(data) })}
		return err
	})
	if err != nil {
		panic(err) // an embedded tree can be read
	}
	const enough = 12 // hexadecimal digits: nobody forges our own content
	f.root = prefix + "/" + hex.EncodeToString(sum.Sum(nil))[:enough] + "/"
	return f
}

// Root returns the path under which the files are, ending with a slash.
func (f *Files) Root() string { return f.root }

// ServeHTTP answers GET and HEAD of a file's path; everything else is 404 or 405.
func (f *Files) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("X-Content-Type-Options", "nosniff")
	if !reading(w, r) {
		return
	}
	name, ok := strings.CutPrefix(r.URL.Path, f.root)
	one := f.files[name]
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
	write(w, r, http.StatusOK, body)
}

// writePage answers with HTML under a Content-Security-Policy. It is not cached: it names
// the files of one version of the program.
func writePage(w http.ResponseWriter, r *http.Request, policy string, html []byte) {
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
func write(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

// typeOf knows our own files only, so that the machine's MIME table has no say.
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
