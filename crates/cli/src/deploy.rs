//! `byzerllm deploy`, `undeploy` and `list`: the admin calls of a server.

use std::path::PathBuf;
use std::time::Duration;

use byzerllm_core::ErrorKind;
use byzerllm_hub::Reference;
use byzerllm_runtime::{DeploymentSpec, DeploymentState, DeploymentStatus, SecretText, Source};
use serde_json::{Map, Value, json};

use crate::arguments::{DeployArguments, ListArguments, UndeployArguments};
use crate::connection::Connection;
use crate::legacy::{self, Family, LegacyDeployment, Translated};
use crate::models;
use crate::output::{Failure, Outcome, Output, bytes, table};
use crate::progress::Progress;
use crate::secrets;

/// How often the progress of a load is asked for.
pub(crate) const POLL: Duration = Duration::from_millis(200);

/// Loads a model into a server and returns when it answers.
pub(crate) async fn deploy(arguments: DeployArguments, output: Output) -> Outcome {
    let asked = asked(&arguments)?;
    let connection = Connection::open(arguments.server.url.as_deref())?;
    if let Some(warning) = &asked.warning {
        output.note(warning);
    }
    if asked.translated.is_some() && exists(&connection, &asked.spec.name).await? {
        return already_there(&connection, &asked.spec.name, arguments.json, output).await;
    }
    let mut spec = asked.spec;
    let model = if arguments.byzer.is_given() { &arguments.byzer.model_path } else { &arguments.model };
    if let Some(name) = model
        .as_ref()
        .and_then(|name| name.to_str())
        .filter(|name| Reference::looks_remote(name) || Reference::is_short(name))
    {
        if !is_this_machine(&connection.url) {
            return Err(Failure::misuse(
                format!("{name} would be pulled here, and {} may be another machine", connection.url),
                "Run `byzerllm pull` on the server's machine and deploy the path that it prints.",
            ));
        }
        if let Some(path) = models::resolve_model(name, &arguments.hub).await? {
            spec.model = path;
        }
    }
    if let Some(notice) = asked.translated.as_ref().and_then(Translated::notice) {
        output.note(notice);
    }
    let body = spec.exposed()?;
    let bar = Progress::new(format!("loading {}", spec.name));
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
                    bar.share(progress);
                }
            }
        }
    };
    bar.clear();
    let status = match result {
        Ok(status) => status,
        Err(error) => return Err(connection.explain(error).await),
    };
    if let Some(translated) = &asked.translated {
        let architectures: Vec<String> =
            status.pointer("/info/architectures").map(read).transpose()?.unwrap_or_default();
        if let Some(oddity) = translated.family.mismatch(&architectures) {
            output.note(oddity);
        }
    }
    if let Some(notice) = status.pointer("/info/details/quantization/notice").and_then(Value::as_str) {
        output.note(notice);
    }
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

/// What the options describe, and what Byzer-LLM's words meant where they were used.
struct Asked {
    spec: DeploymentSpec,
    translated: Option<Translated>,
    /// What is told about secrets that stand in the command line.
    warning: Option<String>,
}

/// The deployment that the options describe, in any of the forms.
fn asked(arguments: &DeployArguments) -> Outcome<Asked> {
    let missing = || {
        Failure::misuse("--model, --type or --route is missing", "`byzerllm deploy --help` shows all forms.")
    };
    let model = arguments.model.as_ref();
    let mut translated = None;
    let mut spec = match (&arguments.name, &arguments.vendor) {
        (Some(name), Some(vendor)) => {
            byzerllm_providers::find(vendor)?;
            DeploymentSpec::of_provider(name, vendor)
        }
        (Some(name), None) => match &arguments.route.route {
            Some(route) => DeploymentSpec::of_route(name, route.clone()),
            None => DeploymentSpec::new(name, std::path::absolute(model.ok_or_else(missing)?)?),
        },
        (None, _) => {
            let model = model.map(|model| model.to_string_lossy());
            let name = arguments.byzer.udf_name.as_deref().or(model.as_deref()).ok_or_else(missing)?;
            translated.insert(byzers(arguments, name)?).spec.clone()
        }
    };
    if let Some(compute) = arguments.compute {
        spec.compute = compute;
    }
    if arguments.quantization.is_some() {
        spec.quantization = arguments.quantization;
    }
    for (name, path) in &arguments.adapters {
        spec.adapters.insert(name.clone(), std::path::absolute(path)?);
    }
    for (key, value) in &arguments.set {
        set(&mut spec, key, value)?;
    }
    spec.validate()?;
    let typed = arguments.set.iter().map(|(key, value)| (key.as_str(), value));
    let warning = spec.provider.as_ref().and_then(|provider| secrets::warning(&provider.vendor, typed));
    Ok(Asked { spec, translated, warning })
}

/// Sets one value. That of a secret is quoted nowhere.
fn set(spec: &mut DeploymentSpec, key: &str, value: &SecretText) -> Outcome {
    let vendor = spec.provider.as_ref().filter(|_| key.starts_with("saas."));
    let (shown, done) = match vendor {
        Some(provider) => {
            let vendor = byzerllm_providers::find(&provider.vendor)?;
            let parameter = byzerllm_providers::find_parameter(vendor, key);
            let given = parameter.and_then(|parameter| secrets::given(parameter, value.clone()));
            ("…", given.and_then(|value| spec.set(key, value.expose())))
        }
        None => (if key.starts_with("saas.") { "…" } else { value.expose() }, spec.set(key, value.expose())),
    };
    done.map_err(|error| {
        Failure::misuse(
            format!("--set {key}={shown}: {}", error.message()),
            "`byzerllm deploy --help` shows the form, `byzerllm vendors` the parameters of vendors.",
        )
    })
}

/// The deployment that Byzer-LLM's form describes.
fn byzers(arguments: &DeployArguments, name: &str) -> Outcome<Translated> {
    let byzer = &arguments.byzer;
    let path = byzer.model_path.as_ref().filter(|path| !path.as_os_str().is_empty());
    let word = byzer.pretrained_model_type.as_deref().unwrap_or_default();
    // A kind of model that cannot be is worth more than a missing path.
    Family::of(word)?;
    let path = match path {
        Some(path) => std::path::absolute(path)?,
        None if word.starts_with("saas/") => PathBuf::new(),
        None => {
            return Err(Failure::misuse(
                format!("--model-path is missing: which file or directory is '{name}'?"),
                "Add --model_path PATH; without Byzer-LLM's options the form is --name NAME --model PATH.",
            ));
        }
    };
    let mut infer_params = Map::new();
    for parameter in &byzer.infer_params {
        for (key, value) in parameters(parameter.expose())? {
            infer_params.insert(key, value.into());
        }
    }
    let mut sys_conf = Map::new();
    let chosen = [
        ("num_gpus", byzer.gpus_per_worker.map(Value::from)),
        ("num_cpus", byzer.cpus_per_worker.map(Value::from)),
        ("maxConcurrency", byzer.num_workers.map(Value::from)),
        ("workerMaxConcurrency", byzer.worker_concurrency.map(Value::from)),
        ("infer_backend", byzer.infer_backend.clone().filter(|word| !word.is_empty()).map(Value::from)),
    ];
    for (key, value) in chosen {
        if let Some(value) = value {
            sys_conf.insert(key.to_owned(), value);
        }
    }
    let words = LegacyDeployment {
        name: name.to_owned(),
        model: path,
        pretrained_model_type: word.to_owned(),
        infer_params,
        sys_conf,
        strict: byzer.strict,
        ignore_unknown: byzer.ignore_unknown,
    };
    Ok(words.translate()?)
}

/// The parameters in one argument: `key=value`, or several of them with spaces between.
fn parameters(text: &str) -> Outcome<Vec<(String, String)>> {
    let starts: Vec<usize> = parameter_starts(text);
    if starts.first() != Some(&0) && !text.trim().is_empty() {
        let shown = text.split_once('=').map_or(text, |(key, _)| key).trim();
        return Err(Failure::misuse(
            format!("--infer_params: '{shown}' is no key=value"),
            "Write --infer_params temperature=0.2 max_tokens=64.",
        ));
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let parameter = |(start, end): (usize, usize)| {
        let (key, value) = text[start..end].split_once('=')?;
        let value = value.trim();
        let single = || Some(value.strip_prefix('\'')?.strip_suffix('\'')?.to_owned());
        let unquoted = serde_json::from_str::<String>(value).ok().or_else(single);
        Some((key.to_owned(), unquoted.unwrap_or_else(|| value.to_owned())))
    };
    Ok(starts.iter().copied().zip(ends).filter_map(parameter).collect())
}

/// Where a key with its `=` begins: at the start or after a space, outside of double quotes.
fn parameter_starts(text: &str) -> Vec<usize> {
    let mut starts = Vec::new();
    let (mut quoted, mut escaped, mut fresh) = (false, false, true);
    for (at, c) in text.char_indices() {
        let is_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if fresh && !quoted {
            let rest = &text[at..];
            let key = rest.find(|c: char| !is_key(c)).unwrap_or(rest.len());
            if key > 0 && rest[key..].starts_with('=') {
                starts.push(at);
            }
        }
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        fresh = c.is_whitespace();
    }
    starts
}

/// Whether a deployment of this name is there, ready or not.
async fn exists(connection: &Connection, name: &str) -> Outcome<bool> {
    match connection.client.status(name).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(connection.explain(error).await),
    }
}

/// As Byzer-LLM does: what is deployed stays, and that is no error.
async fn already_there(connection: &Connection, name: &str, json: bool, output: Output) -> Outcome {
    if json {
        return match connection.client.status(name).await {
            Ok(status) => output.json(&status),
            Err(error) => Err(connection.explain(error).await),
        };
    }
    output.line(format_args!(
        "{name} is already deployed at {}; `byzerllm undeploy --model {name}` removes it",
        connection.url
    ))
}

/// Removes a deployment.
pub(crate) async fn undeploy(arguments: UndeployArguments, output: Output) -> Outcome {
    let Some(name) = arguments.name.as_ref().or(arguments.model.as_ref()) else {
        return Err(Failure::misuse(
            "the deployment's name is missing",
            "`byzerllm list` shows what is deployed.",
        ));
    };
    let connection = Connection::open(arguments.server.url.as_deref())?;
    let drain = Duration::from_secs(if arguments.force { 0 } else { arguments.drain_seconds });
    match connection.client.undeploy(name, Some(drain)).await {
        Ok(()) => output.line(format_args!("{name} is gone from {}", connection.url)),
        Err(error) if error.kind() == ErrorKind::NotFound && arguments.name.is_none() => {
            output.line(format_args!("{name} is not deployed at {}", connection.url))
        }
        Err(error) => Err(connection.explain(error).await),
    }
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
        vec![["NAME", "STATE", "ACTIVE", "TASK", "CONTEXT", "WEIGHTS", "MODEL"].map(str::to_owned).to_vec()];
    rows.extend(statuses.iter().map(row));
    for line in table(&rows) {
        output.line(line)?;
    }
    for status in &statuses {
        if let DeploymentState::Failed { error } = &status.state {
            output.note(format_args!("{}: {}", status.spec.name, error.message()));
        }
        if let Some(notice) = legacy::notice(&status.spec) {
            output.note(notice);
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
        task(status).unwrap_or_else(dash),
        status
            .info
            .as_ref()
            .and_then(|info| info.context_length)
            .map_or_else(dash, |length| length.to_string()),
        match status.spec.source() {
            Source::Local(_) => status.info.as_ref().map_or_else(dash, |info| bytes(info.weight_bytes)),
            Source::Provider(_) | Source::Route(_) => dash(),
        },
        source(&status.spec),
    ]
}

/// What a loaded model of this machine is for; others may be for several things.
fn task(status: &DeploymentStatus) -> Option<String> {
    let (Source::Local(_), Some(info)) = (status.spec.source(), &status.info) else { return None };
    let task = info.details.get("task").and_then(Value::as_str);
    Some(task.unwrap_or("generate").to_owned())
}

/// What answers: a path, a vendor with its model, or other deployments.
pub(crate) fn source(spec: &DeploymentSpec) -> String {
    match spec.source() {
        Source::Local(path) => path.display().to_string(),
        Source::Provider(provider) => {
            let vendor = provider.vendor.trim_start_matches("saas/");
            match provider.model() {
                Some(model) => format!("saas/{vendor} {model}"),
                None => format!("saas/{vendor}"),
            }
        }
        Source::Route(route) => {
            let names: Vec<&str> = route.targets.iter().map(|target| target.deployment.as_str()).collect();
            format!("route to {}", names.join(", "))
        }
    }
}

/// One word, with the progress of a load.
pub(crate) fn state_word(state: &DeploymentState) -> String {
    match state {
        DeploymentState::Loading { progress } => format!("loading {:.0} %", progress * 100.0),
        other => other.as_str().to_owned(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_says_what_answers() {
        let mut spec = DeploymentSpec::of_provider("m", "openai");
        assert!(source(&spec).starts_with("saas/openai"));
        spec.set("saas.model", "gpt-4o").unwrap();
        assert_eq!(source(&spec), "saas/openai gpt-4o");
        assert_eq!(source(&DeploymentSpec::new("m", "/a.gguf")), "/a.gguf");
    }

    #[test]
    fn a_refused_setting_never_shows_a_secret() {
        let mut spec = DeploymentSpec::of_provider("m", "saas/openai");
        let refused = set(&mut spec, "saas.api_kye", &"sk-canary".into()).unwrap_err();
        assert!(refused.message().contains("saas.api_key") && !refused.message().contains("canary"));
        let mut local = DeploymentSpec::new("m", "/a.gguf");
        let refused = set(&mut local, "saas.api_key", &"sk-canary".into()).unwrap_err();
        assert!(refused.message().contains("--type saas/") && !refused.message().contains("canary"));
        let refused = set(&mut local, "temperature", &"hot".into()).unwrap_err();
        assert!(refused.message().contains("--set temperature=hot"), "{}", refused.message());
    }

    #[test]
    fn parameters_may_come_one_by_one_or_as_a_list() {
        let read = |text: &str| parameters(text).map_err(|failure| failure.message().to_owned());
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(read("a=1").unwrap(), [pair("a", "1")]);
        assert_eq!(read("a=1 gen.b=x=y\tc=").unwrap(), [pair("a", "1"), pair("gen.b", "x=y"), pair("c", "")]);
        assert_eq!(read("stop=END OF a=1").unwrap(), [pair("stop", "END OF"), pair("a", "1")]);
        assert_eq!(
            read(r#"stop="x \" b=1\n" a='0.5'"#).unwrap(),
            [pair("stop", "x \" b=1\n"), pair("a", "0.5")]
        );
        assert_eq!(read(r#"stop=["a", "b"] a=1"#).unwrap(), [pair("stop", r#"["a", "b"]"#), pair("a", "1")]);
        assert_eq!(read("").unwrap(), []);
        assert!(read("temperature").unwrap_err().contains("'temperature' is no key=value"));
        assert!(!read("saas api_key=secret").unwrap_err().contains("secret"));
    }
}
