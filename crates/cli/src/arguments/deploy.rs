//! What can be typed after `deploy`, `undeploy`, `list` and `stat`.

use std::path::PathBuf;

use byzerllm_runtime::{Compute, Quantization, SecretText};
use clap::Args;
use clap::builder::FalseyValueParser;

use super::{BYZER, ByzerArguments, HubArguments, RouteArguments, ServerArguments};

/// Options of `deploy`.
#[derive(Debug, Args)]
#[command(
    args_override_self = true,
    override_usage = "byzerllm deploy [OPTIONS] --name <NAME> --model <PATH|ORG/NAME>
       byzerllm deploy [OPTIONS] --name <NAME> --type <saas/VENDOR> --set saas.<KEY>=<VALUE>...
       byzerllm deploy [OPTIONS] --name <NAME> --route <NAME=WEIGHT,…>
       byzerllm deploy [OPTIONS] --model <NAME> --pretrained-model-type <TYPE> --model-path <PATH|ORG/NAME>",
    after_help = "Examples:
  byzerllm deploy --name chat --model ./model.gguf --url http://127.0.0.1:8000
  byzerllm deploy --name chat --model ./model-directory --compute exact
  byzerllm deploy --name chat --model ./model-directory --adapter french=./adapters/french
  byzerllm deploy --name chat --model Qwen/Qwen2.5-0.5B-Instruct
  byzerllm deploy --name chat --model ./model.gguf --set temperature=0.2 --set context_length=4096
  byzerllm deploy --name gpt --type saas/openai --set saas.api_key=env:OPENAI_API_KEY --set saas.model=gpt-4o-mini
  byzerllm deploy --name best --route gpt=3,chat=1 --set route.after_first=restart
  byzerllm deploy --model chat --pretrained_model_type custom/auto --model_path ./model.gguf

A deployment of the same name is replaced; when the new model does not load, the old one stays. In Byzer-LLM's \
form --model is the name, and a deployment of that name is left as it is. Options may be written with _ or -. A \
vendor's secrets are env:NAME or file:PATH, which the server looks up, or - for standard input; `byzerllm vendors` \
lists vendors and parameters."
)]
pub(crate) struct DeployArguments {
    /// The name that requests use as their model.
    #[arg(long, required_unless_present_any = BYZER_OPTIONS.into_iter().chain(["file"]), conflicts_with_all = BYZER_OPTIONS)]
    pub(crate) name: Option<String>,
    /// A GGUF file or a Hugging Face directory, on the server's machine, or ORG/NAME: pulled when missing.
    #[arg(long, value_name = "PATH|ORG/NAME", required_unless_present_any = ["file", "vendor", "udf_name", "route"])]
    pub(crate) model: Option<PathBuf>,
    /// A vendor's model in place of --model; `byzerllm vendors` lists them.
    #[arg(long = "type", value_name = "saas/VENDOR", requires = "name", conflicts_with = "model")]
    pub(crate) vendor: Option<String>,
    #[command(flatten)]
    pub(crate) route: RouteArguments,
    #[command(flatten)]
    pub(crate) hub: HubArguments,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// How products are computed: exact, standard or fast [default: standard].
    #[arg(long, value_name = "MODE")]
    pub(crate) compute: Option<Compute>,
    /// Bring a checkpoint's floats to 4 or 8 bits while it is loaded, or off [default: off].
    #[arg(long, value_name = "BITS")]
    pub(crate) quantization: Option<Quantization>,
    /// A LoRA adapter in PEFT's format, on the server's machine; requests for NAME:ADAPTER use it. May be repeated.
    #[arg(long = "adapter", value_name = "ADAPTER=PATH", value_parser = adapter)]
    pub(crate) adapters: Vec<(String, PathBuf)>,
    /// A default or limit of the deployment, or a vendor's parameter as saas.KEY; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, SecretText)>,
    /// Print the deployment as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) byzer: ByzerDeployArguments,
}

/// The name of an adapter and its directory.
fn adapter(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok((name.to_owned(), path.into())),
        _ => Err("write NAME=PATH, for example french=./adapters/french".to_owned()),
    }
}

/// The options that make it Byzer-LLM's form.
const BYZER_OPTIONS: [&str; 9] = [
    "udf_name",
    "pretrained_model_type",
    "model_path",
    "infer_params",
    "num_workers",
    "worker_concurrency",
    "gpus_per_worker",
    "cpus_per_worker",
    "infer_backend",
];

/// Options of `deploy` in Byzer-LLM's form.
#[derive(Debug, Args)]
pub(crate) struct ByzerDeployArguments {
    /// The deployment's name, in place of --model.
    #[arg(long, value_name = "NAME", conflicts_with = "model", help_heading = BYZER)]
    pub(crate) udf_name: Option<String>,
    /// The kind of model, as custom/auto, custom/llama2 (the file decides what it is) or saas/openai.
    #[arg(long, value_name = "TYPE", help_heading = BYZER)]
    pub(crate) pretrained_model_type: Option<String>,
    /// What --model is otherwise: a GGUF file, a directory, or ORG/NAME.
    #[arg(long, value_name = "PATH|ORG/NAME", help_heading = BYZER)]
    pub(crate) model_path: Option<PathBuf>,
    /// Settings of the deployment as key=value, as many as you like.
    #[arg(long, value_name = "KEY=VALUE", num_args = 0.., value_parser = secret_text, help_heading = BYZER)]
    pub(crate) infer_params: Vec<SecretText>,
    /// Workers; times --worker-concurrency, how many requests run at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = BYZER)]
    pub(crate) num_workers: Option<u32>,
    /// Requests that a worker runs at once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = BYZER)]
    pub(crate) worker_concurrency: Option<u32>,
    /// No effect: models run on the CPU.
    #[arg(long, value_name = "N", value_parser = amount, help_heading = BYZER)]
    pub(crate) gpus_per_worker: Option<f64>,
    /// No effect: the engine uses the server's threads.
    #[arg(long, value_name = "N", value_parser = amount, help_heading = BYZER)]
    pub(crate) cpus_per_worker: Option<f64>,
    /// No effect, byzerllm's own engine runs the model: vllm, llama_cpp, transformers or deepspeed.
    #[arg(long, value_name = "BACKEND", value_parser = backend, help_heading = BYZER)]
    pub(crate) infer_backend: Option<String>,
    /// Refuse what has no effect here, such as GPUs, instead of telling it; BYZERLLM_STRICT=1 does the same.
    #[arg(long, env = "BYZERLLM_STRICT", hide_env = true, value_parser = FalseyValueParser::new(), help_heading = BYZER)]
    pub(crate) strict: bool,
    /// Drop unknown keys of --infer-params silently, as Byzer-LLM does; BYZERLLM_IGNORE_UNKNOWN=1 does the same.
    #[arg(long, env = "BYZERLLM_IGNORE_UNKNOWN", hide_env = true, value_parser = FalseyValueParser::new(), help_heading = BYZER)]
    pub(crate) ignore_unknown: bool,
    #[command(flatten)]
    pub(crate) common: ByzerArguments,
}

impl ByzerDeployArguments {
    /// Whether one of these options was given.
    pub(crate) fn is_given(&self) -> bool {
        self.udf_name.is_some()
            || self.pretrained_model_type.is_some()
            || self.model_path.is_some()
            || !self.infer_params.is_empty()
            || self.num_workers.is_some()
            || self.worker_concurrency.is_some()
            || self.gpus_per_worker.is_some()
            || self.cpus_per_worker.is_some()
            || self.infer_backend.is_some()
    }
}

/// Options of `undeploy`.
#[derive(Debug, Args)]
#[command(
    args_override_self = true,
    override_usage = "byzerllm undeploy [OPTIONS] <NAME>
       byzerllm undeploy [OPTIONS] --model <NAME>",
    after_help = "Examples:
  byzerllm undeploy chat --url http://127.0.0.1:8000
  byzerllm undeploy --model chat --force

In Byzer-LLM's form, --model NAME, a deployment that is not there is no error."
)]
pub(crate) struct UndeployArguments {
    /// The deployment.
    #[arg(required_unless_present_any = ["model", "file"])]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// How long requests in flight may go on, in seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub(crate) drain_seconds: u64,
    /// End requests in flight at once.
    #[arg(long, conflicts_with = "drain_seconds")]
    pub(crate) force: bool,
    /// The deployment.
    #[arg(long, value_name = "NAME", conflicts_with = "name", help_heading = BYZER)]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) byzer: ByzerArguments,
}

/// Options of `stat`.
#[derive(Debug, Args)]
#[command(
    args_override_self = true,
    after_help = "Examples:
  byzerllm stat --model chat
  byzerllm stat --model chat --interval 5"
)]
pub(crate) struct StatArguments {
    /// The deployment.
    #[arg(long, value_name = "NAME", required_unless_present = "file")]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// Show it again every so many seconds until Ctrl-C; 0 shows it once.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub(crate) interval: u64,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) byzer: ByzerArguments,
}

/// Options of `list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm list
  byzerllm list --url http://127.0.0.1:8000 --json")]
pub(crate) struct ListArguments {
    #[command(flatten)]
    pub(crate) server: ServerArguments,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `vendors`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  byzerllm vendors
  byzerllm vendors saas/openai
  byzerllm vendors zhipu --json")]
pub(crate) struct VendorsArguments {
    /// One vendor, whose parameters are shown.
    #[arg(value_name = "VENDOR")]
    pub(crate) vendor: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Wraps what may hold a secret.
#[expect(clippy::unnecessary_wraps, reason = "clap wants a result")]
fn secret_text(text: &str) -> Result<SecretText, String> {
    Ok(text.into())
}

/// Splits `key=value`.
fn key_value(text: &str) -> Result<(String, SecretText), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.into())),
        _ => Err(format!("write key=value, for example temperature=0.2, instead of `{text}`")),
    }
}

/// A number of processors, possibly a fraction.
fn amount(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err(format!("write a number such as 1 or 0.5 instead of `{text}`")),
    }
}

/// The engines that Byzer-LLM drove; an empty word leaves the choice to us.
fn backend(text: &str) -> Result<String, String> {
    const BACKENDS: [&str; 4] = ["vllm", "llama_cpp", "transformers", "deepspeed"];
    let word = text.strip_prefix("ray/").unwrap_or(text);
    if word.is_empty() || BACKENDS.contains(&word) {
        return Ok(text.to_owned());
    }
    Err(format!("invalid infer_backend; write one of {}", BACKENDS.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_needs_a_key_and_a_value() {
        assert_eq!(key_value("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(key_value("=x").is_err());
        assert!(key_value("temperature").is_err());
    }

    #[test]
    fn backends_are_those_of_byzer_llm() {
        for word in ["", "vllm", "ray/vllm", "deepspeed", "transformers", "llama_cpp"] {
            assert_eq!(backend(word), Ok(word.to_owned()));
        }
        assert!(backend("tensorrt").is_err_and(|error| error.contains("vllm")));
        assert_eq!(amount("0.5"), Ok(0.5));
        assert!(amount("-1").is_err() && amount("nan").is_err());
    }
}
