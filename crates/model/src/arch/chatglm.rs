//! ChatGLM in the layout of its makers: ChatGLM2, ChatGLM3 and GLM-4-9B here, ChatGLM-6B in `chatglm_6b`. All of them
//! say `ChatGLMModel`, so that the words of the configuration tell them apart.

use byzerllm_kernels::{Activation, RopeKind};

use super::Architecture;
use super::chatglm_6b;
use super::families::About;
use super::fields::Fields;
use super::glm::{self, Parts};
use super::shape::{Names, Shape, epsilon};
use super::source::{FusedQkv, Source};
use crate::config::{DecoderConfig, NormConfig, NormKind, NormPlace, Residual};
use crate::decoder_weights::{DecoderWeights, LayerWeights, MlpWeights};
use crate::load_error::LoadResult;
use crate::rope::{RopeConfig, RopeScaling};

const EMBEDDING: &str = "transformer.embedding.word_embeddings.weight";

pub(super) static CHATGLM: Architecture = Architecture {
    about: About {
        title: "ChatGLM-6B, ChatGLM2-6B, ChatGLM3-6B, GLM-4-9B, CodeGeeX2, CodeGeeX4",
        types: &["chatglm6b", "custom/chatglm2"],
        proof: &[
            "chatglm-6b-f16",
            "chatglm2-f16",
            "chatglm2-options-f16",
            "glm-4-bf16",
            "gguf/chatglm-q8_0",
            "gguf/chatglm-separate-f16",
        ],
    },
    names: &["ChatGLMModel", "ChatGLMForConditionalGeneration"],
    gguf: &["chatglm"],
    config: |source| {
        if source.is_gguf() {
            return glm::gguf_config(source, NormPlace::Before);
        }
        check(&source.fields())?;
        if is_first(&source.fields()) { chatglm_6b::config(source) } else { config(source) }
    },
    weights: |config, source| match (source.is_gguf(), is_first(&source.fields())) {
        (true, _) => glm::weights(config, source),
        (false, true) => chatglm_6b::weights(config, source),
        (false, false) => weights(config, source),
    },
};

/// Whether the words are those of ChatGLM-6B: its successors have no place for two-dimensional positions.
fn is_first(fields: &Fields<'_>) -> bool {
    ["position_encoding_2d", "inner_hidden_size", "gmask_token_id"].iter().any(|name| fields.has(name))
}

/// Refuses what would be computed wrongly.
fn check(fields: &Fields<'_>) -> LoadResult<()> {
    if fields.number("quantization_bit")?.unwrap_or(0) > 0 {
        let problem =
            "weights in ChatGLM's own quantization are not supported: use the checkpoint in float16";
        return Err(fields.unsupported("quantization_bit", problem));
    }
    if fields.number("pre_seq_len")?.unwrap_or(0) > 0 {
        let problem =
            "a trained prefix (P-tuning v2) is not supported: use a merged checkpoint or a LoRA adapter";
        return Err(fields.unsupported("pre_seq_len", problem));
    }
    if fields.object("vision_config")?.is_some() {
        return Err(fields.unsupported("vision_config", "models that see pictures are not supported"));
    }
    Ok(())
}

/// Biases: on the fused queries, keys and values, and on every other matrix.
fn biases(fields: &Fields<'_>) -> LoadResult<(bool, bool)> {
    let all = fields.flag("add_bias_linear", false)?;
    Ok((all || fields.flag("add_qkv_bias", false)?, all))
}

fn config(source: &Source) -> LoadResult<DecoderConfig> {
    let fields = source.fields();
    let few_keys = fields.flag("multi_query_attention", false)?;
    let names = Names {
        vocab: if fields.has("padded_vocab_size") { "padded_vocab_size" } else { "vocab_size" },
        hidden: "hidden_size",
        layers: "num_layers",
        heads: "num_attention_heads",
        kv_heads: if few_keys { "multi_query_group_num" } else { "num_attention_heads" },
        head_dim: "kv_channels",
    };
    let shape = Shape::read(source, &names, EMBEDDING, few_keys.then_some(1))?;
    if !fields.flag("post_layer_norm", true)? {
        return Err(fields.unsupported("post_layer_norm", "must be true: there is no network without it"));
    }
    if !shape.head_dim.is_multiple_of(4) {
        let problem = format!("is {}, half of which is not made of pairs", shape.head_dim);
        return Err(fields.malformed("kv_channels", problem));
    }
    let kind = if fields.flag("rmsnorm", true)? { NormKind::Rms } else { NormKind::Layer };
    let parts = Parts {
        inner: fields.positive_or("ffn_hidden_size", 13_696)?,
        activation: Activation::Silu,
        norm: NormConfig { kind, epsilon: epsilon(&fields, "layernorm_epsilon", 1e-5)? },
        norm_place: NormPlace::Before,
        residual: match fields.flag("apply_residual_connection_post_layernorm", false)? {
            true => Residual::Normed(1.0),
            false => Residual::Serial,
        },
        rope: rope(&fields, shape.head_dim / 2)?,
        context: fields.positive_or("seq_length", 2048)?,
        tied: fields.flag("tie_word_embeddings", false)?,
    };
    Ok(glm::decoder(&shape, parts))
}

/// Half of each head in neighbouring pairs. `rope_ratio` is a factor on the base; only the long ChatGLM2 divides
/// positions by it, which its configuration says by its name alone. `original_rope` changes nothing in the published
/// code.
fn rope(fields: &Fields<'_>, rotary_dim: usize) -> LoadResult<RopeConfig> {
    let ratio = fields.positive_float("rope_ratio")?.unwrap_or(1.0);
    let divides = fields.text("_name_or_path")?.is_some_and(|name| name.contains("chatglm2"));
    let (base, scaling) = match (ratio == 1.0, divides) {
        (true, _) => (10_000.0, RopeScaling::None),
        (false, true) => (10_000.0, RopeScaling::Linear { factor: ratio }),
        (false, false) => (10_000.0 * ratio, RopeScaling::None),
    };
    if !base.is_finite() {
        return Err(fields.malformed("rope_ratio", format!("is {ratio}, too much for a base of 10000")));
    }
    Ok(RopeConfig { kind: RopeKind::Interleaved, rotary_dim, base, scaling, two_dimensional: false })
}

fn weights<'a>(config: &DecoderConfig, source: &'a Source) -> LoadResult<DecoderWeights<'a>> {
    let fields = source.fields();
    let (qkv_bias, bias) = biases(&fields)?;
    let few_keys = fields.flag("multi_query_attention", false)?;
    let hidden = config.hidden_size;
    let mut layers = Vec::with_capacity(config.layers.len());
    for (index, layer) in config.layers.iter().enumerate() {
        let name = |part: &str| format!("transformer.encoder.layers.{index}.{part}");
        let attention = &layer.attention;
        let query = attention.heads * attention.head_dim;
        let inner = layer.mlp.intermediate_size;
        let norm_bias = layer.norm.kind == NormKind::Layer;
        let fused = name("self_attention.query_key_value");
        layers.push(LayerWeights {
            attention_norm: Some(source.norm(&name("input_layernorm"), hidden, norm_bias)?),
            attention_post_norm: None,
            mlp_norm: Some(source.norm(&name("post_attention_layernorm"), hidden, norm_bias)?),
            mlp_post_norm: None,
            qkv: if few_keys {
                let rows = query + 2 * attention.kv_heads * attention.head_dim;
                source.linear(&[(&fused, rows)], hidden, qkv_bias)?
            } else {
                // Without groups each head keeps its query, key and value together.
                let (groups, head_dim) = (attention.heads, attention.head_dim);
                let layout = FusedQkv { groups, queries: 1, head_dim, columns: hidden };
                source.fused_qkv(&fused, &layout, qkv_bias)?
            },
            query_norm: None,
            key_norm: None,
            out: source.linear(&[(&name("self_attention.dense"), hidden)], query, bias)?,
            mlp: vec![MlpWeights {
                up: source.linear(&[(&name("mlp.dense_h_to_4h"), 2 * inner)], hidden, bias)?,
                down: source.linear(&[(&name("mlp.dense_4h_to_h"), hidden)], inner, bias)?,
            }],
            router: None,
        });
    }
    let head = match config.head.tied {
        true => None,
        false => Some(source.linear(&[("transformer.output_layer", config.vocab_size)], hidden, false)?),
    };
    let norm_bias = config.final_norm.kind == NormKind::Layer;
    Ok(DecoderWeights {
        embedding: source.table(EMBEDDING, config.vocab_size, hidden)?,
        positions: None,
        embedding_norm: None,
        layers,
        final_norm: source.norm("transformer.encoder.final_layernorm", hidden, norm_bias)?,
        head,
    })
}
