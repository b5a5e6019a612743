//! `GET /metrics`: what the runtime and the server count, for Prometheus.
//!
//! Labels come from closed sets: deployments that exist, routes of the table, outcomes, statuses. What a client sends
//! never becomes one.

mod http;
mod process;
mod text;

use byzerllm_runtime::{
    AdapterInfo, BreakerState, DeploymentMetrics, EngineMetrics, Histogram, LedgerMetrics, ProviderMetrics,
    RouteMetrics,
};

pub(crate) use http::HttpMetrics;
use text::{Kind, Page};

pub(crate) const CONTENT_TYPE: &str = text::CONTENT_TYPE;

/// The whole page.
pub(crate) fn page(deployments: &[DeploymentMetrics], ledger: &LedgerMetrics, http: &HttpMetrics) -> String {
    let mut page = Page::default();
    page.metric(Kind::Gauge, "byzerllm_build_info", "The version of this server; always 1.");
    page.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    requests(&mut page, deployments);
    engines(&mut page, deployments);
    adapters(&mut page, deployments);
    providers(&mut page, deployments);
    routes(&mut page, deployments);
    spending(&mut page, ledger);
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
    (Kind::Counter, "byzerllm_kept_answer_hits_total", "Requests that a kept answer served.", |it| {
        it.kept_hits
    }),
    (
        Kind::Counter,
        "byzerllm_kept_answer_misses_total",
        "Requests that looked for a kept answer and found none.",
        |it| it.kept_misses,
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

fn adapters(page: &mut Page, deployments: &[DeploymentMetrics]) {
    type Read = fn(&AdapterInfo) -> u64;
    let numbers: [(Kind, &str, &str, Read); 3] = [
        (
            Kind::Counter,
            "byzerllm_adapter_requests_total",
            "Requests that used a LoRA adapter since it was loaded.",
            |it| it.requests,
        ),
        (Kind::Gauge, "byzerllm_adapter_requests_active", "Requests that use a LoRA adapter now.", |it| {
            it.active
        }),
        (Kind::Gauge, "byzerllm_adapter_bytes", "Bytes that a LoRA adapter takes.", |it| it.bytes),
    ];
    for (kind, name, help, read) in numbers {
        page.metric(kind, name, help);
        for metrics in deployments {
            for adapter in &metrics.adapters {
                page.sample(
                    &[("deployment", &metrics.deployment), ("adapter", &adapter.name)],
                    read(adapter),
                );
            }
        }
    }
}

fn spending(page: &mut Page, ledger: &LedgerMetrics) {
    let help = "Attempts written into the ledger, by where their tokens come from.";
    page.metric(Kind::Counter, "byzerllm_ledger_records_total", help);
    for (source, count) in
        [("reported", ledger.reported), ("counted", ledger.counted), ("estimated", ledger.estimated)]
    {
        page.sample(&[("source", source)], count);
    }
    let help = "Attempts written into the ledger without a cost: a price or a bound was missing.";
    page.metric(Kind::Counter, "byzerllm_ledger_without_cost_total", help);
    page.sample(&[], ledger.without_cost);
    page.metric(Kind::Gauge, "byzerllm_ledger_waiting", "Attempts that are open or wait to be written.");
    page.sample(&[], ledger.waiting);
    let help = "Whether the ledger cannot be written, so that attempts are refused: 1 or 0.";
    page.metric(Kind::Gauge, "byzerllm_ledger_failing", help);
    page.sample(&[], u64::from(ledger.failing));
}

type ReadProvider = fn(&ProviderMetrics) -> u64;

const PROVIDER: &[(&str, &str, ReadProvider)] = &[
    ("byzerllm_provider_requests_total", "Well-formed requests to the vendor's model.", |it| it.requests),
    ("byzerllm_provider_attempts_total", "Messages sent to the vendor, or tried to.", |it| it.attempts),
    ("byzerllm_provider_retries_total", "Attempts after the first one of a request.", |it| it.retries),
    (
        "byzerllm_provider_shed_total",
        "Requests refused at once because the circuit breaker was open.",
        |it| it.shed,
    ),
    ("byzerllm_provider_dropped_total", "Answers that nobody waited for to their end.", |it| it.dropped),
    (
        "byzerllm_provider_unreported_total",
        "Answers whose tokens the vendor did not report, or not credibly.",
        |it| it.unreported,
    ),
];

fn routes(page: &mut Page, deployments: &[DeploymentMetrics]) {
    let all: Vec<(&str, RouteMetrics)> =
        deployments.iter().filter_map(|it| Some((it.deployment.as_str(), it.route?))).collect();
    let help = "Answers of a route that another target took over, by when it did.";
    page.metric(Kind::Counter, "byzerllm_route_fallbacks_total", help);
    for (deployment, numbers) in &all {
        for (when, number) in [
            ("before_first", numbers.fallbacks),
            ("continued", numbers.continued),
            ("restarted", numbers.restarted),
        ] {
            page.sample(&[("deployment", deployment), ("when", when)], number);
        }
    }
    let help = "Requests for which a route asked a second target because the first one was slow.";
    page.metric(Kind::Counter, "byzerllm_route_hedges_total", help);
    for (deployment, numbers) in &all {
        page.sample(&[("deployment", deployment)], numbers.hedges);
    }
    let help = "Hedged requests that the second target answered first.";
    page.metric(Kind::Counter, "byzerllm_route_hedges_won_total", help);
    for (deployment, numbers) in &all {
        page.sample(&[("deployment", deployment)], numbers.hedges_won);
    }
}

const BREAKER: &[BreakerState] = &[BreakerState::Closed, BreakerState::HalfOpen, BreakerState::Open];

fn providers(page: &mut Page, deployments: &[DeploymentMetrics]) {
    let all: Vec<(&str, &ProviderMetrics)> =
        deployments.iter().filter_map(|it| Some((it.deployment.as_str(), it.provider.as_ref()?))).collect();
    for (name, help, read) in PROVIDER {
        page.metric(Kind::Counter, name, help);
        for (deployment, numbers) in &all {
            page.sample(&[("deployment", deployment)], read(numbers));
        }
    }
    page.metric(Kind::Counter, "byzerllm_provider_failures_total", "Attempts that failed, by error code.");
    for (deployment, numbers) in &all {
        for (kind, count) in &numbers.failures {
            page.sample(&[("deployment", deployment), ("code", kind.code())], count);
        }
    }
    let help = "What the circuit breaker lets pass: 1 for the state that it is in.";
    page.metric(Kind::Gauge, "byzerllm_provider_breaker", help);
    for (deployment, numbers) in &all {
        for state in BREAKER {
            let here = u64::from(numbers.breaker == *state);
            page.sample(&[("deployment", deployment), ("state", state.as_str())], here);
        }
    }
}
