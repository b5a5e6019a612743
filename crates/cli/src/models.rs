//! `byzerllm pull` and `models`, and the names of hubs that `--model` takes.

use std::path::PathBuf;

use byzerllm_core::Error;
use byzerllm_hub::{Cached, Conversion, Hub, Known, Problem, Progress, Pulled, Reference, Settings};
use byzerllm_model::encoder::{OnnxOptions, Pooling, convert_onnx_bert};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::arguments::{HubArguments, ModelsAction, ModelsArguments, PullArguments};
use crate::output::{Failure, Outcome, Output, bytes, table};

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Reference { .. } => Self::misuse(problem.to_string(), problem.remedy()),
            _ => Self::new(problem.to_string(), problem.remedy()),
        }
    }
}

/// Gets a model and prints its path.
pub(crate) async fn pull(arguments: PullArguments, output: Output) -> Outcome {
    let reference = Reference::parse(&arguments.model, arguments.from, arguments.file.as_deref())?;
    let hub = hub(&arguments.hub)?;
    let bar = Bar::new(&reference);
    let result = stoppable(async {
        match made_of(&reference) {
            Some((known, conversion)) => make(&hub, &reference, known, conversion, &bar).await,
            None => Ok(hub.pull(&reference, &bar).await?),
        }
    })
    .await;
    bar.clear();
    let mut pulled = result?;
    pulled.path = std::path::absolute(&pulled.path)?;
    if arguments.json {
        return output.json(&pulled);
    }
    if pulled.files > 0 {
        output.note(format_args!("{} files, {}", pulled.files, bytes(pulled.size)));
    }
    output.line(pulled.path.display())
}

/// The path behind what `--model` says where it could be a deployment too: a hub's name is found in the cache or
/// pulled, anything else is left alone.
pub(crate) async fn resolve(model: &str, arguments: &HubArguments) -> Outcome<Option<PathBuf>> {
    match Reference::looks_remote(model) {
        true => obtain(model, arguments).await.map(Some),
        false => Ok(None),
    }
}

/// The path behind what can only be a model: short names are taken too.
pub(crate) async fn resolve_model(model: &str, arguments: &HubArguments) -> Outcome<Option<PathBuf>> {
    match Reference::is_short(model) {
        true => obtain(model, arguments).await.map(Some),
        false => resolve(model, arguments).await,
    }
}

async fn obtain(model: &str, arguments: &HubArguments) -> Outcome<PathBuf> {
    let reference = Reference::parse(model, None, None)?;
    let hub = hub(arguments)?;
    let bar = Bar::new(&reference);
    let result = stoppable(async {
        match made_of(&reference) {
            Some((known, conversion)) => make(&hub, &reference, known, conversion, &bar).await,
            None => Ok(hub.obtain(&reference, &bar).await?),
        }
    })
    .await;
    bar.clear();
    Ok(result?.path)
}

/// A model that is made of what is pulled.
fn made_of(reference: &Reference) -> Option<(&'static Known, Conversion)> {
    let known = reference.known()?;
    known.conversion.map(|conversion| (known, conversion))
}

/// Pulls a file of another format and makes the model of it, unless the cache has it already.
async fn make(
    hub: &Hub,
    reference: &Reference,
    known: &'static Known,
    conversion: Conversion,
    bar: &Bar,
) -> Outcome<Pulled> {
    if let Some(made) = hub.converted(known) {
        return Ok(made);
    }
    let original = hub.obtain(reference, bar).await?.path;
    bar.step("converting");
    let workplace = hub.workplace(known)?;
    let place = workplace.clone();
    let Conversion::OnnxBert { first_token } = conversion;
    let options = OnnxOptions { pooling: first_token.then_some(Pooling::Cls), ..OnnxOptions::default() };
    let working = tokio::task::spawn_blocking(move || convert_onnx_bert(&original, &place, &options));
    let converted = working.await.map_err(|error| {
        Failure::new(format!("converting {} failed: {error}", known.name), "Please report this.")
    })?;
    converted.map_err(Error::from)?;
    Ok(hub.keep(known, &workplace).await?)
}

fn hub(arguments: &HubArguments) -> Outcome<Hub> {
    let mut settings = Settings::from_environment()?;
    settings.offline |= arguments.offline;
    Ok(Hub::new(settings))
}

/// Ends with Ctrl-C; what is complete is kept.
async fn stoppable<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    tokio::select! {
        result = work => result,
        _ = tokio::signal::ctrl_c() => {
            Err(Failure::new("stopped before the end", "Run it again: what is complete is kept."))
        }
    }
}

/// Looks after the cache.
pub(crate) fn models(arguments: ModelsArguments, output: Output) -> Outcome {
    let hub = Hub::new(Settings::from_environment()?);
    match arguments.action.unwrap_or(ModelsAction::List) {
        ModelsAction::List => list(&hub, arguments.json, output),
        ModelsAction::Size => {
            let (size, directory) = (hub.size(), hub.directory());
            if arguments.json {
                return output.json(&json!({ "directory": directory, "bytes": size }));
            }
            output.line(format_args!("{} in {}", bytes(size), directory.display()))
        }
        ModelsAction::Remove { name } => {
            let models = hub.named(&name)?;
            let mut freed = 0;
            for model in &models {
                freed += hub.remove(model)?;
            }
            if arguments.json {
                return output.json(&json!({ "removed": models, "freed": freed }));
            }
            output.line(format_args!("{name} is removed, {} are free", bytes(freed)))
        }
        ModelsAction::Verify { name } => {
            let models = match name {
                Some(name) => hub.named(&name)?,
                None => hub.models(),
            };
            verify(&hub, &models, arguments.json, output)
        }
        ModelsAction::Path { name } => {
            let models = hub.named(&name)?;
            let [model] = &models[..] else {
                let revisions: Vec<&str> = models.iter().map(|model| model.revision.as_str()).collect();
                return Err(Failure::misuse(
                    format!("{name} has several revisions: {}", revisions.join(", ")),
                    "Choose one with NAME@REVISION.",
                ));
            };
            if arguments.json {
                return output.json(model);
            }
            output.line(model.path.display())
        }
    }
}

fn list(hub: &Hub, json: bool, output: Output) -> Outcome {
    let models = hub.models();
    if json {
        return output.json(&json!({ "directory": hub.directory(), "models": models }));
    }
    if models.is_empty() {
        output.note(format_args!(
            "{} holds no models. `byzerllm pull ORG/NAME` gets one.",
            hub.directory().display()
        ));
        return Ok(());
    }
    let mut rows = vec![["NAME", "SOURCE", "REVISION", "SIZE", "FILES"].map(str::to_owned).to_vec()];
    rows.extend(models.iter().map(|model| {
        let revision = model.revision.chars().take(12).collect();
        vec![model.name.clone(), model.source.clone(), revision, bytes(model.size), model.files.to_string()]
    }));
    table(&rows).into_iter().try_for_each(|line| output.line(line))
}

fn verify(hub: &Hub, models: &[Cached], json: bool, output: Output) -> Outcome {
    let mut findings = Vec::new();
    for model in models {
        let found = hub.verify(model)?;
        if !json {
            let word = match (found.is_empty(), model.source.as_str()) {
                (true, "file") => "not ours: no checksum",
                (true, _) => "ok",
                _ => "BROKEN",
            };
            output.line(format_args!("{} {word}", model.name))?;
            for finding in &found {
                output.line(format_args!("  {}: {}", finding.file, finding.problem))?;
            }
        }
        findings.extend(found);
    }
    if json {
        output.json(&json!({ "models": models.len(), "findings": findings }))?;
    }
    match findings.first() {
        None => Ok(()),
        Some(finding) => Err(Failure::new(
            format!("{} files are not what they were", findings.len()),
            format!("`byzerllm models remove {0}`, then `byzerllm pull {0}`.", finding.name),
        )),
    }
}

/// Progress on a terminal, nothing elsewhere.
struct Bar {
    bar: ProgressBar,
    name: String,
}

impl Bar {
    fn new(reference: &Reference) -> Self {
        let bar = ProgressBar::new(0);
        let template = "{msg} {bar:24} {binary_bytes} of {binary_total_bytes} {binary_bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let name = reference.to_string();
        bar.set_message(name.clone());
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        Self { bar, name }
    }

    fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for Bar {
    fn expect(&self, bytes: u64) {
        self.bar.inc_length(bytes);
    }

    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn retreat(&self, bytes: u64) {
        self.bar.dec(bytes);
    }

    fn step(&self, what: &str) {
        self.bar.set_message(format!("{}: {what}", self.name));
    }
}
