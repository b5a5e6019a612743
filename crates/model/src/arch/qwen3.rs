//! Qwen3: Qwen2 without biases, with a norm on every head of queries and keys, and its mixtures of experts.

use byzerllm_kernels::RopeKind;

use super::Architecture;
use super::assemble::{self, Bias, LLAMA_NAMES, Reading};
use super::experts;
use super::families::About;
use super::gguf;
use super::llama::{self, Defaults};
use super::qwen2::windows;
use super::source::Source;
use crate::config::DecoderConfig;
use crate::decoder_weights::DecoderWeights;
use crate::load_error::LoadResult;

pub(super) static QWEN3: Architecture = Architecture {
    about: About {
        title: "Qwen3",
        types: &["custom/qwen"],
        proof: &["qwen3-bf16", "qwen3-window-f16", "gguf/qwen3-q8_0"],
    },
    names: &["Qwen3ForCausalLM"],
    gguf: &["qwen3"],
    config: |source| Ok(with_head_norms(config(source)?)),
    weights,
};

pub(super) static QWEN3_MOE: Architecture = Architecture {
    about: About {
        title: "Qwen3 MoE",
        types: &[],
        proof: &["qwen3-moe-bf16", "qwen3-moe-norm-f16", "gguf/qwen3moe-f16"],
    },
    names: &["Qwen3MoeForCausalLM"],
    gguf: &["qwen3moe"],
    config: moe_config,
    weights,
};

fn config(source: &Source) -> LoadResult<DecoderConfig> {
    if source.is_gguf() {
        return llama::gguf_config(source, RopeKind::Half);
    }
    let mut config =
        llama::hugging_face_config(source, &Defaults { context: 32_768, kv_heads: None, window: None })?;
    windows(source, &mut config)?;
    Ok(config)
}

fn moe_config(source: &Source) -> LoadResult<DecoderConfig> {
    let mut config = with_head_norms(config(source)?);
    let fields = source.fields();
    if source.is_gguf() {
        if config.layers.iter().any(|layer| layer.mlp.experts.is_none()) {
            return Err(fields.malformed("expert_count", "is missing"));
        }
        return Ok(config);
    }
    let normalize = fields.flag("norm_topk_prob", false)?;
    // Newer files say it as Mixtral does.
    let count = if fields.has("num_experts") { "num_experts" } else { "num_local_experts" };
    let mixture = experts::config(&fields, (count, None), ("num_experts_per_tok", Some(8)), normalize)?;
    let inner = fields.positive_or("moe_intermediate_size", 768)?;
    let step = fields.positive_or("decoder_sparse_step", 1)?;
    let dense = fields.numbers("mlp_only_layers")?.unwrap_or_default();
    for (index, layer) in config.layers.iter_mut().enumerate() {
        if !dense.contains(&index) && (index + 1).is_multiple_of(step) {
            layer.mlp.intermediate_size = inner;
            layer.mlp.experts = Some(mixture.clone());
        }
    }
    Ok(config)
}

fn with_head_norms(mut config: DecoderConfig) -> DecoderConfig {
    for layer in &mut config.layers {
        layer.attention.head_norm = Some(layer.norm);
    }
    config
}

fn weights<'a>(config: &DecoderConfig, source: &'a Source) -> LoadResult<DecoderWeights<'a>> {
    if source.is_gguf() {
        return gguf::weights(config, source);
    }
    let attention = source.fields().flag("attention_bias", false)?;
    let bias = Bias { qkv: attention, out: attention, mlp: false };
    assemble::weights(config, source, &LLAMA_NAMES, &Reading { bias, ..Reading::default() })
}
