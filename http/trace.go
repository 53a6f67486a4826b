package http

import (
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/medilab/webhooks/commands"
	"github.com/medilab/webhooks/domain"
)

// startSpan begins the span of a request, in the caller's trace if it is in one.
func (s *Server) startSpan(x *request, r *http.Request) *http.Request {
	if x.operation.scope == public {
		return r
	}
	ctx := commands.InTrace(r.Context(), readTrace(r))
	ctx, x.span = s.config.Tracer.Start(ctx, r.Method+" "+x.operation.path, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attribute.String("http.request.method", r.Method), attribute.String("http.route", x.operation.path),
		attribute.String("medilab.request.id", x.caller.RequestID),
	))
	return r.WithContext(ctx)
}

func (x *request) endSpan() {
	if x.span == nil {
		return
	}
	x.span.SetAttributes(attribute.Int("http.response.status_code", x.status))
	if x.status >= http.StatusInternalServerError {
		x.span.SetStatus(codes.Error, "")
	}
	x.span.End()
}

// trace returns the trace of what the request triggers: the request's span, or without
// tracing the caller's.
func (x *request) trace(r *http.Request) domain.Trace {
	if x.span != nil {
		return commands.TraceOf(r.Context())
	}
	return readTrace(r)
}
