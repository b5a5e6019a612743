//! `byzerllm inspect`: what a checkpoint is, from its headers alone, and what is known of a deployment without one.

use std::path::Path;

use byzerllm_core::Origin;
use byzerllm_runtime::{DeploymentStatus, EffectiveValue, Inspection, Source};

use crate::arguments::InspectArguments;
use crate::connection::Connection;
use crate::deploy::{read, source, state_word};
use crate::output::{Outcome, Output, bytes, table};

/// Shows a path of this machine, or the checkpoint of a deployment.
pub(crate) async fn inspect(arguments: InspectArguments, output: Output) -> Outcome {
    let path = Path::new(&arguments.model);
    let names_path = arguments.model.contains('/') || arguments.model.ends_with(".gguf");
    let inspection = if path.exists() || names_path {
        byzerllm_runtime::inspect(&std::path::absolute(path)?).await?
    } else {
        match deployed(&arguments.model, arguments.server.url.as_deref()).await? {
            Deployed::Checkpoint(inspection) => *inspection,
            Deployed::Elsewhere(status) if arguments.json => return output.json(&status),
            Deployed::Elsewhere(status) => return elsewhere(&status, output),
        }
    };
    if arguments.json {
        return output.json(&inspection);
    }
    for line in report(&inspection, arguments.tensors, output) {
        output.line(line)?;
    }
    Ok(())
}

/// What is behind a deployment's name.
enum Deployed {
    Checkpoint(Box<Inspection>),
    /// A vendor's model or a route: its status tells all.
    Elsewhere(Box<DeploymentStatus>),
}

/// Asks the server where the deployment's checkpoint is, and what it is; of a model that is loaded, how it is computed.
async fn deployed(name: &str, url: Option<&str>) -> Outcome<Deployed> {
    let connection = Connection::open(url)?;
    let status: DeploymentStatus = match connection.client.status(name).await {
        Ok(status) => read(&status)?,
        Err(error) => return Err(connection.explain(error).await),
    };
    let Source::Local(path) = status.spec.source() else {
        return Ok(Deployed::Elsewhere(Box::new(status)));
    };
    match connection.client.inspect(path).await {
        Ok(inspection) => {
            let mut inspection: Inspection = read(&inspection)?;
            if let Some(info) = status.info {
                inspection.info = info;
            }
            Ok(Deployed::Checkpoint(Box::new(inspection)))
        }
        Err(error) => Err(connection.explain(error).await),
    }
}

fn elsewhere(status: &DeploymentStatus, output: Output) -> Outcome {
    let mut rows = vec![
        vec!["answers".to_owned(), source(&status.spec)],
        vec!["state".to_owned(), state_word(&status.state)],
    ];
    if let Some(info) = &status.info {
        let context = info.context_length.map_or_else(|| "unknown".to_owned(), |n| format!("{n} tokens"));
        rows.push(vec!["context".to_owned(), context]);
        rows.extend(info.details.iter().map(|(name, value)| vec![name.clone(), plain(value)]));
    }
    for provider in status.spec.provider.iter() {
        let shown = serde_json::to_value(provider).unwrap_or_default();
        let parameters = shown["parameters"].as_object().cloned().unwrap_or_default();
        rows.extend(parameters.iter().map(|(name, value)| vec![format!("saas.{name}"), plain(value)]));
    }
    for line in table(&rows) {
        output.line(line)?;
    }
    Ok(())
}

fn report(inspection: &Inspection, every_tensor: bool, output: Output) -> Vec<String> {
    let paint = output.paint();
    let mut lines = Vec::new();
    let info = &inspection.info;
    let memory = &inspection.memory;
    let mut facts = vec![
        ("path", inspection.path.display().to_string()),
        ("format", inspection.format.clone()),
        ("architecture", info.architectures.join(", ")),
        ("parameters", count(inspection.parameters)),
        ("context", info.context_length.map_or_else(|| "unknown".to_owned(), |n| format!("{n} tokens"))),
    ];
    if let Some(languages) = &info.languages {
        facts.push(("languages", languages.join(", ")));
    }
    let fits = if memory.fits { paint.green("fits") } else { paint.red("does not fit") };
    let available = memory.available_bytes.map_or_else(|| "unknown".to_owned(), bytes);
    let weights = bytes(memory.weight_bytes);
    if generates(inspection) {
        let context = bytes(memory.context_bytes);
        let needed = format!("{weights} weights + {context} cache per full context");
        facts.push(("memory", format!("{needed}; {available} available, {fits}")));
        facts.push(("cache", format!("{} by default", bytes(memory.cache_bytes))));
    } else {
        facts
            .push(("memory", format!("{weights} weights and working memory; {available} available, {fits}")));
    }
    let mut rows: Vec<Vec<String>> =
        facts.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    // Both are told better elsewhere in this report.
    let told = ["format", "tensor_types"];
    let details = info.details.iter().filter(|(name, _)| !told.contains(&name.as_str()));
    rows.extend(details.map(|(name, value)| vec![name.clone(), plain(value)]));
    lines.extend(table(&rows));

    lines.push(String::new());
    if every_tensor {
        lines.push(paint.bold(&format!("tensors ({})", inspection.tensors.len())));
        let rows: Vec<Vec<String>> = inspection
            .tensors
            .iter()
            .map(|tensor| {
                let shape: Vec<String> = tensor.shape.iter().map(ToString::to_string).collect();
                vec![
                    format!("  {}", tensor.name),
                    tensor.kind.clone(),
                    format!("[{}]", shape.join(", ")),
                    bytes(tensor.bytes),
                ]
            })
            .collect();
        lines.extend(table(&rows));
    } else {
        lines.push(paint.bold(&format!("tensors ({}; --tensors lists them)", inspection.tensors.len())));
        let rows: Vec<Vec<String>> = inspection
            .types
            .iter()
            .map(|(kind, summary)| {
                vec![format!("  {kind}"), format!("{} tensors", summary.tensors), bytes(summary.bytes)]
            })
            .collect();
        lines.extend(table(&rows));
    }

    if !generates(inspection) {
        return lines;
    }
    lines.push(String::new());
    lines.push(paint.bold("generation defaults (through the OpenAI API)"));
    lines.extend(effective(&inspection.effective));
    if inspection.effective_legacy != inspection.effective {
        lines.push(paint.bold("generation defaults (for programs written against Byzer-LLM)"));
        lines.extend(effective(&inspection.effective_legacy));
    }

    lines.push(String::new());
    match &inspection.chat_template {
        Some(template) => {
            lines.push(paint.bold("chat template"));
            lines.extend(template.lines().map(|line| format!("  {}", printable(line))));
        }
        None => lines.push("no chat template: only raw prompts".to_owned()),
    }
    lines
}

/// Whether the model writes text; encoders have no defaults of generation and keep no cache.
fn generates(inspection: &Inspection) -> bool {
    let task = inspection.info.details.get("task").and_then(serde_json::Value::as_str);
    task.is_none_or(|task| task == "generate")
}

fn effective(values: &[EffectiveValue]) -> Vec<String> {
    let rows: Vec<Vec<String>> = values
        .iter()
        .map(|value| {
            let origin = match value.origin {
                Origin::Request => "from the request",
                Origin::Deployment => "from the deployment",
                Origin::Checkpoint => "from the model's generation_config",
                Origin::FrontEnd => "from the front end",
            };
            vec![format!("  {}", value.name), plain(&value.value), origin.to_owned()]
        })
        .collect();
    table(&rows)
}

/// A JSON value without the quotes of a plain text, and with the digits that a 32-bit number has.
fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => printable(text),
        serde_json::Value::Number(number) if number.is_f64() => {
            number.as_f64().map_or_else(|| number.to_string(), |value| (value as f32).to_string())
        }
        other => printable(&other.to_string()),
    }
}

/// Text from a file that must not steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// `134.5 million`.
fn count(number: u64) -> String {
    match number {
        0..1_000_000 => number.to_string(),
        1_000_000..1_000_000_000 => format!("{:.1} million", number as f64 / 1e6),
        _ => format!("{:.2} billion", number as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_readable() {
        assert_eq!(
            [count(999), count(134_515_008), count(7_241_732_096)],
            ["999", "134.5 million", "7.24 billion"]
        );
    }

    #[test]
    fn values_are_as_short_as_they_were_written() {
        let value = serde_json::to_value(0.9_f32).unwrap();
        assert_eq!([plain(&value), plain(&serde_json::json!("a")), plain(&7.into())], ["0.9", "a", "7"]);
    }

    #[test]
    fn a_file_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb"), "a\u{fffd}[2Jb");
    }
}
