//! The spans that tell what a generation did: numbers, names and reasons, never text.
//!
//! They stand apart from the log: their target is [`TRACES`] and their level is trace, so that they exist only while
//! somebody collects them. Names of fields are those of OpenTelemetry's conventions for generative models.

use std::time::Duration;

use byzerllm_core::{ChatRequest, Input, RequestContext, Sampling, Usage};
use tracing::Span;
use tracing::field::Empty;

use crate::metrics::Outcome;

/// The target of the spans that are made for tracing: one per HTTP request, and below it one per generation.
pub const TRACES: &str = "byzerllm::traces";

/// The span of a generation, below the span of whatever asks for it.
pub(crate) fn generation(request: &ChatRequest, context: &RequestContext) -> Span {
    let operation = match request.input {
        Input::Messages(_) => "chat",
        Input::Text(_) | Input::Tokens(_) => "text_completion",
    };
    tracing::trace_span!(
        target: TRACES,
        "generation",
        otel.name = format!("{operation} {}", request.model),
        otel.kind = "internal",
        otel.status_code = Empty,
        gen_ai.operation.name = operation,
        gen_ai.provider.name = "byzerllm",
        gen_ai.request.model = request.model,
        gen_ai.request.choice.count = request.n,
        gen_ai.request.max_tokens = Empty,
        gen_ai.request.seed = Empty,
        gen_ai.request.temperature = Empty,
        gen_ai.request.top_p = Empty,
        gen_ai.response.finish_reasons = Empty,
        gen_ai.response.id = %context.id,
        gen_ai.usage.cache_read.input_tokens = Empty,
        gen_ai.usage.input_tokens = Empty,
        gen_ai.usage.output_tokens = Empty,
        byzerllm.outcome = Empty,
        byzerllm.queue.seconds = Empty,
        byzerllm.time_to_first_token.seconds = Empty,
        error.type = Empty,
    )
}

/// The span of a request whose answer comes in one piece: `embeddings` or `rerank`.
pub(crate) fn whole(operation: &'static str, model: &str, context: &RequestContext) -> Span {
    tracing::trace_span!(
        target: TRACES,
        "whole",
        otel.name = format!("{operation} {model}"),
        otel.kind = "internal",
        otel.status_code = Empty,
        gen_ai.operation.name = operation,
        gen_ai.provider.name = "byzerllm",
        gen_ai.request.model = model,
        gen_ai.response.id = %context.id,
        gen_ai.usage.input_tokens = Empty,
        byzerllm.outcome = Empty,
        byzerllm.queue.seconds = Empty,
        error.type = Empty,
    )
}

/// How the request is sampled, defaults filled in.
pub(crate) fn resolved(span: &Span, sampling: &Sampling) {
    span.record("gen_ai.request.max_tokens", sampling.max_tokens);
    span.record("gen_ai.request.seed", sampling.seed);
    span.record("gen_ai.request.temperature", sampling.temperature.map(f64::from));
    span.record("gen_ai.request.top_p", sampling.top_p.map(f64::from));
}

pub(crate) fn waited(span: &Span, time: Duration) {
    span.record("byzerllm.queue.seconds", time.as_secs_f64());
}

pub(crate) fn answered(span: &Span, time: Duration) {
    span.record("byzerllm.time_to_first_token.seconds", time.as_secs_f64());
}

pub(crate) fn spent(span: &Span, usage: &Usage) {
    span.record("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens);
    span.record("gen_ai.usage.input_tokens", usage.prompt_tokens);
    span.record("gen_ai.usage.output_tokens", usage.completion_tokens);
}

/// The end, with the reason of each choice that had one.
pub(crate) fn ended(span: &Span, outcome: Outcome, reasons: &[&'static str]) {
    span.record("byzerllm.outcome", outcome.as_str());
    if !reasons.is_empty() {
        span.record("gen_ai.response.finish_reasons", reasons.join(","));
    }
    if !outcome.is_complete() && outcome != Outcome::CANCELLED {
        span.record("error.type", outcome.as_str());
        span.record("otel.status_code", "ERROR");
    }
}
