package main

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"strconv"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

//go:embed receiveview
var receiveViewFiles embed.FS

// receiveView shows the calls of receive in a browser, as they come. It keeps the newest.
type receiveView struct {
	mu      sync.Mutex
	kept    [][]byte      // JSON of viewedCall
	dropped int           // before those
	changed chan struct{} // closed when another call comes
}

// mostViewed is how many calls the view keeps, and mostPretty what it shows of a body.
const (
	mostViewed = 200
	mostPretty = 256 << 10
)

// viewedCall is a call in the view. Its text is the body as people read it: a browser would
// round its numbers.
type viewedCall struct {
	receivedCall
	Text     string `json:"text"`
	Cut      bool   `json:"cut"`
	Delivery string `json:"delivery"` // "": it does not say
}

func newReceiveView() *receiveView { return &receiveView{changed: make(chan struct{})} }

func (v *receiveView) add(c *receivedCall) {
	seen := viewedCall{receivedCall: *c, Text: pretty(c.raw, ""), Delivery: c.delivery()}
	seen.Body = nil
	if len(seen.Text) > mostPretty {
		seen.Text, seen.Cut = seen.Text[:mostPretty], true
	}
	var line bytes.Buffer
	if printJSON(&line, seen) != nil {
		return // what was received always encodes
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.kept = append(v.kept, line.Bytes())
	if len(v.kept) > mostViewed {
		v.kept, v.dropped = v.kept[1:], v.dropped+1
	}
	close(v.changed)
	v.changed = make(chan struct{})
}

// after returns the calls behind the first n, and what is closed when there are more.
func (v *receiveView) after(n int) (calls [][]byte, all int, changed <-chan struct{}) {
	v.mu.Lock()
	defer v.mu.Unlock()
	all = v.dropped + len(v.kept)
	return append([][]byte{}, v.kept[min(max(n-v.dropped, 0), len(v.kept)):]...), all, v.changed
}

// handler serves the page, to browsers that ask for it by the address: the page of another
// site may not read it under a name of its own.
func (v *receiveView) handler(addr string) http.Handler {
	files, err := fs.Sub(receiveViewFiles, "receiveview")
	if err != nil {
		panic(err) // of what is embedded
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(files))
	mux.HandleFunc("GET /calls", v.stream)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		if r.Host != addr {
			http.Error(w, "open http://"+addr, http.StatusMisdirectedRequest)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// stream sends the calls as server-sent events until the browser leaves.
func (v *receiveView) stream(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	seen, _ := strconv.Atoi(r.Header.Get("Last-Event-ID")) // 0: none
	for {
		calls, all, changed := v.after(seen)
		for i, call := range calls {
			fmt.Fprintf(w, "id: %d\ndata: %s\n\n", all-len(calls)+i+1, bytes.TrimSpace(call))
		}
		if http.NewResponseController(w).Flush() != nil {
			return
		}
		seen = all
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

// pretty returns a body as people read it: JSON in lines, behind the prefix. Deep JSON, which
// would take far more memory so, stays as it is.
func pretty(body []byte, prefix string) string {
	const mostSpaces = 64 << 20
	in := jsontext.NewDecoder(bytes.NewReader(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	for spaces := 0; ; spaces += 2 * in.StackDepth() {
		if spaces > mostSpaces {
			return string(body)
		}
		if _, err := in.ReadToken(); err != nil {
			break
		}
	}
	var lines bytes.Buffer
	if json.Indent(&lines, body, prefix, "  ") != nil {
		return string(body)
	}
	return lines.String()
}
