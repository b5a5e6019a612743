//! Deployments of vendors' models: what is checked, what is kept, and where their secrets are found. Nobody is asked.

use std::fs;
use std::path::Path;
use std::time::Duration;

use byzerllm_core::{ErrorKind, GenerationDefaults, Origin};
use byzerllm_runtime::testing::ScriptedLoader;
use byzerllm_runtime::{DeploymentSpec, DeploymentState, Runtime, RuntimeOptions};
use serde_json::json;

use crate::{embedded, options, spec};

const CANARY: &str = "sk-canary-0123456789";

fn openai(name: &str, parameters: &[(&str, &str)]) -> DeploymentSpec {
    let mut spec = DeploymentSpec::of_provider(name, "saas/openai");
    for (key, value) in
        [("saas.model", "m-1"), ("saas.base_url", "http://127.0.0.1:9/v1")].iter().chain(parameters)
    {
        spec.set(key, value).unwrap();
    }
    spec
}

async fn open(state: &Path) -> Runtime {
    Runtime::open_with(options(Some(state.to_path_buf())), ScriptedLoader::answering("x")).await.unwrap()
}

async fn settled(runtime: &Runtime) {
    while runtime.list().iter().any(|status| status.state.as_str() == "loading") {
        tokio::task::yield_now().await;
    }
}

/// Every byte of every file in a directory.
fn contents(directory: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.extend(fs::read(&path).unwrap());
        }
    }
    all
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn a_vendors_model_needs_no_checkpoint_and_no_memory() {
    let loader = ScriptedLoader::with_memory(0, |_| panic!("it needs none"), |_| panic!("it is not loaded"));
    let runtime = embedded(loader).await;
    let status = runtime.deploy(openai("m", &[("saas.api_key", CANARY)])).await.unwrap();
    assert_eq!(status.state.as_str(), "ready");
    assert!(status.spec.model.as_os_str().is_empty());
    let shown = serde_json::to_value(&status).unwrap();
    assert_eq!(
        shown["spec"]["provider"],
        json!({
            "vendor": "openai",
            "parameters": { "api_key": "***", "base_url": "http://127.0.0.1:9/v1", "model": "m-1" }
        })
    );
    assert!(!format!("{status:?} {shown}").contains("canary"));
    let model = runtime.model("m").unwrap();
    assert!(model.chat.is_some());
    assert_eq!(runtime.metrics()[0].engine, None);
    runtime.ready(std::time::Instant::now() + Duration::from_secs(5)).await.unwrap();
    runtime.undeploy("m", Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn a_vendors_own_defaults_stand_in_for_openais() {
    let runtime = embedded(ScriptedLoader::answering("x")).await;
    let mut spec = openai("m", &[]);
    spec.defaults = GenerationDefaults { top_k: Some(3), ..GenerationDefaults::default() };
    let status = runtime.deploy(spec).await.unwrap();
    assert!(status.effective.iter().all(|value| value.origin != Origin::FrontEnd), "{:?}", status.effective);
    assert!(status.effective.iter().any(|value| value.name == "top_k"));
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_name() {
    let runtime = embedded(ScriptedLoader::answering("x")).await;
    let provider = |parameters| -> DeploymentSpec {
        serde_json::from_value(
            json!({ "name": "m", "provider": { "vendor": "openai", "parameters": parameters } }),
        )
        .unwrap()
    };
    let changed = |change: fn(&mut DeploymentSpec)| {
        let mut spec = openai("m", &[]);
        change(&mut spec);
        spec
    };
    for (spec, part) in [
        (provider(json!({ "api_kye": CANARY })), "did you mean 'saas.api_key'"),
        (provider(json!({ "timeout": "soon", "api_key": CANARY })), "saas.timeout must be"),
        (provider(json!({ "api_key": "***" })), "in place of a secret"),
        (provider(json!({ "api_key": "sealed:QUFBQQ" })), "sealed for another place"),
        (provider(json!({ "verify": "true", "https_verify": "false" })), "given twice"),
        (DeploymentSpec::of_provider("m", "saas/opneai"), "did you mean 'saas/openai'"),
        (changed(|spec| spec.model = "/".into()), "one of model, provider and route"),
        (changed(|spec| spec.limits.cache_bytes = Some(1)), "cache_bytes is for models that run here"),
        (serde_json::from_value(json!({ "name": "m" })).unwrap(), "what answers is missing"),
    ] {
        let error = runtime.deploy(spec).await.unwrap_err();
        assert!(error.message().contains(part) && !error.message().contains("canary"), "{error}");
    }
    assert!(runtime.list().is_empty());
}

#[tokio::test]
async fn a_reference_that_leads_nowhere_says_which_process_lacks_it() {
    let runtime = embedded(ScriptedLoader::answering("x")).await;
    let missing = openai("m", &[("saas.api_key", "env:BYZERLLM_TEST_NO_SUCH_VARIABLE")]);
    let error = runtime.deploy(missing).await.unwrap_err();
    assert_eq!((error.kind(), error.param()), (ErrorKind::InvalidRequest, Some("saas.api_key")));
    assert!(error.message().contains(&std::process::id().to_string()), "{error}");
    assert!(runtime.list().is_empty());
}

#[tokio::test]
async fn references_are_kept_and_looked_up_at_each_load() {
    let directory = tempfile::tempdir().unwrap();
    let (state, key) = (directory.path().join("state"), directory.path().join("key"));
    fs::write(&key, format!("{CANARY}\n")).unwrap();
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let reference = format!("file:{}", key.display());
    let runtime = open(&state).await;
    let status = runtime.deploy(openai("m", &[("saas.api_key", &reference)])).await.unwrap();
    assert_eq!(
        serde_json::to_value(&status).unwrap()["spec"]["provider"]["parameters"]["api_key"],
        reference.as_str()
    );
    runtime.shutdown(Duration::ZERO).await;
    assert!(!state.join("master.key").exists(), "nothing was sealed");
    let kept = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    let runtime = open(&state).await;
    settled(&runtime).await;
    match runtime.status("m").unwrap().state {
        DeploymentState::Failed { error } => assert!(error.message().contains(&reference), "{error}"),
        other => panic!("{other:?}"),
    }
    runtime.shutdown(Duration::ZERO).await;
    fs::write(&key, kept).unwrap();
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let runtime = open(&state).await;
    settled(&runtime).await;
    assert_eq!(runtime.status("m").unwrap().state.as_str(), "ready");
    runtime.shutdown(Duration::ZERO).await;
    assert!(!holds(&contents(&state), CANARY));
}

#[tokio::test]
async fn a_literal_secret_survives_a_restart_sealed() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let runtime = open(&state).await;
    runtime.deploy(openai("m", &[("saas.api_key", CANARY)])).await.unwrap();
    assert!(!holds(&contents(&state), CANARY), "neither in the database nor in its journal");
    runtime.shutdown(Duration::ZERO).await;
    let runtime = open(&state).await;
    settled(&runtime).await;
    let status = runtime.status("m").unwrap();
    assert_eq!(status.state.as_str(), "ready");
    let shown = serde_json::to_string(&status).unwrap();
    assert!(shown.contains(r#""api_key":"***""#) && !shown.contains("sealed:"), "{shown}");
    runtime.shutdown(Duration::ZERO).await;
    assert!(!holds(&contents(&state), CANARY));
}

#[tokio::test]
async fn without_its_master_key_a_deployment_fails_and_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let runtime = open(&state).await;
    runtime.deploy(openai("m", &[("saas.api_key", CANARY)])).await.unwrap();
    runtime.deploy(spec("local")).await.unwrap();
    runtime.shutdown(Duration::ZERO).await;
    let file = state.join("master.key");
    let right = fs::read(&file).unwrap();
    for (wrong, part) in [(Some([9_u8; 32]), "sealed with another key"), (None, "is missing")] {
        fs::remove_file(&file).unwrap();
        if let Some(wrong) = wrong {
            fs::write(&file, wrong).unwrap();
            fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        } else {
            fs::write(&file, "").unwrap();
            fs::remove_file(&file).unwrap();
        }
        let runtime = open(&state).await;
        settled(&runtime).await;
        match runtime.status("m").unwrap().state {
            DeploymentState::Failed { error } => {
                assert_eq!(error.param(), Some("master_key"));
                assert!(error.message().contains(part), "{error}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(runtime.status("local").unwrap().state.as_str(), "ready");
        if wrong.is_none() {
            // A new key would orphan what is sealed under the old one.
            let error = runtime.deploy(openai("other", &[("saas.api_key", CANARY)])).await.unwrap_err();
            assert!(error.message().contains("is missing"), "{error}");
        }
        runtime.shutdown(Duration::ZERO).await;
        if !file.exists() {
            fs::write(&file, []).unwrap();
        }
    }
    fs::write(&file, right).unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let runtime = open(&state).await;
    settled(&runtime).await;
    assert_eq!(runtime.status("m").unwrap().state.as_str(), "ready");
    runtime.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn the_master_key_may_be_elsewhere() {
    let directory = tempfile::tempdir().unwrap();
    let (state, key) = (directory.path().join("state"), directory.path().join("elsewhere.key"));
    let options = || RuntimeOptions { master_key: Some(key.clone()), ..options(Some(state.clone())) };
    let runtime = Runtime::open_with(options(), ScriptedLoader::answering("x")).await.unwrap();
    runtime.deploy(openai("m", &[("saas.api_key", CANARY)])).await.unwrap();
    runtime.shutdown(Duration::ZERO).await;
    assert!(key.exists() && !state.join("master.key").exists());
    let runtime = Runtime::open_with(options(), ScriptedLoader::answering("x")).await.unwrap();
    settled(&runtime).await;
    assert_eq!(runtime.status("m").unwrap().state.as_str(), "ready");
    runtime.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn deployments_of_older_versions_still_load() {
    let text = r#"{"name":"chat","model":"/","compute":"standard","defaults":{"top_k":3},"limits":{"concurrency":2}}"#;
    let spec: DeploymentSpec = serde_json::from_str(text).unwrap();
    assert_eq!((spec.model.as_path(), spec.defaults.top_k), (Path::new("/"), Some(3)));
    assert_eq!(
        serde_json::to_value(&spec).unwrap(),
        serde_json::from_str::<serde_json::Value>(text).unwrap()
    );
}
