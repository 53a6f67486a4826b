package main

import (
	"github.com/gorilla/mux"

	"github.com/medilab/webhooks/http/admin"
	"github.com/medilab/webhooks/http/docs"
)

// mountPages adds what people look at: the panel and the page to try the API,
// both also below the API's own root.
func mountPages(root *mux.Router) {
	panel, try := admin.Handler(), docs.Handler()
	root.Handle(admin.Path, panel)
	root.Handle("/api/v1"+admin.Path, panel)
	root.PathPrefix(admin.Path + "/").Handler(panel)
	root.Handle(docs.Path, try)
	root.Handle("/api/v1"+docs.Path, try)
	root.PathPrefix(docs.Path + "/").Handler(try)
}
