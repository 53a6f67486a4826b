package texts

import (
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

const module = "github.com/medilab/webhooks/"

// shown are the fields of structs whose texts a caller is shown.
var shown = map[string][]string{
	"domain.FieldError":           {"Message"},
	"domain.Error":                {"Message"},
	"domain.Finding":              {"Message"},
	"domain.WebhookAlertRaised":   {"Message"},
	"domain.WebhookAlertResolved": {"Message"},
	"domain.Call":                 {"Error"},
	"domain/filter.Problem":       {"Message"},
	"domain/filter.Verdict":       {"Reason"},
	"commands.Answer":             {"Error"},
	"http.problem":                {"title"},
	"http.refusal":                {"detail"},
}

// shownParams are the parameters whose texts a caller is shown.
var shownParams = map[string]int{"http.respondProblem": 1, "http.respondArchived": 1}

// internal are functions whose texts are for the log.
var internal = []string{"domain.Internal", "commands.Failed"}

// foreign are functions that return the texts of others.
var foreign = []string{"http/sender.plain", "http/sender.reason"}

// technical begin texts that go on with an error of ours, for operators.
var technical = []string{"it still cannot be accepted: ", "the stored event cannot be read: "}

// gap stands in a text for what is known only when it is made.
const gap = "\x00"

// source finds the texts that the program can show: it follows what is written to the fields
// above back to the constants, through variables, parameters, results and formats.
type source struct {
	bodies map[types.Object]body   // of functions
	writes map[types.Object][]read // to variables, fields and parameters
	within map[types.Object]bool   // under way
}

type body struct {
	info *types.Info
	node ast.Node // *ast.FuncDecl or *ast.FuncLit
}

// read is an expression, or one result of it.
type read struct {
	info  *types.Info
	expr  ast.Expr
	index int
}

func load(t *testing.T) *source {
	t.Helper()
	list, err := packages.Load(&packages.Config{
		Dir:  "../..",
		Mode: packages.NeedName | packages.NeedFiles | packages.NeedCompiledGoFiles | packages.NeedImports | packages.NeedExportFile | packages.NeedTypes | packages.NeedSyntax | packages.NeedTypesInfo,
	}, "./domain/...", "./commands/...", "./projections", "./http", "./http/sender", "./http/identity", "./http/fastpath")
	if err != nil {
		t.Fatal(err)
	}
	s := &source{bodies: map[types.Object]body{}, writes: map[types.Object][]read{}, within: map[types.Object]bool{}}
	for _, p := range list {
		for _, problem := range p.Errors {
			t.Fatal(problem)
		}
	}
	for _, p := range list {
		for _, f := range p.Syntax {
			s.collect(p.TypesInfo, f)
		}
	}
	return s
}

// collect notes the functions of the file and all that is written to anything.
func (s *source) collect(info *types.Info, f *ast.File) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			s.bodies[info.Defs[n.Name]] = body{info, n}
		case *ast.AssignStmt:
			if n.Tok == token.ADD_ASSIGN {
				n = &ast.AssignStmt{Lhs: n.Lhs, Rhs: []ast.Expr{&ast.BinaryExpr{X: n.Lhs[0], Op: token.ADD, Y: n.Rhs[0]}}}
			}
			s.assign(info, n.Lhs, n.Rhs)
		case *ast.ValueSpec:
			to := make([]ast.Expr, len(n.Names))
			for i, name := range n.Names {
				to[i] = name
			}
			s.assign(info, to, n.Values)
		case *ast.RangeStmt:
			if n.Value != nil {
				s.assign(info, []ast.Expr{n.Value}, []ast.Expr{n.X})
			}
		case *ast.CompositeLit:
			s.literal(info, n)
		case *ast.CallExpr:
			s.call(info, n)
		}
		return true
	})
}

func (s *source) assign(info *types.Info, to, from []ast.Expr) {
	for i, left := range to {
		object := objectOf(info, left)
		switch {
		case object == nil || len(from) == 0:
		case len(from) == len(to):
			s.writes[object] = append(s.writes[object], read{info, from[i], 0})
		default:
			s.writes[object] = append(s.writes[object], read{info, from[0], i})
		}
	}
}

func (s *source) literal(info *types.Info, n *ast.CompositeLit) {
	of := info.TypeOf(n)
	if pointer, ok := of.Underlying().(*types.Pointer); ok {
		of = pointer.Elem()
	}
	fields, ok := of.Underlying().(*types.Struct)
	if !ok {
		return
	}
	for i, element := range n.Elts {
		if pair, ok := element.(*ast.KeyValueExpr); ok {
			if field := info.Uses[pair.Key.(*ast.Ident)]; field != nil {
				s.write(field, read{info, pair.Value, 0})
			}
			continue
		}
		s.write(fields.Field(i), read{info, element, 0})
	}
}

func (s *source) write(to types.Object, what read) {
	if v, ok := to.(*types.Var); ok {
		to = v.Origin()
	}
	s.writes[to] = append(s.writes[to], what)
}

func (s *source) call(info *types.Info, n *ast.CallExpr) {
	signature, ok := info.TypeOf(n.Fun).(*types.Signature)
	if !ok || slices.Contains(internal, nameOf(callee(info, n))) {
		return
	}
	if f, ok := callee(info, n).(*types.Func); ok { // a generic one's own parameters
		signature = f.Origin().Signature()
	}
	for i, argument := range n.Args {
		if i < signature.Params().Len() {
			s.write(signature.Params().At(i), read{info, argument, 0})
		}
	}
	if callee(info, n) == nil {
		return
	}
	if v, ok := callee(info, n).(*types.Var); ok { // a function in a variable
		for _, w := range s.writes[v] {
			if literal, ok := w.expr.(*ast.FuncLit); ok {
				params := info.TypeOf(literal).(*types.Signature).Params()
				for i, argument := range n.Args {
					s.write(params.At(min(i, params.Len()-1)), read{info, argument, 0})
				}
			}
		}
	}
}

func callee(info *types.Info, n *ast.CallExpr) types.Object { return objectOf(info, n.Fun) }

func objectOf(info *types.Info, e ast.Expr) (object types.Object) {
	switch e := ast.Unparen(e).(type) {
	case *ast.Ident:
		if object = info.Defs[e]; object == nil {
			object = info.Uses[e]
		}
	case *ast.SelectorExpr:
		object = info.Uses[e.Sel]
	case *ast.IndexExpr:
		return objectOf(info, e.X)
	case *ast.StarExpr:
		return objectOf(info, e.X)
	}
	switch o := object.(type) {
	case *types.Var:
		return o.Origin()
	case *types.Func:
		return o.Origin()
	}
	return object
}

func nameOf(o types.Object) string {
	if o == nil || o.Pkg() == nil {
		return ""
	}
	return strings.TrimPrefix(o.Pkg().Path(), module) + "." + o.Name()
}

// texts returns what the object may hold.
func (s *source) texts(o types.Object) []string {
	if o == nil || s.within[o] {
		return nil
	}
	if c, ok := o.(*types.Const); ok {
		return []string{constant.StringVal(c.Val())}
	}
	s.within[o] = true
	defer delete(s.within, o)
	var all []string
	for _, w := range s.writes[o] {
		all = append(all, s.eval(w)...)
	}
	return few(all)
}

// few returns the texts, each once.
func few(all []string) []string {
	slices.Sort(all)
	return slices.Compact(all)
}

func (s *source) eval(r read) []string {
	if value := r.info.Types[r.expr].Value; value != nil {
		if value.Kind() == constant.String {
			return []string{constant.StringVal(value)}
		}
		return []string{gap}
	}
	if holdsNoText(r.info.TypeOf(r.expr)) {
		return nil
	}
	switch e := ast.Unparen(r.expr).(type) {
	case *ast.BinaryExpr:
		return join(s.part(read{r.info, e.X, 0}), s.part(read{r.info, e.Y, 0}))
	case *ast.CallExpr:
		return s.evalCall(r.info, e, r.index)
	case *ast.UnaryExpr:
		return s.eval(read{r.info, e.X, 0})
	case *ast.CompositeLit:
		return s.elements(r.info, e)
	case *ast.Ident, *ast.SelectorExpr, *ast.IndexExpr, *ast.StarExpr:
		return s.texts(objectOf(r.info, e))
	}
	return nil
}

// holdsNoText reports whether values of the type are numbers, or the headers of a call.
func holdsNoText(t types.Type) bool {
	if t == nil {
		return false
	}
	basic, ok := t.Underlying().(*types.Basic)
	return ok && basic.Info()&types.IsNumeric != 0 || t.String() == "net/http.Header"
}

// elements returns the texts in a literal: of a list, a table or an error.
func (s *source) elements(info *types.Info, e *ast.CompositeLit) (all []string) {
	if _, ok := info.TypeOf(e).Underlying().(*types.Struct); ok {
		return nil
	}
	for _, element := range e.Elts {
		if pair, ok := element.(*ast.KeyValueExpr); ok {
			element = pair.Value
		}
		all = append(all, s.eval(read{info, element, 0})...)
	}
	return all
}

// part is eval for what is a part of a text: a gap where nothing is known.
func (s *source) part(r read) []string {
	if found := s.eval(r); len(found) > 0 && len(found) < 200 {
		return found
	}
	return []string{gap}
}

func join(before, after []string) (all []string) {
	for _, a := range before {
		for _, b := range after {
			all = append(all, a+b)
		}
	}
	return all
}

var verb = regexp.MustCompile(`%(\[\d+\])?[-+# 0-9.]*[a-zA-Z%]`)

func (s *source) evalCall(info *types.Info, e *ast.CallExpr, index int) []string {
	if converted := info.Types[e.Fun]; converted.IsType() {
		return s.eval(read{info, e.Args[0], 0})
	}
	if slices.Contains(foreign, nameOf(callee(info, e))) {
		return []string{gap}
	}
	switch function := callee(info, e); nameOf(function) {
	case "errors.New", "cmp.Or":
		var all []string
		for _, argument := range e.Args {
			all = append(all, s.eval(read{info, argument, 0})...)
		}
		return all
	case "strings.Join":
		parts := s.eval(read{info, e.Args[0], 0})
		for _, between := range s.eval(read{info, e.Args[1], 0}) {
			if letter.MatchString(between) {
				parts = append(parts, gap+between+gap)
			}
		}
		return parts
	case "fmt.Sprintf", "fmt.Errorf":
		return s.format(info, e)
	case "golang.org/x/sync/singleflight.Do": // returns what its function does
		if literal, ok := e.Args[1].(*ast.FuncLit); ok {
			return s.returned(body{info, literal}, index)
		}
		return nil
	case "errors.Error", "builtin.Error", "":
		if selector, ok := e.Fun.(*ast.SelectorExpr); ok && selector.Sel.Name == "Error" {
			return s.eval(read{info, selector.X, 0})
		}
		return s.results(function, index)
	default:
		return s.results(function, index)
	}
}

func (s *source) format(info *types.Info, e *ast.CallExpr) []string {
	formats := s.eval(read{info, e.Args[0], 0})
	var all []string
	for _, format := range formats {
		texts, argument, rest := []string{""}, 0, format
		for {
			at := verb.FindStringIndex(rest)
			if at == nil {
				break
			}
			texts = join(texts, []string{rest[:at[0]]})
			switch kind := rest[at[1]-1]; {
			case kind == '%':
				texts = join(texts, []string{"%"})
			case argument+1 < len(e.Args) && (kind == 's' || kind == 'v' || kind == 'w'):
				argument++
				texts = join(texts, s.part(read{info, e.Args[argument], 0}))
			default:
				argument++
				texts = join(texts, []string{gap})
			}
			rest = rest[at[1]:]
		}
		all = append(all, join(texts, []string{rest})...)
	}
	return all
}

// results returns what the function's result of the index may be.
func (s *source) results(function types.Object, index int) (all []string) {
	if function == nil || s.within[function] {
		return nil
	}
	s.within[function] = true
	defer delete(s.within, function)
	b, ok := s.bodies[function]
	if !ok {
		for _, w := range s.writes[function] { // a function in a variable or field
			if literal, ok := w.expr.(*ast.FuncLit); ok {
				all = append(all, s.returned(body{w.info, literal}, index)...)
			} else if named := objectOf(w.info, w.expr); named != nil {
				all = append(all, s.results(named, index)...)
			}
		}
		return append(all, s.implementations(function, index)...)
	}
	return s.returned(b, index)
}

// implementations returns the results of the methods of that name and signature, if the function
// is one of an interface.
func (s *source) implementations(function types.Object, index int) (all []string) {
	method, ok := function.(*types.Func)
	if !ok || method.Signature().Recv() == nil {
		return nil
	}
	for other, b := range s.bodies {
		f, ok := other.(*types.Func)
		if ok && f != method && f.Name() == method.Name() && f.Signature().Recv() != nil && types.Identical(f.Signature().Results(), method.Signature().Results()) {
			all = append(all, s.returned(b, index)...)
		}
	}
	return all
}

func (s *source) returned(b body, index int) (all []string) {
	block := (*ast.BlockStmt)(nil)
	var results *ast.FieldList
	switch n := b.node.(type) {
	case *ast.FuncDecl:
		block, results = n.Body, n.Type.Results
	case *ast.FuncLit:
		block, results = n.Body, n.Type.Results
	}
	if block == nil || results == nil {
		return nil
	}
	named := []types.Object{}
	for _, field := range results.List {
		for _, name := range field.Names {
			named = append(named, b.info.Defs[name])
		}
	}
	if index < len(named) {
		all = append(all, s.texts(named[index])...)
	}
	ast.Inspect(block, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.ReturnStmt:
			switch {
			case len(n.Results) == 1 && index > 0:
				all = append(all, s.eval(read{b.info, n.Results[0], index})...)
			case index < len(n.Results):
				all = append(all, s.eval(read{b.info, n.Results[index], 0})...)
			}
		}
		return true
	})
	return few(all)
}

// shownTexts returns all texts that a caller may be shown.
func (s *source) shownTexts(t *testing.T) []string {
	all := map[string]bool{}
	found := map[string]bool{}
	for o := range s.writes {
		v, ok := o.(*types.Var)
		if !ok || !v.IsField() {
			continue
		}
		for name, fields := range shown {
			if slices.Contains(fields, v.Name()) && s.isFieldOf(v, name) {
				found[name] = true
				for _, text := range s.texts(v) {
					all[text] = true
				}
			}
		}
	}
	for name := range shown {
		if !found[name] {
			t.Errorf("%s has no such field", name)
		}
	}
	for o := range s.bodies {
		if at, ok := shownParams[nameOf(o)]; ok {
			for _, text := range s.texts(o.(*types.Func).Signature().Params().At(at)) {
				all[text] = true
			}
		}
	}
	delete(all, "")
	delete(all, gap)
	return slices.Sorted(maps.Keys(all))
}

func (s *source) isFieldOf(v *types.Var, name string) bool {
	folder, of, _ := strings.Cut(name, ".")
	if v.Pkg() == nil || v.Pkg().Path() != module+folder {
		return false
	}
	named := v.Pkg().Scope().Lookup(of)
	if named == nil {
		return false
	}
	fields, ok := named.Type().Underlying().(*types.Struct)
	for i := 0; ok && i < fields.NumFields(); i++ {
		if fields.Field(i) == v {
			return true
		}
	}
	return false
}

// TestEveryTextIsTranslated finds what the program can show to callers, and fails for each text
// that the table lacks.
func TestEveryTextIsTranslated(t *testing.T) {
	for _, text := range load(t).shownTexts(t) {
		sample := strings.ReplaceAll(text, gap, "7")
		translation, known := Russian(sample)
		if !known {
			t.Errorf("russian.txt lacks %q", strings.ReplaceAll(text, gap, "{}"))
		} else if !cyrillic.MatchString(translation) {
			t.Errorf("%q becomes %q", sample, translation)
		} else if english.MatchString(translation) && !slices.ContainsFunc(technical, func(begin string) bool { return strings.HasPrefix(sample, begin) }) {
			t.Errorf("%q stays English in part: %q", sample, translation)
		}
	}
}

var (
	letter   = regexp.MustCompile(`\pL`)
	cyrillic = regexp.MustCompile(`\p{Cyrillic}`)
	// english are words of sentences, which are left in a hole that took in more than a name.
	english = regexp.MustCompile(`(?:^|\s)(?:the|a|an|of|or|and|is|are|was|has|no|not|that|with|in|its|it)(?:\s|$)`)
)
