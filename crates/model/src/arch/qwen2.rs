//! Qwen2 and Qwen2.5: Llama with biases on queries, keys and values, and with windows in the upper layers on request.

use byzerllm_kernels::RopeKind;

use super::Architecture;
use super::families::About;
use super::llama::{self, Bias, Defaults};
use super::source::Source;
use crate::config::DecoderConfig;
use crate::load_error::LoadResult;

pub(super) static QWEN2: Architecture = Architecture {
    about: About {
        title: "Qwen1.5, Qwen2, Qwen2.5",
        types: &["custom/qwen"],
        proof: &[
            "qwen2-tied-f16",
            "qwen2-bf16",
            "gguf/qwen2-mixed",
            "gptq-symmetric",
            "gptq-8-asymmetric",
            "awq-gemm",
        ],
    },
    names: &["Qwen2ForCausalLM"],
    gguf: &["qwen2"],
    config: |source| {
        if source.is_gguf() { llama::gguf_config(source, RopeKind::Half) } else { config(source) }
    },
    weights: |config, source| llama::weights(config, source, Bias { qkv: true, out: false, mlp: false }),
};

fn config(source: &Source) -> LoadResult<DecoderConfig> {
    let defaults = Defaults { context: 32_768, kv_heads: None, window: None };
    let mut config = llama::hugging_face_config(source, &defaults)?;
    windows(source, &mut config)?;
    Ok(config)
}

/// Which layers have a window: those that `layer_types` names, or those from `max_window_layers` on.
pub(super) fn windows(source: &Source, config: &mut DecoderConfig) -> LoadResult<()> {
    let fields = source.fields();
    let window = if fields.flag("use_sliding_window", false)? && !fields.is_null("sliding_window") {
        Some(fields.positive_or("sliding_window", 4096)?)
    } else {
        None
    };
    let types = fields.texts("layer_types")?;
    if let Some(types) = &types
        && types.len() != config.layers.len()
    {
        let problem = format!("has {} entries for {} layers", types.len(), config.layers.len());
        return Err(fields.malformed("layer_types", problem));
    }
    let first = fields.number("max_window_layers")?.unwrap_or(28);
    for (index, layer) in config.layers.iter_mut().enumerate() {
        let windowed = match types.as_ref().and_then(|types| types.get(index)) {
            Some(&"sliding_attention") => true,
            Some(&"full_attention") => false,
            Some(other) => {
                return Err(fields.unsupported("layer_types", format!("{other:?} is not supported")));
            }
            None => index >= first,
        };
        layer.attention.window = window.filter(|_| windowed);
    }
    Ok(())
}
