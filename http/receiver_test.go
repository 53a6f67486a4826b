package http_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// receiver answers with a status and hands on what it got.
type receiver struct {
	*httptest.Server
	got chan received
}

type received struct {
	header http.Header
	body   string
}

func newReceiver(t *testing.T, status int) *receiver {
	t.Helper()
	r := &receiver{got: make(chan received, 100)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			t.Error(err)
		}
		w.Header().Set("X-Answer", "yes")
		w.WriteHeader(status)
		if _, err := io.WriteString(w, "принято\xff"); err != nil {
			t.Error(err)
		}
		r.got <- received{request.Header, string(body)}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) next(t *testing.T) received {
	t.Helper()
	select {
	case got := <-r.got:
		return got
	case <-time.After(patience):
		t.Fatal("no call came")
		return received{}
	}
}

func (s *service) registerAt(url, more string) answer {
	s.t.Helper()
	return s.ask("POST", "/api/v1/webhooks", `{"name":"W","url":"`+url+`","events":["patient.created"]`+more+`}`).want(201)
}

func (s *service) deliveryState(event string) string {
	s.t.Helper()
	list := s.ask("GET", "/api/v1/webhooks/events/"+event+"/deliveries", "").want(200)
	if list.get("items") == "[]" {
		return ""
	}
	return list.text("items", 0, "state")
}
