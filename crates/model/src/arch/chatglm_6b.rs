//! ChatGLM-6B: a context read in both directions, then text. Each head's halves are rotated by two positions, the
//! place in the context and the step after it, and each block's output is added to a multiple of its normalized
//! input. (Du et al., GLM, 2022; the numbers are those of the published ChatGLM-6B.)
//!
//! The published code rounds the angles to half precision; here they are exact. It divides queries by the layer's
//! number and multiplies the scores by it, which cancels out and is left out.

use byzerllm_kernels::{Activation, RopeKind};

use super::fields::Fields;
use super::shape::{Names, Shape, epsilon};
use super::source::{FusedQkv, Source};
use crate::config::{
    AttentionConfig, DecoderConfig, HeadConfig, LayerConfig, MlpConfig, NormConfig, NormKind, NormPlace,
    PositionEncoding, Residual,
};
use crate::decoder_weights::{DecoderWeights, LayerWeights, MlpWeights};
use crate::load_error::LoadResult;
use crate::prefix::PrefixContext;
use crate::rope::{RopeConfig, RopeScaling};

const EMBEDDING: &str = "transformer.word_embeddings.weight";

const NAMES: Names = Names {
    vocab: "vocab_size",
    hidden: "hidden_size",
    layers: "num_layers",
    heads: "num_attention_heads",
    kv_heads: "num_attention_heads",
    head_dim: "hidden_size_per_attention_head",
};

pub(super) fn config(source: &Source) -> LoadResult<DecoderConfig> {
    let fields = source.fields();
    let shape = Shape::read(source, &NAMES, EMBEDDING, None)?;
    if !fields.flag("position_encoding_2d", true)? {
        let problem = "must be true: positions of one dimension are not supported for ChatGLM-6B";
        return Err(fields.unsupported("position_encoding_2d", problem));
    }
    if !shape.head_dim.is_multiple_of(4) {
        let problem = format!("makes heads of {}, half of which is not made of pairs", shape.head_dim);
        return Err(fields.malformed("hidden_size", problem));
    }
    let norm = NormConfig { kind: NormKind::Layer, epsilon: epsilon(&fields, "layernorm_epsilon", 1e-5)? };
    let layer = LayerConfig {
        attention: AttentionConfig {
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            scale: shape.scale(),
            window: None,
            position: PositionEncoding::Rope(RopeConfig {
                kind: RopeKind::Half,
                rotary_dim: shape.head_dim / 2,
                base: 10_000.0,
                scaling: RopeScaling::None,
                two_dimensional: true,
            }),
            head_norm: None,
            soft_cap: None,
        },
        mlp: MlpConfig {
            intermediate_size: fields.positive_or("inner_hidden_size", 4 * shape.hidden)?,
            activation: Activation::GeluTanh,
            gated: false,
            experts: None,
        },
        norm,
        norm_place: NormPlace::Before,
        residual: Residual::Normed((2.0 * shape.layers as f32).sqrt()),
        residual_scale: 1.0,
    };
    let masks =
        [token(&fields, "gmask_token_id", shape.vocab)?, token(&fields, "mask_token_id", shape.vocab)?];
    Ok(DecoderConfig {
        vocab_size: shape.vocab,
        hidden_size: shape.hidden,
        context_length: fields.positive_or("max_sequence_length", 2048)?,
        embedding_scale: 1.0,
        embedding_norm: None,
        learned_positions: None,
        prefix_context: Some(PrefixContext { start: token(&fields, "bos_token_id", shape.vocab)?, masks }),
        layers: vec![layer; shape.layers],
        final_norm: norm,
        // Files without a head mean the embeddings.
        head: HeadConfig {
            tied: !source.tensors.contains("lm_head.weight"),
            soft_cap: None,
            scale: 1.0,
            normalized: false,
        },
    })
}

/// A token that the network must know, because places of others depend on it.
fn token(fields: &Fields<'_>, name: &str, vocab: usize) -> LoadResult<u32> {
    match fields.number(name)? {
        Some(id) if id < vocab => Ok(id as u32),
        Some(id) => Err(fields.malformed(name, format!("is {id}, outside of the {vocab} tokens"))),
        None => Err(fields.malformed(name, "is missing")),
    }
}

pub(super) fn weights<'a>(config: &DecoderConfig, source: &'a Source) -> LoadResult<DecoderWeights<'a>> {
    let hidden = config.hidden_size;
    let mut layers = Vec::with_capacity(config.layers.len());
    for (index, layer) in config.layers.iter().enumerate() {
        let name = |part: &str| format!("transformer.layers.{index}.{part}");
        let (groups, head_dim) = (layer.attention.heads, layer.attention.head_dim);
        let layout = FusedQkv { groups, queries: 1, head_dim, columns: hidden };
        let inner = layer.mlp.intermediate_size;
        layers.push(LayerWeights {
            attention_norm: Some(source.norm(&name("input_layernorm"), hidden, true)?),
            attention_post_norm: None,
            mlp_norm: Some(source.norm(&name("post_attention_layernorm"), hidden, true)?),
            mlp_post_norm: None,
            qkv: source.fused_qkv(&name("attention.query_key_value"), &layout, true)?,
            query_norm: None,
            key_norm: None,
            out: source.linear(&[(&name("attention.dense"), hidden)], groups * head_dim, true)?,
            mlp: vec![MlpWeights {
                up: source.linear(&[(&name("mlp.dense_h_to_4h"), inner)], hidden, true)?,
                down: source.linear(&[(&name("mlp.dense_4h_to_h"), hidden)], inner, true)?,
            }],
            router: None,
        });
    }
    Ok(DecoderWeights {
        embedding: source.table(EMBEDDING, config.vocab_size, hidden)?,
        positions: None,
        embedding_norm: None,
        layers,
        final_norm: source.norm("transformer.final_layernorm", hidden, true)?,
        head: match config.head.tied {
            true => None,
            false => Some(source.linear(&[("lm_head", config.vocab_size)], hidden, false)?),
        },
    })
}
