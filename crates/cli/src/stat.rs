//! `byzerllm stat`: how busy a deployment is.

use std::time::Duration;

use byzerllm_runtime::{DeploymentStatus, Limits};

use crate::arguments::StatArguments;
use crate::connection::Connection;
use crate::deploy::{read, state_word};
use crate::output::{Failure, Outcome, Output, table};

/// Shows a deployment's state once, or again and again until Ctrl-C.
pub(crate) async fn stat(arguments: StatArguments, output: Output) -> Outcome {
    let Some(name) = arguments.model.as_deref() else {
        return Err(Failure::misuse("--model is missing", "`byzerllm list` shows what is deployed."));
    };
    let connection = Connection::open(arguments.server.url.as_deref())?;
    let mut heading = true;
    loop {
        let status = match connection.client.status(name).await {
            Ok(status) => status,
            Err(error) => return Err(connection.explain(error).await),
        };
        if arguments.json {
            output.json(&status)?;
        } else {
            let status: DeploymentStatus = read(&status)?;
            let lines = table(&[HEADING.map(str::to_owned).to_vec(), numbers(&status)]);
            for line in lines.iter().skip(usize::from(!heading)) {
                output.line(line)?;
            }
        }
        heading = false;
        if arguments.interval == 0 {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(arguments.interval)) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

const HEADING: [&str; 5] = ["NAME", "STATE", "ACTIVE", "AT ONCE", "MAY WAIT"];

/// Requests that run or wait, beside how many may.
fn numbers(status: &DeploymentStatus) -> Vec<String> {
    let limits = &status.spec.limits;
    let at_once = limits.concurrency.or(limits.max_sequences).unwrap_or(Limits::MAX_SEQUENCES);
    vec![
        status.spec.name.clone(),
        state_word(&status.state),
        status.active.to_string(),
        at_once.to_string(),
        limits.queue_limit.unwrap_or(Limits::QUEUE_LIMIT).to_string(),
    ]
}
