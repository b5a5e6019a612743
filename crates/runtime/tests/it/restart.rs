//! What outlives a process.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use byzerllm_core::testing::ScriptedModel;
use byzerllm_core::{Error, ErrorKind};
use byzerllm_runtime::testing::ScriptedLoader;
use byzerllm_runtime::{DeploymentSpec, Runtime};

use crate::{answer, options, spec};

/// Set in a child process: the state directory to use.
const CHILD: &str = "BYZERLLM_TEST_CHILD_STATE";

fn loader() -> Arc<ScriptedLoader> {
    ScriptedLoader::new(|spec| {
        if spec.labels.contains_key("broken") {
            return Err(Error::invalid("model", "tensor 'x' is missing"));
        }
        Ok(Arc::new(ScriptedModel::new(format!("I am {}", spec.name))))
    })
}

async fn open(state: &Path) -> byzerllm_core::Result<Runtime> {
    Runtime::open_with(options(Some(state.to_path_buf())), loader()).await
}

/// Waits until nothing loads any more.
async fn settled(runtime: &Runtime) {
    while runtime.list().iter().any(|status| status.state.as_str() == "loading") {
        tokio::task::yield_now().await;
    }
}

fn states(runtime: &Runtime) -> Vec<(String, &'static str)> {
    runtime.list().into_iter().map(|status| (status.spec.name.clone(), status.state.as_str())).collect()
}

#[tokio::test]
async fn deployments_come_back_as_they_were() {
    let state = tempfile::tempdir().unwrap();
    let runtime = open(state.path()).await.unwrap();
    let mut first = spec("first");
    first.set("top_k", "3").unwrap();
    first.labels.insert("pretrained_model_type".to_owned(), "custom/auto".into());
    let before = runtime.deploy(first.clone()).await.unwrap();
    runtime.deploy(spec("second")).await.unwrap();
    runtime.deploy(spec("gone")).await.unwrap();
    runtime.undeploy("gone", Duration::ZERO).await.unwrap();
    runtime.shutdown(Duration::ZERO).await;
    let runtime = open(state.path()).await.unwrap();
    settled(&runtime).await;
    assert_eq!(states(&runtime), [("first".to_owned(), "ready"), ("second".to_owned(), "ready")]);
    let after = runtime.status("first").unwrap();
    assert_eq!((after.spec, after.created), (first, before.created));
    assert_eq!(answer(&runtime, "second").await.unwrap(), "I am second");
}

#[tokio::test]
async fn a_failed_one_says_why_and_stops_nobody() {
    let state = tempfile::tempdir().unwrap();
    let model: PathBuf = state.path().join("model");
    std::fs::write(&model, "").unwrap();
    let runtime = open(state.path()).await.unwrap();
    runtime.deploy(DeploymentSpec::new("a", &model)).await.unwrap();
    runtime.deploy(spec("b")).await.unwrap();
    runtime.shutdown(Duration::ZERO).await;
    std::fs::remove_file(&model).unwrap();
    // Twice: the failed one stays stored.
    for _ in 0..2 {
        let runtime = open(state.path()).await.unwrap();
        settled(&runtime).await;
        assert_eq!(states(&runtime), [("a".to_owned(), "failed"), ("b".to_owned(), "ready")]);
        let error = answer(&runtime, "a").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("does not exist"), "{error}");
        assert_eq!(answer(&runtime, "b").await.unwrap(), "I am b");
        runtime.ready(std::time::Instant::now() + Duration::from_secs(5)).await.unwrap();
        runtime.shutdown(Duration::ZERO).await;
    }
    // It can be replaced, and it can be removed.
    let runtime = open(state.path()).await.unwrap();
    settled(&runtime).await;
    let mut broken = spec("a");
    broken.labels.insert("broken".to_owned(), true.into());
    runtime.deploy(broken).await.unwrap_err();
    assert_eq!(states(&runtime)[0].1, "failed");
    runtime.deploy(spec("a")).await.unwrap();
    assert_eq!(answer(&runtime, "a").await.unwrap(), "I am a");
    runtime.undeploy("a", Duration::ZERO).await.unwrap();
    runtime.shutdown(Duration::ZERO).await;
    let runtime = open(state.path()).await.unwrap();
    settled(&runtime).await;
    assert_eq!(states(&runtime), [("b".to_owned(), "ready")]);
}

/// A type that an earlier version took for any checkpoint.
#[tokio::test]
async fn a_stored_type_of_another_family_fails_alone() {
    let state = tempfile::tempdir().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/fixtures");
    let runtime = open(state.path()).await.unwrap();
    for (name, word) in
        [("right", "custom/qwen"), ("unknown", "custom/unheard-of"), ("wrong", "custom/llama2")]
    {
        let mut spec = DeploymentSpec::new(name, fixtures.join("qwen2-tied-f16"));
        spec.labels.insert("pretrained_model_type".to_owned(), word.into());
        runtime.deploy(spec).await.unwrap();
    }
    runtime.shutdown(Duration::ZERO).await;
    let runtime = Runtime::open(options(Some(state.path().to_path_buf()))).await.unwrap();
    settled(&runtime).await;
    let expected = [("right", "ready"), ("unknown", "ready"), ("wrong", "failed")];
    assert_eq!(states(&runtime), expected.map(|(name, state)| (name.to_owned(), state)));
    let error = answer(&runtime, "wrong").await.unwrap_err();
    assert!(error.message().contains("custom/llama2") && error.message().contains("Qwen2"), "{error}");
}

#[tokio::test]
async fn a_state_directory_has_one_owner() {
    let state = tempfile::tempdir().unwrap();
    let first = open(state.path()).await.unwrap();
    let error = open(state.path()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.message().contains(&std::process::id().to_string()), "{error}");
    first.shutdown(Duration::ZERO).await;
    open(state.path()).await.unwrap();
}

#[tokio::test]
async fn a_failed_deploy_is_not_stored() {
    let state = tempfile::tempdir().unwrap();
    let runtime = open(state.path()).await.unwrap();
    let mut broken = spec("a");
    broken.labels.insert("broken".to_owned(), true.into());
    runtime.deploy(broken).await.unwrap_err();
    runtime.shutdown(Duration::ZERO).await;
    assert!(open(state.path()).await.unwrap().list().is_empty());
}

#[tokio::test]
async fn a_damaged_database_is_an_error_that_says_what_to_do() {
    let state = tempfile::tempdir().unwrap();
    std::fs::write(state.path().join("byzerllm.db"), "no database at all ".repeat(100)).unwrap();
    let error = open(state.path()).await.err().unwrap();
    assert!(error.message().contains("damaged") && error.message().contains("move it"), "{error}");
}

/// Runs as the child of the test below, and does nothing otherwise.
#[tokio::test]
async fn child_that_deploys_and_waits_to_be_killed() {
    let Some(state) = std::env::var_os(CHILD) else { return };
    let runtime = open(Path::new(&state)).await.unwrap();
    runtime.deploy(spec("kept")).await.unwrap();
    runtime.deploy(spec("dropped")).await.unwrap();
    runtime.undeploy("dropped", Duration::ZERO).await.unwrap();
    println!("\ndeployed");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_owner_leaves_its_deployments_and_a_free_directory() {
    let state = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "restart::child_that_deploys_and_waits_to_be_killed", "--nocapture"])
        .env(CHILD, state.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let deployed = lines.map_while(Result::ok).any(|line| line == "deployed");
    assert!(deployed, "the child ended early");
    let error = open(state.path()).await.err().unwrap();
    assert!(error.message().contains(&format!("process {}", child.id())), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    let runtime = open(state.path()).await.unwrap();
    settled(&runtime).await;
    assert_eq!(states(&runtime), [("kept".to_owned(), "ready")]);
    assert_eq!(answer(&runtime, "kept").await.unwrap(), "I am kept");
}
