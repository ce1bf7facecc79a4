//! Spans of requests, exported to an OpenTelemetry collector by OTLP over HTTP.
//!
//! Only with the feature `otel`, and only where an endpoint is given. The exporter sends
//! batches from a thread of its own, and drops what it cannot keep up with.

use anyhow::Context as _;
use opentelemetry::Context;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::{Layer, Registry};

/// The target of the spans that are exported: those of requests.
pub const TARGET: &str = "dkvs_gateway::http::serve";

/// Where a collector takes spans, below its endpoint.
const PATH: &str = "/v1/traces";

/// A running exporter. Dropping it sends what it still holds, and ends it.
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// An exporter to the collector at `endpoint`, as in `http://127.0.0.1:4318`.
    ///
    /// # Errors
    ///
    /// If nothing can be exported there.
    pub fn new(endpoint: &str) -> anyhow::Result<Self> {
        let url = match endpoint.ends_with(PATH) {
            true => endpoint.to_owned(),
            false => format!("{}{PATH}", endpoint.trim_end_matches('/')),
        };
        let exporter = SpanExporter::builder().with_http().with_endpoint(url);
        let exporter = exporter
            .build()
            .with_context(|| format!("cannot export spans to {endpoint}"))?;
        let resource = Resource::builder().with_service_name("dkvs-gateway");
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build());
        Ok(Self(provider.build()))
    }

    /// The layer that passes the spans of requests to it.
    pub fn layer(&self) -> impl Layer<Registry> + Send + Sync + 'static {
        let tracer = self.0.tracer("dkvs-gateway");
        let spans = filter_fn(|metadata| metadata.is_span() && metadata.target() == TARGET);
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_filter(spans)
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown() {
            tracing::warn!(%error, "some spans were not exported");
        }
    }
}

/// Makes a span the child of a caller's.
pub fn set_parent(span: &Span, trace_id: [u8; 16], parent_id: [u8; 8], flags: u8) {
    let parent = SpanContext::new(
        TraceId::from_bytes(trace_id),
        SpanId::from_bytes(parent_id),
        TraceFlags::new(flags),
        true,
        TraceState::default(),
    );
    // A span that is not exported has no parent either.
    let _ = span.set_parent(Context::new().with_remote_span_context(parent));
}

/// The trace that a span is exported as part of, if it is.
pub fn trace_id(span: &Span) -> Option<[u8; 16]> {
    let context = span.context();
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| span.trace_id().to_bytes())
}
