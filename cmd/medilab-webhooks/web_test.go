package main

import (
	"net/http/httptest"
	"testing"

	"github.com/gorilla/mux"
)

// The root leads a browser to the panel, and nobody else.
func TestRootLeadsToThePanel(t *testing.T) {
	router := mux.NewRouter()
	mountPages(router)
	for accept, want := range map[string]int{"text/html,application/xhtml+xml": 302, "application/json": 404, "": 404} {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		router.ServeHTTP(w, r)
		if location := w.Header().Get("Location"); w.Code != want || (want == 302) != (location == "/admin") {
			t.Errorf("Accept %q: %d to %q", accept, w.Code, location)
		}
	}
}
