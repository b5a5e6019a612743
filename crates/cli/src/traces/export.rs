//! From the spans of [`TRACES`] to a collector, over HTTP. Nothing else becomes a part of a trace: no log record, no
//! text of a prompt or an answer, no credential.

use std::sync::Arc;
use std::time::Duration;

use byzerllm_runtime::TRACES;
use byzerllm_server::AdoptSpan;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Array, KeyValue, StringValue, Value};
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::registry::LookupSpan;

use super::{variable, wanted};
use crate::output::{Failure, Outcome, Output};

/// How long the last spans may take at the end.
const FLUSH: Duration = Duration::from_secs(5);
/// The one attribute that the conventions want as a list.
const REASONS: &str = "gen_ai.response.finish_reasons";

/// Sends traces as long as it lives, and what is left when it is dropped.
pub(crate) struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// As the environment asks for it.
    pub(crate) fn from_environment(_output: Output) -> Outcome<Option<Self>> {
        if !wanted()? {
            return Ok(None);
        }
        let exporter = exporter().map_err(|reason| {
            let message = format!("traces cannot be sent: {reason}");
            Failure::misuse(message, "Check the variables whose names begin with OTEL_EXPORTER_OTLP.")
        })?;
        let mut resource =
            Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        let named = variable("OTEL_SERVICE_NAME").is_some()
            || variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|list| list.contains("service.name="));
        if !named {
            resource = resource.with_service_name("byzerllm");
        }
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(Listed(exporter))
            .with_resource(resource.build())
            .build();
        Ok(Some(Self { provider }))
    }

    /// What takes the spans.
    pub(crate) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("byzerllm"))
            .with_location(false)
            .with_target(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target(TRACES, LevelFilter::TRACE))
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

fn exporter() -> Result<opentelemetry_otlp::SpanExporter, String> {
    // Another part of the process may have chosen one before; then that one is used.
    let _already_there = rustls::crypto::ring::default_provider().install_default();
    let timeout = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"]
        .into_iter()
        .find_map(variable)
        .map_or(Ok(10_000), |text| {
            text.parse().map_err(|_| format!("'{text}' is no number of milliseconds"))
        })?;
    let client = reqwest::blocking::Client::builder()
        .timeout(Duration::from_millis(timeout))
        // The headers may hold a token for one place only.
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| error.to_string())?;
    opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(Duration::from_millis(timeout))
        .with_http_client(client)
        .build()
        .map_err(|error| error.to_string())
}

/// Writes lists as lists; a field of a span can only be a text.
#[derive(Debug)]
struct Listed<E>(E);

impl<E: SpanExporter> SpanExporter for Listed<E> {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        for attribute in batch.iter_mut().flat_map(|span| &mut span.attributes) {
            if attribute.key.as_str() == REASONS
                && let Value::String(text) = &attribute.value
            {
                let reasons = text.as_str().split(',').map(|reason| StringValue::from(reason.to_owned()));
                attribute.value = Value::Array(Array::String(reasons.collect()));
            }
        }
        self.0.export(batch).await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

/// Lets requests take part in the traces of their callers.
pub(crate) fn adopt() -> AdoptSpan {
    let propagator = TraceContextPropagator::new();
    Arc::new(move |span, parent, state| {
        let caller = propagator.extract(&Caller { parent, state });
        if let Err(error) = span.set_parent(caller) {
            tracing::debug!(%error, "a caller's trace was not continued");
        }
    })
}

struct Caller<'a> {
    parent: &'a str,
    state: &'a str,
}

impl Extractor for Caller<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => Some(self.parent),
            "tracestate" => Some(self.state),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}
