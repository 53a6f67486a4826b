package commands

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/medilab/webhooks/domain"
	"github.com/medilab/webhooks/eventstore"
)

// Spans hold ids, types and outcomes, and nothing of payloads, URLs or headers.

// InTrace returns ctx as part of the trace, if there is one.
func InTrace(ctx context.Context, of domain.Trace) context.Context {
	if of.Traceparent == "" {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{
		domain.HeaderTraceparent: of.Traceparent, domain.HeaderTracestate: of.Tracestate,
	})
}

// TraceOf returns the trace of the span that ctx is in.
func TraceOf(ctx context.Context) domain.Trace {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return domain.NewTrace(carrier[domain.HeaderTraceparent], carrier[domain.HeaderTracestate])
}

// traceAppend makes the span of an append that is part of a trace.
func (d *Directory) traceAppend(ctx context.Context, unit eventstore.Unit) (eventstore.Appended, error) {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return d.append(ctx, unit)
	}
	ctx, span := d.Tracer.Start(ctx, "append")
	defer span.End()
	appended, err := d.append(ctx, unit)
	span.SetAttributes(attribute.Int("medilab.streams", len(unit.Writes)), attribute.Int64("medilab.position", int64(appended.First)))
	if err != nil {
		span.SetStatus(codes.Error, "not appended")
	}
	return appended, err
}

// traceMake makes the span of an attempt in the trace of its event. That of a batch of several
// traces is linked to each.
func (a *Attempter) traceMake(ctx context.Context, at Attempt) (domain.Call, domain.Backoff) {
	parent, kind := at.Event.Trace, trace.WithSpanKind(trace.SpanKindClient)
	var links []trace.Link
	if at.Batch != nil {
		parent = domain.CommonTrace(at.Batch)
	}
	for i := 0; i < len(at.Batch) && parent.Traceparent == ""; i++ {
		if of := trace.SpanContextFromContext(InTrace(context.Background(), at.Batch[i].Trace)); of.IsValid() {
			links = append(links, trace.Link{SpanContext: of})
		}
	}
	ctx, span := a.Tracer.Start(InTrace(ctx, parent), "call", kind, trace.WithLinks(links...))
	defer span.End()
	call, asked := a.make(ctx, at)
	span.SetAttributes(
		attribute.String("medilab.webhook.id", call.WebhookID.String()), attribute.String("medilab.delivery.id", at.Delivery.String()),
		attribute.String("medilab.event.type", call.EventType), attribute.Int("medilab.attempt", call.Attempt),
		attribute.String("medilab.outcome", string(call.Outcome)), attribute.Int("http.response.status_code", call.Status),
	)
	if call.Outcome != domain.OutcomeSuccess {
		span.SetStatus(codes.Error, string(call.Outcome))
	}
	return call, asked
}
