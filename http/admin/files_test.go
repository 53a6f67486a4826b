package admin

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

func tree(app string) fstest.MapFS {
	return fstest.MapFS{"app.js": {Data: []byte(app)}, "vendor/LICENSE": {Data: []byte("MIT")}}
}

func TestFilesAreKeptForEverUnderTheirHash(t *testing.T) {
	long := strings.Repeat("let a = 1\n", 100)
	files := newFiles("/admin/assets", tree(long))
	if other := newFiles("/admin/assets", tree("let b")); other.root == files.root {
		t.Fatal("other files have the same path")
	}
	w := ask(files, "GET", files.root+"app.js", "gzip")
	unzipped, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(unzipped)
	if err != nil || string(body) != long {
		t.Errorf("got %q, %v", body, err)
	}
	for name, want := range map[string]string{
		"Cache-Control": "public, max-age=31536000, immutable", "Content-Type": "text/javascript; charset=utf-8",
		"X-Content-Type-Options": "nosniff", "Vary": "Accept-Encoding",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if w := ask(files, "GET", files.root+"app.js", ""); w.Body.String() != long || w.Header().Get("Content-Encoding") != "" {
		t.Error("a caller that knows no gzip got it")
	}
}

func TestWhatIsNoFileIsNotServed(t *testing.T) {
	files := newFiles("/admin/assets", tree("let a"))
	for path, want := range map[string]int{
		files.root + "vendor/LICENSE":       200,
		files.root:                          404,
		files.root + "vendor":               404,
		files.root + "../app.js":            404,
		files.root + "app.js/":              404,
		"/admin/assets/000000000000/app.js": 404,
		"/admin/assets/app.js":              404,
		"/elsewhere" + files.root + "a.js":  404,
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path = path
		w := httptest.NewRecorder()
		files.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
	if w := ask(files, "POST", files.root+"app.js", ""); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") == "" {
		t.Errorf("POST: %d", w.Code)
	}
}

func ask(h http.Handler, method, path, encoding string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	r.Header.Set("Accept-Encoding", encoding)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}
