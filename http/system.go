package http

import (
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/gorilla/mux"

	"github.com/medilab/webhooks/commands/outbox"
	"github.com/medilab/webhooks/commands/saga"
	"github.com/medilab/webhooks/commands/vault"
	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/projections"
)

func (s *Server) systemOperations() []operation {
	return []operation{{
		method: "GET", path: "/system", id: "getSystem", summary: "Nodes, read models, the queue, keys and the end of the log", scope: domain.ScopeAuditRead, orScope: domain.ScopeWebhooksRead,
		answer: answerOf[systemView], serve: s.getSystem,
	}, {
		method: "POST", path: "/audit/verify", id: "verifyLog", summary: "Check the whole log, in lines of JSON: how far that is, and in the last one what is wrong. It ends when the caller leaves", scope: domain.ScopeAuditRead,
		answer: text, media: ndjson, unbounded: true, conflicts: true, serve: s.verifyLog,
	}, {
		method: "POST", path: "/projections/{model}/rebuild", id: "rebuildReadModel", summary: "Rebuild a read model from the log while it serves, in lines of JSON: how far that is. It ends when the caller leaves", scope: domain.ScopeAdmin,
		answer: text, media: ndjson, unbounded: true, conflicts: true, serve: s.rebuildReadModel,
	}}
}

type systemView struct {
	Nodes      []projections.NodeStatus `json:"nodes"`
	Log        logEndView               `json:"log"`
	ReadModels []projections.Status     `json:"projections"`
	Pending    int64                    `json:"pending_deliveries"`
	Oldest     float64                  `json:"oldest_due_seconds"` // for how long the delivery that is due for longest has waited
	Emitted    int64                    `json:"emitted_waiting"`    // events that services emitted and the log does not have yet
	Parked     int64                    `json:"emitted_parked"`
	Unreadable int64                    `json:"dead_letters"` // entries of the log that no read model could take
	Keys       []vault.Key              `json:"keys"`
}

// logEndView is the end of the log; zero while it is empty.
type logEndView struct {
	Position   projections.Position `json:"position"`
	Seal       string               `json:"seal"`
	RecordedAt moment               `json:"recorded_at"`
}

func (s *Server) getSystem(x *request, r *http.Request) (err error) {
	ctx, v := r.Context(), systemView{Keys: s.commands.Vault.Keys()}
	var end projections.LogEnd
	var gauges projections.Gauges
	var emitted outbox.State
	var oldest time.Duration
	for _, read := range []func() error{
		func() (err error) { v.Nodes, err = s.queries.Nodes(ctx); return err },
		func() (err error) { v.ReadModels, err = s.queries.List(ctx); return err },
		func() (err error) { gauges, err = s.queries.Gauges(ctx); return err },
		func() (err error) { emitted, err = outbox.ReadState(ctx, s.commands.Pool); return err },
		func() (err error) { oldest, err = s.commands.Queue.Age(ctx, s.commands.Directory); return err },
		func() (err error) { end, err = s.queries.LogEnd(ctx); return err },
	} {
		if err := read(); err != nil {
			return err
		}
	}
	v.Log = logEndView{end.Position, hex.EncodeToString(end.Seal), moment(end.RecordedAt)}
	v.Pending, v.Unreadable, v.Emitted, v.Parked, v.Oldest = gauges.Pending, gauges.Parked, emitted.Waiting, emitted.Parked, oldest.Seconds()
	return x.respond(v, nil)
}

const mostProblems = 1000 // that are shown

// Verified is what a check found, as its last line says.
type Verified struct {
	Events   projections.Position  `json:"events"`
	Found    int                   `json:"found"`
	Problems []projections.Problem `json:"problems"` // the first of them: a badly damaged log has no end of it
}

// Report takes in what is wrong.
func (v *Verified) Report(p projections.Problem) {
	if v.Found++; v.Found <= mostProblems {
		v.Problems = append(v.Problems, p)
	}
}

// Add takes in what another check found, as if it had come first.
func (v *Verified) Add(first Verified) {
	v.Found += first.Found
	v.Problems = slices.Insert(v.Problems, 0, first.Problems...)
	v.Problems = v.Problems[:min(len(v.Problems), mostProblems)]
}

func (s *Server) verifyLog(x *request, r *http.Request) error {
	if err := x.acquire(s.logReads); err != nil {
		return err
	}
	return s.work(x, r, func(ctx context.Context, progress projections.Progress) (any, error) {
		head, err := s.commands.Log.Head(ctx)
		result := Verified{Events: head, Problems: []projections.Problem{}}
		if err == nil {
			err = s.queries.Verify(ctx, saga.Queue{}, result.Report, progress)
		}
		return result, err
	})
}

func (s *Server) rebuildReadModel(x *request, r *http.Request) error {
	name := mux.Vars(r)["model"]
	if !slices.Contains(projections.Names(), name) {
		return domain.NotFound("read model")
	}
	return s.work(x, r, func(ctx context.Context, progress projections.Progress) (any, error) {
		if err := s.queries.Rebuild(ctx, []string{name}, progress); err != nil {
			return nil, err
		}
		return struct {
			Rebuilt string `json:"rebuilt"`
		}{name}, s.commands.Record(ctx, x.caller, domain.AdminReadModelRebuilt, name)
	})
}

// work answers with how far a long work is, and its result, in lines. It ends when the caller
// leaves or the server stops.
func (s *Server) work(x *request, r *http.Request, do func(context.Context, projections.Progress) (any, error)) error {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.stopping, cancel)()
	out := newLineWriter(x)
	told := time.Now()
	result, err := do(ctx, func(done, total projections.Position) {
		if time.Since(told) > auditFlush {
			told = time.Now()
			if out.writeNow(encode(workView{done, total})) != nil {
				cancel()
			}
		}
	})
	switch {
	case err == nil:
		return out.writeNow(encode(result))
	case x.status == 0:
		return err
	}
	x.err = err
	return out.writeNow(encode(struct {
		Error string `json:"error"`
	}{errorOf(err)}))
}

type workView struct {
	Done  projections.Position `json:"done"`
	Total projections.Position `json:"total"`
}

// errorOf returns what a caller may know of the error.
func errorOf(err error) string {
	if known, ok := errors.AsType[*domain.Error](err); ok && known.Kind != domain.KindInternal {
		return known.Message
	}
	return "the service failed"
}
