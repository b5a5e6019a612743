//! Falcon: ALiBi or rope, one key/value head, one per query head or one per group of them, one or two layer norms
//! before blocks that stand side by side, or blocks one after the other.

use byzerllm_kernels::{Activation, RopeKind};

use super::Architecture;
use super::alibi;
use super::assemble::{Bias, TensorNames};
use super::families::About;
use super::fields::Fields;
use super::gguf;
use super::rope::{self, RopeShape};
use super::shape::{self, Names, Shape, activation, epsilon};
use super::source::{FusedQkv, Source};
use crate::config::{
    DecoderConfig, HeadConfig, LayerConfig, MlpConfig, NormConfig, NormKind, NormPlace, PositionEncoding,
    Residual,
};
use crate::decoder_weights::{DecoderWeights, LayerWeights, MlpWeights};
use crate::load_error::LoadResult;

const EMBEDDING: &str = "transformer.word_embeddings.weight";

pub(super) static FALCON: Architecture = Architecture {
    about: About {
        title: "Falcon 1B, 7B, 40B, 180B",
        types: &["falcon", "custom/falcon"],
        proof: &[
            "falcon-7b-bf16",
            "falcon-alibi-bf16",
            "falcon-multi-query-f16",
            "falcon-rope-gqa-bf16",
            "gguf/falcon-q8_0",
            "gguf/falcon-40b-f16",
        ],
    },
    names: &["FalconForCausalLM"],
    gguf: &["falcon"],
    config: |source| if source.is_gguf() { gguf_config(source) } else { config(source) },
    weights: |config, source| {
        if source.is_gguf() { gguf_weights(config, source) } else { weights(config, source) }
    },
};

/// How the heads of the fused matrix are laid out, and which norms a layer has.
struct Variant {
    new_architecture: bool,
    multi_query: bool,
    parallel: bool,
    /// Separate norms for attention and feed-forward in a parallel layer.
    two_norms: bool,
    bias: bool,
}

impl Variant {
    fn read(fields: &Fields<'_>) -> LoadResult<Self> {
        let new_architecture = fields.flag("new_decoder_architecture", false)?;
        let parallel = fields.flag("parallel_attn", true)?;
        if new_architecture && !parallel {
            return Err(fields.unsupported("parallel_attn", "must be true with new_decoder_architecture"));
        }
        let norms = fields.positive_or("num_ln_in_parallel_attn", if new_architecture { 2 } else { 1 })?;
        if norms > 2 {
            return Err(fields.malformed("num_ln_in_parallel_attn", format!("must be 1 or 2, is {norms}")));
        }
        Ok(Self {
            new_architecture,
            multi_query: fields.flag("multi_query", true)? && !new_architecture,
            parallel,
            two_norms: new_architecture && norms == 2,
            bias: fields.flag("bias", false)?,
        })
    }
}

fn config(source: &Source) -> LoadResult<DecoderConfig> {
    let fields = source.fields();
    let variant = Variant::read(&fields)?;
    let names = Names { kv_heads: "num_kv_heads", ..shape::HUGGING_FACE };
    let mut shape = Shape::read(source, &names, EMBEDDING, None)?;
    if !variant.new_architecture {
        // The field is not used there.
        shape.kv_heads = if variant.multi_query { 1 } else { shape.heads };
    }
    if shape.heads * shape.head_dim != shape.hidden {
        let problem = format!("is {}, but the {} heads must make up all of it", shape.hidden, shape.heads);
        return Err(fields.malformed("hidden_size", problem));
    }
    let stated = fields.positive_or("max_position_embeddings", 2048)?;
    let (position, context) = if fields.flag("alibi", false)? {
        // The penalty is added before the scores are scaled.
        let slopes = slopes(shape.heads).map(|slope| slope * shape.scale()).collect();
        (PositionEncoding::Alibi(slopes), stated)
    } else {
        let (rope, context) = rope::hugging_face(
            &fields,
            &RopeShape {
                head_dim: shape.head_dim,
                context: stated,
                base: "rope_theta",
                partial: ("partial_rotary_factor", 1.0),
            },
        )?;
        (PositionEncoding::Rope(rope), context)
    };
    let norm = NormConfig { kind: NormKind::Layer, epsilon: epsilon(&fields, "layer_norm_epsilon", 1e-5)? };
    let layer = LayerConfig {
        attention: shape.attention(position),
        mlp: MlpConfig {
            intermediate_size: fields.positive_or("ffn_hidden_size", 4 * shape.hidden)?,
            activation: activation(&fields, "activation", "gelu")?,
            gated: false,
            experts: None,
        },
        norm,
        norm_place: NormPlace::Before,
        residual: if variant.parallel { Residual::Parallel } else { Residual::Serial },
        residual_scale: 1.0,
    };
    let tied = fields.flag("tie_word_embeddings", true)?;
    Ok(DecoderConfig {
        vocab_size: shape.vocab,
        hidden_size: shape.hidden,
        context_length: context,
        embedding_scale: 1.0,
        embedding_norm: None,
        learned_positions: None,
        prefix_context: None,
        layers: vec![layer; shape.layers],
        final_norm: norm,
        head: HeadConfig { tied, soft_cap: None, scale: 1.0, normalized: false },
    })
}

fn weights<'a>(config: &DecoderConfig, source: &'a Source) -> LoadResult<DecoderWeights<'a>> {
    let variant = Variant::read(&source.fields())?;
    let hidden = config.hidden_size;
    let mut layers = Vec::with_capacity(config.layers.len());
    for (index, layer) in config.layers.iter().enumerate() {
        let name = |part: &str| format!("transformer.h.{index}.{part}");
        let attention = &layer.attention;
        let layout = FusedQkv {
            groups: attention.kv_heads,
            queries: attention.heads / attention.kv_heads,
            head_dim: attention.head_dim,
            columns: hidden,
        };
        let (first, second) = match (variant.parallel, variant.two_norms) {
            (true, true) => ("ln_attn", Some("ln_mlp")),
            (true, false) => ("input_layernorm", None),
            (false, _) => ("input_layernorm", Some("post_attention_layernorm")),
        };
        let inner = layer.mlp.intermediate_size;
        layers.push(LayerWeights {
            attention_norm: Some(source.norm(&name(first), hidden, true)?),
            attention_post_norm: None,
            mlp_norm: second.map(|second| source.norm(&name(second), hidden, true)).transpose()?,
            mlp_post_norm: None,
            qkv: source.fused_qkv(&name("self_attention.query_key_value"), &layout, variant.bias)?,
            query_norm: None,
            key_norm: None,
            out: source.linear(&[(&name("self_attention.dense"), hidden)], hidden, variant.bias)?,
            mlp: vec![MlpWeights {
                up: source.linear(&[(&name("mlp.dense_h_to_4h"), inner)], hidden, variant.bias)?,
                down: source.linear(&[(&name("mlp.dense_4h_to_h"), hidden)], inner, variant.bias)?,
            }],
            router: None,
        });
    }
    let head = match config.head.tied {
        true => None,
        false => Some(source.linear(&[("lm_head", config.vocab_size)], hidden, false)?),
    };
    Ok(DecoderWeights {
        embedding: source.table(EMBEDDING, config.vocab_size, hidden)?,
        positions: None,
        embedding_norm: None,
        layers,
        final_norm: source.norm("transformer.ln_f", hidden, true)?,
        head,
    })
}

/// Converters write only the models with rope, and their fused matrix as queries, keys and values in this order.
fn gguf_config(source: &Source) -> LoadResult<DecoderConfig> {
    let style = gguf::Style {
        norm: NormKind::Layer,
        activation: Activation::Gelu,
        gated: false,
        rope: Some(RopeKind::Half),
    };
    let mut config = gguf::config(source, &style)?;
    config.layers.iter_mut().for_each(|layer| layer.residual = Residual::Parallel);
    Ok(config)
}

fn gguf_weights<'a>(config: &DecoderConfig, source: &'a Source) -> LoadResult<DecoderWeights<'a>> {
    // With two norms the second one is attention's.
    let two = source.tensors.contains("blk.0.attn_norm_2.weight");
    gguf::weights_named(config, source, Bias::default(), |names| match two {
        true => TensorNames { attention_norm: "attn_norm_2", mlp_norm: Some("attn_norm"), ..names },
        false => TensorNames { mlp_norm: None, ..names },
    })
}

/// The checkpoints were trained with slopes in bf16.
fn slopes(heads: usize) -> impl Iterator<Item = f32> {
    alibi::slopes(heads).into_iter().map(|slope| half::bf16::from_f32(slope).to_f32())
}

#[cfg(test)]
mod tests {
    #[test]
    fn slopes_are_those_of_transformers() {
        let slopes = |heads| super::slopes(heads).collect::<Vec<f32>>();
        assert_eq!(slopes(4), [0.25, 0.0625, 0.015_625, 0.003_906_25]);
        // Written by `build_alibi_tensor`; bf16 rounds them.
        let others = [0.707_031_25, 0.353_515_63, 0.176_757_81, 0.088_378_906];
        assert_eq!(slopes(12)[8..], others);
        let of_71 = slopes(71);
        assert_eq!(of_71[..4], [0.917_968_75, 0.839_843_75, 0.769_531_25, 0.707_031_25]);
        assert_eq!(of_71[67..], [0.738_281_25, 0.675_781_25, 0.621_093_75, 0.570_312_5]);
        assert_eq!(slopes(6), [0.25, 0.0625, 0.015_625, 0.003_906_25, 0.5, 0.125]);
    }
}
