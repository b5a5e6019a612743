//! `byzerllm deploy`, `undeploy` and `list`: the admin calls of a server.

use std::time::Duration;

use byzerllm_hub::Reference;
use byzerllm_runtime::{DeploymentSpec, DeploymentState, DeploymentStatus};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::arguments::{DeployArguments, ListArguments, UndeployArguments};
use crate::connection::Connection;
use crate::models;
use crate::output::{Failure, Outcome, Output, bytes, table};

/// How often the progress of a load is asked for.
const POLL: Duration = Duration::from_millis(200);

/// Loads a model into a server and returns when it answers.
pub(crate) async fn deploy(arguments: DeployArguments, output: Output) -> Outcome {
    let mut spec = spec(&arguments)?;
    let connection = Connection::open(arguments.server.url.as_deref())?;
    if let Some(name) = arguments.model.to_str().filter(|name| Reference::looks_remote(name)) {
        if !is_this_machine(&connection.url) {
            return Err(Failure::misuse(
                format!("{name} would be pulled here, and {} may be another machine", connection.url),
                "Run `byzerllm pull` on the server's machine and deploy the path that it prints.",
            ));
        }
        if let Some(path) = models::resolve(name, &arguments.hub).await? {
            spec.model = path;
        }
    }
    let body = to_value(&spec)?;
    let bar = spinner(format!("loading {}", spec.name));
    let started = std::time::Instant::now();
    let deploying = connection.client.deploy(&body);
    tokio::pin!(deploying);
    let result = loop {
        tokio::select! {
            result = &mut deploying => break result,
            () = tokio::time::sleep(POLL) => {
                if bar.is_hidden() {
                    continue;
                }
                if let Ok(status) = connection.client.status(&spec.name).await
                    && let Ok(DeploymentState::Loading { progress }) = read::<DeploymentState>(&status)
                {
                    bar.set_message(format!("loading {} {:.0} %", spec.name, progress * 100.0));
                }
            }
        }
    };
    bar.finish_and_clear();
    let status = match result {
        Ok(status) => status,
        Err(error) => return Err(connection.explain(error).await),
    };
    if arguments.json {
        return output.json(&status);
    }
    let seconds = started.elapsed().as_secs_f64();
    output.line(format_args!("{} is ready at {} ({seconds:.1} s)", spec.name, connection.url))
}

/// Whether an address is certainly of this machine.
fn is_this_machine(url: &str) -> bool {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    ["127.", "localhost", "[::1]"].iter().any(|start| host.starts_with(start))
}

/// The deployment that the options describe.
fn spec(arguments: &DeployArguments) -> Outcome<DeploymentSpec> {
    let mut spec = DeploymentSpec::new(&arguments.name, std::path::absolute(&arguments.model)?);
    if let Some(compute) = arguments.compute {
        spec.compute = compute;
    }
    for (key, value) in &arguments.set {
        spec.set(key, value).map_err(|error| {
            Failure::misuse(
                format!("--set {key}={value}: {}", error.message()),
                "`byzerllm deploy --help` shows the form.",
            )
        })?;
    }
    Ok(spec)
}

/// Removes a deployment.
pub(crate) async fn undeploy(arguments: UndeployArguments, output: Output) -> Outcome {
    let connection = Connection::open(arguments.server.url.as_deref())?;
    let drain = Duration::from_secs(arguments.drain_seconds);
    if let Err(error) = connection.client.undeploy(&arguments.name, Some(drain)).await {
        return Err(connection.explain(error).await);
    }
    output.line(format_args!("{} is gone from {}", arguments.name, connection.url))
}

/// Shows a server's deployments.
pub(crate) async fn list(arguments: ListArguments, output: Output) -> Outcome {
    let connection = Connection::open(arguments.server.url.as_deref())?;
    let listed = match connection.client.list().await {
        Ok(listed) => listed,
        Err(error) => return Err(connection.explain(error).await),
    };
    if arguments.json {
        return output.json(&json!({ "url": connection.url, "deployments": listed }));
    }
    let statuses: Vec<DeploymentStatus> = listed.iter().map(read).collect::<Outcome<_>>()?;
    if statuses.is_empty() {
        output.note(format_args!(
            "Nothing is deployed at {}. `byzerllm deploy --name NAME --model PATH` deploys a model.",
            connection.url
        ));
        return Ok(());
    }
    let mut rows =
        vec![["NAME", "STATE", "ACTIVE", "CONTEXT", "WEIGHTS", "MODEL"].map(str::to_owned).to_vec()];
    rows.extend(statuses.iter().map(row));
    for line in table(&rows) {
        output.line(line)?;
    }
    for status in &statuses {
        if let DeploymentState::Failed { error } = &status.state {
            output.note(format_args!("{}: {}", status.spec.name, error.message()));
        }
    }
    Ok(())
}

fn row(status: &DeploymentStatus) -> Vec<String> {
    let dash = || "-".to_owned();
    vec![
        status.spec.name.clone(),
        state_word(&status.state),
        status.active.to_string(),
        status
            .info
            .as_ref()
            .and_then(|info| info.context_length)
            .map_or_else(dash, |length| length.to_string()),
        status.info.as_ref().map_or_else(dash, |info| bytes(info.weight_bytes)),
        status.spec.model.display().to_string(),
    ]
}

/// One word, with the progress of a load.
fn state_word(state: &DeploymentState) -> String {
    match state {
        DeploymentState::Loading { progress } => format!("loading {:.0} %", progress * 100.0),
        other => other.as_str().to_owned(),
    }
}

/// A spinner on a terminal, nothing elsewhere.
pub(crate) fn spinner(message: String) -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message(message);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Reads a server's answer into a type.
pub(crate) fn read<T: serde::de::DeserializeOwned>(value: &Value) -> Outcome<T> {
    serde::Deserialize::deserialize(value).map_err(|error| {
        Failure::new(
            format!("the server's answer was not understood: {error}"),
            "Use the same version of byzerllm on both sides.",
        )
    })
}

fn to_value(spec: &DeploymentSpec) -> Outcome<Value> {
    serde_json::to_value(spec)
        .map_err(|error| Failure::misuse(format!("the deployment cannot be sent: {error}"), "Check --model."))
}
