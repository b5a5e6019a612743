//! `GET /metrics`: what the runtime and the server count, for Prometheus.
//!
//! Labels come from closed sets: deployments that exist, routes of the table, outcomes, statuses. What a client sends
//! never becomes one.

mod http;
mod process;
mod text;

use byzerllm_runtime::{DeploymentMetrics, EngineMetrics, Histogram};

pub(crate) use http::HttpMetrics;
use text::{Kind, Page};

pub(crate) const CONTENT_TYPE: &str = text::CONTENT_TYPE;

/// The whole page.
pub(crate) fn page(deployments: &[DeploymentMetrics], http: &HttpMetrics) -> String {
    let mut page = Page::default();
    page.metric(Kind::Gauge, "byzerllm_build_info", "The version of this server; always 1.");
    page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    requests(&mut page, deployments);
    engines(&mut page, deployments);
    http.write(&mut page);
    process::write(&mut page);
    page.finish()
}

type Read<T> = fn(&DeploymentMetrics) -> T;

const NUMBERS: &[(Kind, &str, &str, Read<u64>)] = &[
    (Kind::Gauge, "byzerllm_deployment_ready", "Whether the deployment takes requests: 1 or 0.", |it| {
        u64::from(it.ready)
    }),
    (Kind::Gauge, "byzerllm_requests_waiting", "Requests that wait for a place.", |it| it.waiting),
    (Kind::Gauge, "byzerllm_requests_running", "Requests that hold a place.", |it| it.running),
    (
        Kind::Counter,
        "byzerllm_prompt_tokens_total",
        "Prompt tokens of ended requests, those from the prefix cache included.",
        |it| it.prompt_tokens,
    ),
    (
        Kind::Counter,
        "byzerllm_prefix_hit_tokens_total",
        "Prompt tokens of ended requests that came from the prefix cache.",
        |it| it.prefix_hit_tokens,
    ),
    (
        Kind::Counter,
        "byzerllm_generated_tokens_total",
        "Tokens generated for ended requests, completely answered or not.",
        |it| it.generated_tokens,
    ),
];

/// Name, help, and where the numbers are.
type HistogramLine = (&'static str, &'static str, fn(&DeploymentMetrics) -> &Histogram);

const HISTOGRAMS: &[HistogramLine] = &[
    ("byzerllm_queue_seconds", "Seconds that requests which got a place waited for it.", |it| &it.queue),
    (
        "byzerllm_time_to_first_token_seconds",
        "Seconds from a request's arrival to the first piece of its answer.",
        |it| &it.first_token,
    ),
    (
        "byzerllm_inter_token_seconds",
        "Seconds between two pieces of a choice's answer; a piece is a token, or several where text is held back.",
        |it| &it.between_tokens,
    ),
    (
        "byzerllm_request_seconds",
        "Seconds from a request's arrival to the end of its complete answer.",
        |it| &it.duration,
    ),
];

fn requests(page: &mut Page, deployments: &[DeploymentMetrics]) {
    let help = "Requests that ended, by finish reason or error code.";
    page.metric(Kind::Counter, "byzerllm_requests_total", help);
    for metrics in deployments {
        for (outcome, count) in &metrics.requests {
            page.sample(&[("deployment", &metrics.deployment), ("outcome", outcome)], count);
        }
    }
    for (kind, name, help, read) in NUMBERS {
        page.metric(*kind, name, help);
        for metrics in deployments {
            page.sample(&[("deployment", &metrics.deployment)], read(metrics));
        }
    }
    for (name, help, read) in HISTOGRAMS {
        page.metric(Kind::Histogram, name, help);
        for metrics in deployments {
            page.histogram(&[("deployment", &metrics.deployment)], read(metrics));
        }
    }
}

type ReadEngine = fn(&EngineMetrics) -> u64;

const ENGINE: &[(Kind, &str, &str, ReadEngine)] = &[
    (Kind::Gauge, "byzerllm_engine_sequences_running", "Sequences in work; a choice is one.", |it| {
        it.running as u64
    }),
    (
        Kind::Gauge,
        "byzerllm_engine_sequences_waiting",
        "Sequences that wait for cache blocks, after a preemption or before their first step.",
        |it| it.waiting as u64,
    ),
    (Kind::Gauge, "byzerllm_engine_cache_blocks", "Blocks of the key/value cache.", |it| {
        it.blocks_total as u64
    }),
    (Kind::Gauge, "byzerllm_engine_cache_blocks_used", "Cache blocks that sequences hold.", |it| {
        it.blocks_used as u64
    }),
    (
        Kind::Gauge,
        "byzerllm_engine_cache_blocks_cached",
        "Cache blocks that are kept for their content only; they count as free.",
        |it| it.blocks_cached as u64,
    ),
    (Kind::Counter, "byzerllm_engine_steps_total", "Steps computed.", |it| it.steps),
    (
        Kind::Counter,
        "byzerllm_engine_computed_tokens_total",
        "Tokens computed by the network, repeated work after preemption included.",
        |it| it.computed_tokens,
    ),
    (
        Kind::Counter,
        "byzerllm_engine_prompt_tokens_total",
        "Prompt tokens, counted when a request's first step begins.",
        |it| it.prompt_tokens,
    ),
    (
        Kind::Counter,
        "byzerllm_engine_prefix_hit_tokens_total",
        "Prompt tokens that came from the prefix cache, counted when a request's first step begins.",
        |it| it.prefix_hit_tokens,
    ),
    (
        Kind::Counter,
        "byzerllm_engine_generated_tokens_total",
        "Tokens generated, counted step by step.",
        |it| it.generated_tokens,
    ),
    (
        Kind::Counter,
        "byzerllm_engine_preemptions_total",
        "Times that a sequence gave its cache blocks back to be computed again later.",
        |it| it.preemptions,
    ),
];

fn engines(page: &mut Page, deployments: &[DeploymentMetrics]) {
    for (kind, name, help, read) in ENGINE {
        page.metric(*kind, name, help);
        for metrics in deployments {
            if let Some(engine) = &metrics.engine {
                page.sample(&[("deployment", &metrics.deployment)], read(engine));
            }
        }
    }
}
