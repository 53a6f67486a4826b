package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// startTracing returns the tracer that OpenTelemetry's environment variables ask for, and what
// sends its last spans. It returns a nil tracer if they name no collector.
func startTracing(ctx context.Context, logger *slog.Logger) (trace.Tracer, func(context.Context) error, error) {
	env := func(name string) string {
		return cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_"+name), os.Getenv("OTEL_EXPORTER_OTLP_"+name))
	}
	if env("ENDPOINT") == "" || os.Getenv("OTEL_SDK_DISABLED") == "true" || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return nil, func(context.Context) error { return nil }, nil
	}
	const protocol = "http/protobuf"
	if asked := env("PROTOCOL"); asked != "" && asked != protocol {
		return nil, nil, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL: spans are sent by %s, not by %s", protocol, asked)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { logger.Warn("spans are not sent", "error", err) }))
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("trace by OTEL_EXPORTER_OTLP_ENDPOINT: %w", err)
	}
	named := resource.WithAttributes(attribute.String("service.name", "medilab-webhooks"), attribute.String("service.instance.id", nodeName()))
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), named, resource.WithFromEnv())
	if err != nil {
		return nil, nil, fmt.Errorf("read OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))
	return provider.Tracer("github.com/medilab/webhooks"), provider.Shutdown, nil
}
