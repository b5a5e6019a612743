//! Deploying, replacing, refusing.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use byzerllm_core::testing::ScriptedModel;
use byzerllm_core::{Error, ErrorKind, Origin};
use byzerllm_runtime::testing::ScriptedLoader;
use byzerllm_runtime::{DeploymentSpec, MemoryNeed};

use crate::{answer, embedded, spec};

#[tokio::test]
async fn a_deployment_answers_and_shows_itself() {
    let runtime = embedded(ScriptedLoader::answering("hello there")).await;
    let mut wanted = spec("chat");
    wanted.set("temperature", "0.25").unwrap();
    let status = runtime.deploy(wanted.clone()).await.unwrap();
    assert_eq!(status.state.as_str(), "ready");
    assert_eq!(status.spec, wanted);
    assert_eq!(answer(&runtime, "chat").await.unwrap(), "hello there");
    let listed = runtime.list();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].info.as_ref().unwrap().engine, "scripted");
    let temperature = &listed[0].effective[0];
    assert_eq!((temperature.name.as_str(), temperature.origin), ("temperature", Origin::Deployment));
    assert_eq!(temperature.value, 0.25);
    assert_eq!(runtime.tokenize("chat", "a b").unwrap().len(), 2);
    runtime.undeploy("chat", Duration::ZERO).await.unwrap();
    assert!(runtime.list().is_empty());
}

#[tokio::test]
async fn a_status_travels_as_json() {
    let runtime = embedded(ScriptedLoader::answering("x")).await;
    let status = runtime.deploy(spec("chat")).await.unwrap();
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["state"], "ready");
    assert_eq!(json["spec"]["name"], "chat");
    let back: byzerllm_runtime::DeploymentStatus = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(serde_json::to_value(&back).unwrap(), json);
}

#[tokio::test]
async fn an_unknown_name_lists_the_existing_ones() {
    let runtime = embedded(ScriptedLoader::answering("x")).await;
    let error = runtime.status("chat").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("none exists"), "{error}");
    for name in ["alpha", "beta"] {
        runtime.deploy(spec(name)).await.unwrap();
    }
    for error in [
        answer(&runtime, "chta").await.unwrap_err(),
        runtime.model("chta").err().unwrap(),
        runtime.undeploy("chta", Duration::ZERO).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.message().contains("'chta'") && error.message().contains("alpha, beta"), "{error}");
    }
}

#[tokio::test]
async fn bad_specs_are_refused_before_anything_is_loaded() {
    let loader = ScriptedLoader::answering("x");
    let runtime = embedded(loader.clone()).await;
    let long = "x".repeat(129);
    for name in ["", "a/b", "a b", "a\n", "..", "a\u{202e}", "a?", long.as_str()] {
        let error = runtime.deploy(spec(name)).await.unwrap_err();
        assert_eq!((error.kind(), error.param()), (ErrorKind::InvalidRequest, Some("name")), "{name:?}");
    }
    let error = runtime.deploy(DeploymentSpec::new("a", "models/x")).await.unwrap_err();
    assert_eq!((error.kind(), error.param()), (ErrorKind::InvalidRequest, Some("model")));
    assert!(error.message().contains("absolute"), "{error}");
    let error = runtime.deploy(DeploymentSpec::new("a", "/no/such/model")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("/no/such/model' does not exist on the machine"), "{error}");
    let mut zero = spec("a");
    zero.limits.concurrency = Some(0);
    assert_eq!(runtime.deploy(zero).await.unwrap_err().param(), Some("concurrency"));
    let mut hot = spec("a");
    hot.defaults.temperature = Some(-1.0);
    assert_eq!(runtime.deploy(hot).await.unwrap_err().param(), Some("temperature"));
    assert_eq!(loader.loads(), 0);
    assert!(runtime.list().is_empty());
    for name in ["a", "聊天", "Ünïcode-1.5_b"] {
        runtime.deploy(spec(name)).await.unwrap();
        assert_eq!(runtime.status(name).unwrap().spec.name, name);
    }
}

#[tokio::test]
async fn the_same_name_is_replaced_and_a_failed_load_keeps_the_old_one() {
    let broken = Arc::new(AtomicBool::new(false));
    let fail = Arc::clone(&broken);
    let loader = ScriptedLoader::new(move |spec| {
        if fail.load(Ordering::SeqCst) {
            return Err(Error::invalid("model", "tensor 'x' is missing"));
        }
        Ok(Arc::new(ScriptedModel::new(format!("seed {}", spec.defaults.seed.unwrap_or(0)))))
    });
    let runtime = embedded(loader.clone()).await;
    runtime.deploy(spec("chat")).await.unwrap();
    let mut second = spec("chat");
    second.set("seed", "2").unwrap();
    runtime.deploy(second.clone()).await.unwrap();
    assert_eq!(answer(&runtime, "chat").await.unwrap(), "seed 2");
    broken.store(true, Ordering::SeqCst);
    let mut third = spec("chat");
    third.set("seed", "3").unwrap();
    let error = runtime.deploy(third).await.unwrap_err();
    assert!(error.message().contains("tensor 'x'"), "{error}");
    assert_eq!(answer(&runtime, "chat").await.unwrap(), "seed 2");
    assert_eq!(runtime.status("chat").unwrap().spec, second);
    let error = runtime.deploy(spec("other")).await.unwrap_err();
    assert!(error.message().contains("tensor 'x'"), "{error}");
    assert_eq!(runtime.list().len(), 1);
    runtime.shutdown(Duration::ZERO).await;
    assert_eq!(loader.stops(), 2);
}

#[tokio::test]
async fn a_model_that_cannot_fit_is_refused_with_the_numbers() {
    let need = |spec: &DeploymentSpec| MemoryNeed {
        weight_bytes: if spec.name == "huge" { 1 << 60 } else { 1 << 20 },
        context_bytes: 1 << 20,
        context_length: 1024,
    };
    let loader = ScriptedLoader::with_memory(10 << 20, need, |_| Ok(Arc::new(ScriptedModel::new("x"))));
    let runtime = embedded(loader.clone()).await;
    let error = runtime.deploy(spec("huge")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.message().contains("1048576.0 TiB for weights"), "{error}");
    assert!(error.message().contains("10.0 MiB are available"), "{error}");
    let mut greedy = spec("greedy");
    greedy.limits.cache_bytes = Some(20 << 20);
    let error = runtime.deploy(greedy).await.unwrap_err();
    assert!(error.message().contains("lower cache_bytes to at most 9437184"), "{error}");
    assert_eq!(loader.loads(), 0);
    runtime.deploy(spec("small")).await.unwrap();
}

/// A machine of 100 bytes and models of 60.
fn small_machine() -> (Arc<ScriptedLoader>, fn(u64) -> DeploymentSpec) {
    let need = |_: &DeploymentSpec| MemoryNeed { weight_bytes: 59, context_bytes: 1, context_length: 1 };
    let loader = ScriptedLoader::with_memory(100, need, |spec| match spec.defaults.seed {
        Some(0) => Err(Error::invalid("model", "broken")),
        seed => Ok(Arc::new(ScriptedModel::new(format!("seed {seed:?}")))),
    });
    let make = |seed| {
        let mut spec = spec("chat");
        (spec.defaults.seed, spec.limits.cache_bytes) = (Some(seed), Some(1));
        spec
    };
    (loader, make)
}

#[tokio::test]
async fn a_model_too_large_to_stand_beside_its_predecessor_takes_its_place() {
    let (loader, seeded) = small_machine();
    let runtime = embedded(loader.clone()).await;
    runtime.deploy(seeded(1)).await.unwrap();
    let mut other = seeded(1);
    other.name = "other".to_owned();
    assert_eq!(runtime.deploy(other).await.unwrap_err().kind(), ErrorKind::TooLarge);
    runtime.deploy(seeded(2)).await.unwrap();
    assert_eq!(answer(&runtime, "chat").await.unwrap(), "seed Some(2)");
    assert_eq!((loader.loads(), loader.stops()), (2, 1));
}

#[tokio::test]
async fn a_predecessor_that_made_room_in_vain_comes_back() {
    let (loader, seeded) = small_machine();
    let runtime = embedded(loader.clone()).await;
    runtime.deploy(seeded(1)).await.unwrap();
    let error = runtime.deploy(seeded(0)).await.unwrap_err();
    assert!(error.message().contains("broken"), "{error}");
    while runtime.status("chat").unwrap().state.as_str() == "loading" {
        tokio::task::yield_now().await;
    }
    assert_eq!(answer(&runtime, "chat").await.unwrap(), "seed Some(1)");
    assert_eq!((loader.loads(), loader.stops()), (3, 1));
}

#[tokio::test]
async fn an_undeploy_ends_a_load() {
    let (started, wait_started) = mpsc::channel();
    let (release, wait_release) = mpsc::channel::<()>();
    let wait_release = Mutex::new(wait_release);
    let loader = ScriptedLoader::new(move |_| {
        started.send(()).unwrap();
        wait_release.lock().unwrap().recv().unwrap();
        Ok(Arc::new(ScriptedModel::new("x")))
    });
    let runtime = embedded(loader.clone()).await;
    let deploying = tokio::spawn({
        let runtime = runtime.clone();
        async move { runtime.deploy(spec("chat")).await }
    });
    let wait = tokio::task::spawn_blocking(move || wait_started.recv().unwrap());
    wait.await.unwrap();
    assert_eq!(runtime.status("chat").unwrap().state.as_str(), "loading");
    let error = answer(&runtime, "chat").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("still loading"), "{error}");
    runtime.undeploy("chat", Duration::ZERO).await.unwrap();
    assert!(runtime.list().is_empty());
    release.send(()).unwrap();
    let error = deploying.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(loader.stops(), 1);
    assert!(runtime.list().is_empty());
}

#[tokio::test]
async fn deploying_one_name_many_times_at_once_leaves_one() {
    let loader = ScriptedLoader::answering("x");
    let runtime = embedded(loader.clone()).await;
    let deploys = (0..8).map(|seed| {
        let mut spec = spec("chat");
        spec.defaults.seed = Some(seed);
        runtime.deploy(spec)
    });
    let seeds: HashSet<_> =
        futures::future::join_all(deploys).await.into_iter().map(|s| s.unwrap().spec.defaults.seed).collect();
    assert_eq!(seeds.len(), 8);
    assert_eq!(runtime.list().len(), 1);
    runtime.shutdown(Duration::ZERO).await;
    assert_eq!(loader.stops(), 8);
}

#[tokio::test]
async fn readiness_asks_every_ready_engine() {
    let loader = ScriptedLoader::answering("x");
    let runtime = embedded(loader.clone()).await;
    let soon = || Instant::now() + Duration::from_secs(5);
    runtime.ready(soon()).await.unwrap();
    runtime.deploy(spec("chat")).await.unwrap();
    runtime.ready(soon()).await.unwrap();
    loader.set_stuck(true);
    assert_eq!(runtime.ready(soon()).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn inspect_wants_an_existing_absolute_path() {
    let runtime = embedded(ScriptedLoader::answering("x")).await;
    let here = spec("x").model;
    assert_eq!(runtime.inspect(&here).await.unwrap().path, here);
    assert_eq!(runtime.inspect("x".as_ref()).await.unwrap_err().kind(), ErrorKind::InvalidRequest);
    assert_eq!(runtime.inspect("/no/such".as_ref()).await.unwrap_err().kind(), ErrorKind::NotFound);
}
