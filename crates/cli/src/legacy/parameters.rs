//! The keys of `infer_params`.

use byzerllm_core::nearest;
use byzerllm_core::{Error, ErrorKind, Result};
use byzerllm_runtime::{DeploymentSpec, ProviderSpec};
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
    ("quatization", "quantization"),
    ("backend.quantization", "quantization"),
];

/// Options of the engines that Byzer-LLM drove; ours decides these things itself.
static WITHOUT_EFFECT: &[&str] = &[
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
    "backend.max_seq_len_to_capture",
    "backend.load_format",
    "backend.revision",
    "backend.code_revision",
    "backend.tokenizer_revision",
    "backend.download_dir",
    "backend.device",
    "backend.kv_cache_dtype",
    "backend.enable_prefix_caching",
    "backend.enable_chunked_prefill",
    "backend.num_gpu_blocks_override",
    "backend.cpu_offload_gb",
    "backend.enable_lora",
    "backend.max_cpu_loras",
    "backend.max_loras",
    "backend.max_lora_rank",
    "backend.max_logprobs",
    "backend.max_paddings",
    "backend.max_parallel_loading_workers",
    "backend.disable_custom_all_reduce",
    "backend.disable_log_requests",
    "backend.distributed_executor_backend",
    "backend.num_scheduler_steps",
    "backend.preemption_mode",
    "backend.scheduling_policy",
    "backend.guided_decoding_backend",
    "backend.served_model_name",
    "backend.ray_workers_use_nsight",
    "backend.use_v2_block_manager",
    "backend.tokenizer_pool_size",
    "backend.tokenizer_pool_type",
    "n_gpu_layers",
    "split_mode",
    "main_gpu",
    "tensor_split",
    "vocab_only",
    "pooling_type",
    "logits_all",
    "type_k",
    "type_v",
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

/// Options of those engines that would make another model, and why ours does not.
static REFUSED: &[(&str, &str)] = &[
    ("lora_path", ADAPTER),
    ("lora_base", ADAPTER),
    ("lora_scale", ADAPTER),
    ("embedding", "embeddings are not supported by this version; leave it out"),
    ("backend.tokenizer", "a checkpoint brings its own tokenizer; leave it out"),
    ("backend.speculative_model", "drafts by a second model are not supported by this version; leave it out"),
    ("backend.rope_scaling", ROTATION),
    ("backend.rope_theta", ROTATION),
    ("rope_scaling_type", ROTATION),
    ("rope_freq_base", ROTATION),
    ("rope_freq_scale", ROTATION),
    ("yarn_ext_factor", ROTATION),
    ("yarn_attn_factor", ROTATION),
    ("yarn_beta_fast", ROTATION),
    ("yarn_beta_slow", ROTATION),
    ("yarn_orig_ctx", ROTATION),
];
const ADAPTER: &str = "an adapter is deployed by the path of its directory; give that as the model";
const ROTATION: &str = "positions are rotated as the checkpoint says; leave it out or change the checkpoint";

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
        if let Some(provider) = &mut spec.provider {
            return apply_to_vendor(provider, key, value);
        }
        let shown: String = key.chars().take(64).collect();
        let message = format!("{shown} is only for pretrained_model_type 'saas/…'; leave it out");
        return Err(Error::invalid(shown, message));
    }
    if matches!(key, "adapters" | "backend.lora_modules") {
        return adapters(spec, key, value);
    }
    if WITHOUT_EFFECT.contains(&key) || is_typed(key) {
        let off = matches!(text(value).to_lowercase().as_str(), "" | "false");
        return Ok(if off { Effect::Applied } else { Effect::None });
    }
    if value.is_null() {
        return Ok(Effect::Applied);
    }
    if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == key) {
        if value == false || text(value) == "false" {
            return Ok(Effect::Applied);
        }
        let message = format!("{key} has no place here: {why}");
        return Err(Error::new(ErrorKind::Unsupported, message).with_param(key.to_owned()));
    }
    let name = without_prefix(key);
    let setting =
        ALIASES.iter().find(|(alias, _)| *alias == key || *alias == name).map_or(name, |(_, own)| own);
    if !DeploymentSpec::settings().any(|known| known == setting) {
        return Ok(Effect::Unknown(unknown(key, name)));
    }
    let written = match (name, text(value).as_str()) {
        ("seed", "-1") | ("quatization" | "quantization" | "backend.quantization", "") => {
            return Ok(Effect::Applied);
        }
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

/// LoRA adapters: an object of names and directories, also as text.
fn adapters(spec: &mut DeploymentSpec, key: &str, value: &Value) -> Result<Effect> {
    let wrong = || {
        let message = format!(
            "{key} must be an object of names and directories, as {{\"french\": \"/adapters/french\"}}"
        );
        Error::invalid(key.to_owned(), message)
    };
    let parsed = match value {
        Value::String(text) => serde_json::from_str(text).map_err(|_| wrong())?,
        other => other.clone(),
    };
    for (name, path) in parsed.as_object().ok_or_else(wrong)? {
        let path = path.as_str().filter(|path| !path.is_empty()).ok_or_else(wrong)?;
        let path = std::path::absolute(path).map_err(|error| wrong().with_source(error))?;
        spec.adapters.insert(name.clone(), path);
    }
    Ok(Effect::Applied)
}

/// Sets a vendor's parameter. Python's `None` and the empty text leave it out, as Byzer-LLM's programs have it.
fn apply_to_vendor(provider: &mut ProviderSpec, key: &str, value: &Value) -> Result<Effect> {
    let vendor = byzerllm_providers::find(&provider.vendor)?;
    let parameter = match byzerllm_providers::find_parameter(vendor, key) {
        Ok(parameter) => parameter,
        Err(error) => return Ok(Effect::Unknown(error)),
    };
    let written = text(value);
    if !written.trim().is_empty() {
        provider.set(parameter.name, crate::secrets::given(parameter, written)?)?;
    }
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
        .chain(WITHOUT_EFFECT.iter().copied())
        .chain(REFUSED.iter().map(|(refused, _)| *refused));
    let near = nearest(name, known).unwrap_or("temperature");
    let prefix = &key[..key.len() - name.len()];
    let shown: String = key.chars().take(64).collect();
    let message =
        format!("unknown key in infer_params '{}'; did you mean '{prefix}{near}'?", shown.escape_debug());
    Error::invalid(shown, message)
}
