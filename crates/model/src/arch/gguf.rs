//! What all GGUF files of decoders have in common: one table of names, and numbers under the architecture's name.

use byzerllm_kernels::{Activation, RopeKind};

use super::assemble::{self, Bias, Reading, TensorNames};
use super::experts;
use super::rope;
use super::shape::{self, Shape, epsilon};
use super::source::Source;
use crate::config::{DecoderConfig, MlpConfig, NormConfig, NormKind, NormPlace, PositionEncoding};
use crate::decoder_weights::DecoderWeights;
use crate::load_error::LoadResult;

const NAMES: TensorNames = TensorNames {
    embedding: "token_embd.weight",
    positions: None,
    final_norm: "output_norm",
    head: "output",
    layer: "blk",
    attention_norm: "attn_norm",
    attention_post_norm: None,
    mlp_norm: Some("ffn_norm"),
    mlp_post_norm: None,
    qkv: &["attn_q", "attn_k", "attn_v"],
    head_norms: ["attn_q_norm", "attn_k_norm"],
    out: "attn_output",
    up: &["ffn_gate", "ffn_up"],
    down: "ffn_down",
};

/// What a family's files are like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    pub(super) norm: NormKind,
    pub(super) activation: Activation,
    pub(super) gated: bool,
    /// Which components rope rotates together; `None` without rope.
    pub(super) rope: Option<RopeKind>,
}

impl Style {
    /// Of Llama and the families near it.
    pub(super) const LLAMA: Style =
        Style { norm: NormKind::Rms, activation: Activation::Silu, gated: true, rope: Some(RopeKind::Half) };
}

/// The configuration of a decoder of equal layers.
pub(super) fn config(source: &Source, style: &Style) -> LoadResult<DecoderConfig> {
    let fields = source.fields();
    let shape = Shape::read(source, &shape::GGUF, NAMES.embedding, None)?;
    let value_width = fields.positive_or("attention.value_length", shape.head_dim)?;
    if value_width != shape.head_dim {
        let problem = format!("is {value_width}, but keys have {}: this is not supported", shape.head_dim);
        return Err(fields.unsupported("attention.value_length", problem));
    }
    let context = fields.positive("context_length")?;
    let position = match style.rope {
        Some(kind) => PositionEncoding::Rope(rope::gguf(source, kind, shape.head_dim, context)?),
        None => PositionEncoding::None,
    };
    let epsilon = match style.norm {
        NormKind::Rms => epsilon(&fields, "attention.layer_norm_rms_epsilon", 1e-5)?,
        NormKind::Layer => epsilon(&fields, "attention.layer_norm_epsilon", 1e-5)?,
    };
    let experts = match fields.number("expert_count")? {
        None | Some(0) => None,
        Some(_) if !style.gated => {
            return Err(fields.unsupported("expert_count", "this family has no mixtures of experts"));
        }
        Some(_) => Some(experts::config(&fields, ("expert_count", None), ("expert_used_count", None), true)?),
    };
    let inner = match &experts {
        Some(_) => fields.positive_or_absent("expert_feed_forward_length")?,
        None => None,
    };
    let mlp = MlpConfig {
        intermediate_size: match inner {
            Some(inner) => inner,
            None => fields.positive("feed_forward_length")?,
        },
        activation: style.activation,
        gated: style.gated,
        experts,
    };
    let tied = !source.tensors.contains("output.weight");
    let norm = NormConfig { kind: style.norm, epsilon };
    let mut config = assemble::decoder(&shape, context, position, norm, mlp, tied);
    if source.tensors.contains(POSITIONS) {
        config.learned_positions = Some(context);
    }
    Ok(config)
}

const POSITIONS: &str = "position_embd.weight";

/// The tensors. The format has no fields for biases and for what is fused: the tensors are there or not, which the
/// first layer tells for all.
pub(super) fn weights<'a>(config: &DecoderConfig, source: &'a Source) -> LoadResult<DecoderWeights<'a>> {
    let first = |name: &str| source.tensors.contains(&format!("blk.0.{name}"));
    let bias = Bias {
        qkv: first("attn_qkv.bias") || first("attn_q.bias"),
        out: first("attn_output.bias"),
        mlp: first("ffn_up.bias"),
    };
    weights_with(config, source, bias)
}

/// The tensors of a family that knows which of its matrices have a bias.
pub(super) fn weights_with<'a>(
    config: &DecoderConfig,
    source: &'a Source,
    bias: Bias,
) -> LoadResult<DecoderWeights<'a>> {
    weights_named(config, source, bias, |names| names)
}

/// The same for a family with norms of its own: `change` gets the usual names.
pub(super) fn weights_named<'a>(
    config: &DecoderConfig,
    source: &'a Source,
    bias: Bias,
    change: impl FnOnce(TensorNames) -> TensorNames,
) -> LoadResult<DecoderWeights<'a>> {
    let has = |name: &str| source.tensors.contains(name);
    let first = |name: &str| has(&format!("blk.0.{name}"));
    let Some(layer) = config.layers.first() else {
        return Err(source.fields().malformed("block_count", "must be above 0"));
    };
    // Without a gate of its own, the second matrix holds both.
    let fused_gate = layer.mlp.gated && !first("ffn_gate.weight");
    let both = layer.norm_place == NormPlace::Both;
    let names = TensorNames {
        positions: Some(POSITIONS),
        qkv: if first("attn_qkv.weight") { &["attn_qkv"] } else { NAMES.qkv },
        up: if fused_gate || !layer.mlp.gated { &["ffn_up"] } else { NAMES.up },
        attention_post_norm: both.then_some("post_attention_norm"),
        mlp_post_norm: both.then_some("post_ffw_norm"),
        ..NAMES
    };
    let norm_bias = layer.norm.kind == NormKind::Layer;
    let reading = Reading { bias, norm_bias, head_bias: has("output.bias"), ..Reading::default() };
    assemble::weights(config, source, &change(names), &reading)
}
