//! Llama, the families that are Llama with another vocabulary (Vicuna, TinyLlama, Yi, SmolLM2), and Mistral.
//!
//! Also the parts that Qwen2 shares: GGUF stores query and key rows of `llama` files reordered, so that rope rotates
//! neighbours there and halves everywhere else.

use byzerllm_kernels::RopeKind;

use super::Architecture;
pub(super) use super::assemble::Bias;
use super::assemble::{self, LLAMA_NAMES, Reading};
use super::families::About;
use super::gguf;
use super::rope::{self, RopeShape};
use super::shape::{self, Shape, activation, epsilon};
use super::source::Source;
use crate::config::{DecoderConfig, MlpConfig, NormConfig, NormKind, PositionEncoding};
use crate::decoder_weights::DecoderWeights;
use crate::load_error::LoadResult;

pub(super) static LLAMA: Architecture = Architecture {
    about: About {
        title: "Llama 1 to 3, Vicuna, Yi, TinyLlama, SmolLM2",
        types: &["llama", "custom/llama", "custom/llama2"],
        proof: &[
            "llama-tied-f32",
            "llama-sharded-bf16",
            "llama-llama3-f16",
            "llama-yarn-bf16",
            "gguf/llama-q4_0",
            "gguf/llama-q4_1",
            "gguf/llama-q8_0",
            "gguf/llama-f16",
            "gguf/llama-k-quants",
            "gguf/llama-q5-v2",
            "gptq-activation-order",
            "gptq-small-groups",
            "gptq-v2-whole-rows",
            "gptq-8-activation-order",
        ],
    },
    names: &["LlamaForCausalLM", "LLaMAForCausalLM", "YiForCausalLM"],
    gguf: &["llama"],
    config: |source| {
        if source.is_gguf() {
            gguf_config(source, RopeKind::Interleaved)
        } else {
            hugging_face_config(source, &Defaults { context: 2048, kv_heads: None, window: None })
        }
    },
    weights: |config, source| {
        if source.is_gguf() {
            return gguf::weights(config, source);
        }
        weights(config, source, bias_in_config(source)?)
    },
};

pub(super) static MISTRAL: Architecture = Architecture {
    about: About {
        title: "Mistral 7B, Zephyr",
        types: &["custom/zephyr"],
        proof: &["mistral-window-bf16", "bin-mistral"],
    },
    names: &["MistralForCausalLM"],
    // Converters write Mistral models as `llama`.
    gguf: &[],
    config: |source| {
        hugging_face_config(source, &Defaults { context: 131_072, kv_heads: Some(8), window: Some(4096) })
    },
    weights: |config, source| weights(config, source, Bias::default()),
};

/// What `transformers` takes for fields that `config.json` leaves out.
pub(super) struct Defaults {
    pub(super) context: usize,
    pub(super) kv_heads: Option<usize>,
    /// The window when the field is absent; null means none.
    pub(super) window: Option<usize>,
}

fn bias_in_config(source: &Source) -> LoadResult<Bias> {
    let fields = source.fields();
    let attention = fields.flag("attention_bias", false)?;
    Ok(Bias { qkv: attention, out: attention, mlp: fields.flag("mlp_bias", false)? })
}

/// The configuration of a Llama-like `config.json`; every layer is the same.
pub(super) fn hugging_face_config(source: &Source, defaults: &Defaults) -> LoadResult<DecoderConfig> {
    let fields = source.fields();
    let shape = Shape::read(source, &shape::HUGGING_FACE, "model.embed_tokens.weight", defaults.kv_heads)?;
    let stated = fields.positive_or("max_position_embeddings", defaults.context)?;
    let (rope, context) = rope::hugging_face(
        &fields,
        &RopeShape {
            head_dim: shape.head_dim,
            context: stated,
            base: "rope_theta",
            partial: ("partial_rotary_factor", 1.0),
        },
    )?;
    let window = match (defaults.window, fields.is_null("sliding_window")) {
        (None, _) | (_, true) => None,
        (Some(default), false) => Some(fields.positive_or("sliding_window", default)?),
    };
    let mlp = MlpConfig {
        intermediate_size: fields.positive("intermediate_size")?,
        activation: activation(&fields, "hidden_act", "silu")?,
        gated: true,
        experts: None,
    };
    let norm = NormConfig { kind: NormKind::Rms, epsilon: epsilon(&fields, "rms_norm_eps", 1e-6)? };
    let tied = fields.flag("tie_word_embeddings", false)?;
    let mut config = assemble::decoder(&shape, context, PositionEncoding::Rope(rope), norm, mlp, tied);
    config.layers.iter_mut().for_each(|layer| layer.attention.window = window);
    Ok(config)
}

/// The configuration of a Llama-like GGUF file.
pub(super) fn gguf_config(source: &Source, kind: RopeKind) -> LoadResult<DecoderConfig> {
    let mut config = gguf::config(source, &gguf::Style { rope: Some(kind), ..gguf::Style::LLAMA })?;
    // Only `llama` files mean a window by this field; other families' converters write it although it is off.
    if kind == RopeKind::Interleaved {
        let window = source.fields().number("attention.sliding_window")?.filter(|&window| window > 0);
        config.layers.iter_mut().for_each(|layer| layer.attention.window = window);
    }
    Ok(config)
}

/// The tensors of a Llama-like checkpoint of either format.
pub(super) fn weights<'a>(
    config: &DecoderConfig,
    source: &'a Source,
    bias: Bias,
) -> LoadResult<DecoderWeights<'a>> {
    if source.is_gguf() {
        return gguf::weights_with(config, source, bias);
    }
    assemble::weights(config, source, &LLAMA_NAMES, &Reading { bias, ..Reading::default() })
}
