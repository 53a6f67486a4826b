package http

import (
	"net/http"
	"regexp"
	"slices"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/gorilla/mux"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
)

// variablePattern matches a variable of a route, {name:pattern}.
var variablePattern = regexp.MustCompile(`\{(\w+)(?::[^}]*)?\}`)

// unserved is the configuration of a server that is asked nothing.
var unserved = Config{Commands: &commands.Commands{Catalog: domain.BuiltinCatalog()}, Metrics: http.NotFoundHandler()}

// Every route is described, and everything described is routed.
func TestEveryRouteIsDescribed(t *testing.T) {
	s := NewServer(unserved)
	var routed, described []string
	err := s.router.Walk(func(route *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		path, err := route.GetPathTemplate()
		if err != nil {
			return err
		}
		methods, err := route.GetMethods()
		if err != nil {
			return err
		}
		for _, method := range methods {
			if method != http.MethodHead {
				routed = append(routed, method+" "+variablePattern.ReplaceAllString(path, "{$1}"))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	document, err := openapi3.NewLoader().LoadFromData(encode(s.describe()))
	if err != nil {
		t.Fatal(err)
	}
	if err := document.Validate(t.Context()); err != nil {
		t.Error(err)
	}
	for path, item := range document.Paths.Map() {
		for method := range item.Operations() {
			described = append(described, method+" "+path)
		}
	}
	slices.Sort(routed)
	slices.Sort(described)
	for _, one := range routed {
		if !slices.Contains(described, one) {
			t.Errorf("%s is routed and not described", one)
		}
	}
	for _, one := range described {
		if !slices.Contains(routed, one) {
			t.Errorf("%s is described and not routed", one)
		}
	}
}
