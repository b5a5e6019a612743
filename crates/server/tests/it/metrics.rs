//! `GET /metrics`, read as strictly as the format is defined.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::body::Body;
use axum::http::Method;
use byzerllm_core::testing::{Gate, ScriptedModel};
use byzerllm_core::{Error, ErrorKind};
use byzerllm_runtime::testing::ScriptedLoader;
use byzerllm_runtime::{AfterFirst, DeploymentSpec, EngineMetrics, Runtime, RuntimeOptions, Scopes};
use byzerllm_server::router;
use futures::StreamExt;
use serde_json::json;
use tower::ServiceExt;

use crate::support::{App, options, request};

/// Samples by name and labels, as `name{a="x",b="y"}` with the values unescaped.
type Page = BTreeMap<String, f64>;

fn is_name(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|character| character.is_ascii_alphanumeric() || character == '_')
}

/// Reads `{name="value",…}`: the labels and what follows them.
fn labels(text: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    let Some(mut rest) = text.strip_prefix('{') else { return (found, text) };
    loop {
        let (name, after) = rest.split_once("=\"").expect("a label has a quoted value");
        assert!(is_name(name), "{name}");
        let mut value = String::new();
        let mut characters = after.char_indices();
        rest = loop {
            match characters.next().expect("a value ends") {
                (place, '"') => break &after[place + 1..],
                (_, '\\') => value.push(match characters.next() {
                    Some((_, 'n')) => '\n',
                    Some((_, escaped @ ('\\' | '"'))) => escaped,
                    other => panic!("no escape: {other:?}"),
                }),
                (_, character) => value.push(character),
            }
        };
        found.push((name.to_owned(), value));
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return (found, rest.strip_prefix('}').expect("labels end")),
        }
    }
}

/// Reads a page and checks what the format and good manners demand of it.
fn parse(text: &str) -> Page {
    assert!(text.ends_with('\n') && !text.contains("\r"));
    let mut page = Page::new();
    let mut families = BTreeSet::new();
    let (mut name, mut kind, mut help) = ("", "", "");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (of, words) = rest.split_once(' ').unwrap();
            assert!(is_name(of) && words.ends_with('.') && families.insert(of), "{line}");
            (name, kind, help) = (of, "", words);
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (of, word) = rest.split_once(' ').unwrap();
            assert!(
                of == name && kind.is_empty() && ["counter", "gauge", "histogram"].contains(&word),
                "{line}"
            );
            assert_eq!(word == "counter", name.ends_with("_total"), "{line}");
            assert!(!name.contains("_seconds") || help.to_lowercase().contains("second"), "{help}");
            kind = word;
            continue;
        }
        let end = line.find(['{', ' ']).unwrap();
        let (sample, (labels, value)) = (&line[..end], labels(&line[end..]));
        let suffix = sample.strip_prefix(name).unwrap_or_else(|| panic!("{sample} stands below {name}"));
        let suffixes: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(suffixes.contains(&suffix), "{line}");
        let value: f64 = value.strip_prefix(' ').unwrap().parse().unwrap();
        let shown: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        let key =
            if shown.is_empty() { sample.to_owned() } else { format!("{sample}{{{}}}", shown.join(",")) };
        assert!(page.insert(key, value).is_none(), "twice: {line}");
        if suffix == "_bucket" {
            assert_eq!(labels.last().unwrap().0, "le");
        }
        if suffix == "_count" {
            check_buckets(text, name, &line[end..line.rfind(' ').unwrap()], value);
        }
    }
    page
}

/// Buckets grow, and the last one holds everything.
fn check_buckets(text: &str, name: &str, labels: &str, count: f64) {
    let start = format!("{name}_bucket{},le=\"", labels.strip_suffix('}').unwrap());
    let buckets: Vec<(f64, f64)> = text
        .lines()
        .filter_map(|line| line.strip_prefix(start.as_str())?.split_once("\"} "))
        .map(|(bound, value)| (bound.parse().unwrap(), value.parse().unwrap()))
        .collect();
    assert!(buckets.len() > 5 && buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name}: {buckets:?}");
    assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)), "{name}");
}

impl App {
    async fn scrape(&self) -> Page {
        let answer = self.admin(Method::GET, "/metrics", "").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        parse(&answer.text)
    }

    /// Over a model for each name; `concurrency` limits the one called `narrow`.
    async fn of(names: &[&str], make: impl Fn(&str) -> ScriptedModel + Send + Sync + 'static) -> Self {
        let loader = ScriptedLoader::new(move |spec: &DeploymentSpec| Ok(Arc::new(make(&spec.name))));
        let plain = RuntimeOptions { threads: Some(1), ..RuntimeOptions::default() };
        let runtime = Runtime::open_with(plain, loader.clone()).await.unwrap();
        for name in names {
            let mut spec = DeploymentSpec::new(*name, "/");
            if *name == "narrow" {
                (spec.limits.concurrency, spec.limits.queue_limit) = (Some(1), Some(1));
            }
            runtime.deploy(spec).await.unwrap();
        }
        let router = router(runtime.clone(), &options());
        Self { model: Arc::new(ScriptedModel::new("")), loader, runtime, router }
    }
}

/// The samples of a family that are not 0, without the family's name.
fn nonzero<'a>(page: &'a Page, family: &str) -> Vec<(&'a str, f64)> {
    let samples = page.iter().filter_map(|(key, value)| Some((key.strip_prefix(family)?, *value)));
    samples.filter(|(_, value)| *value != 0.0).collect()
}

fn of(page: &Page, name: &str, deployment: &str) -> f64 {
    page[&format!("{name}{{deployment={deployment:?}}}")]
}

fn hello(model: &str) -> serde_json::Value {
    json!({"model": model, "messages": [{"role": "user", "content": "Hi"}]})
}

#[tokio::test]
async fn requests_are_counted_by_outcome() {
    let app = App::of(&["chat", "fails", "full", "聊天-1.b"], |name| match name {
        "fails" => ScriptedModel::new("a b c").failing_after(1, Error::new(ErrorKind::Upstream, "broken")),
        "full" => ScriptedModel::new("").refusing(Error::new(ErrorKind::Overloaded, "full")),
        _ => ScriptedModel::new("one two three"),
    })
    .await;
    let mut streamed = hello("chat");
    streamed["stream"] = true.into();
    app.chat(hello("chat")).await.ok();
    assert_eq!(app.chat(&streamed).await.status, 200);
    streamed["max_tokens"] = 1.into();
    assert_eq!(app.chat(streamed).await.status, 200);
    // Each prompt is a request, each choice is not.
    app.complete(json!({"model": "聊天-1.b", "prompt": ["x", "y"], "n": 2})).await.ok();
    assert_eq!(app.chat(hello("fails")).await.status, 502);
    assert_eq!(app.chat(hello("full")).await.status, 429);
    let page = app.scrape().await;
    assert_eq!(
        nonzero(&page, "byzerllm_requests_total"),
        [
            ("{deployment=\"chat\",outcome=\"length\"}", 1.0),
            ("{deployment=\"chat\",outcome=\"stop\"}", 2.0),
            ("{deployment=\"fails\",outcome=\"upstream\"}", 1.0),
            ("{deployment=\"full\",outcome=\"overloaded\"}", 1.0),
            ("{deployment=\"聊天-1.b\",outcome=\"stop\"}", 2.0),
        ]
    );
    assert_eq!(page["byzerllm_requests_total{deployment=\"chat\",outcome=\"tool_calls\"}"], 0.0);
    for (name, chat, other) in [
        ("byzerllm_time_to_first_token_seconds_count", 3.0, 2.0),
        ("byzerllm_inter_token_seconds_count", 4.0, 8.0),
        ("byzerllm_request_seconds_count", 3.0, 2.0),
        ("byzerllm_queue_seconds_count", 3.0, 2.0),
        ("byzerllm_generated_tokens_total", 7.0, 12.0),
        ("byzerllm_deployment_ready", 1.0, 1.0),
    ] {
        assert_eq!((of(&page, name, "chat"), of(&page, name, "聊天-1.b")), (chat, other), "{name}");
    }
    assert!(of(&page, "byzerllm_prompt_tokens_total", "chat") >= 3.0);
    assert!(of(&page, "byzerllm_request_seconds_sum", "chat") > 0.0);
    let route = "{route=\"/v1/chat/completions\",method=\"POST\",status=";
    let http: Vec<_> = nonzero(&page, "byzerllm_http_requests_total")
        .into_iter()
        .filter_map(|(labels, value)| Some((labels.strip_prefix(route)?, value)))
        .collect();
    assert_eq!(http, [("\"200\"}", 3.0), ("\"429\"}", 1.0), ("\"502\"}", 1.0)]);
    let build = format!("byzerllm_build_info{{version={:?}}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(page[&build], 1.0);
    assert!(page["process_resident_memory_bytes"] > 1e6 && page["process_open_fds"] >= 3.0);
    assert!(page["process_start_time_seconds"] > 1.7e9 && page["process_cpu_seconds_total"] >= 0.0);
    assert!(!page.contains_key("byzerllm_engine_steps_total{deployment=\"chat\"}"), "it has no engine");
}

#[tokio::test]
async fn gauges_tell_what_happens_now() {
    let gate = Gate::closed();
    let models = gate.clone();
    let app = App::of(&["narrow"], move |_| ScriptedModel::new("one two three").with_gate(&models)).await;
    let mut body = hello("narrow");
    body["stream"] = true.into();
    let ask = || {
        let request = request(Method::POST, "/v1/chat/completions", Body::from(body.to_string()));
        tokio::spawn(app.router.clone().oneshot(request))
    };
    let mut first = ask().await.unwrap().unwrap().into_body().into_data_stream();
    let second = ask();
    let gauges = async || {
        let page = app.scrape().await;
        let read = |name| of(&page, name, "narrow");
        (read("byzerllm_requests_running"), read("byzerllm_requests_waiting"))
    };
    while gauges().await != (1.0, 1.0) {
        tokio::task::yield_now().await;
    }
    assert_eq!(app.chat(hello("narrow")).await.status, 429);
    // Two words of the first answer come through, then its client leaves.
    gate.allow(2);
    let mut seen = String::new();
    while !seen.contains("two") {
        let frame = first.next().await.unwrap().unwrap();
        seen.push_str(std::str::from_utf8(&frame).unwrap());
    }
    let page = app.scrape().await;
    assert_eq!(of(&page, "byzerllm_time_to_first_token_seconds_count", "narrow"), 1.0);
    assert_eq!(of(&page, "byzerllm_inter_token_seconds_count", "narrow"), 1.0);
    assert_eq!(of(&page, "byzerllm_generated_tokens_total", "narrow"), 0.0, "the request goes on");
    drop(first);
    gate.open();
    let answer = axum::body::to_bytes(second.await.unwrap().unwrap().into_body(), 1 << 20).await.unwrap();
    assert!(std::str::from_utf8(&answer).unwrap().contains("[DONE]"));
    assert_eq!(gauges().await, (0.0, 0.0));
    let page = app.scrape().await;
    assert_eq!(
        nonzero(&page, "byzerllm_requests_total{deployment=\"narrow\","),
        [("outcome=\"cancelled\"}", 1.0), ("outcome=\"overloaded\"}", 1.0), ("outcome=\"stop\"}", 1.0)]
    );
    assert_eq!(of(&page, "byzerllm_generated_tokens_total", "narrow"), 2.0 + 3.0);
    let waited = of(&page, "byzerllm_queue_seconds_sum", "narrow");
    assert!(waited > 0.0 && of(&page, "byzerllm_queue_seconds_count", "narrow") == 2.0);
}

#[tokio::test]
async fn an_engine_shows_its_numbers() {
    let app = App::of(&[], |_| ScriptedModel::new("one")).await;
    app.loader.set_metrics(EngineMetrics {
        running: 1,
        waiting: 2,
        blocks_total: 3,
        blocks_used: 4,
        blocks_cached: 5,
        steps: 6,
        requests: 7,
        prompt_tokens: 8,
        prefix_hit_tokens: 9,
        generated_tokens: 10,
        computed_tokens: 11,
        preemptions: 12,
    });
    app.runtime.deploy(DeploymentSpec::new("chat", "/")).await.unwrap();
    let page = app.scrape().await;
    for (name, value) in [
        ("sequences_running", 1.0),
        ("sequences_waiting", 2.0),
        ("cache_blocks", 3.0),
        ("cache_blocks_used", 4.0),
        ("cache_blocks_cached", 5.0),
        ("steps_total", 6.0),
        ("prompt_tokens_total", 8.0),
        ("prefix_hit_tokens_total", 9.0),
        ("generated_tokens_total", 10.0),
        ("computed_tokens_total", 11.0),
        ("preemptions_total", 12.0),
    ] {
        assert_eq!(of(&page, &format!("byzerllm_engine_{name}"), "chat"), value, "{name}");
    }
}

#[tokio::test]
async fn what_clients_send_makes_no_label() {
    let app = App::answering("one").await;
    app.chat(hello("chat")).await.ok();
    let names = |page: &Page| -> BTreeSet<String> {
        page.keys().filter(|key| !key.contains("byzerllm_http_requests_total")).cloned().collect()
    };
    let before = names(&app.scrape().await);
    for (place, name) in ["nothing", "x\"} 1\nevil 1", "a\\", "\u{0}", ""].iter().enumerate() {
        assert_ne!(app.chat(hello(name)).await.status, 200);
        assert_eq!(app.get(&format!("/unknown/{place}")).await.status, 404);
        let brew = Method::from_bytes(format!("BREW{place}").as_bytes()).unwrap();
        app.send(request(brew, "/v1/models", Body::empty())).await;
        // Nor does an admin: such names are refused.
        if *name != "nothing" {
            let spec = json!({"name": name, "model": "/"});
            assert_eq!(
                app.admin(Method::POST, "/byzerllm/v1/deployments", spec).await.status,
                400,
                "{name:?}"
            );
        }
    }
    let page = app.scrape().await;
    assert_eq!(names(&page), before);
    let http: BTreeMap<_, _> = nonzero(&page, "byzerllm_http_requests_total").into_iter().collect();
    assert_eq!(http["{route=\"unmatched\",method=\"GET\",status=\"404\"}"], 5.0);
    assert_eq!(http["{route=\"/v1/models\",method=\"other\",status=\"405\"}"], 5.0);
    assert!(!http.keys().any(|labels| labels.contains("unknown/") || labels.contains("BREW")), "{http:?}");
    // With the last deployment of a name go its numbers.
    app.runtime.undeploy("chat", std::time::Duration::ZERO).await.unwrap();
    assert!(!app.scrape().await.keys().any(|key| key.contains("deployment=")));
}

#[tokio::test]
async fn scrapers_need_a_credential_and_get_nothing_else() {
    let app = App::answering("one").await;
    let (status, _, code, message) = app.get("/metrics").await.error();
    assert_eq!((status, code.as_str()), (401, "unauthenticated"), "loopback is no credential");
    assert!(message.contains("--scope metrics"), "{message}");
    let scopes = ["metrics".parse().unwrap()].into_iter().collect();
    let key = app.runtime.keys().create(&Scopes::all(), "prometheus", &scopes, None).unwrap().key;
    let ask = async |path: &str| {
        let mut request = request(Method::GET, path, Body::empty());
        request.headers_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
        app.send(request).await
    };
    let answer = ask("/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(parse(&answer.text).len() > 20);
    assert!(!answer.text.contains(&key) && !answer.text.contains("prometheus"));
    for path in ["/v1/models", "/byzerllm/v1/deployments", "/byzerllm/v1/keys"] {
        assert_eq!(ask(path).await.status, 403, "{path}");
    }
}

#[tokio::test]
async fn routes_and_kept_answers_are_counted() {
    let slow = Gate::closed();
    let gate = slow.clone();
    let app = App::of(&["good"], move |name| match name {
        "bad" => ScriptedModel::new("").refusing(Error::new(ErrorKind::Overloaded, "full")),
        "breaks" => {
            ScriptedModel::new("one two three").failing_after(1, Error::new(ErrorKind::Upstream, "broken"))
        }
        "slow" => ScriptedModel::new("one two three").with_gate(&gate),
        _ => ScriptedModel::new("one two three"),
    })
    .await;
    for name in ["bad", "breaks", "slow", "kept"] {
        let mut spec = DeploymentSpec::new(name, "/");
        spec.limits.answer_cache_entries = (name == "kept").then_some(8);
        app.runtime.deploy(spec).await.unwrap();
    }
    for (name, targets, after_first, hedge) in [
        ("falls", "bad,good=0", AfterFirst::Error, None),
        ("restarts", "breaks,good=0", AfterFirst::Restart, None),
        ("hedges", "slow,good=0", AfterFirst::Error, Some(1)),
    ] {
        let mut spec = DeploymentSpec::new(name, "");
        spec.set("route.targets", targets).unwrap();
        let route = spec.route.as_mut().unwrap();
        (route.fallback.after_first, route.hedge_after_ms) = (after_first, hedge);
        app.runtime.deploy(spec).await.unwrap();
    }
    for _ in 0..3 {
        app.chat(hello("kept")).await.ok();
    }
    app.chat(hello("falls")).await.ok();
    app.chat(hello("hedges")).await.ok();
    let mut restarting =
        request(Method::POST, "/v1/chat/completions", Body::from(hello("restarts").to_string()));
    restarting.headers_mut().insert("x-byzerllm-takeover", "restart".parse().unwrap());
    app.send(restarting).await.ok();
    slow.open();
    let page = app.scrape().await;
    assert_eq!(
        nonzero(&page, "byzerllm_route_fallbacks_total"),
        [
            ("{deployment=\"falls\",when=\"before_first\"}", 1.0),
            ("{deployment=\"restarts\",when=\"restarted\"}", 1.0),
        ]
    );
    assert_eq!(nonzero(&page, "byzerllm_route_hedges_total"), [("{deployment=\"hedges\"}", 1.0)]);
    assert_eq!(nonzero(&page, "byzerllm_route_hedges_won_total"), [("{deployment=\"hedges\"}", 1.0)]);
    assert_eq!(nonzero(&page, "byzerllm_kept_answer_hits_total"), [("{deployment=\"kept\"}", 2.0)]);
    assert_eq!(nonzero(&page, "byzerllm_kept_answer_misses_total"), [("{deployment=\"kept\"}", 1.0)]);
    assert!(!page.contains_key("byzerllm_route_hedges_total{deployment=\"good\"}"), "it is no route");
}
