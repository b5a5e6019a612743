//! The keys of `infer_params`.

use byzerllm_core::{Error, Result};
use byzerllm_runtime::{DeploymentSpec, nearest};
use serde_json::Value;

/// Other spellings of our settings.
static ALIASES: &[(&str, &str)] = &[
    ("max_length", "max_tokens"),
    ("max_new_tokens", "max_tokens"),
    ("stopping_sequences", "stop"),
    ("ignore_eos", "ignore_end"),
    ("backend.max_model_len", "context_length"),
    ("backend.max_num_seqs", "max_sequences"),
    ("n_ctx", "context_length"),
];

/// Options of the engines that Byzer-LLM drove; ours decides these things itself.
static WITHOUT_EFFECT: &[&str] = &[
    "quatization",
    "quantization",
    "backend.quantization",
    "use_cache",
    "backend.use_cache",
    "message_format",
    "backend.message_format",
    "llm_int8_threshold",
    "longContextMode",
    "udfName",
    "localPathPrefix",
    "hf_token",
    "backend.worker_use_ray",
    "backend.engine_use_ray",
    "backend.dtype",
    "backend.seed",
    "backend.pipeline_parallel_size",
    "backend.tensor_parallel_size",
    "backend.block_size",
    "backend.swap_space",
    "backend.gpu_memory_utilization",
    "backend.disable_log_stats",
    "backend.max_num_batched_tokens",
    "backend.trust_remote_code",
    "backend.tokenizer_mode",
    "backend.enforce_eager",
    "backend.max_context_len_to_capture",
    "backend.load_format",
    "backend.revision",
    "n_gpu_layers",
    "split_mode",
    "main_gpu",
    "tensor_split",
    "use_mmap",
    "use_mlock",
    "n_batch",
    "n_threads",
    "n_threads_batch",
    "offload_kqv",
    "last_n_tokens_size",
    "numa",
    "chat_format",
    "verbose",
];

/// What a key did.
#[derive(Debug)]
pub(super) enum Effect {
    /// It was applied, or asked for nothing.
    Applied,
    /// It asked for something that has no effect.
    None,
    /// Nobody knows it; the error names the nearest key.
    Unknown(Error),
}

/// Applies one key to the deployment.
pub(super) fn apply(spec: &mut DeploymentSpec, key: &str, value: &Value) -> Result<Effect> {
    if key.starts_with("saas.") {
        let shown: String = key.chars().take(64).collect();
        let message = format!("{shown} is only for pretrained_model_type 'saas/…'; leave it out");
        return Err(Error::invalid(shown, message));
    }
    if WITHOUT_EFFECT.contains(&key) || is_typed(key) {
        let off = matches!(text(value).to_lowercase().as_str(), "" | "false");
        return Ok(if off { Effect::Applied } else { Effect::None });
    }
    if value.is_null() {
        return Ok(Effect::Applied);
    }
    let name = without_prefix(key);
    let setting =
        ALIASES.iter().find(|(alias, _)| *alias == key || *alias == name).map_or(name, |(_, own)| own);
    if !DeploymentSpec::settings().any(|known| known == setting) {
        return Ok(Effect::Unknown(unknown(key, name)));
    }
    let written = match (name, text(value).as_str()) {
        ("seed", "-1") => return Ok(Effect::Applied),
        ("top_k", "-1") => "0".to_owned(),
        ("stopping_sequences", list) if value.is_string() => {
            let parts = list.split(',').map(str::trim).filter(|part| !part.is_empty());
            Value::from_iter(parts).to_string()
        }
        (_, text) => text.to_owned(),
    };
    spec.set(setting, &written).map_err(|error| match setting == key {
        true => error,
        false => Error::new(error.kind(), format!("{key}: {}", error.message())).with_param(key.to_owned()),
    })?;
    Ok(Effect::Applied)
}

/// A value as it is written on a command line.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 1e15 => {
                format!("{float:.0}")
            }
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

fn without_prefix(key: &str) -> &str {
    key.strip_prefix("generation.").or_else(|| key.strip_prefix("gen.")).unwrap_or(key)
}

/// Whether a key has the older form `infer.bool.load_in_4bit`.
fn is_typed(key: &str) -> bool {
    key.starts_with("infer.") && key.split('.').count() == 3
}

/// The error for an unknown key; it names the nearest valid one, in the prefix that the caller used.
fn unknown(key: &str, name: &str) -> Error {
    let known = DeploymentSpec::settings()
        .chain(ALIASES.iter().map(|(alias, _)| *alias))
        .chain(WITHOUT_EFFECT.iter().copied());
    let near = nearest(name, known).unwrap_or("temperature");
    let prefix = &key[..key.len() - name.len()];
    let shown: String = key.chars().take(64).collect();
    let message =
        format!("unknown key in infer_params '{}'; did you mean '{prefix}{near}'?", shown.escape_debug());
    Error::invalid(shown, message)
}
