//! GLM-4 as `transformers` names it (`GlmForCausalLM`, and `Glm4ForCausalLM` of GLM-4-0414 with norms behind its
//! blocks too), the GGUF files of both, and what ChatGLM2, ChatGLM3 and GLM-4 share in their own layout.
//!
//! All of them rotate the first half of each head in neighbouring pairs, have few key heads, and keep gate and up of
//! the feed-forward part in one matrix.

use byzerllm_kernels::{Activation, RopeKind};

use super::Architecture;
use super::families::About;
use super::rope::{self, RopeShape};
use super::shape::{self, Shape, activation, epsilon};
use super::source::Source;
use crate::config::{
    AttentionConfig, DecoderConfig, HeadConfig, LayerConfig, MlpConfig, NormConfig, NormKind, NormPlace,
    PositionEncoding, Residual,
};
use crate::decoder_weights::{DecoderWeights, LayerWeights, LinearWeights, MlpWeights};
use crate::load_error::LoadResult;
use crate::rope::RopeConfig;

pub(super) static GLM: Architecture = Architecture {
    about: About {
        title: "GLM-4-9B and GLM-Edge in the layout of transformers",
        types: &["custom/chatglm2"],
        proof: &["glm-f16", "glm-ratio-bf16"],
    },
    names: &["GlmForCausalLM"],
    gguf: &[],
    config: |source| config(source, NormPlace::Before),
    weights,
};

pub(super) static GLM4: Architecture = Architecture {
    about: About { title: "GLM-4-0414", types: &[], proof: &["glm4-bf16", "gguf/glm4-f16"] },
    names: &["Glm4ForCausalLM"],
    gguf: &["glm4"],
    config: |source| {
        if source.is_gguf() { gguf_config(source, NormPlace::Both) } else { config(source, NormPlace::Both) }
    },
    weights,
};

/// What a decoder of the GLM families is made of, beside its shape.
pub(super) struct Parts {
    pub(super) inner: usize,
    pub(super) activation: Activation,
    pub(super) norm: NormConfig,
    pub(super) norm_place: NormPlace,
    pub(super) residual: Residual,
    pub(super) rope: RopeConfig,
    pub(super) context: usize,
    pub(super) tied: bool,
}

/// A decoder whose layers are all the same.
pub(super) fn decoder(shape: &Shape, parts: Parts) -> DecoderConfig {
    let layer = LayerConfig {
        attention: AttentionConfig {
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            scale: shape.scale(),
            window: None,
            position: PositionEncoding::Rope(parts.rope),
            head_norm: None,
            soft_cap: None,
        },
        mlp: MlpConfig {
            intermediate_size: parts.inner,
            activation: parts.activation,
            gated: true,
            experts: None,
        },
        norm: parts.norm,
        norm_place: parts.norm_place,
        residual: parts.residual,
        residual_scale: 1.0,
    };
    DecoderConfig {
        vocab_size: shape.vocab,
        hidden_size: shape.hidden,
        context_length: parts.context,
        embedding_scale: 1.0,
        embedding_norm: None,
        learned_positions: None,
        prefix_context: None,
        layers: vec![layer; shape.layers],
        final_norm: parts.norm,
        head: HeadConfig { tied: parts.tied, soft_cap: None, scale: 1.0, normalized: false },
    }
}

fn config(source: &Source, norm_place: NormPlace) -> LoadResult<DecoderConfig> {
    let fields = source.fields();
    let shape = Shape::read(source, &shape::HUGGING_FACE, "model.embed_tokens.weight", Some(2))?;
    let stated = fields.positive_or("max_position_embeddings", 131_072)?;
    let (rope, context) = rope::hugging_face(
        &fields,
        &RopeShape {
            head_dim: shape.head_dim,
            context: stated,
            base: "rope_theta",
            partial: ("partial_rotary_factor", 0.5),
        },
    )?;
    let parts = Parts {
        inner: fields.positive("intermediate_size")?,
        activation: activation(&fields, "hidden_act", "silu")?,
        norm: NormConfig { kind: NormKind::Rms, epsilon: epsilon(&fields, "rms_norm_eps", 1.562_5e-7)? },
        norm_place,
        residual: Residual::Serial,
        rope: RopeConfig { kind: RopeKind::Interleaved, ..rope },
        context,
        tied: fields.flag("tie_word_embeddings", false)?,
    };
    Ok(decoder(&shape, parts))
}

/// The configuration of a GGUF file of `chatglm` or `glm4`.
pub(super) fn gguf_config(source: &Source, norm_place: NormPlace) -> LoadResult<DecoderConfig> {
    let fields = source.fields();
    if fields.number("nextn_predict_layers")?.unwrap_or(0) > 0 {
        let problem = "layers that predict several tokens are not supported: convert the model without them";
        return Err(fields.unsupported("nextn_predict_layers", problem));
    }
    let shape = Shape::read(source, &shape::GGUF, "token_embd.weight", None)?;
    let context = fields.positive("context_length")?;
    let parts = Parts {
        inner: fields.positive("feed_forward_length")?,
        activation: Activation::Silu,
        norm: NormConfig {
            kind: NormKind::Rms,
            epsilon: epsilon(&fields, "attention.layer_norm_rms_epsilon", 1e-5)?,
        },
        norm_place,
        residual: Residual::Serial,
        rope: rope::gguf(source, RopeKind::Interleaved, shape.head_dim, context)?,
        context,
        tied: !source.tensors.contains("output.weight"),
    };
    Ok(decoder(&shape, parts))
}

/// The names of a layer's tensors in one of the two formats.
struct Names {
    embedding: &'static str,
    final_norm: &'static str,
    head: &'static str,
    layer: &'static str,
    attention_norm: &'static str,
    attention_post_norm: &'static str,
    mlp_norm: &'static str,
    mlp_post_norm: &'static str,
    qkv: [&'static str; 3],
    out: &'static str,
    up: &'static str,
    down: &'static str,
}

const HUGGING_FACE: Names = Names {
    embedding: "model.embed_tokens.weight",
    final_norm: "model.norm",
    head: "lm_head",
    layer: "model.layers",
    attention_norm: "input_layernorm",
    attention_post_norm: "post_self_attn_layernorm",
    mlp_norm: "post_attention_layernorm",
    mlp_post_norm: "post_mlp_layernorm",
    qkv: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    out: "self_attn.o_proj",
    up: "mlp.gate_up_proj",
    down: "mlp.down_proj",
};

const GGUF: Names = Names {
    embedding: "token_embd.weight",
    final_norm: "output_norm",
    head: "output",
    layer: "blk",
    attention_norm: "attn_norm",
    attention_post_norm: "post_attention_norm",
    mlp_norm: "ffn_norm",
    mlp_post_norm: "post_ffw_norm",
    qkv: ["attn_q", "attn_k", "attn_v"],
    out: "attn_output",
    up: "ffn_up",
    down: "ffn_down",
};

/// Queries, keys and values of a GGUF layer: one matrix as ChatGLM's own layout has it, or three.
fn gguf_qkv<'a>(
    source: &'a Source,
    layer: &str,
    separate: &[(&str, usize)],
    hidden: usize,
) -> LoadResult<LinearWeights<'a>> {
    let fused = format!("{layer}.attn_qkv");
    let has = |name: &str, kind: &str| source.tensors.contains(&format!("{name}.{kind}"));
    if has(&fused, "weight") {
        let rows = separate.iter().map(|(_, rows)| rows).sum();
        return source.linear(&[(&fused, rows)], hidden, has(&fused, "bias"));
    }
    let bias = separate.first().is_some_and(|(name, _)| has(name, "bias"));
    source.linear(separate, hidden, bias)
}

/// The tensors of a checkpoint in the layout of `transformers` or in a GGUF file.
pub(super) fn weights<'a>(config: &DecoderConfig, source: &'a Source) -> LoadResult<DecoderWeights<'a>> {
    let names = if source.is_gguf() { &GGUF } else { &HUGGING_FACE };
    let hidden = config.hidden_size;
    let attention_bias = source.fields().flag("attention_bias", true)?;
    let mut layers = Vec::with_capacity(config.layers.len());
    for (index, layer) in config.layers.iter().enumerate() {
        let block = format!("{}.{index}", names.layer);
        let name = |part: &str| format!("{block}.{part}");
        let attention = &layer.attention;
        let query = attention.heads * attention.head_dim;
        let key = attention.kv_heads * attention.head_dim;
        let inner = layer.mlp.intermediate_size;
        let [q, k, v] = names.qkv.map(name);
        let separate = [(q.as_str(), query), (k.as_str(), key), (v.as_str(), key)];
        let norm = |part: &str| source.norm(&name(part), hidden, false);
        let post_norm = |part: &str| (layer.norm_place == NormPlace::Both).then(|| norm(part)).transpose();
        layers.push(LayerWeights {
            attention_norm: Some(norm(names.attention_norm)?),
            attention_post_norm: post_norm(names.attention_post_norm)?,
            mlp_norm: Some(norm(names.mlp_norm)?),
            mlp_post_norm: post_norm(names.mlp_post_norm)?,
            qkv: match source.is_gguf() {
                true => gguf_qkv(source, &block, &separate, hidden)?,
                false => source.linear(&separate, hidden, attention_bias)?,
            },
            query_norm: None,
            key_norm: None,
            out: source.linear(&[(&name(names.out), hidden)], query, false)?,
            mlp: vec![MlpWeights {
                up: source.linear(&[(&name(names.up), 2 * inner)], hidden, false)?,
                down: source.linear(&[(&name(names.down), hidden)], inner, false)?,
            }],
            router: None,
        });
    }
    let head = match config.head.tied {
        true => None,
        false => Some(source.linear(&[(names.head, config.vocab_size)], hidden, false)?),
    };
    Ok(DecoderWeights {
        embedding: source.table(names.embedding, config.vocab_size, hidden)?,
        positions: None,
        embedding_norm: None,
        layers,
        final_norm: source.norm(names.final_norm, hidden, false)?,
        head,
    })
}
